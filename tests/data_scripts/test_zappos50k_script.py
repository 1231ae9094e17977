"""From three archives in the true form to what `agman train` and `read_csn` read."""

import csv
import importlib.util
import re
import shutil
import sys
import threading
import zipfile
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from agman import storage
from agman.attributes import AttributeSchema, AttributeTable
from agman.datasets import FolderImages, PackedImages, downloads, prepared, read_asen, read_csn
from agman.datasets.images import ChosenImages
from tests.data_scripts import zappos_tree

ROOT = Path(__file__).resolve().parents[2]
ZIPS = [f"{name}.zip" for name in (zappos_tree.IMAGES, zappos_tree.DATA, zappos_tree.TRIPLETS)]
N = 120


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "zappos_script", ROOT / "data_scripts/zappos50k.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return zappos_tree.zappos_tree(tmp_path_factory.mktemp("zappos"), N)


@pytest.fixture
def root(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "root"))


@pytest.fixture
def zips(original, tmp_path):
    return zappos_tree.zappos_archives(original, tmp_path / "zips")


@pytest.fixture
def site(zips, monkeypatch):
    """The three archives on a server; what it was asked for is in `asked`."""
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=zips))
    server.asked = asked
    server.words = [
        word
        for name, file in zip(("images", "data", "triplets"), ZIPS)
        for word in (f"--{name}-url", f"http://127.0.0.1:{server.server_port}/{file}")
    ]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def go(script, root, out, *words):
    return script.main(["--root", str(root), "--out", str(out), "--side", "24", *words])


def state(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in state(folder)}


def names_of(table):
    return [table.images.names[i] for i in table.image]


