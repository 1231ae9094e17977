"""From a table on the hub, or a folder, to what `agman train` reads; no copies on both sides."""

import csv
import importlib.util
import io
import itertools
import json
import re
import shutil
import sys
import threading
import types
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from agman import storage
from agman.attributes import AttributeSchema, AttributeTable
from agman.datasets import FolderImages, PackedImages, prepared, read_asen
from agman.errors import InputError
from tests.data_scripts import products_tree

ROOT = Path(__file__).resolve().parents[2]
HUB_ID = "someone/some-photos"
FILES = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")
WORDS = ("--side", "24", "--min-photos", "5")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "products_script", ROOT / "data_scripts/product_photos.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def rows():
    """126 drawn photos, 12 of them copies; two rows without a photo in between."""
    rows = products_tree.products(114, 12)
    rows[40:40] = [{**rows[3], "id": 1, "image": None}]
    rows[80:80] = [{**rows[3], "id": 2, "image": {"bytes": None, "path": "x.jpg"}}]
    return rows


@pytest.fixture
def root(rows, tmp_path):
    return products_tree.products_tree(tmp_path / "root", [r for r in rows if r["id"] > 2])


@pytest.fixture
def parquet(script, monkeypatch):
    """pyarrow, or what stands in for it."""
    real = sys.modules.get("pyarrow.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    module = types.ModuleType("pyarrow.parquet")
    module.ParquetFile = products_tree.StandIn
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)
    return real


class FakeHub:
    """In place of the class that asks the hub."""

    def __init__(self, folder, hub_id):
        self.folder, self.name, self.how = folder, hub_id, f"downloaded to {folder}"
        self.fetched, self.asked = [], []

    def files(self, revision):
        self.asked.append(revision)
        return revision or "abc", {name: (self.folder / name).stat().st_size for name in FILES}

    def fetch(self, revision, file):
        self.fetched.append(file)
        return self.folder / file


@pytest.fixture
def hub(script, parquet, rows, tmp_path, monkeypatch):
    shelf = FakeHub(tmp_path / "hub", HUB_ID)
    for name, part in zip(FILES, (rows[:60], rows[60:])):
        products_tree.write_stand_in(part, shelf.folder / name)
    monkeypatch.setattr(script, "HuggingFace", lambda hub_id: shelf)
    return shelf


def go(script, root, out, *words):
    return script.main(["--root", str(root), "--out", str(out), "--hub-id", HUB_ID, *WORDS, *words])


def state(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in state(folder)}


def sides(out):
    """Names of the photos of train, valid and test."""
    data = read_asen(out / "products")
    return [
        {name for table in prepared.tables(data, split) for name, _, _ in prepared.rows(table)}
        for split in prepared.SPLITS
    ]


