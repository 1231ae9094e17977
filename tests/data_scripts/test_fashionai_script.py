import importlib.util
import io
import re
import shutil
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agman import storage
from agman.attributes import FASHIONAI
from agman.datasets import PackedImages, prepared, read_asen
from tests.data_scripts import trees

ROOT = Path(__file__).resolve().parents[2]
ONE, TWO = trees.PARTS
PER_ATTRIBUTE = 15


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "fashionai_script", ROOT / "data_scripts/fashionai.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((40, 50)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A tree of the true format: 120 images; an m in 16 rows; sleeve_length 0 never occurs."""
    return trees.fashionai_tree(tmp_path_factory.mktemp("fashionai"), PER_ATTRIBUTE)


@pytest.fixture
def root(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "root"))


@pytest.fixture
def zips(original, tmp_path):
    """The same as two archives: one with its own folder inside, one without."""
    root = tmp_path / "zips"
    root.mkdir()
    for part, prefix in ((ONE, f"{ONE}/"), (TWO, "")):
        with zipfile.ZipFile(root / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((original / part).rglob("*")):
                if file.is_file():
                    archive.write(file, prefix + file.relative_to(original / part).as_posix())
    return root


def go(script, root, out, *words):
    return script.main(["--root", str(root), "--out", str(out), "--side", "32", *words])


def state(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def label_file(root, part=ONE):
    return root / part / "Annotations/label.csv"


def names_of(table):
    return [table.images.names[i] for i in table.image]


def refused(script, capsys, root, *words):
    """The one sentence of a refused run, which leaves nothing half-written."""
    out = root.parent / "refused"
    assert go(script, root, out, *words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not list(out.parent.rglob("*.part"))
    return re.sub(r".*\r", "", error.strip()).splitlines()[-1]


# ------------------------------------------------------------------ what a right run gives


def test_folders_become_lists_and_packed_images(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    text = capsys.readouterr().out
    assert "120 labelled images; 16 with an m" in text
    data = read_asen(out, "FashionAI", images=root)
    assert data.schema == FASHIONAI
    tables = [
        data.train, data.valid.queries, data.valid.gallery, data.test.queries, data.test.gallery
    ]  # fmt: skip
    assert [len(t) for t in tables] == [96, 2, 10, 2, 10]
    every = Counter(name for table in tables for name in names_of(table))
    assert len(every) == 120
    assert set(every.values()) == {1}
    truth = {}
    for part in (ONE, TWO):
        for line in label_file(root, part).read_text().split():
            path, column, letters = line.split(",")
            a = FASHIONAI.names.index(column.removesuffix("_labels"))
            truth[f"{part}/{path}"] = (a, letters.index("y"))
    for table in tables:
        for name, a, v in zip(names_of(table), table.attribute, table.value):
            assert truth[name] == (a, v)
    for split, table in (("train", data.train), ("test", data.test.queries)):
        packed = PackedImages.open(out / f"FashionAI/{split}_32.npz")
        assert list(packed.names) == list(table.images.names)
        np.testing.assert_array_equal(
            packed.load([1, 0], 32).numpy(), table.images.load([1, 0], 32).numpy()
        )


def test_the_table_adds_up_and_shows_the_published_counts(script, root, tmp_path, capsys):
    assert go(script, root, tmp_path / "out") == 0
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        name, *numbers = line.split() or [""]
        if name in (*FASHIONAI.names, "all") and numbers:
            rows[name] = [int(n.replace(",", "")) for n in numbers]
    assert rows["all"] == [96, 2, 10, 2, 10, 3600, 14400]
    for name in FASHIONAI.names:
        assert sum(rows[name][:5]) == PER_ATTRIBUTE
        assert tuple(rows[name][5:]) == script.PUBLISHED_TEST[name]


def test_a_second_run_changes_nothing(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    before = state(out) | state(root)
    capsys.readouterr()
    assert go(script, root, out) == 0
    assert "packed into" not in capsys.readouterr().out
    assert state(out) | state(root) == before
    assert go(script, root, out, "--check") == 0
    assert "every image compared" in capsys.readouterr().out
    assert go(script, root, out, "--dry-run") == 0
    assert "Nothing is left to do" in capsys.readouterr().out
    assert state(out) | state(root) == before


def test_archives_give_the_same_as_folders(script, root, zips, tmp_path, capsys):
    assert go(script, root, tmp_path / "a") == 0
    assert go(script, zips, tmp_path / "b") == 0
    text = capsys.readouterr().out
    assert f"65 files of {ONE}.zip unpacked" in text
    assert f"57 files of {TWO}.zip unpacked" in text
    one, two = ({p.relative_to(o): p.read_bytes() for p in state(o)} for o in
                (tmp_path / "a", tmp_path / "b"))  # fmt: skip
    assert one == two
    before = state(zips)
    assert go(script, zips, tmp_path / "b") == 0
    assert state(zips) == before


def test_the_order_of_rows_does_not_change_the_split_but_the_seed_does(script, root, tmp_path):
    def members(out, *words):
        assert go(script, root, out, *words) == 0
        data = read_asen(out, "FashionAI", images=root)
        return [set(names_of(t)) for t in (data.train, data.valid.queries, data.test.gallery)]

    first = members(tmp_path / "a")
    file = label_file(root)
    file.write_text("\ufeff" + "\r\n".join(sorted(file.read_text().split())))
    assert members(tmp_path / "b") == first
    assert members(tmp_path / "c", "--seed", "1") != first
    before = state(tmp_path / "a")
    assert go(script, root, tmp_path / "a", "--check", "--seed", "1") == 2
    assert state(tmp_path / "a") == before
    assert members(tmp_path / "a", "--seed", "1") != first  # replaced


def test_the_same_file_name_in_both_parts_stays_on_one_side(script, root):
    labels = script.Labels([], [], [])
    for name in (f"{part}/Images/skirt_length_labels/{i}.jpg" for i in range(60) for part in "ab"):
        labels.names.append(name)
        labels.attribute.append(0)
        labels.value.append(1)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    data = script.own_split(script.to_table(labels, root), seed=0)
    sides = [
        {Path(name).name for table in prepared.tables(data, split) for name in names_of(table)}
        for split in prepared.SPLITS
    ]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60


def test_the_published_proportions(script):
    assert round(script.HELD_OUT * 180_335) == 18_000
    assert [sum(column) for column in zip(*script.PUBLISHED_TEST.values())] == [3600, 14400]
    assert tuple(script.PUBLISHED_TEST) == FASHIONAI.names


def test_a_dry_run_writes_nothing(script, root, zips, tmp_path, capsys):
    out = tmp_path / "out"
    before = state(root) | state(zips)
    assert go(script, root, out, "--dry-run") == 0
    assert "pack 120 images of 32 x 32 pixels there (0.4 MB" in capsys.readouterr().out
    assert go(script, zips, out, "--dry-run") == 0
    text = capsys.readouterr().out
    assert f"Would unpack 65 of 65 files of {ONE}.zip" in text
    assert "pack 120 images" in text
    assert not out.exists()
    assert state(root) | state(zips) == before


# ------------------------------------------------------------------ label.csv


def test_rows_to_predict_and_a_fourth_column_are_counted(script, root, tmp_path, capsys):
    file = label_file(root)
    lines = file.read_text().split()
    image, column, _ = lines[0].split(",")
    lines[0] = f"{image},{column},?"
    lines[1:4] = [f"{line},0" for line in lines[1:4]]
    file.write_text("\n".join(lines))
    assert go(script, root, tmp_path / "out") == 0
    text = capsys.readouterr().out
    assert "119 labelled images" in text
    assert "1 rows with ? left out; fourth column ignored in 3 rows" in text


IMAGE = "Images/skirt_length_labels/x.jpg"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{IMAGE},skirt_length_labels", "line 3: 2 columns instead of 3"),
        (f"{IMAGE},skirt_length_labels,nynnnn,0,0", "line 3: 5 columns instead of 3"),
        (f"{IMAGE},skirt_length_labels,nynnn", "line 3: 'nynnn' is not 6 letters"),
        (f"{IMAGE},skirt_length_labels,nynnny", "exactly one y"),
        (f"{IMAGE},skirt_length_labels,nmnnnn", "exactly one y"),
        (f"{IMAGE},skirt_length_labels,nyxnnn", "letters y, m or n"),
        (f"{IMAGE},skirt_length_labels,", "line 3: '' is not 6 letters"),
        (f"{IMAGE},hat_length_labels,nynnnn", "'hat_length_labels' is no attribute"),
        (f"{IMAGE},skirt_length,nynnnn", "'skirt_length' is no attribute"),
        ("../../x.jpg,skirt_length_labels,nynnnn", "no path inside the data set"),
        ("/etc/x.jpg,skirt_length_labels,nynnnn", "no path inside the data set"),
        (",skirt_length_labels,nynnnn", "no path inside the data set"),
    ],
)
def test_a_wrong_line_is_named(script, root, capsys, line, words):
    file = label_file(root, TWO)
    lines = file.read_text().split()
    file.write_text("\n".join([*lines[:2], line, *lines[2:]]))
    message = refused(script, capsys, root)
    assert message.startswith(f"{file}, line 3: ")
    assert words in message


def test_an_image_twice_is_refused_with_both_lines(script, root, capsys):
    file = label_file(root)
    lines = file.read_text().split()
    file.write_text("\n".join([*lines[:9], lines[4]]))
    message = refused(script, capsys, root)
    assert f"{file}, line 10: the image" in message
    assert "already stands in line 5" in message


def test_label_files_that_are_no_text_or_empty(script, root, capsys):
    label_file(root).write_bytes(b"\xff\xfe\x00")
    assert "not in UTF-8" in refused(script, capsys, root)
    for part in (ONE, TWO):
        label_file(root, part).write_text("")
    assert "no labelled row" in refused(script, capsys, root)


# ------------------------------------------------------------------ damaged downloads


def test_a_missing_download_says_where_to_get_it(script, root, capsys, tmp_path):
    shutil.rmtree(root / TWO)
    for words in ([], ["--check"], ["--dry-run"]):
        message = refused(script, capsys, root, *words)
        assert f"{TWO}" in message
        assert "https://tianchi.aliyun.com/competition/entrance/231671" in message
    assert "There is no folder" in refused(script, capsys, tmp_path / "nowhere")


def test_missing_images_are_counted(script, root, capsys):
    for file in sorted((root / ONE).rglob("*.jpg"))[:2]:
        file.unlink()
    message = refused(script, capsys, root)
    assert "2 of 120 images are not in" in message
    assert f"first {ONE}/Images/" in message


def test_a_damaged_image_is_named_while_packing(script, root, tmp_path, capsys):
    file = sorted((root / ONE).rglob("*.jpg"))[3]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    message = refused(script, capsys, root)
    assert f"{file}: damaged or cut short" in message
    file.write_bytes(whole)
    assert go(script, root, tmp_path / "refused") == 0


def test_a_truncated_archive_is_refused_before_anything_is_written(script, zips, capsys):
    archive = zips / f"{TWO}.zip"
    archive.write_bytes(archive.read_bytes()[:-5000])
    message = refused(script, capsys, zips)
    assert message.startswith(f"{archive}: damaged, cut short")
    assert sorted(p.name for p in zips.iterdir()) == [f"{ONE}.zip", f"{TWO}.zip"]


@pytest.mark.parametrize("name", ["../escape.jpg", "/tmp/escape.jpg"])
def test_an_archive_that_escapes_is_refused(script, zips, capsys, name):
    with zipfile.ZipFile(zips / f"{TWO}.zip", "a") as archive:
        archive.writestr(name, b"1")
    assert "its path leaves the folder" in refused(script, capsys, zips)
    assert sorted(p.name for p in zips.iterdir()) == [f"{ONE}.zip", f"{TWO}.zip"]


def test_an_archive_of_something_else_is_refused(script, zips, capsys):
    with zipfile.ZipFile(zips / f"{TWO}.zip", "w") as archive:
        archive.writestr("base/Annotations/label.csv", b"")
    assert "unpack it by hand" in refused(script, capsys, zips)


def test_a_full_disk_leaves_nothing_half_written(script, root, zips, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "replace", full)
    for folder in (root, zips):
        assert "No space left on device" in refused(script, capsys, folder)
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "refused/FashionAI/label_train.txt").exists()
    monkeypatch.undo()
    assert go(script, zips, tmp_path / "refused") == 0


def test_a_disk_too_small_is_noticed_before_the_work(script, root, zips, capsys, monkeypatch):
    monkeypatch.setattr(prepared, "free_bytes", lambda _: 1000)
    assert "packing the images needs 0.4 MB and 0.0 MB are free" in refused(script, capsys, root)
    assert f"unpacking {ONE}.zip needs" in refused(script, capsys, zips)
    assert not (zips / ONE).exists()


# ------------------------------------------------------------------ killed, spoilt, mended


def test_a_killed_run_goes_on_where_it_stopped(script, zips, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    pack, packed = prepared.pack, []

    def killed(store, size, path, progress):
        if packed:
            path.with_name(f".{path.name}.99.part").write_bytes(b"half")
            raise KeyboardInterrupt
        packed.append(path)
        return pack(store, size, path=path, progress=False)

    monkeypatch.setattr(prepared, "pack", killed)
    with pytest.raises(KeyboardInterrupt):
        go(script, zips, out)
    assert [p.name for p in out.rglob("*.npz")] == ["train_32.npz"]
    before = state(out / "FashionAI") | state(zips)
    monkeypatch.setattr(prepared, "pack", pack)
    assert go(script, zips, out) == 0
    after = state(out) | state(zips)
    lost = [p for p, when in before.items() if after.get(p) != when]
    assert [p.name for p in lost] == [".valid_32.npz.99.part"]
    capsys.readouterr()
    assert go(script, zips, out, "--check") == 0


def test_killed_while_unpacking(script, zips, tmp_path):
    with zipfile.ZipFile(zips / f"{ONE}.zip") as archive:
        for name in archive.namelist()[:20]:
            archive.extract(name, zips)
    half = sorted((zips / ONE).rglob("*.jpg"))[5]
    half.write_bytes(half.read_bytes()[:100])
    assert go(script, zips, tmp_path / "out") == 0


def test_check_notices_what_was_spoilt(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--check") == 2  # nothing there yet
    assert go(script, root, out) == 0

    def problem():
        capsys.readouterr()
        assert go(script, root, out, "--check") == 2
        return capsys.readouterr().err

    file = out / "FashionAI/query_test.txt"
    right = file.read_text()
    image, attribute, value = right.split()[:3]
    other = "1" if value == "0" else "0"
    file.write_text(right.replace(right.splitlines()[0], f"{image} {attribute} {other}"))
    assert "its rows are not those of the labels" in problem()
    file.write_text(right)

    packed = out / "FashionAI/test_32.npz"
    whole = packed.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF
    packed.write_bytes(spoilt)
    assert "differs from its file" in problem()
    packed.write_bytes(whole[:-3000])
    assert "not a complete file of packed images" in problem()
    packed.unlink()
    assert "test_32.npz" in problem()
    assert go(script, root, out) == 0
    assert packed.read_bytes() == whole


def test_check_notices_an_image_that_went_missing_or_broke(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    file = sorted((root / TWO).rglob("*.jpg"))[4]
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    assert go(script, root, out) == 0, "a finished run looks at no image"
    capsys.readouterr()
    assert go(script, root, out, "--check") == 2
    assert f"{file}: damaged or cut short" in capsys.readouterr().err
    file.unlink()
    assert go(script, root, out, "--check") == 2
    assert "1 of 120 images are not in" in capsys.readouterr().err


def test_lists_alone(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--no-pack", "--dry-run") == 0
    assert "Would write the lists of 120 images" in capsys.readouterr().out
    assert go(script, root, out, "--no-pack") == 0
    assert f"--data {out}/FashionAI --images {root} --run" in capsys.readouterr().out
    assert not list(out.rglob("*.npz"))
    before = state(out)
    assert go(script, root, out, "--no-pack") == 0
    assert go(script, root, out, "--no-pack", "--check") == 0
    assert state(out) == before
    assert len(read_asen(out / "FashionAI", images=root).train.images) == 96
    assert go(script, root, out) == 0
    assert {p: when for p, when in state(out).items() if p.suffix != ".npz"} == before
    file = sorted((root / ONE).rglob("*.jpg"))[0]
    file.write_bytes(b"no image")
    capsys.readouterr()
    assert go(script, root, out, "--no-pack", "--check") == 2
    assert f"{file}: not an image" in capsys.readouterr().err


def test_a_side_without_pixels_is_refused(script, root, capsys):
    for words in (["--side", "0"], ["--side", "-8", "--dry-run"]):
        assert "at least 1 pixel" in refused(script, capsys, root, *words)


def test_the_prepared_set_needs_no_photos(script, root, tmp_path):
    assert go(script, root, tmp_path / "out") == 0
    shutil.rmtree(root)
    data = read_asen(tmp_path / "out" / "FashionAI")
    assert data.test.queries.images.load([0, 1], 24).shape == (2, 3, 24, 24)
    assert data.schema == FASHIONAI


# ------------------------------------------------------------------ ASEN's published lists


@pytest.fixture
def lists(script, root, tmp_path):
    """Eight lists as ASEN publishes them: no meta.json, another split than ours."""
    assert go(script, root, tmp_path / "other", "--seed", "5") == 0
    folder = tmp_path / "lists"
    folder.mkdir()
    for file in (tmp_path / "other/FashionAI").glob("*.txt"):
        shutil.copy(file, folder)
    assert len(list(folder.iterdir())) == 8
    return folder


def test_published_lists_are_taken_as_they_are(script, root, lists, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--splits", str(lists)) == 0
    for file in lists.iterdir():
        assert (out / "FashionAI" / file.name).read_text() == file.read_text()
    assert go(script, root, out, "--splits", str(lists), "--check") == 0
    assert go(script, root, out, "--check") == 2  # our own split is another


@pytest.mark.parametrize("name", ["query_test.txt", "filenames_valid.txt", "label_train.txt"])
def test_a_missing_list_is_named(script, root, lists, capsys, name):
    (lists / name).unlink()
    assert f"{lists / name}: the file is missing" in refused(
        script, capsys, root, "--splits", str(lists)
    )


def test_a_split_that_is_absent_altogether(script, root, lists, capsys):
    for name in ("filenames_train.txt", "label_train.txt"):
        (lists / name).unlink()
    message = refused(script, capsys, root, "--splits", str(lists))
    assert f"{lists}/filenames_train.txt: missing or empty" in message
    assert "There is no folder" in refused(script, capsys, root, "--splits", str(lists / "x"))


def test_lists_of_the_development_branch_are_found_in_the_parts(script, root, lists, tmp_path):
    released = {file.name: file.read_text() for file in lists.iterdir()}
    for file in lists.glob("filenames_*.txt"):
        file.write_text(file.read_text().replace(ONE, "test").replace(TWO, "test"))
        assert f"{ONE[:9]}" not in file.read_text()
    out = tmp_path / "out"
    assert go(script, root, out, "--splits", str(lists)) == 0
    assert {f.name: f.read_text() for f in (out / "FashionAI").glob("*.txt")} == released
    assert go(script, root, out, "--splits", str(lists), "--check") == 0


def test_lists_of_another_release_are_refused_with_counts(script, root, lists, capsys):
    file = lists / "filenames_test.txt"
    names = file.read_text().split()
    other = [name.replace(".jpg", "0.jpg") for name in names[2:]]
    file.write_text("\n".join([*names[:2], *other]))
    message = refused(script, capsys, root, "--splits", str(lists))
    assert message.startswith(f"{file}, line 3: neither part's label.csv labels '{other[0]}'")
    assert "(10 of 12 images)" in message


def test_lists_that_contradict_the_labels_are_refused(script, root, lists, capsys):
    file = lists / "candidate_test.txt"
    first, *others = file.read_text().splitlines()
    image, attribute, value = first.split()
    file.write_text("\n".join([f"{image} {attribute} {(int(value) + 1) % 5}", *others]))
    message = refused(script, capsys, root, "--splits", str(lists))
    assert "1 of 10 rows differ from label.csv" in message


def test_lists_that_lead_out_of_the_folder_are_refused(script, root, lists, capsys):
    (root.parent / "secret.jpg").write_bytes(picture(1))
    file = lists / "filenames_train.txt"
    file.write_text("\n".join(["../secret.jpg", *file.read_text().splitlines()[1:]]))
    message = refused(script, capsys, root, "--splits", str(lists))
    assert f"{file}, line 1: neither part's label.csv labels '../secret.jpg'" in message


# ------------------------------------------------------------------ real rows


def test_real_rows_read_like_asens_lists(script, realdata):
    folder = realdata / "fashionai-split"
    labels = script.Labels([], [], [])
    script.read_label_file(folder / "label_test.csv", "test", labels)
    assert len(labels.names) == 18_000
    assert (labels.unlabelled, labels.extra) == (0, 0)
    assert labels.maybe > 0
    data = read_asen(folder, schema=FASHIONAI, check_images=False)
    counts = np.bincount(labels.attribute, minlength=8).tolist()
    readme = (folder / "README.md").read_text()
    queries, candidates = (
        [int(cell) for cell in re.search(rf"\| {kind} \|(.*)\|", readme)[1].split("|")]
        for kind in ("queries", "candidates")
    )
    assert [*map(sum, zip(queries, candidates))] == [*counts, 18_000]
    assert [*zip(queries, candidates)][:-1] == list(script.PUBLISHED_TEST.values())
    rows = dict(zip(labels.names, zip(labels.attribute, labels.value)))
    for table in (data.test.queries, data.test.gallery):
        assert {n: (a, v) for n, a, v in prepared.rows(table)}.items() <= rows.items()


def test_real_test_lists_over_made_up_photos(script, lists, root, realdata, tmp_path):
    """A few rows of ASEN's real `dev` lists, whose paths name neither part."""
    folder = realdata / "fashionai-split"
    names = (folder / "filenames_test.txt").read_text().split()
    chosen = {}
    for kind in ("query", "candidate"):
        rows = (folder / f"{kind}_test.txt").read_text().splitlines()[:6]
        chosen[kind] = [tuple(map(int, row.split())) for row in rows]
    used = [row[0] for rows in chosen.values() for row in rows]
    (lists / "filenames_test.txt").write_text("".join(f"{names[i]}\n" for i in used))
    for kind, rows in chosen.items():
        text = "".join(f"{used.index(i)} {a} {v}\n" for i, a, v in rows)
        (lists / f"{kind}_test.txt").write_text(text)
    labels = (folder / "label_test.csv").read_text().splitlines()
    for number, image in enumerate(used):
        part, path = (ONE, TWO)[number % 2], names[image].removeprefix("test/")
        with label_file(root, part).open("a") as file:
            file.write(next(line for line in labels if line.startswith(path)) + "\n")
        (root / part / path).parent.mkdir(exist_ok=True)
        (root / part / path).write_bytes(picture(number))
    out = tmp_path / "out"
    assert go(script, root, out, "--splits", str(lists)) == 0
    data = read_asen(out / "FashionAI")
    assert len(data.train.images) == 96
    ours = prepared.rows(data.test.queries) + prepared.rows(data.test.gallery)
    asens = [(names[i], a, v) for rows in chosen.values() for i, a, v in rows]
    assert [(n.split("/", 1)[1], a, v) for n, a, v in ours] == [
        (n.split("/", 1)[1], a, v) for n, a, v in asens
    ]
    assert {n.split("/", 1)[0] for n, _, _ in ours} == {ONE, TWO}