def refused(script, capsys, root, *words):
    """The one sentence of a refused run, which leaves nothing half-written."""
    out = root.parent / "refused"
    assert go(script, root, out, "--no-download", *words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not list(out.parent.rglob("*.part"))
    assert not (out / "Zappos50k" / "label_train.txt").exists()
    message = re.sub(r".*\r", "", error.strip()).splitlines()[-1]
    assert message.endswith(".")
    return message


def listing(root):
    return root / zappos_tree.TRIPLETS / "filenames.json"


def triplet_list(root, name):
    return root / zappos_tree.TRIPLETS / "tripletlists" / name


def metadata(root):
    return root / zappos_tree.DATA / "meta-data.csv"


def change_line(path, number, line):
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("".join(f"{line}\n" for line in lines))


def products(root):
    """The labels read in the simplest way: number in the file's name to the cells of its line."""
    with metadata(root).open(newline="") as file:
        return {row["CID"].replace("-", "."): row for row in csv.DictReader(file)}


# ------------------------------------------------------------------ what a right run gives


def test_photos_and_labels_belong_together(script, root, tmp_path):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    data = read_asen(out / "Zappos50k")
    assert data.schema.names == ("class", "closure", "gender", "heel")
    assert all(list(values) == sorted(values) for values in data.schema.values)
    truth = products(root)
    columns = {"class": "Category", "closure": "Closure", "gender": "Gender", "heel": "HeelHeight"}
    found = Counter()
    for table in (
        data.train, data.valid.queries, data.valid.gallery, data.test.queries, data.test.gallery
    ):  # fmt: skip
        for name, a, v in prepared.rows(table):
            attribute = data.schema.names[a]
            cell = truth[Path(name).stem][columns[attribute]]
            assert data.schema.values[a][v] in cell.split(";")
            found[attribute] += 1
    listed = {Path(name).stem for name in listing(root).read_text().splitlines()}
    for attribute, column in columns.items():
        cells = [truth[stem][column] for stem in listed]
        assert found[attribute] == sum(len(cell.split(";")) for cell in cells if cell)
    assert any(";" in truth[stem]["Gender"] for stem in listed)
    assert any(not truth[stem]["Closure"] for stem in listed)


def test_the_lists_are_those_of_csn_and_the_photos_their_files(script, root, tmp_path):
    out = tmp_path / "out" / "Zappos50k"
    assert go(script, root, out.parent) == 0
    theirs = listing(root).read_text().splitlines()
    ours = (out / "filenames.json").read_text().splitlines()
    assert ours == [zappos_tree.real_path(name) for name in theirs] != theirs
    for file in triplet_list(root, "x").parent.iterdir():
        assert (out / "tripletlists" / file.name).read_bytes() == file.read_bytes()
    folder = FolderImages(root / zappos_tree.IMAGES, ours)
    packed = PackedImages.open(out / "images_24.npz")
    assert packed.names == folder.names
    assert (packed.load(range(N), 24) == folder.load(range(N), 24)).all()


def test_both_readers_use_the_one_packed_file(script, root, tmp_path):
    out = tmp_path / "out" / "Zappos50k"
    assert go(script, root, out.parent) == 0
    csn = read_csn(out)
    assert isinstance(csn.images, PackedImages)
    anchor, far, close = map(
        int, triplet_list(root, "closure_tripletlist_val.txt").read_text().split()[3:6]
    )
    assert csn.valid[len(csn.valid) // 4 + 1].tolist() == [1, anchor, close, far]
    table = read_asen(out).test.gallery
    assert isinstance(table.images, ChosenImages)
    some = np.unique(table.image)[:5]
    names = [table.images.names[i] for i in some]
    assert names == [n for n in (out / "filenames_test.txt").read_text().splitlines() if n in names]
    decoded = FolderImages(root / zappos_tree.IMAGES, names).load(range(5), 24)
    assert (table.images.load(some, 24) == decoded).all()
    with_folder = read_csn(out, root / zappos_tree.IMAGES)
    assert isinstance(with_folder.images, FolderImages)
    (out / "images_24.npz").unlink()
    assert read_csn(out, check_images=False).images.names == csn.images.names


def test_photos_go_where_their_triplets_are(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    change_line(triplet_list(root, "heel_tripletlist_val.txt"), 5, "16 1 2")  # 1, 2 are trained on
    assert go(script, root, out) == 0
    assert "3 photos are in triplets of several splits" in capsys.readouterr().out
    names = (out / "Zappos50k/filenames.json").read_text().splitlines()
    used = {"train": set(), "val": set(), "test": set()}
    for split, images in used.items():
        for file in triplet_list(root, "x").parent.glob(f"*_{split}.txt"):
            images |= {names[int(i)] for i in file.read_text().split()}
    test, valid = used["test"], used["val"] - used["test"]
    data = read_asen(out / "Zappos50k")
    assert set(names_of(data.train)) <= set(names) - test - valid
    assert {names[0]} <= {*names_of(data.test.queries), *names_of(data.test.gallery)} <= test
    assert {*names_of(data.valid.queries), *names_of(data.valid.gallery)} <= valid
    assert {names[1], names[2]} <= valid
    assert not set(names_of(data.test.queries)) & set(names_of(data.test.gallery))
    queries, gallery = (
        len(np.unique(t.image)) for t in (data.test.queries, data.test.gallery)
    )  # one to four, but for photos without a label
    assert 3 <= gallery / queries <= 5
    assert {names[N - 2], names[N - 1]} <= set(names_of(data.train))  # in no triplet


def test_the_report_compares_triplets_with_labels(script, original, tmp_path, capsys):
    assert go(script, original, tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "120 photos, 26 of them in folders spelled otherwise" in out
    assert "1 products without a listed photo; 1 photos are in triplets of several splits" in out
    assert out.rstrip().splitlines()[-1].startswith("Next: agman train --data ")
    truth = products(original)
    names = [Path(name).stem for name in listing(original).read_text().splitlines()]
    right = 0
    lines = triplet_list(original, "gender_tripletlist_train.txt").read_text().splitlines()
    for line in lines:
        anchor, far, close = (
            {v for v in truth[names[int(i)]]["Gender"].split(";") if v} for i in line.split()
        )
        right += bool(anchor & close) and not anchor & far
    shown = re.search(r"^gender +(\d+) +\(([\d.]+)%\)", out, re.MULTILINE)
    assert (int(shown[1]), shown[2]) == (len(lines), f"{100 * right / len(lines):.1f}")
    assert right < len(lines)


def test_which_triplets_the_labels_bear_out(script):
    """Against sets of values; photos have up to three values of an attribute, and none."""
    draw = np.random.default_rng(0)
    has = draw.random((30, 4, 5)) < 0.3
    image, attribute, value = np.nonzero(has)
    schema = AttributeSchema(zappos_tree.ATTRIBUTES, ((*"abcde",),) * 4, "Zappos50k")
    store = PackedImages(np.zeros((30, 1, 1, 3), np.uint8), [f"{i}.jpg" for i in range(30)])
    table = AttributeTable(schema, store, image, attribute, value)
    triplets = np.stack([draw.integers(0, n, 500) for n in (4, 30, 30, 30)], axis=1)

    def values(image, attribute):
        return {v for v in range(5) if has[image, attribute, v]}

    expected = [
        bool(values(x, a) & values(p, a)) and not values(x, a) & values(n, a)
        for a, x, p, n in triplets
    ]
    assert script.borne_out(table, triplets).tolist() == expected
    assert 0 < sum(expected) < 500


def test_a_second_run_changes_nothing(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    before = state(out) | state(root)
    assert go(script, root, out) == 0
    assert go(script, root, out, "--check") == 0
    assert "every photo compared" in capsys.readouterr().out
    assert go(script, root, out, "--dry-run") == 0
    assert "Nothing is left to do" in capsys.readouterr().out
    assert state(out) | state(root) == before


def test_a_dry_run_changes_nothing(script, root, zips, tmp_path, capsys):
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    before = state(root) | state(zips)
    assert go(script, root, out, "--dry-run") == 0
    assert "pack 120 images of 24 x 24 pixels there (0.2 MB" in capsys.readouterr().out
    assert go(script, zips, out, "--dry-run") == 0
    text = capsys.readouterr().out
    assert f"Would unpack 120 of 120 files of {ZIPS[0]}" in text
    assert go(script, nowhere, out, "--dry-run") == 0
    text = capsys.readouterr().out
    for source in (script.IMAGES, script.DATA, script.TRIPLETS):
        assert f"Would download {source.url} ({source.size}) to {nowhere / source.file}." in text
    assert "pack 50,025 images" in text
    assert not out.exists()
    assert not nowhere.exists()
    assert state(root) | state(zips) == before


def test_lists_alone(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--no-pack") == 0
    assert not list(out.rglob("*.npz"))
    assert f"--images {root / zappos_tree.IMAGES}" in capsys.readouterr().out
    assert go(script, root, out, "--no-pack", "--check") == 0


# ------------------------------------------------------------------ downloads


def test_three_downloads_give_the_same_as_folders(script, root, site, tmp_path):
    fresh = tmp_path / "fresh"
    assert go(script, fresh, tmp_path / "a", *site.words) == 0
    assert sorted(site.asked) == sorted(f"/{file}" for file in ZIPS)
    assert go(script, root, tmp_path / "b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    before = state(fresh) | state(tmp_path / "a")
    assert go(script, fresh, tmp_path / "a", *site.words) == 0
    assert len(site.asked) == 3
    assert state(fresh) | state(tmp_path / "a") == before


def test_what_is_there_is_not_downloaded(script, root, zips, site, tmp_path):
    for name in (zappos_tree.IMAGES, zappos_tree.TRIPLETS):
        shutil.rmtree(root / name)
    shutil.copy(zips / ZIPS[0], root)
    assert go(script, root, tmp_path / "out", *site.words) == 0
    assert site.asked == [f"/{ZIPS[2]}"]


def test_as_csns_own_code_unpacks_it(script, root, tmp_path):
    for file in listing(root).parent.iterdir():
        file.rename(root / file.name)
    listing(root).parent.rmdir()
    assert go(script, root, tmp_path / "out", "--no-download") == 0


def test_an_archive_without_the_folder_of_its_name(script, root, zips, tmp_path):
    with zipfile.ZipFile(zips / ZIPS[0], "w") as archive:
        for file in sorted((root / zappos_tree.IMAGES).rglob("*.jpg")):
            archive.write(file, file.relative_to(root / zappos_tree.IMAGES).as_posix())
    with zipfile.ZipFile(zips / ZIPS[2], "w") as archive:  # and one with three above it
        for file in sorted(listing(root).parent.rglob("*.*")):
            archive.write(file, f"a/b/c/{file.relative_to(listing(root).parent).as_posix()}")
    assert go(script, zips, tmp_path / "a", "--no-download") == 0
    assert go(script, root, tmp_path / "b", "--no-download") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("words", [["--no-download"], ["--check"]])
def test_a_missing_download_says_where_to_get_it(script, root, tmp_path, capsys, words):
    shutil.rmtree(root / zappos_tree.DATA)
    assert go(script, root, tmp_path / "out", *words) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"{root / 'ut-zap50k-data.zip'}: neither this file nor its content")
    assert script.DATA.url in message


def test_a_host_that_is_gone(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    words = ["--images-url", "http://127.0.0.1:9/images.zip"]
    assert go(script, tmp_path / "root", tmp_path / "out", *words) == 2
    message = capsys.readouterr().err
    assert "its host refuses connections" in message
    assert f"put the file at {tmp_path / 'root' / ZIPS[0]} by hand" in message
    assert not list((tmp_path / "root").iterdir())


def test_a_notice_instead_of_an_archive(script, zips, site, tmp_path, capsys):
    (zips / ZIPS[1]).write_bytes(b"<!doctype html><title>moved</title>")
    assert go(script, tmp_path / "root", tmp_path / "out", *site.words) == 2
    assert "a web page came instead of the file" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "root").iterdir()) == [ZIPS[0]]


# ------------------------------------------------------------------ damaged downloads


def test_a_truncated_archive_is_refused_before_anything_is_unpacked(script, zips, capsys):
    archive = zips / ZIPS[2]
    archive.write_bytes(archive.read_bytes()[:-5000])
    assert refused(script, capsys, zips).startswith(f"{archive}: damaged, cut short")
    assert sorted(p.name for p in zips.iterdir()) == sorted(ZIPS)


def test_an_archive_that_escapes_is_refused(script, zips, capsys):
    with zipfile.ZipFile(zips / ZIPS[0], "a") as archive:
        archive.writestr("ut-zap50k-images/../../escape.jpg", b"1")
    assert "its path leaves the folder" in refused(script, capsys, zips)
    assert sorted(p.name for p in zips.iterdir()) == sorted(ZIPS)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "a\\..\\secret.jpg"])
def test_a_list_that_leaves_the_folder_is_refused(script, root, capsys, name):
    change_line(listing(root), 7, name)
    assert f"{listing(root)}, line 7: {name!r} is no path inside" in refused(script, capsys, root)


def test_missing_photos_are_counted_and_named(script, root, capsys):
    gone = sorted((root / zappos_tree.IMAGES).rglob("*.jpg"))[:2]
    for file in gone:
        file.unlink()
    message = refused(script, capsys, root)
    assert "2 of 120 photos are not in" in message
    assert gone[0].name in message


def test_a_photo_whose_place_is_not_clear_is_missing(script, root, capsys):
    """A file name that is there twice is no way to find a photo whose folder is not."""
    name = next(n for n in listing(root).read_text().splitlines() if "Levi's" in n)
    twin = root / zappos_tree.IMAGES / "Shoes" / Path(name).name
    shutil.copy(root / zappos_tree.IMAGES / zappos_tree.real_path(name), twin)
    message = refused(script, capsys, root)
    assert "1 of 120 photos are not in" in message
    assert name in message


def test_a_photo_listed_twice_is_refused(script, root, capsys):
    change_line(listing(root), 9, listing(root).read_text().splitlines()[2])
    message = refused(script, capsys, root)
    assert f"{listing(root)}, line 9: " in message
    assert "already stands in line 3 (1 such photos)" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 120 1", "line 4: image 120 is not among the 120 of filenames.json"),
        ("0 1", "line 4: expected three whole numbers, found '0 1'"),
        ("0 1 2 3", "line 4: expected three whole numbers"),
        ("0 -1 2", "line 4: expected three whole numbers"),
        ("0 x 2", "line 4: expected three whole numbers"),
    ],
)
def test_a_wrong_triplet_is_named(script, root, capsys, line, words):
    file = triplet_list(root, "closure_tripletlist_train.txt")
    change_line(file, 4, line)
    assert f"{file}, {words}" in refused(script, capsys, root)


def test_a_missing_list_is_named(script, root, capsys):
    triplet_list(root, "heel_tripletlist_val.txt").unlink()
    assert "heel_tripletlist_val.txt is missing" in refused(script, capsys, root)


def test_a_list_in_two_places_is_named(script, root, capsys):
    shutil.copytree(triplet_list(root, "x").parent, listing(root).parent / "copy")
    message = refused(script, capsys, root)
    assert "class_tripletlist_train.txt lies in 2 places" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda line: f"{line},one more", "line 5: 10 cells under a header of 9"),
        (lambda line: line.rsplit(",", 3)[0], "line 5: 6 cells under a header of 9"),
    ],
)
def test_a_line_of_another_width_is_named(script, root, capsys, change, words):
    file = metadata(root)
    change_line(file, 5, change(file.read_text().splitlines()[4]))
    assert f"{file}, {words}" in refused(script, capsys, root)