def refused(script, capsys, root, *words):
    out = root.parent / "refused"
    assert go(script, root, out, *words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not list(out.parent.rglob("*.part"))
    assert not (out / "products" / "label_train.txt").exists()
    message = re.sub(r".*\r", "", error.strip()).splitlines()[-1]
    assert message.endswith((".", "?"))
    return message


# ------------------------------------------------------------------ what a right run gives


def test_a_folder_becomes_lists_and_packed_photos(script, root, rows, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out) == 0
    text = capsys.readouterr().out
    assert text.rstrip().splitlines()[-1].startswith(f"Next: agman train --data {out}/products")
    data = read_asen(out / "products")
    assert data.schema.names == script.ATTRIBUTES
    truth = {f"{row['id']}.jpg": row for row in rows}
    counts = {
        name: Counter(row[name] for row in rows if row["id"] > 2) for name in script.ATTRIBUTES
    }
    n = 0
    for split in prepared.SPLITS:
        for table in prepared.tables(data, split):
            for name, a, v in prepared.rows(table):
                attribute = data.schema.names[a]
                value = data.schema.values[a][v]
                assert truth[name][attribute] == value
                assert counts[attribute][value] >= 5
                n += 1
    assert n == sum(
        count for each in counts.values() for value, count in each.items() if value and count >= 5
    )
    assert counts["articleType"]["Vouchers"] == 1
    assert re.search(r"^articleType: \d+ values; \d+ more have fewer than 5 photos", text, re.M)
    folder = FolderImages(
        root / "images", (out / "products/filenames_test.txt").read_text().split()
    )
    packed = PackedImages.open(out / "products/test_24.npz")
    assert packed.names == folder.names
    some = range(len(folder))
    assert (packed.load(some, 24) == folder.load(some, 24)).all()
    everything = sides(out)
    assert sum(map(len, everything)) == len(set.union(*everything))
    assert 0.6 < len(everything[0]) / len(set.union(*everything)) < 0.8


def test_a_second_run_and_a_dry_run_change_nothing(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "pack 126 images of 24 x 24 pixels there (0.2 MB" in text
    assert "126 photos; 12 groups of look-alikes with 24 photos, at most 2 in one" in text
    assert not out.exists()
    assert go(script, root, out) == 0
    before = state(out) | state(root)
    assert go(script, root, out) == 0
    assert go(script, root, out, "--check") == 0
    assert "every image compared" in capsys.readouterr().out
    assert go(script, root, out, "--dry-run") == 0
    assert "Nothing is left to do" in capsys.readouterr().out
    assert state(out) | state(root) == before


def test_the_order_of_the_lines_does_not_change_the_split(script, root, tmp_path):
    assert go(script, root, tmp_path / "a") == 0
    with (root / "labels.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *reversed(lines)])
    assert go(script, root, tmp_path / "b") == 0
    assert sides(tmp_path / "a") == sides(tmp_path / "b")
    assert go(script, root, tmp_path / "c", "--seed", "1") == 0
    assert sides(tmp_path / "a") != sides(tmp_path / "c")


def test_fewer_photos_and_other_attributes(script, root, tmp_path):
    out = tmp_path / "out"
    assert go(script, root, out, "--n", "60", "--attributes", "season", "gender") == 0
    assert read_asen(out / "products").schema.names == ("season", "gender")
    with (root / "labels.csv").open(newline="") as file:
        first = {row["file"] for row in csv.DictReader(file) if file}
    assert set.union(*sides(out)) <= first
    assert len(set.union(*sides(out))) == 60
    assert not any(name.startswith("9") for name in set.union(*sides(out)))  # the last lines


def test_an_attribute_without_a_choice_is_left_out(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--attributes", "masterCategory", "gender") == 0
    assert "masterCategory: 1 values; left out" in capsys.readouterr().out
    assert read_asen(out / "products").schema.names == ("gender",)
    message = refused(script, capsys, root, "--attributes", "masterCategory")
    assert "no attribute has two values with 5 photos each" in message


# ------------------------------------------------------------------ photos that look the same


def test_copies_never_land_on_both_sides(script, root, rows, tmp_path):
    pairs = [(f"{rows[0]['id'] + i * 114 // 12}.jpg", f"{90_000 + i}.jpg") for i in range(12)]
    for seed in range(3):
        out = tmp_path / str(seed)
        assert go(script, root, out, "--seed", str(seed), "--no-pack") == 0
        lists = [
            set((out / f"products/filenames_{split}.txt").read_text().split())
            for split in prepared.SPLITS
        ]
        for one, two in pairs:
            assert [one in side for side in lists] == [two in side for side in lists]
    assert len({tuple(one in side for side in lists) for one, _ in pairs}) > 1


CHANGES = {
    "compressed": lambda photo: compressed(photo, 30),
    "smaller": lambda photo: compressed(photo.resize((202, 200)), 85),
    "larger": lambda photo: compressed(photo.resize((250, 246)), 85),
    "brighter": lambda photo: compressed(ImageEnhance.Brightness(photo).enhance(1.1), 85),
    "much brighter": lambda photo: compressed(ImageEnhance.Brightness(photo).enhance(1.15), 85),
    "darker": lambda photo: compressed(ImageEnhance.Brightness(photo).enhance(0.87), 85),
    "all": lambda photo: compressed(
        ImageEnhance.Brightness(photo.resize((200, 200))).enhance(0.92), 50
    ),
}


def compressed(photo, quality):
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.fixture(scope="module")
def real_photos(realdata):
    """A third of the real product photos."""
    names = sorted(path.name for path in (realdata / "product-photos-224/images").glob("*.jpg"))
    return FolderImages(realdata / "product-photos-224/images", names[::3])


@pytest.fixture(scope="module")
def real_thumbnails(script, real_photos):
    return script.thumbnails(real_photos, np.arange(len(real_photos)))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_of_real_photos_are_found(
    script, real_photos, real_thumbnails, change, tmp_path
):
    chosen = np.random.default_rng(0).permutation(len(real_photos))[:60]
    for i in chosen:
        photo = Image.open(real_photos.path(i)).convert("RGB")
        CHANGES[change](photo).save(tmp_path / real_photos.names[i], "JPEG", quality=92)
    copies = FolderImages(tmp_path, [real_photos.names[i] for i in chosen])
    changed = script.thumbnails(copies, np.arange(len(chosen)))
    first = script.alike(np.concatenate([real_thumbnails[chosen], changed]))
    assert (first[: len(chosen)] == first[len(chosen) :]).all()
    assert Counter(first.tolist()).most_common(1)[0][1] <= 4


def test_real_photos_of_different_things_are_not_merged(script, real_thumbnails):
    """The set was cleared of copies, so what is found are things that look alike: below 0.5 %."""
    sizes = np.bincount(script.alike(real_thumbnails))
    assert sizes[sizes > 1].sum() < 0.005 * len(real_thumbnails)
    assert sizes.max() <= 5


def slowly_alike(script, small):
    """Groups from all pairs, one by one, and a search through the neighbours."""
    n = len(small)
    signs = script.difference_hash(small.reshape(n, 8, 4, 9, 4, 3).mean((2, 4), np.float32))
    cells = small.reshape(n, 16, 2, 18, 2, 3).mean((2, 4), np.float32)

    def same(i, j):
        bits = (signs[i] != signs[j]).sum()
        colors = script.color_difference(cells[i : i + 1], cells[j : j + 1])[0]
        return bits <= script.MOST_BITS and colors <= script.MOST_DIFFERENCE

    group = [-1] * len(small)
    for start in range(len(small)):
        waiting = [start] if group[start] < 0 else []
        while waiting:
            i = waiting.pop()
            group[i] = start
            waiting += [j for j in range(len(small)) if group[j] < 0 and same(min(i, j), max(i, j))]
    return group


@settings(max_examples=40)
@given(st.data())
def test_groups_are_those_of_all_pairs(script, data):
    """Chains, copies and unrelated noise, in blocks smaller than the whole."""
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    base = draw.integers(0, 256, (4, 16, 18, 3)).repeat(2, axis=1).repeat(2, axis=2)
    base = 120 + (base - 120) * data.draw(st.sampled_from([1, 0.05, 0.02]))  # also flat ones
    which = draw.integers(0, 4, data.draw(st.integers(1, 24)))
    small = base[which] * draw.uniform(0.7, 1, (len(which), 1, 1, 1))
    small += draw.normal(0, data.draw(st.sampled_from([0, 2, 5, 12, 25])), small.shape)
    small = np.clip(small, 0, 255).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "BLOCK", data.draw(st.integers(1, 30)))
        assert script.alike(small).tolist() == slowly_alike(script, small)


def test_the_hash_says_which_cells_are_clearly_brighter_than_their_neighbours(script):
    cells = np.random.default_rng(0).integers(100, 106, (3, 8, 9, 3)).astype(np.float32)
    expected = [
        [a > b + 2 for row in gray for a, b in itertools.pairwise(row)]
        + [a > b + 2 for above, below in itertools.pairwise(gray) for a, b in zip(above, below)]
        for gray in (cells @ np.array([0.299, 0.587, 0.114], np.float32)).tolist()
    ]
    assert (script.difference_hash(cells) > 0).tolist() == expected
    assert 0.02 < np.mean(expected) < 0.4


def test_brightness_is_forgiven_and_color_is_not(script):
    draw = np.random.default_rng(0)
    cells = draw.uniform(0, 255, (20, 8, 9, 3)).astype(np.float32)
    for gain in (0.85, 0.95, 1.0, 1.1, 1.2):
        other = np.minimum(cells * gain, 255)  # white stays white
        assert (script.color_difference(cells, other) < 1e-3).all()
        assert (script.color_difference(other, cells) < 1e-3).all()
    assert (script.color_difference(cells, cells * 1.3) > script.MOST_DIFFERENCE).all()
    red = cells.copy()
    red[..., 0] = 255 - red[..., 0]
    assert (script.color_difference(cells, red) > script.MOST_DIFFERENCE).all()
    mixed = cells.copy()
    mixed[:, :4] *= 0.9
    mixed[:, 4:] *= 1.1  # brighter here, darker there
    assert (script.color_difference(cells, mixed) > script.MOST_DIFFERENCE).all()
    black, white = np.zeros((1, 8, 9, 3), np.float32), np.full((1, 8, 9, 3), 255, np.float32)
    assert script.color_difference(black, white) == 255
    assert script.color_difference(white, white) == script.color_difference(black, black) == 0


def test_values_with_few_photos_leave_and_the_rest_is_renumbered(script):
    schema = AttributeSchema(("a", "b"), (("x", "y", "z"), ("u", "v")), "t")
    images = FolderImages("folder", [f"{i}.jpg" for i in range(9)])
    value = [0, 0, 0, 1, 2, 2, 2, 2, 1]
    table = AttributeTable(
        schema, images, np.arange(18) % 9, np.arange(18) // 9, np.array([*value, *[0] * 8, 1])
    )
    left = script.without_rare_values(table, 3)
    assert left.schema == AttributeSchema(("a",), (("x", "z"),), "products")
    expected = [(f"{i}.jpg", 0, v // 2) for i, v in enumerate(value) if v != 1]
    assert prepared.rows(left) == expected


# ------------------------------------------------------------------ the hub


def test_the_hub_gives_the_same_as_a_folder(script, hub, root, rows, tmp_path, capsys):
    fresh = tmp_path / "fresh"
    assert go(script, fresh, tmp_path / "a", "--n", "0") == 0
    text = capsys.readouterr().out
    for file in FILES:
        size = prepared.gigabytes((hub.folder / file).stat().st_size)
        assert f"Reading {file} of {HUB_ID} ({size}), downloaded to {hub.folder}." in text
    assert f"126 photos in {fresh / 'images'}; 2 rows have none." in text
    assert go(script, root, tmp_path / "b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(fresh / "images") == contents(root / "images")
    with (fresh / "labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["file"] for line in lines] == [f"{r['id']}.jpg" for r in rows if r["id"] > 2]
    assert all(line["usage"] != "None" for line in lines)
    assert lines[0]["productDisplayName"] == " ".join(rows[0]["productDisplayName"].split())
    before = state(fresh) | state(tmp_path / "a")
    assert go(script, fresh, tmp_path / "a", "--n", "0") == 0
    assert hub.fetched == list(FILES)
    assert state(fresh) | state(tmp_path / "a") == before


def test_only_the_files_that_are_needed_are_downloaded(script, hub, tmp_path):
    fresh = tmp_path / "fresh"
    assert go(script, fresh, tmp_path / "a", "--n", "50") == 0
    assert hub.fetched == list(FILES[:1])
    assert len(list((fresh / "images").iterdir())) == 50
    assert go(script, fresh, tmp_path / "a", "--n", "40") == 0
    assert hub.fetched == list(FILES[:1])
    assert len(set.union(*sides(tmp_path / "a"))) == 40
    before = state(fresh / "images")
    assert go(script, fresh, tmp_path / "a", "--n", "70") == 0
    assert hub.fetched == [FILES[0], *FILES]
    assert hub.asked == [None, "abc"]  # the same revision, whatever is newest
    assert len(set.union(*sides(tmp_path / "a"))) == 70
    assert state(fresh / "images").items() >= before.items()
    assert go(script, fresh, tmp_path / "a", "--n", "0") == 0
    assert len(set.union(*sides(tmp_path / "a"))) == 126


def test_a_dry_run_downloads_nothing(script, hub, tmp_path, capsys):
    assert go(script, tmp_path / "fresh", tmp_path / "out", "--dry-run", "--n", "50") == 0
    text = capsys.readouterr().out
    assert f"Would read as many of 2 files as 50 photos need of {HUB_ID} (" in text
    assert "pack 50 images of 24 x 24 pixels" in text
    assert not hub.fetched
    assert not (tmp_path / "fresh").exists()
    assert not (tmp_path / "out").exists()


def test_parquet_files_in_the_folder_are_read_without_the_hub(script, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "HuggingFace", None)
    for name in FILES:
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(hub.folder / name, tmp_path / "local" / name)
    assert go(script, tmp_path / "local", tmp_path / "out", "--n", "0") == 0
    assert len(set.union(*sides(tmp_path / "out"))) == 126
    assert go(script, tmp_path / "local", tmp_path / "out", "--n", "0", "--check") == 0


def test_killed_while_writing_photos(script, hub, tmp_path, monkeypatch):
    fresh, write, written = tmp_path / "fresh", script.write_photo, []

    def killed(path, photo):
        if len(written) == 30:
            raise KeyboardInterrupt
        written.append(path)
        write(path, photo)

    monkeypatch.setattr(script, "write_photo", killed)
    with pytest.raises(KeyboardInterrupt):
        go(script, fresh, tmp_path / "out")
    assert not (fresh / "labels.csv").exists()
    assert not list(tmp_path.rglob("*.part"))
    before = state(fresh / "images")
    assert len(before) == 30
    monkeypatch.setattr(script, "write_photo", write)
    assert go(script, fresh, tmp_path / "out") == 0
    assert state(fresh / "images").items() >= before.items()
    assert len(list((fresh / "images").iterdir())) == 126


def test_killed_while_adding_photos(script, hub, tmp_path, monkeypatch):
    fresh = tmp_path / "fresh"
    assert go(script, fresh, tmp_path / "out", "--n", "50") == 0

    def killed(path, photo):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "write_photo", killed)
        with pytest.raises(KeyboardInterrupt):
            go(script, fresh, tmp_path / "out", "--n", "70")
    assert go(script, fresh, tmp_path / "out", "--n", "70") == 0
    assert len(set.union(*sides(tmp_path / "out"))) == 70


def test_a_folder_of_another_data_set_is_left_alone(script, hub, tmp_path, capsys):
    fresh = tmp_path / "fresh"
    assert go(script, fresh, tmp_path / "out", "--n", "50") == 0
    before = state(fresh)
    message = refused(script, capsys, fresh, "--hub-id", "another/set")
    assert message.startswith(f"{fresh} holds photos of {HUB_ID}; choose another folder")
    assert state(fresh) == before
    (fresh / "source.json").write_text("[]")
    assert f"{fresh / 'source.json'}: not as this script writes it" in refused(
        script, capsys, fresh
    )


def test_a_missing_package_is_named_before_any_download(script, hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    message = refused(script, capsys, tmp_path / "fresh")
    assert message == 'The package pyarrow is missing; run: pip install "agman[hub]".'
    assert not hub.asked
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", types.ModuleType("pyarrow.parquet"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "The package huggingface_hub is missing" in refused(script, capsys, tmp_path / "fresh")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": 10_001}, "row 5: the number '10001' stands twice"),
        ({"id": "../../x"}, "row 5: the number '../../x' cannot be a file name"),
        ({"id": ""}, "row 5: the number '' cannot be a file name"),
    ],
)
def test_a_wrong_row_is_named(script, hub, rows, tmp_path, capsys, change, words):
    wrong = [*rows[:5], {**rows[5], **change}, *rows[6:60]]
    products_tree.write_stand_in(wrong, hub.folder / FILES[0])
    assert f"{hub.folder / FILES[0]}, {words}" in refused(script, capsys, tmp_path / "fresh")


def test_files_of_another_kind(script, hub, rows, tmp_path, capsys):
    file = hub.folder / FILES[0]
    file.write_bytes(file.read_bytes()[:-500])
    assert f"{file}: damaged, cut short or no parquet file (" in refused(
        script, capsys, tmp_path / "fresh"
    )
    products_tree.write_stand_in([{"id": 1, "photo": None}], file)
    message = refused(script, capsys, tmp_path / "fresh")
    assert "there is no column 'image' among id, photo" in message
    for name in FILES:
        products_tree.write_stand_in([{**rows[0], "image": None}], hub.folder / name)
    assert "there is no photo in its 2 parquet files" in refused(script, capsys, tmp_path / "fresh")


def test_photos_without_a_number_are_counted_through(script, hub, rows, tmp_path):
    for name, part in zip(FILES, (rows[:60], rows[60:])):
        bare = [{k: v for k, v in row.items() if k != "id"} for row in part]
        products_tree.write_stand_in(bare, hub.folder / name)
    assert go(script, tmp_path / "fresh", tmp_path / "out") == 0
    names = sorted(path.name for path in (tmp_path / "fresh/images").iterdir())
    assert names == [f"{i:06}.jpg" for i in range(126)]


def test_a_disk_too_small_or_full(script, hub, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "free_bytes", lambda _: 1000)
        message = refused(script, capsys, tmp_path / "fresh")
        assert f"unpacking {FILES[0]} needs" in message

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "replace", full)
        assert "No space left on device" in refused(script, capsys, tmp_path / "other")
    assert go(script, tmp_path / "other", tmp_path / "refused") == 0


def test_real_parquet_gives_what_the_stand_in_gives(script, rows, tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    written = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "some.parquet"
    written.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=50)
    found = list(script.parquet_rows(path))
    assert found == rows
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged, cut short or no parquet file"):
        list(script.parquet_rows(path))


class HubSite(BaseHTTPRequestHandler):
    """As much of the hub's protocol as its library needs for a public data set."""

    content = b"parquet" * 1000
    sha = "0123456789" * 4

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        body, headers = b"", {}
        if path.startswith(f"/api/datasets/{HUB_ID}"):
            files = [{"rfilename": "README.md", "size": 5}, {"rfilename": FILES[1], "size": 9}]
            files.append({"rfilename": FILES[0], "size": len(self.content)})
            body = json.dumps({"id": HUB_ID, "sha": self.sha, "siblings": files}).encode()
            headers = {"Content-Type": "application/json"}
        elif path == f"/datasets/{HUB_ID}/resolve/{self.sha}/{FILES[0]}":
            body = self.content
            headers = {"ETag": '"some"', "X-Repo-Commit": self.sha}
        self.server.asked.append((self.command, path))
        self.send_response(200 if body else 404)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def test_the_hubs_own_library_is_asked_rightly(script, tmp_path, monkeypatch):
    """Its functions have the names and arguments that the script uses, against a local server."""
    library = pytest.importorskip("huggingface_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubSite)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site = f"http://127.0.0.1:{server.server_port}"
    try:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        api, fetch = library.HfApi, library.hf_hub_download
        monkeypatch.setattr(library, "HfApi", lambda: api(endpoint=site, token=False))
        monkeypatch.setattr(
            library,
            "hf_hub_download",
            lambda *args, **options: fetch(
                *args, **options, endpoint=site, token=False, cache_dir=tmp_path
            ),
        )
        shelf = script.HuggingFace(HUB_ID)
        sizes = {FILES[0]: len(HubSite.content), FILES[1]: 9}
        assert shelf.files(None) == (HubSite.sha, sizes)
        assert list(shelf.files(HubSite.sha)[1]) == list(FILES)
        path = shelf.fetch(HubSite.sha, FILES[0])
        assert path.read_bytes() == HubSite.content
        asked = len(server.asked)
        assert shelf.fetch(HubSite.sha, FILES[0]) == path
        assert ("GET", path) not in server.asked[asked:]
        with pytest.raises(InputError, match=r"none/here: the Hugging Face hub did not give it"):
            script.HuggingFace("none/here").files(None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ------------------------------------------------------------------ damaged folders


def test_check_notices_what_was_spoilt(script, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert go(script, root, out, "--check") == 2  # nothing there yet
    assert go(script, root, out) == 0

    def problem():
        capsys.readouterr()
        assert go(script, root, out, "--check") == 2
        return capsys.readouterr().err

    packed, listing = out / "products/test_24.npz", out / "products/query_test.txt"
    photo = root / "images" / "10007.jpg"
    for file, spoilt, words in (
        (packed, lambda c: c[:9000] + bytes([c[9000] ^ 1]) + c[9001:], "differs from its file"),
        (packed, lambda c: c[:-3000], "not a complete file of packed images"),
        (listing, lambda c: c + c[: c.index(b"\n") + 1], "its rows are not those of the labels"),
        (photo, lambda c: c[:300], f"{photo}: damaged or cut short"),
        (photo, None, "there is no image '10007.jpg'"),
    ):
        whole = file.read_bytes()
        if spoilt:
            file.write_bytes(spoilt(whole))
        else:
            file.unlink()
        assert words in problem()
        file.write_bytes(whole)
    assert go(script, root, out, "--check") == 0
    before = contents(out)
    packed.unlink()
    listing.write_text("0 0 0\n")
    assert go(script, root, out) == 0
    assert contents(out) == before


def test_a_folder_without_the_wanted_columns(script, root, capsys):
    message = refused(script, capsys, root, "--attributes", "articletype")
    assert "there is no column 'articletype'" in message
    assert message.endswith("did you mean 'articleType'?")


def test_options_that_make_no_sense(script, root, capsys):
    assert "--n is a number of photos, or 0 for all, not -1" in refused(
        script, capsys, root, "--n", "-1"
    )
    assert "too few to split" in refused(script, capsys, root, "--n", "3", "--min-photos", "1")


def test_a_missing_folder_to_check(script, tmp_path, capsys):
    message = refused(script, capsys, tmp_path / "nowhere", "--check")
    assert "labels.csv: missing, or of fewer photos" in message
