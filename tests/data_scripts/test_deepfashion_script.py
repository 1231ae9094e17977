import importlib.util
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from agman import storage
from agman.attributes import DEEPFASHION
from agman.datasets import PackedImages, prepared, read_asen
from tests.data_scripts import trees

ROOT = Path(__file__).resolve().parents[2]
N = 60
GROUPS = ("texture", "fabric", "shape", "part", "style")
CLOTH = "Anno_coarse/list_attr_cloth.txt"
LABELS = "Anno_coarse/list_attr_img.txt"
PARTITION = "Eval/list_eval_partition.txt"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "deepfashion_script", ROOT / "data_scripts/deepfashion.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return trees.deepfashion_tree(tmp_path_factory.mktemp("deepfashion"), N)


@pytest.fixture
def root(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "root"))


def zipped(archive, folder, prefix=""):
    """An archive of all files of a folder."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                out.write(file, prefix + file.relative_to(folder).as_posix())
    return archive


@pytest.fixture
def zips(original, tmp_path):
    """The same as archives: one with its own folder inside, one without, one beside its folder."""
    root = tmp_path / "zips"
    zipped(root / "Anno_coarse.zip", original / "Anno_coarse", "Anno_coarse/")
    zipped(root / "Anno_fine.zip", original / "Anno_fine", "Anno_fine/")
    zipped(root / "Eval.zip", original / "Eval")
    zipped(root / "Img/img.zip", original / "Img")
    return root


def go(script, root, out, *words):
    return script.main(["--root", str(root), "--out", str(out), "--side", "24", *words])


def state(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(script, capsys, root, *words):
    """The one sentence of a refused run, which leaves nothing half-written."""
    out = root.parent / "refused"
    assert go(script, root, out, *words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not list(out.parent.rglob("*.part"))
    return re.sub(r".*\r", "", error.strip()).splitlines()[-1]


def every_row(data):
    return {
        row
        for split in prepared.SPLITS
        for table in prepared.tables(data, split)
        for row in prepared.rows(table)
    }


def images_of(table):
    return {name for name, _, _ in prepared.rows(table)}


def lines_of(file):
    return file.read_text().splitlines()


# ------------------------------------------------------------------ what a right run gives


def spelled_out(root):
    """(file, attribute name, value name) by hand from the files, and the status of each file."""
    columns = []
    for line in lines_of(root / CLOTH)[2:]:
        name, kind = re.fullmatch(r"(.*\S)\s+(\d)", line).groups()
        columns.append((GROUPS[int(kind) - 1], name))
    truth = set()
    for line in lines_of(root / LABELS)[2:]:
        file, *cells = line.split()
        truth |= {(file, *column) for column, cell in zip(columns, cells) if cell == "1"}
    return truth, dict(line.split() for line in lines_of(root / PARTITION)[2:])


def test_the_download_becomes_lists_and_packed_images(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    data = read_asen(out, "DeepFashion", images=root / "Img")
    truth, status = spelled_out(root)
    schema = data.schema
    assert schema.names == GROUPS
    named = {(n, schema.names[a], schema.values[a][v]) for n, a, v in every_row(data)}
    assert named == truth
    assert schema.values[0] == ("abstract chevron print", "floral", "polka dot", "striped")
    several = [(n, a) for n, a, _ in truth]
    assert len(several) > len(set(several)), "an image with two values of one group"
    for split, word in zip(prepared.SPLITS, ("train", "val", "test")):
        parts = prepared.tables(data, split)
        found = set().union(*map(images_of, parts))
        assert found == {n for n, _, _ in truth if status[n] == word}
        packed = PackedImages.open(out / f"DeepFashion/{split}_24.npz")
        assert packed.names == parts[0].images.names
        assert np.array_equal(packed.load([2, 0], 24), parts[0].images.load([2, 0], 24))
    for part in (data.valid, data.test):
        queries, gallery = images_of(part.queries), images_of(part.gallery)
        assert not queries & gallery
        assert len(queries) == round(0.2 * len(queries | gallery))
    text = capsys.readouterr().out
    bare = N - len({n for n, _, _ in truth})
    assert bare
    assert f"{N} images with {len(truth)} labels of 16 values" in text
    assert f"{bare} have no label and are left out; 7 cells are unknown" in text
    assert re.search(rf"^all +{len(data.train)} +{len(data.valid.queries)} ", text, re.MULTILINE)


def test_a_second_run_changes_nothing(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    before = state(out) | state(root)
    assert go(script, root, out) == 0
    assert go(script, root, out, "--check") == 0
    capsys.readouterr()
    assert go(script, root, out, "--dry-run") == 0
    assert "Nothing is left to do" in capsys.readouterr().out
    assert state(out) | state(root) == before


def test_archives_give_the_same_as_folders(script, root, zips, tmp_path, capsys):
    assert go(script, root, tmp_path / "a") == 0
    assert go(script, zips, tmp_path / "b") == 0
    text = capsys.readouterr().out
    for name, n in (("Anno_coarse", 2), ("Eval", 1), ("img", N)):
        assert f"{n} files of {name}.zip unpacked" in text
    assert "Anno_fine" not in text
    assert (zips / "Img/img").is_dir()
    assert (zips / PARTITION).is_file()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    before = state(zips)
    assert go(script, zips, tmp_path / "b") == 0
    assert state(zips) == before


def test_other_places_of_the_same_files(script, root, tmp_path):
    assert go(script, root, tmp_path / "a") == 0
    (root / "Anno_coarse").rename(root / "Anno")
    (root / "Img/img").rename(root / "img")
    (root / "Img").rmdir()
    zipped(root / "Img/img.zip", root / "img", "img/")
    assert go(script, root, tmp_path / "b") == 0
    assert not (root / "Img/img").exists(), "unpacked once more beside the images"
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_dry_run_writes_nothing(script, root, zips, tmp_path, capsys):
    out = tmp_path / "out"
    before = state(root) | state(zips)
    assert go(script, root, out, "--dry-run") == 0
    n = len({name for name, _, _ in spelled_out(root)[0]})
    words = f"pack {n} images of 24 x 24 pixels there ({n * 24 * 24 * 3 / 1e6:.1f} MB; "
    assert words in capsys.readouterr().out
    assert go(script, zips, out, "--dry-run") == 0
    text = capsys.readouterr().out
    assert f"Would unpack {N} of {N} files of img.zip" in text
    assert f"pack {N} images" in text
    assert go(script, root, out, "--no-pack", "--dry-run") == 0
    assert f"Would write the lists of {n} images" in capsys.readouterr().out
    assert not out.exists()
    assert state(root) | state(zips) == before


def test_the_room_that_all_images_need(script, tmp_path):
    assert "(56.9 GB; " in prepared.planned("DeepFashion", 289_222, tmp_path, 256)


def test_lists_alone(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--no-pack") == 0
    assert f"--images {root / 'Img'} --run" in capsys.readouterr().out
    assert not list(out.rglob("*.npz"))
    assert go(script, root, out, "--no-pack", "--check") == 0
    assert go(script, root, out, "--check") == 2


def test_the_seed_chooses_other_queries(script, root, tmp_path):
    parts = []
    for seed in ("0", "1"):
        assert go(script, root, tmp_path / seed, "--no-pack", "--seed", seed) == 0
        data = read_asen(tmp_path / seed, images=root / "Img")
        parts.append([images_of(data.train), images_of(data.valid.queries)])
    assert parts[0][0] == parts[1][0]
    assert parts[0][1] != parts[1][1]


# ------------------------------------------------------------------ the values


def counted(rows, header):
    return "\n".join([str(len(rows)), header, *rows]) + "\n"


def benchmark_columns():
    """1,000 rows in one alphabet over all types, as many of each as the benchmark has."""
    kinds = [a for a, n in enumerate(DEEPFASHION.n_values) for _ in range(n)]
    kinds = np.random.default_rng(0).permutation(kinds).tolist()
    return [(f"name {i:03d}", a + 1) for i, a in enumerate(kinds)]


def test_the_benchmarks_thousand_values_follow_the_order_of_the_file(script, tmp_path):
    columns = benchmark_columns()
    path = tmp_path / "list_attr_cloth.txt"
    path.write_text(counted([f"{n:20} {t}" for n, t in columns], "attribute_name attribute_type"))
    schema, attribute, value = script.read_columns(path, "coarse")
    assert (schema.names, schema.n_values) == (DEEPFASHION.names, DEEPFASHION.n_values)
    for (name, kind), a, v in zip(columns, attribute, value):
        assert a == kind - 1
        assert schema.values[a][v] == name
        assert v == sum(t == kind and n < name for n, t in columns)


def test_a_thousand_values_of_other_types_are_refused(script, root, capsys):
    columns = benchmark_columns()
    columns[5] = (columns[5][0], columns[5][1] % 5 + 1)
    file = root / CLOTH
    file.write_text(counted([f"{n} {t}" for n, t in columns], "attribute_name attribute_type"))
    message = refused(script, capsys, root)
    assert message.startswith(f"{file}: its types have (")
    assert "instead of (156, 218, 180, 216, 230)" in message


def test_a_name_that_comes_twice_in_a_type_stays_two_values(script, tmp_path):
    path = tmp_path / "list_attr_cloth.txt"
    rows = ["lace 2", "lace 4", "lace 2", "knit 2"]
    path.write_text(counted(rows, "attribute_name attribute_type"))
    schema, attribute, value = script.read_columns(path, "coarse")
    assert schema.values == ((), ("lace", "lace (1)", "knit"), (), ("lace",), ())
    assert list(zip(attribute, value)) == [(1, 0), (3, 0), (1, 1), (1, 2)]


# ------------------------------------------------------------------ the fine labels


def test_fine_labels_of_both_forms(script, root, tmp_path, capsys):
    assert go(script, root, tmp_path / "a", "--labels", "fine") == 0
    assert f"{N} images with {6 * N} labels of 26 values" in capsys.readouterr().out
    trees.deepfashion_tree(root, N, fine_columns="indices")
    assert len(lines_of(root / "Anno_fine/split/val_attr.txt")[0].split()) == 6
    assert go(script, root, tmp_path / "b", "--labels", "fine") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert go(script, root, tmp_path / "b", "--labels", "fine", "--check") == 0
    data = read_asen(tmp_path / "a", images=root / "Img")
    assert data.name == "DeepFashion_fine"
    assert data.schema.names == ("texture", "sleeve", "length", "neckline", "fabric", "fit")
    assert data.schema.n_values == (7, 3, 3, 4, 6, 3)
    for split, word in zip(prepared.SPLITS, ("train", "val", "test")):
        truth = set()
        folder = root / "Anno_fine/split"
        for name, line in zip(*(lines_of(folder / f"{word}{w}.txt") for w in ("", "_attr"))):
            truth |= {(name, a, int(v)) for a, v in enumerate(line.split())}
        found = {row for table in prepared.tables(data, split) for row in prepared.rows(table)}
        assert found == truth


def test_fine_and_coarse_labels_lie_side_by_side(script, root, tmp_path):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    coarse = contents(out / "DeepFashion")
    assert go(script, root, out, "--labels", "fine", "--no-pack") == 0
    assert contents(out / "DeepFashion") == coarse
    assert go(script, root, out, "--check") == 0


@pytest.mark.parametrize("folder", ["Anno_fine", "split"])
def test_fine_files_without_their_own_folder(script, root, tmp_path, folder):
    for file in (root / "Anno_fine/split").iterdir():
        (root / folder).mkdir(exist_ok=True)
        file.rename(root / folder / file.name)
    assert go(script, root, tmp_path / "a", "--labels", "fine", "--no-pack") == 0


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("flags", "0 0 0 0 0 1"),
        ("flags", " ".join("0" * 25)),
        ("flags", " ".join("0" * 25 + "2")),
        ("flags", " ".join("0" * 25 + "y")),
        ("indices", " ".join("0" * 26)),
        ("indices", "1 0 0 0 0"),
        ("indices", "0 0 0 4 0 0"),
        ("indices", "0 -1 0 0 0 0"),
        ("indices", "0 0 0 0 0 y"),
    ],
)
def test_a_wrong_line_of_fine_labels_is_named(script, root, capsys, form, line):
    file = root / "Anno_fine/split/val_attr.txt"
    rows = lines_of(file)
    if form == "indices":
        starts = np.cumsum([0, 7, 3, 3, 4, 6])
        whole = np.array([row.split() for row in rows], int)
        rows = [" ".join(map(str, np.flatnonzero(cells) - starts)) for cells in whole]
    file.write_text("\n".join([*rows[:3], line, *rows[4:]]))
    message = refused(script, capsys, root, "--labels", "fine")
    assert message.startswith(f"{file}, line 4: expected 26 labels 0 or 1, or in the whole file 6 ")


def test_fine_lists_that_do_not_belong_together(script, root, capsys):
    folder = root / "Anno_fine/split"
    whole = lines_of(folder / "test_attr.txt")
    (folder / "test_attr.txt").write_text("\n".join(whole[:-1]))
    message = refused(script, capsys, root, "--labels", "fine")
    assert message.startswith(f"{folder}/test_attr.txt: 11 lines beside the 12 of test.txt")
    (folder / "test_attr.txt").write_text("\n".join(whole))
    names = lines_of(folder / "test.txt")
    (folder / "test.txt").write_text("\n".join([lines_of(folder / "train.txt")[6], *names[1:]]))
    message = refused(script, capsys, root, "--labels", "fine")
    assert message.startswith(f"{folder}/test.txt, line 1: the image ")
    assert "already stands in train.txt, line 7" in message


# ------------------------------------------------------------------ damaged files


def replaced(file, number, line):
    """Put another line in place of one, counted from 1; None takes it out."""
    lines = lines_of(file)
    lines[number - 1 : number] = [] if line is None else [line]
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("file", "number", "line", "words"),
    [
        (LABELS, 1, "sixty", "line 1: 'sixty' is no count"),
        (LABELS, 1, "61", "60 rows where line 1 says 61"),
        (LABELS, 1, "-60", "line 1: '-60' is no count"),
        (LABELS, 2, "img/x.jpg 1 1", "line 2: 'img/x.jpg 1 1' instead of the column names"),
        (LABELS, 62, None, "59 rows where line 1 says 60"),
        (LABELS, 9, "img/x.jpg", "line 9: expected 16 labels"),
        (LABELS, 9, "img/x.jpg " + "-1 " * 15, "line 9: expected 16 labels"),
        (LABELS, 9, "img/x.jpg " + "-1 " * 17, "line 9: expected 16 labels"),
        (LABELS, 9, "img/x.jpg " + "-1 " * 15 + "y", "line 9: expected 16 labels"),
        (LABELS, 9, "img/x.jpg " + "-1 " * 16 + "y", "line 9: expected 16 labels"),
        (LABELS, 9, "img/x.jpg " + "-1 " * 15 + "2", "labels 1, -1 or 0"),
        (LABELS, 9, "img/../../x.jpg " + "-1 " * 16, "line 9: 'img/../../x.jpg' is no path"),
        (LABELS, 9, "/etc/x.jpg " + "-1 " * 16, "line 9: '/etc/x.jpg' is no path"),
        (PARTITION, 5, "img/x.jpg train", "line 5: 'img/x.jpg' is not in list_attr_img.txt"),
        (CLOTH, 4, "abstract chevron print", "line 4: 'abstract chevron print' does not end in"),
        (CLOTH, 4, "abstract 6", "line 4: 'abstract 6' does not end in a type from 1 to 5"),
        (CLOTH, 4, "abstract 0", "line 4: 'abstract 0' does not end in a type from 1 to 5"),
        (CLOTH, 4, "1", "line 4: '1' does not end in a type"),
        (CLOTH, 1, "17", "16 rows where line 1 says 17"),
    ],
)
def test_a_wrong_line_is_named(script, root, capsys, file, number, line, words):
    replaced(root / file, number, line)
    message = refused(script, capsys, root)
    assert message.startswith(f"{root / file}")
    assert words in message
    assert not (root.parent / "refused").exists()


def test_rows_that_come_twice_are_refused_with_both_lines(script, root, capsys):
    for file in (LABELS, PARTITION):
        lines = lines_of(root / file)
        replaced(root / file, 12, lines[6])
        message = refused(script, capsys, root)
        assert message.startswith(f"{root / file}, line 12: the image ")
        assert f"already stands in {Path(file).name}, line 7" in message
        replaced(root / file, 12, lines[11])


def test_a_status_of_another_kind_and_an_image_without_one(script, root, capsys):
    name = lines_of(root / PARTITION)[4].split()[0]
    replaced(root / PARTITION, 5, f"{name}  valid")
    assert "line 5: 'valid' is not train, val or test" in refused(script, capsys, root)
    replaced(root / PARTITION, 5, None)
    replaced(root / PARTITION, 1, "59")
    message = refused(script, capsys, root)
    assert f"1 images of list_attr_img.txt are not in it, first {name!r}" in message


def test_a_file_that_is_no_text(script, root, capsys):
    (root / LABELS).write_bytes((root / LABELS).read_bytes().replace(b"Dress_1", b"Dress\xff1"))
    assert "line 5: not in UTF-8" in refused(script, capsys, root)


def test_a_folder_in_place_of_a_file(script, root, capsys):
    (root / LABELS).unlink()
    (root / LABELS).mkdir()
    assert f"{root / LABELS}: cannot be read" in refused(script, capsys, root)


def test_a_missing_part_says_where_to_get_it(script, root, tmp_path, capsys):
    for part in (CLOTH, LABELS, PARTITION, "Img/img"):
        (root / part).rename(tmp_path / "away")
        for words in ([], ["--check"], ["--dry-run"]):
            message = refused(script, capsys, root, *words)
            assert message.startswith(f"{root / part} is missing: agree to the terms")
            assert "http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html" in message
            assert "by hand" not in message
        (tmp_path / "away").rename(root / part)
    assert "There is no folder" in refused(script, capsys, tmp_path / "nowhere")
    shutil.rmtree(root / "Anno_fine")
    message = refused(script, capsys, root, "--labels", "fine")
    assert message.startswith(f"{root}/Anno_fine/list_attr_cloth.txt is missing")


@pytest.mark.parametrize("name", ["Img/img.7z.001", "Eval.rar", "Img/img.zip.002"])
def test_an_archive_of_another_kind_is_to_be_unpacked_by_hand(script, root, capsys, name):
    shutil.rmtree(root / "Img/img")
    (root / name).write_bytes(b"7z")
    message = refused(script, capsys, root)
    assert f"if it is in {root / name}, unpack that by hand" in message


def test_an_archive_of_other_folders_is_to_be_unpacked_by_hand(script, zips, root, capsys):
    zipped(zips / "Eval.zip", root / "Eval", "DeepFashion/Eval/")
    message = refused(script, capsys, zips)
    assert message.startswith(f"{zips / PARTITION} is missing")
    assert f"if it is in {zips / 'Eval.zip'}, unpack that by hand" in message


def test_a_truncated_archive_is_refused_before_anything_is_written(script, zips, capsys):
    archive = zips / "Img/img.zip"
    archive.write_bytes(archive.read_bytes()[:-5000])
    message = refused(script, capsys, zips)
    assert message.startswith(f"{archive}: damaged, cut short")
    assert not list(zips.rglob("*.txt"))


@pytest.mark.parametrize("name", ["../escape.txt", "/tmp/escape.txt"])
def test_an_archive_that_escapes_is_refused(script, zips, capsys, name):
    with zipfile.ZipFile(zips / "Eval.zip", "a") as archive:
        archive.writestr(name, b"1")
    assert "its path leaves the folder" in refused(script, capsys, zips)
    assert not list(zips.rglob("*.txt"))


def test_missing_images_are_counted(script, root, capsys):
    for file in sorted((root / "Img").rglob("*.jpg"))[:2]:
        file.unlink()
    assert f"2 of {N} images are not in {root / 'Img'}, first img/" in refused(script, capsys, root)


def test_a_damaged_image_is_named_while_packing(script, root, tmp_path, capsys):
    name = next(n for n, a, _ in sorted(spelled_out(root)[0]) if a == "style")
    file = root / "Img" / name
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert f"{file}: damaged or cut short" in refused(script, capsys, root)
    file.write_bytes(whole)
    assert go(script, root, tmp_path / "refused") == 0


def test_a_full_disk_leaves_nothing_half_written(script, root, zips, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "replace", full)
    for folder in (root, zips):
        assert "No space left on device" in refused(script, capsys, folder)
    assert not (tmp_path / "refused/DeepFashion/label_train.txt").exists()
    monkeypatch.undo()
    monkeypatch.setattr(prepared, "free_bytes", lambda _: 1000)
    assert "packing the images needs" in refused(script, capsys, root)
    assert "unpacking Anno_coarse.zip needs" in refused(script, capsys, zips)
    monkeypatch.undo()
    assert go(script, zips, tmp_path / "refused") == 0


# ------------------------------------------------------------------ killed, spoilt, mended


def test_a_killed_run_goes_on_to_the_same_bytes(script, zips, root, tmp_path, monkeypatch):
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
    assert [p.name for p in out.rglob("*.npz")] == ["train_24.npz"]
    before = state(out)
    monkeypatch.undo()
    assert go(script, zips, out) == 0
    after = state(out)
    assert [p.name for p, when in before.items() if after.get(p) != when] == [
        ".valid_24.npz.99.part"
    ]
    assert go(script, root, tmp_path / "straight") == 0
    assert contents(out) == contents(tmp_path / "straight")


def test_killed_while_unpacking(script, zips, root, tmp_path):
    with zipfile.ZipFile(zips / "Img/img.zip") as archive:
        for name in archive.namelist()[:20]:
            archive.extract(name, zips / "Img")
    half = sorted((zips / "Img/img").rglob("*.jpg"))[5]
    half.write_bytes(half.read_bytes()[:100])
    assert go(script, zips, tmp_path / "a") == 0
    assert go(script, root, tmp_path / "b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_check_notices_what_was_spoilt(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--check") == 2  # nothing there yet
    assert go(script, root, out) == 0

    def problem():
        capsys.readouterr()
        assert go(script, root, out, "--check") == 2
        return capsys.readouterr().err

    file = out / "DeepFashion/label_train.txt"
    right = file.read_text()
    file.write_text(right.replace("\n0 ", "\n1 ", 1) if "\n0 " in right else right[:-5] + "\n")
    assert f"{file}" in problem()
    file.write_text(right)

    packed = out / "DeepFashion/train_24.npz"
    whole = packed.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF
    packed.write_bytes(spoilt)
    assert "differs from its file" in problem()
    packed.write_bytes(whole)

    image = root / "Img" / read_asen(out, check_images=False).test.queries.images.names[0]
    image.rename(tmp_path / "away.jpg")
    assert f"1 of {N} images are not in" in problem()
    (tmp_path / "away.jpg").rename(image)
    assert go(script, root, out, "--check") == 0


# ------------------------------------------------------------------ ASEN's published lists


@pytest.fixture
def lists(script, root, tmp_path):
    """Eight lists as ASEN publishes them: no meta.json, other queries than ours."""
    assert go(script, root, tmp_path / "other", "--seed", "5", "--no-pack") == 0
    folder = tmp_path / "lists"
    folder.mkdir()
    for file in (tmp_path / "other/DeepFashion").glob("*.txt"):
        shutil.copy(file, folder)
    assert len(list(folder.iterdir())) == 8
    return folder


def test_published_lists_are_taken_as_they_are(script, root, lists, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--splits", str(lists)]
    assert go(script, root, out, *words) == 0
    n = len(spelled_out(root)[0])
    assert f"{n} of {n} rows of {lists} stand in list_attr_img.txt" in capsys.readouterr().out
    for file in lists.iterdir():
        assert (out / "DeepFashion" / file.name).read_text() == file.read_text()
    data = read_asen(out / "DeepFashion")
    assert data.schema.values[0][0] == "abstract chevron print"
    assert go(script, root, out, *words, "--check") == 0
    assert go(script, root, out, "--check") == 2  # our own queries are others


def test_published_lists_that_number_the_values_otherwise_keep_numbers(
    script, root, lists, tmp_path, capsys
):
    file = lists / "query_test.txt"
    first, *others = file.read_text().splitlines()
    image, attribute, value = first.split()
    file.write_text("\n".join([f"{image} {attribute} {(int(value) + 1) % 3}", *others]) + "\n")
    assert go(script, root, tmp_path / "out", "--splits", str(lists)) == 0
    n = len(spelled_out(root)[0])
    assert f"{n - 1} of {n} rows of {lists} stand in" in capsys.readouterr().out
    data = read_asen(tmp_path / "out/DeepFashion")
    assert data.schema.values[0] == ("0", "1", "2", "3")
    assert (tmp_path / "out/DeepFashion/query_test.txt").read_text() == file.read_text()


def test_published_lists_need_no_annotation_files(script, root, lists, tmp_path):
    for folder in ("Anno_coarse", "Anno_fine", "Eval"):
        shutil.rmtree(root / folder)
    assert go(script, root, tmp_path / "out", "--splits", str(lists)) == 0
    assert read_asen(tmp_path / "out/DeepFashion").schema == DEEPFASHION


def test_published_lists_that_do_not_fit(script, root, lists, tmp_path, capsys):
    words = ["--splits", str(lists)]
    message = refused(script, capsys, root, *words, "--labels", "fine")
    assert "ASEN's lists are of the coarse labels" in message
    assert "There is no folder" in refused(script, capsys, root, "--splits", str(lists / "x"))
    file = lists / "filenames_test.txt"
    whole = file.read_text()
    (tmp_path / "secret.jpg").touch()
    file.write_text(whole.replace(whole.split()[0], "../../secret.jpg"))
    assert f"{file}, line 1: '../../secret.jpg' is no path" in refused(script, capsys, root, *words)
    file.write_text(whole.replace("img/", "images/"))
    message = refused(script, capsys, root, *words)
    assert message.startswith(f"{file}: ")
    assert "images are not in" in message
    file.unlink()
    assert f"{file}: the file is missing" in refused(script, capsys, root, *words)
    for kind in ("query", "candidate"):
        (lists / f"{kind}_test.txt").unlink()
    assert f"{file}: missing or empty" in refused(script, capsys, root, *words)