def test_products_that_stand_twice_are_counted(script, root, capsys):
    lines = metadata(root).read_text().splitlines()
    metadata(root).write_text("\n".join([*lines, lines[3], lines[8]]))
    message = refused(script, capsys, root)
    assert f"{metadata(root)}, line {len(lines) + 1}: the product" in message
    assert "already stands in line 4 (2 such lines)" in message


def test_photos_without_a_line_are_counted(script, root, capsys):
    lines = metadata(root).read_text().splitlines()
    metadata(root).write_text("\n".join(lines[:-3]))
    message = refused(script, capsys, root)
    assert "3 of 120 photos have no line in meta-data.csv" in message


def test_two_photos_of_one_product_are_refused(script, root, capsys):
    names = listing(root).read_text().splitlines()
    twin = Path("Shoes/Heels/x") / Path(names[1]).name
    (root / zappos_tree.IMAGES / twin).parent.mkdir()
    shutil.copy(
        root / zappos_tree.IMAGES / zappos_tree.real_path(names[1]),
        root / zappos_tree.IMAGES / twin,
    )
    change_line(listing(root), 2, zappos_tree.real_path(names[1]))
    change_line(listing(root), 5, twin.as_posix())
    assert "1 products have several photos, first" in refused(script, capsys, root)


def test_a_metadata_file_of_another_kind(script, root, capsys):
    text = metadata(root).read_text()
    metadata(root).write_text(text.replace("HeelHeight", "Heel"))
    assert "line 1: there is no column 'HeelHeight'" in refused(script, capsys, root)
    metadata(root).write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text in UTF-8" in refused(script, capsys, root)
    metadata(root).write_text("")
    assert "there is no column 'CID'" in refused(script, capsys, root)


