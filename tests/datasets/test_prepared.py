import os
import re
import shlex
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agman import cli, storage
from agman.attributes import AttributeSchema, AttributeTable, QueryGallery, RetrievalData
from agman.datasets import (
    FolderImages,
    PackedImages,
    check_prepared,
    is_prepared,
    pack,
    prepare,
    prepared,
    read_asen,
)
from agman.errors import InputError
from tests import tiny

SIDE = 32  # of the squares of `tiny`, so that packing copies pixels


@pytest.fixture
def data():
    """A third of the images of `tiny` to train on; all five tables have images of their own."""
    table = tiny.table(48)
    part = table.image * 6 // 48
    return RetrievalData(
        "tiny",
        table.schema,
        table.select(part < 2),
        QueryGallery(table.select(part == 2), table.select(part == 3)),
        QueryGallery(table.select(part == 4), table.select(part == 5)),
    )


@pytest.fixture
def photos(data, tmp_path):
    folder = tmp_path / "my photos"
    folder.mkdir()
    for name, picture in zip(data.train.images.names, data.train.images.array):
        Image.fromarray(picture).save(folder / name)
    return folder


def state(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def refuses(words, call, *arguments, **options):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        call(*arguments, **options)
    return str(caught.value)


def spelled_out(table):
    return [
        (table.images.names[i], a, v) for i, a, v in zip(table.image, table.attribute, table.value)
    ]


# ------------------------------------------------------------------ writing


def test_what_is_written_is_what_was_given(data, photos, tmp_path):
    out = tmp_path / "out"
    assert not is_prepared(data, out, SIDE)
    prepare(data, photos, out, SIDE, progress=False)
    assert is_prepared(data, out, SIDE)
    check_prepared(data, photos, out, SIDE, pixels=True)
    drawn = dict(zip(data.train.images.names, data.train.images.array))
    written = read_asen(out)
    for split, n in (("train", 16), ("valid", 16), ("test", 16)):
        for ours, theirs in zip(
            prepared.tables(written, split), prepared.tables(data, split), strict=True
        ):
            assert spelled_out(ours) == spelled_out(theirs) == prepared.rows(ours)
        packed = PackedImages.open(prepared.packed_path(out, "tiny", split, SIDE))
        assert len(packed) == n
        for name, pixels in zip(packed.names, packed.array):
            assert np.array_equal(pixels, drawn[name])
    files = {p.name for p in out.rglob("*") if p.is_file()}
    assert {"meta.json", "train_32.npz", "valid_32.npz", "test_32.npz"} < files


def test_a_second_time_changes_nothing_and_what_is_lost_comes_back(data, photos, tmp_path):
    out = tmp_path / "out"
    prepare(data, photos, out, SIDE, progress=False)
    before = state(out)
    whole = {path: path.read_bytes() for path in before}
    prepare(data, photos, out, SIDE, progress=False)
    assert state(out) == before
    for name in ("valid_32.npz", "query_test.txt", "filenames_train.txt"):
        (out / "tiny" / name).unlink()
        assert not is_prepared(data, out, SIDE)
        prepare(data, photos, out, SIDE, progress=False)
        assert {path: path.read_bytes() for path in state(out)} == whole
    cut = out / "tiny/test_32.npz"
    cut.write_bytes(whole[cut][:-100])
    kept = (out / "tiny/train_32.npz").stat().st_mtime_ns
    prepare(data, photos, out, SIDE, progress=False)
    assert cut.read_bytes() == whole[cut]
    assert (out / "tiny/train_32.npz").stat().st_mtime_ns == kept


def test_other_rows_names_values_or_sides_are_written_anew(data, photos, tmp_path):
    out = tmp_path / "out"
    prepare(data, photos, out, SIDE, progress=False)
    values = tuple(tuple(f"{v}!" for v in row) for row in data.schema.values)
    renamed = AttributeSchema(data.schema.names, values, "tiny")
    exchanged = QueryGallery(data.test.gallery, data.test.queries)
    others = [
        (replace(data, test=exchanged), SIDE),
        (replace(data, train=data.train.select(data.train.image != 3)), SIDE),
        (replace(data, train=data.train.select(np.arange(len(data.train))[::-1])), SIDE),
        (replace(data, schema=renamed), SIDE),
        (data, SIDE - 1),
    ]
    for other, side in others:
        assert not is_prepared(other, out, side)
        with pytest.raises(InputError):
            check_prepared(other, photos, out, side, pixels=False)
    other = others[1][0]
    prepare(other, photos, out, SIDE, progress=False)
    check_prepared(other, photos, out, SIDE, pixels=True)
    assert "3.png" not in read_asen(out).train.images.names
    refuses("its rows are not those", check_prepared, data, photos, out, SIDE, pixels=False)


def test_lists_alone(data, photos, tmp_path):
    out = tmp_path / "out"
    prepare(data, photos, out, None)
    assert not list(out.rglob("*.npz"))
    assert is_prepared(data, out, None)
    assert not is_prepared(data, out, SIDE)
    check_prepared(data, photos, out, None, pixels=True)
    (photos / "20.png").write_bytes(b"no image")
    check_prepared(data, photos, out, None, pixels=False)
    refuses("20.png: not an image", check_prepared, data, photos, out, None, pixels=True)


def test_a_split_without_images_is_left_out(data, photos, tmp_path):
    empty = data.train.select([])
    alone = replace(data, valid=QueryGallery(empty, empty))
    prepare(alone, photos, tmp_path, SIDE, progress=False)
    assert is_prepared(alone, tmp_path, SIDE)
    check_prepared(alone, photos, tmp_path, SIDE, pixels=True)
    assert not (tmp_path / "tiny/valid_32.npz").exists()
    assert len(read_asen(tmp_path).valid.queries) == 0


def test_leftovers_of_killed_runs_are_removed(data, photos, tmp_path):
    prepare(data, photos, tmp_path, SIDE, progress=False)
    before = state(tmp_path)
    (tmp_path / "tiny/.train_32.npz.4711.part").write_bytes(b"half")
    prepare(data, photos, tmp_path, SIDE, progress=False)
    assert state(tmp_path) == before


def test_nothing_is_packed_on_a_disk_too_small(data, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    needed = 48 * SIDE * SIDE * 3
    monkeypatch.setattr(prepared, "free_bytes", lambda _: needed - 1)
    words = f"{out}: packing the images needs {needed / 1e6:.1f} MB and"
    refuses(words, prepare, data, photos, out, SIDE, progress=False)
    assert not list(out.rglob("*.npz"))
    monkeypatch.setattr(prepared, "free_bytes", lambda _: needed)
    prepare(data, photos, out, SIDE, progress=False)
    monkeypatch.setattr(prepared, "free_bytes", lambda _: 0)
    prepare(data, photos, out, SIDE, progress=False)  # nothing left to do needs no room


def test_a_disk_that_fills_up_leaves_whole_files(data, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    replace_file, done = os.replace, []

    def full(source, target):
        if len(done) == 10:
            raise OSError(28, "No space left on device")
        done.append(target)
        replace_file(source, target)

    monkeypatch.setattr(storage.os, "replace", full)
    refuses("No space left on device", prepare, data, photos, out, SIDE, progress=False)
    assert sorted(state(out)) == sorted(done)
    monkeypatch.undo()
    prepare(data, photos, out, SIDE, progress=False)
    check_prepared(data, photos, out, SIDE, pixels=True)


def test_a_missing_or_broken_photo_is_named(data, photos, tmp_path):
    out = tmp_path / "out"
    (photos / "7.png").write_bytes(b"")
    refuses(f"{photos / '7.png'}: the file is empty", prepare, data, photos, out, SIDE)
    (photos / "7.png").unlink()
    refuses("there is no image '7.png'", prepare, data, photos, out, SIDE)
    assert not list(out.rglob("*.npz"))
    refuses("at least 1 pixel", prepare, data, photos, tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


SCHEMA = AttributeSchema(("a", "b"), (("x", "y", "z"), ("p", "q")), "any")
ROW = st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 1))


@settings(max_examples=30)
@given(st.tuples(*[st.lists(ROW, max_size=6)] * 5))
def test_any_rows_come_back_in_their_order(tmp_path_factory, parts):
    """Repeated rows, several values of one attribute, images in several splits, empty tables."""
    if not any(parts):
        return
    folder = tmp_path_factory.mktemp("any")
    store = FolderImages(folder, [f"{i}.jpg" for i in range(6)])
    for i in range(6):
        (folder / f"{i}.jpg").touch()
    made = [
        AttributeTable(SCHEMA, store, *np.array(rows, np.int64).reshape(-1, 3).T) for rows in parts
    ]
    data = RetrievalData("any", SCHEMA, made[0], QueryGallery(*made[1:3]), QueryGallery(*made[3:]))
    prepare(data, folder, folder / "out", None)
    assert is_prepared(data, folder / "out", None)
    check_prepared(data, folder, folder / "out", None, pixels=False)
    written = read_asen(folder / "out", images=folder)
    found = [rows for split in prepared.SPLITS for rows in prepared.tables(written, split)]
    for table, rows in zip(found, parts, strict=True):
        assert spelled_out(table) == [(f"{i}.jpg", a, v) for i, a, v in rows]
    last = prepared.count_table(data).splitlines()[-1].split()
    assert last == ["all", *(str(len(rows)) for rows in parts)]


# ------------------------------------------------------------------ checking


def test_check_names_the_first_pixel_that_changed(data, photos, tmp_path):
    prepare(data, photos, tmp_path, SIDE, progress=False)
    path = prepared.packed_path(tmp_path, "tiny", "valid", SIDE)
    store = PackedImages.open(path)
    array = np.array(store.array)
    array[5, 31, 31, 2] ^= 1
    PackedImages(array, store.names).save(path)
    check_prepared(data, photos, tmp_path, SIDE, pixels=False)
    message = refuses("differs", check_prepared, data, photos, tmp_path, SIDE, pixels=True)
    assert message.startswith(f"{path}: {store.names[5]} differs from its file; delete {path}")


def test_check_notices_packed_images_of_another_list(data, photos, tmp_path):
    prepare(data, photos, tmp_path, SIDE, progress=False)
    path = prepared.packed_path(tmp_path, "tiny", "test", SIDE)
    store = PackedImages.open(path)
    PackedImages(store.array, store.names[::-1]).save(path)
    refuses(
        f"{path}: other images than filenames_test.txt",
        *(check_prepared, data, photos, tmp_path, SIDE),
        pixels=False,
    )
    pack(store, SIDE // 2, path=path, progress=False)
    assert not is_prepared(data, tmp_path, SIDE)
    path.unlink()
    refuses(
        "no such file of packed images", check_prepared, data, photos, tmp_path, SIDE, pixels=False
    )
    (photos / "40.png").unlink()
    refuses("no image '40.png'", check_prepared, data, photos, tmp_path, SIDE, pixels=False)


# ------------------------------------------------------------------ reading


def test_a_prepared_folder_needs_nothing_else(data, photos, tmp_path):
    out = tmp_path / "out"
    prepare(data, photos, out, SIDE, progress=False)
    beside = read_asen(out, images=photos)
    assert isinstance(beside.train.images, FolderImages)
    alone = read_asen(out / "tiny")
    assert isinstance(alone.train.images, PackedImages)
    for split in prepared.SPLITS:
        for ours, theirs in zip(prepared.tables(alone, split), prepared.tables(beside, split)):
            assert np.array_equal(ours.image, theirs.image)
            assert np.array_equal(ours.images.load([3, 0], SIDE), theirs.images.load([3, 0], SIDE))


def test_the_largest_packed_images_that_fit_are_read(data, photos, tmp_path):
    prepare(data, photos, tmp_path, 16, progress=False)
    prepare(data, photos, tmp_path, 24, progress=False)
    folder = tmp_path / "tiny"
    assert read_asen(tmp_path).train.images.array.shape[1] == 24
    (folder / "train_24.npz").rename(folder / "train_24.npz.old")
    pack(FolderImages(photos, ["0.png"]), 48, path=folder / "train_48.npz", progress=False)
    assert read_asen(tmp_path).train.images.array.shape[1] == 16
    (folder / "train_16.npz").unlink()
    message = refuses("other images than filenames_train.txt", read_asen, tmp_path)
    assert message.startswith(f"{folder / 'train_48.npz'}: ")
    assert isinstance(read_asen(tmp_path, images=photos).train.images, FolderImages)
    (folder / "train_48.npz").write_bytes(b"PK")
    refuses("train_48.npz: not a complete file of packed images", read_asen, tmp_path)


def test_photos_beside_the_lists_are_still_found(data, photos, tmp_path):
    prepare(data, photos, tmp_path, None)
    refuses("(16 of 16 are missing)", read_asen, tmp_path)
    for photo in photos.iterdir():
        photo.rename(tmp_path / "tiny" / photo.name)
    assert isinstance(read_asen(tmp_path).test.gallery.images, FolderImages)


# ------------------------------------------------------------------ words


def test_finish_says_what_it_does_and_what_comes_next(data, photos, tmp_path, capsys):
    out = tmp_path / "out"

    def finished(side=SIDE, **options):
        prepared.finish(data, photos, out, side, **{"check": False, "dry": False, **options})
        return capsys.readouterr().out

    assert f"into {out / 'tiny'} and pack 48 images of 32 x 32" in finished(dry=True)
    assert "Would write the lists of 48 images" in finished(None, dry=True)
    assert not out.exists()
    text = finished()
    assert f"{out / 'tiny'} is right." in text
    assert "every image compared" in finished(check=True)
    assert "Nothing is left to do" in finished(dry=True)
    counts = Counter(t.schema.names[a] for t in [data.train] for a in t.attribute)
    assert re.search(rf"^color +{counts['color']} +8 +8 +8 +8$", text, re.MULTILINE)
    assert re.search(r"^all +32 +16 +16 +16 +16$", text, re.MULTILINE)
    words = shlex.split(re.search(r"^Next: agman (.*)$", text, re.MULTILINE)[1])
    assert f"--images '{photos}' --run" in finished(None)
    for photo in photos.iterdir():
        photo.unlink()
    words[words.index("--run") + 1] = str(tmp_path / "run")
    small = ["--size", "32", "--weights", "none", "--epochs", "1", "--batch-size", "16"]
    assert cli.main([*words, *small, "--quiet"]) == 0


def test_published_counts_stand_beside_ours(data):
    text = prepared.count_table(data, {"place": (3, 4), "color": (1000, 2)})
    cells = [line.split() for line in text.splitlines()]
    assert cells[0] == ["valid", "test", "published", "test"]
    assert cells[2] == ["color", "16", *["8"] * 4, "1,000", "2"]
    assert cells[3] == ["place", "16", *["8"] * 4, "3", "4"]
    assert cells[4] == ["all", "32", *["16"] * 4, "1,003", "6"]


def test_sizes_in_words(tmp_path):
    assert prepared.gigabytes(400_000) == "0.4 MB"
    assert prepared.gigabytes(56_900_000_000) == "56.9 GB"
    assert prepared.packed_bytes(10, 4) == 480
    assert prepared.free_bytes(tmp_path / "not" / "there") > 0
    refuses("at least 1 pixel", prepared.planned, "x", 3, tmp_path, 0)


@pytest.mark.parametrize(
    "name", ["", "/a.jpg", "../a.jpg", "a/../../b.jpg", "a\\b.jpg", "a\x00.jpg"]
)
def test_paths_that_leave_the_folder_are_refused(name):
    refuses("list.txt, line 7", prepared.refuse_unsafe_path, Path("list.txt"), 7, name)
    prepared.refuse_unsafe_path(Path("list.txt"), 7, "img/a..b c.jpg")


def test_the_rest_of_an_archive_is_unpacked(tmp_path, capsys, monkeypatch):
    archive, folder = tmp_path / "a.zip", tmp_path / "folder"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("one.txt", "two.txt"):
            file.writestr(name, name * 100)
    assert not prepared.unpack_rest(archive, folder, max_bytes=10**6, dry=True)
    assert "Would unpack 2 of 2 files of a.zip" in capsys.readouterr().out
    assert not folder.exists()
    folder.mkdir()
    (folder / "one.txt").write_text("one.txt" * 100)
    monkeypatch.setattr(prepared, "free_bytes", lambda _: 699)
    refuses("unpacking a.zip needs", prepared.unpack_rest, archive, folder, max_bytes=10**6)
    monkeypatch.setattr(prepared, "free_bytes", lambda _: 700)
    assert prepared.unpack_rest(archive, folder, max_bytes=10**6)
    assert "1 files of a.zip unpacked" in capsys.readouterr().out
    assert prepared.unpack_rest(archive, folder, max_bytes=10**6)
    assert capsys.readouterr().out == ""
    (folder / "two.txt").write_text("two.tx")
    assert prepared.unpack_rest(archive, folder, max_bytes=10**6)
    assert (folder / "two.txt").read_text() == "two.txt" * 100
    refuses("more than the 1,000 allowed", prepared.unpack_rest, archive, folder, max_bytes=1000)
