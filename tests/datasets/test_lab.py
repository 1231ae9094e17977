"""The lab wardrobe: deterministic, honest about its labels, and not solvable by color."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agman.attributes import FASHIONAI
from agman.datasets.lab import LAB_CATEGORIES, draw, lab, lab_categories, lab_outfit, random_outfit
from agman.datasets.wardrobe import CATEGORIES, DRAWING_VERSION, Nuisance, Outfit
from agman.errors import InputError

lab_module = importlib.import_module("agman.datasets.lab")  # agman.datasets.lab is the function
NAMES = FASHIONAI.names
PAIRS = [(a, v) for a, values in zip(NAMES, FASHIONAI.values) for v in values]
VISIBLE = [(a, v) for a, v in PAIRS if v != "Invisible"]


def small(tmp_path, n_train=12, n_valid=6, n_test=6, **options):
    """A lab that is drawn in a moment."""
    options = {"progress": False, "workers": 1, "cache": tmp_path} | options
    return lab(n_train, n_valid, n_test, **options)


def pixels(data):
    return [np.asarray(t.images.array) for t in (data.train, data.valid.queries, data.test.queries)]


def rows(table):
    return np.column_stack([table.image, table.attribute, table.value, table.regions])


@pytest.fixture(scope="module")
def sample() -> list[tuple[Outfit, np.ndarray, dict]]:
    """400 outfits of the training split with their pictures and regions."""
    outfits = [lab_outfit("train", i) for i in range(400)]
    return [(o, np.asarray(image), boxes) for o in outfits for image, boxes in [draw(o)]]


# ------------------------------------------------------------------------------ determinism


def test_the_same_images_with_one_process_and_with_two(tmp_path):
    one = small(tmp_path / "one", n_train=205)
    two = small(tmp_path / "two", n_train=205, workers=2)
    for a, b in zip(pixels(one), pixels(two)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(rows(one.train), rows(two.train))
    np.testing.assert_array_equal(rows(one.test.gallery), rows(two.test.gallery))


def test_without_processes_the_images_are_drawn_alone(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("no processes here")

    expected = pixels(small(tmp_path / "one"))
    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refuse)
    for a, b in zip(expected, pixels(small(tmp_path / "two", workers=2))):
        np.testing.assert_array_equal(a, b)


def test_an_image_does_not_depend_on_how_many_are_drawn(tmp_path):
    few, many = small(tmp_path), small(tmp_path, n_train=20, n_valid=7, n_test=8)
    for a, b in zip(pixels(few), pixels(many)):
        np.testing.assert_array_equal(a, b[: len(a)])
    np.testing.assert_array_equal(rows(few.train), rows(many.train)[: len(few.train)])


def test_another_seed_draws_other_outfits():
    assert lab_outfit("train", 0, seed=0) != lab_outfit("train", 0, seed=1)


def test_splits_share_no_outfit():
    splits = ("train", "valid", "test", "objects-train", "objects-valid", "objects-test")
    grains = [lab_outfit(split, i).grain_seed for split in splits for i in range(100)]
    assert max(Counter(grains).values()) == 1


def test_lab_outfit_redraws_the_image_of_the_set(tmp_path):
    data = small(tmp_path)
    image, _ = draw(lab_outfit("test", 3))
    np.testing.assert_array_equal(np.asarray(image), data.test.queries.images.array[3])


# Bump DRAWING_VERSION whenever this hash changes: cached images of the old drawing are then left.
RECORDED = (3, "c02e4d14a34790a9")


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) != 13, reason="recorded with Pillow 13")
def test_a_changed_drawing_has_a_new_version():
    images = [np.asarray(draw(lab_outfit("train", i))[0]) for i in range(24)]
    digest = hashlib.sha256(np.stack(images).tobytes()).hexdigest()[:16]
    assert (DRAWING_VERSION, digest) == RECORDED, (
        "The drawing changed: bump DRAWING_VERSION in drawing.py and record the new pair here."
    )


# ----------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(("split", "n"), [("train", 1000), ("valid", 1000), ("test", 2000)])
def test_every_value_is_populated(split, n):
    queries, gallery = Counter(), Counter()
    for i in range(n):
        (gallery if i % 5 else queries).update(lab_outfit(split, i).labels().items())
    assert not [pair for pair in PAIRS if not queries[pair] or gallery[pair] < 5]


def test_values_of_an_attribute_are_about_equally_frequent():
    counts = Counter()
    n = 2000
    for i in range(n):
        counts.update(lab_outfit("valid", i).labels().items())
    assert 2.1 * n < sum(counts.values()) < 3.2 * n
    for name, values in zip(NAMES, FASHIONAI.values):
        shares = np.array([counts[name, value] for value in values], dtype=float)
        shares /= shares.mean()
        assert shares.min() > 0.6, (name, shares)
        assert shares.max() < 1.5, (name, shares)


def test_regions_lie_inside_the_frame_and_are_absent_for_invisible_values(sample):
    for outfit, image, boxes in sample:
        assert list(boxes) == list(outfit.labels())
        for name, (x0, y0, x1, y1) in boxes.items():
            if getattr(outfit, name) == "Invisible":
                assert (x0, y0, x1, y1) == (-1, -1, -1, -1)
            else:
                assert 0 <= x0 < x1 <= image.shape[1]
                assert 0 <= y0 < y1 <= image.shape[0]
                assert min(x1 - x0, y1 - y0) >= 3, (outfit, name)
                assert (x1 - x0) * (y1 - y0) >= 36, (outfit, name)


def test_tables_carry_regions_and_splits_keep_images_together(tmp_path):
    data = small(tmp_path, n_test=30)
    assert data.schema is FASHIONAI
    hidden = data.train.value == 0
    np.testing.assert_array_equal((data.train.regions == -1).all(1), hidden)
    queries, gallery = set(data.test.queries.image), set(data.test.gallery.image)
    assert not queries & gallery
    assert queries == set(range(0, 30, 5))
    assert data.train.images.load([0, 5], 96).shape == (2, 3, 96, 96)


@pytest.mark.parametrize(("attribute", "value"), VISIBLE)
def test_changing_one_value_changes_the_picture_in_its_region(attribute, value):
    shares = []
    for seed in range(6):
        rng = np.random.default_rng((seed, 77))
        values = FASHIONAI.values[FASHIONAI.attribute(attribute)]
        other = values[1 + (values.index(value) + seed) % (len(values) - 1)]
        if other == value:
            continue
        fixed = {attribute: value, "framing": "full"}
        if attribute == "neckline_design":  # a bare shoulder takes its sleeve with it
            fixed["sleeve_length"] = "Sleeveless"
        before = random_outfit(rng, **fixed)
        after = replace(before, **{attribute: other})
        (a, boxes_a), (b, boxes_b) = draw(before), draw(after)
        change = np.abs(np.asarray(a, int) - np.asarray(b, int)).sum(2)
        if change.sum() == 0:
            pytest.fail(f"{value} and {other} look the same: {before}")
        inside = np.zeros_like(change, dtype=bool)
        for x0, y0, x1, y1 in (boxes_a[attribute], boxes_b[attribute]):
            inside[max(y0 - 5, 0) : y1 + 5, max(x0 - 5, 0) : x1 + 5] = True
        shares.append(change[inside].sum() / change.sum())
    assert np.mean(shares) > 0.85, shares


@pytest.mark.parametrize("attribute", NAMES)
def test_every_attribute_is_hidden_in_several_ways(attribute):
    ways = Counter()
    for seed in range(150):
        rng = np.random.default_rng((seed, 5))
        ways[random_outfit(rng, **{attribute: "Invisible"}).hidden()[attribute]] += 1
    assert len(ways) >= 3
    assert max(ways.values()) < 0.7 * sum(ways.values()), ways


def test_color_says_nothing_about_values(sample):
    """Mean color and its spread, compared with the nearest other image: no better than chance."""
    features = np.array([np.r_[i.mean((0, 1)), i.std((0, 1))] for _, i, _ in sample])
    features /= features.std(0)
    hits, expected, variance = 0.0, 0.0, 0.0
    for name in NAMES:
        known = [k for k, (outfit, _, _) in enumerate(sample) if name in outfit.labels()]
        values = np.array([getattr(sample[k][0], name) for k in known])
        gaps = np.linalg.norm(features[known][:, None] - features[known][None], axis=2)
        np.fill_diagonal(gaps, np.inf)
        hits += (values[gaps.argmin(1)] == values).sum()
        share = np.array(list(Counter(values).values())) / len(values)
        chance = (share**2).sum()
        expected += chance * len(values)
        variance += chance * (1 - chance) * len(values)
    # Neighbours are often mutual, so a hit tends to come as a pair: the variance doubles.
    assert hits < expected + 4 * np.sqrt(2 * variance)


# ---------------------------------------------------------------------------------- outfits


@settings(max_examples=60)
@given(st.sampled_from(PAIRS), st.integers(0, 2**32), st.integers(0, 53))
def test_any_value_can_be_asked_for_and_replaced(pair, seed, k):
    attribute, value = pair
    outfit = random_outfit(np.random.default_rng(seed), **{attribute: value})
    assert getattr(outfit, attribute) == value
    values = FASHIONAI.values[FASHIONAI.attribute(attribute)]
    changed = replace(outfit, **{attribute: values[k % len(values)]})
    image, boxes = draw(changed, 48)
    assert image.size == (48, 48)
    assert set(boxes) == set(outfit.labels())


def test_a_fixed_field_leaves_the_rest_as_it_was():
    free = random_outfit(np.random.default_rng(4), category="coat")
    fixed = random_outfit(np.random.default_rng(4), category="coat", hair_style="bun")
    assert replace(free, hair_style="bun") == fixed


def test_none_takes_an_attribute_away():
    outfit = random_outfit(np.random.default_rng(0), category="dress", skirt_length=None)
    assert "skirt_length" not in outfit.labels()
    assert set(draw(outfit, 48)[1]) == set(outfit.labels())


def test_an_outfit_is_plain_data():
    outfit = random_outfit(np.random.default_rng(0))
    for field in fields(outfit):
        assert isinstance(getattr(outfit, field.name), str | float | int | None)
    assert Outfit(**{f.name: getattr(outfit, f.name) for f in fields(outfit)}) == outfit


def test_without_nuisance_only_the_values_differ():
    calm = Nuisance(**{f.name: 0.0 for f in fields(Nuisance)})
    outfits = [random_outfit(np.random.default_rng(k), calm, category="coat") for k in range(8)]
    assert (
        len({(o.zoom, o.lean, o.room, o.accessory, o.noise, o.coat_pattern) for o in outfits}) == 1
    )


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"sleeve": "Short"}, "no field 'sleeve'"),
        ({"category": "sock"}, "unknown category 'sock'"),
        ({"sleeve_length": "Shrot"}, "Short"),
        ({"coat_length": "Knee", "skirt_length": "Knee"}, "no category carries"),
    ],
)
def test_an_impossible_outfit_is_refused(fixed, message):
    with pytest.raises(InputError, match=message):
        random_outfit(np.random.default_rng(0), **fixed)


@pytest.mark.parametrize(
    ("split", "index", "message"),
    [("trian", 0, "no split 'trian'; choose one of"), ("train", -1, "not negative")],
)
def test_an_outfit_of_no_image_is_refused(split, index, message):
    with pytest.raises(InputError, match=message):
        lab_outfit(split, index)


def test_a_bag_hangs_from_the_elbow_of_a_hand_on_the_hip():
    outfit = random_outfit(np.random.default_rng(0), category="shirt", sleeve_length="Short")
    outfit = replace(outfit, noise=0.0, blur=0.0)
    boxes = []
    for bend in (-25.0, -40.0, -57.0, 0.0):
        bare, bag = (
            np.asarray(draw(replace(outfit, right_bend=bend, accessory=accessory))[0], int)
            for accessory in ("none", "handbag")
        )
        down, across = np.nonzero(np.abs(bag - bare).max(axis=2))
        boxes.append((down.min(), down.max(), across.min(), across.max()))
    assert boxes[0] == boxes[1] == boxes[2] != boxes[3], "the hand moves, the elbow does not"


# ------------------------------------------------------------------------------- categories


def test_categories_on_the_same_images_and_on_others(tmp_path):
    attributes, categories = small(tmp_path), small(tmp_path, labels="category")
    assert categories.schema == LAB_CATEGORIES
    np.testing.assert_array_equal(pixels(attributes)[0], pixels(categories)[0])
    expected = [CATEGORIES.index(lab_outfit("train", i).category) for i in range(12)]
    assert categories.train.value.tolist() == expected
    others = lab_categories(12, 6, 6, cache=tmp_path, progress=False, workers=1)
    assert not np.array_equal(pixels(others)[0], pixels(categories)[0])


def test_object_categories_are_equally_frequent():
    counts = Counter(lab_outfit("objects-train", i).category for i in range(640))
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) > 50


def test_a_script_without_a_guard_goes_on_alone_and_is_told_why(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from agman import datasets\n"
        f"data = datasets.lab(40, 15, 20, workers=2, cache={str(tmp_path)!r}, progress=False)\n"
        "print(len(data.train.images), 'images')\n"
    )
    run = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0
    assert run.stdout == "40 images\n"
    assert "Traceback" not in run.stderr
    assert "goes on in one process" in run.stderr


# ------------------------------------------------------------------------------------ cache


def count_drawings(monkeypatch):
    drawn = []
    original = lab_module._draw_chunk
    monkeypatch.setattr(lab_module, "_draw_chunk", lambda j: drawn.append(j[0]) or original(j))
    return drawn


def test_a_second_call_draws_nothing(tmp_path, monkeypatch):
    first = pixels(small(tmp_path))
    drawn = count_drawings(monkeypatch)
    second = small(tmp_path)
    assert not drawn
    assert isinstance(second.train.images.array, np.memmap)
    for a, b in zip(first, pixels(second)):
        np.testing.assert_array_equal(a, b)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1000])


def zero_pages(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)


def garbage(path):
    path.write_bytes(b"not an array")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("damage", [cut_short, zero_pages, garbage, lambda path: path.unlink()])
def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch, suffix, damage):
    expected = small(tmp_path)
    before, labels = [p.copy() for p in pixels(expected)], rows(expected.train)
    del expected
    (victim,) = tmp_path.glob(f"*-train-*{suffix}")
    damage(victim)
    drawn = count_drawings(monkeypatch)
    repaired = small(tmp_path)
    assert set(drawn) == {"train"}
    for a, b in zip(before, pixels(repaired)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(labels, rows(repaired.train))
    assert not list(tmp_path.glob("*.part"))


def test_a_cache_that_another_program_empties_is_named(tmp_path, monkeypatch):
    write = lab_module._write

    def lose(request, split, n, chunks, bar):
        write(request, split, n, chunks, bar)
        lab_module._files(request, split, n)[1].unlink()

    monkeypatch.setattr(lab_module, "_write", lose)
    with pytest.raises(InputError, match=r"\.npy changed while it was read; delete it"):
        small(tmp_path)


def test_a_killed_run_leaves_no_half_file(tmp_path, monkeypatch):
    def killed(job):
        raise KeyboardInterrupt

    monkeypatch.setattr(lab_module, "_draw_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("AGMAN_CACHE", str(tmp_path / "here"))
    lab(2, 1, 1, progress=False, workers=1)
    assert len(list((tmp_path / "here").glob("lab-*.npy"))) == 3


def test_other_strengths_are_other_files(tmp_path):
    shipped = small(tmp_path)
    calm = small(tmp_path, nuisance=Nuisance(noise=0.0, blur=0.0))
    assert not np.array_equal(pixels(shipped)[0], pixels(calm)[0])
    np.testing.assert_array_equal(shipped.train.value, calm.train.value)


@pytest.mark.parametrize(
    "options", [{"n_train": 0}, {"size": 8}, {"seed": -1}, {"labels": "colors"}]
)
def test_impossible_requests_are_refused(tmp_path, options):
    with pytest.raises(InputError):
        small(tmp_path, **options)