def test_a_full_disk_leaves_nothing_half_written(script, root, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "replace", full)
    assert "No space left on device" in refused(script, capsys, root)
    monkeypatch.undo()
    assert go(script, root, tmp_path / "refused") == 0


def test_a_disk_too_small_is_noticed_before_the_work(script, root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prepared, "free_bytes", lambda _: 1000)
    assert go(script, root, tmp_path / "out") == 2
    assert "packing the images needs 0.2 MB and 0.0 MB are free" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.npz"))


# ------------------------------------------------------------------ killed, spoilt, mended


def test_a_killed_run_goes_on_where_it_stopped(script, zips, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"

    def killed(store, size, path):
        path.with_name(f".{path.name}.99.part").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "pack", killed)
    with pytest.raises(KeyboardInterrupt):
        go(script, zips, out, "--no-download")
    before = state(out) | state(zips)
    monkeypatch.undo()
    assert go(script, zips, out, "--no-download") == 0
    after = state(out) | state(zips)
    lost = [p.name for p, when in before.items() if after.get(p) != when]
    assert lost == [".images_24.npz.99.part"]
    assert go(script, zips, out, "--check") == 0


def test_killed_while_copying_the_lists(script, root, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_bytes, written = Path.write_bytes, []

    def killed(path, content):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        go(script, root, out)
    monkeypatch.undo()
    assert not list(out.rglob("*.part"))
    assert go(script, root, out) == 0
    assert go(script, root, out, "--check") == 0


def test_check_notices_what_was_spoilt(script, root, tmp_path, capsys):
    out = tmp_path / "out" / "Zappos50k"
    assert go(script, root, out.parent, "--check") == 2  # nothing there yet
    assert go(script, root, out.parent) == 0

    def problem():
        capsys.readouterr()
        assert go(script, root, out.parent, "--check") == 2
        return capsys.readouterr().err

    def spoil(file, content, words):
        whole = file.read_bytes()
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content(whole))
        assert words in problem()
        assert file.exists() == (content is not None)
        file.write_bytes(whole)

    def flipped(whole):
        return whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[
            len(whole) // 2 + 1 :
        ]  # fmt: skip

    packed, one = out / "images_24.npz", sorted((root / zappos_tree.IMAGES).rglob("*.jpg"))[40]
    lists = out / "tripletlists/heel_tripletlist_test.txt"
    spoil(packed, flipped, "differs from its file")
    spoil(packed, lambda whole: whole[:-3000], "not a complete file of packed images")
    spoil(packed, None, "there is no such file of packed images")
    spoil(lists, lambda whole: b"1" + whole, f"{lists}: missing, or not what the downloads say")
    spoil(lists, None, f"{lists}: missing, or not what the downloads say")
    spoil(out / "filenames.json", lambda whole: whole[:-9], "filenames.json: missing, or not what")
    spoil(out / "query_test.txt", lambda whole: whole + whole[:6], "its rows are not those")
    spoil(one, None, "1 of 120 photos are not in")
    spoil(one, lambda whole: whole[:300], f"{one}: damaged or cut short")
    assert go(script, root, out.parent, "--check") == 0
    capsys.readouterr()
    before = contents(out)
    for file in (packed, lists, out / "filenames_test.txt"):
        file.write_bytes(file.read_bytes()[:-20])
        assert go(script, root, out.parent, "--dry-run") == 0
        assert "Would write" in capsys.readouterr().out
        if file != out / "filenames_test.txt":
            file.write_bytes(before[file.relative_to(out)])
    lists.unlink()
    assert go(script, root, out.parent) == 0
    assert contents(out) == before
