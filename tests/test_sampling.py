import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agman.attributes import AttributeSchema, AttributeTable
from agman.datasets import PackedImages
from agman.errors import InputError
from agman.sampling import FixedTriplets, ImageSampler, Triplets, TripletSampler, generator, share
from tests import tiny

SCHEMA = AttributeSchema(("a", "b"), (("0", "1", "2"), ("0", "1")))
IMAGES = PackedImages(np.zeros((8, 4, 4, 3), np.uint8), [str(i) for i in range(8)])


def table_of(rows):
    image, attribute, value = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3).T
    return AttributeTable(SCHEMA, IMAGES, image, attribute, value)


rows = st.sets(
    st.one_of(
        st.tuples(st.integers(0, 7), st.just(0), st.integers(0, 2)),
        st.tuples(st.integers(0, 7), st.just(1), st.integers(0, 1)),
    ),
    max_size=24,
)


def possible(rows):
    """Every triplet that is right, found by trying all."""
    values = {}
    for image, attribute, value in rows:
        values.setdefault((attribute, image), set()).add(value)
    for (a, i), (b, j), (c, k) in itertools.product(values, repeat=3):
        if (
            a == b == c
            and i != j
            and any(v not in values[a, k] for v in values[a, i] & values[a, j])
        ):
            yield a, i, j, k


@given(rows)
def test_every_triplet_is_right_and_drawing_always_ends(rows):
    right = set(possible(rows))
    if not right:
        with pytest.raises(InputError, match=r"no triplet .* two images, and an .* value\.$"):
            TripletSampler(table_of(rows), 10)
        return
    drawn = TripletSampler(table_of(rows), 200).epoch(0)
    assert len(drawn.attributes) == 200
    assert set(zip(*(column.tolist() for column in drawn), strict=True)) <= right


def test_attributes_values_and_images_are_drawn_evenly():
    rows = {(i, 0, 0) for i in range(5)} | {(5, 0, 1), (6, 0, 1)} | {(7, 0, 2)}
    rows |= {(0, 1, 0), (1, 1, 0), (2, 1, 1)}
    drawn = TripletSampler(table_of(rows), 60_000, seed=3).epoch(0)
    assert np.mean(drawn.attributes == 0) == pytest.approx(0.5, abs=0.02)
    first = drawn.take(drawn.attributes == 0)
    small = np.isin(first.anchors, [5, 6])  # a value of two images is drawn as often as one of five
    assert small.mean() == pytest.approx(0.5, abs=0.02)
    assert 7 not in first.anchors  # one image alone makes no pair
    negatives = np.bincount(first.negatives[small], minlength=8)[[0, 1, 2, 3, 4, 7]]
    assert negatives / negatives.sum() == pytest.approx(np.full(6, 1 / 6), abs=0.02)
    anchors = np.bincount(first.anchors[~small])[:5]
    assert anchors / anchors.sum() == pytest.approx(np.full(5, 0.2), abs=0.02)
    positives = np.bincount(first.positives[~small])[:5]
    assert positives / positives.sum() == pytest.approx(np.full(5, 0.2), abs=0.02)


def test_an_image_with_both_values_is_never_the_negative_however_rare_the_others_are():
    rows = {(i, 0, v) for i in range(7) for v in (0, 1)} | {(7, 0, 1)}
    drawn = TripletSampler(table_of(rows), 500).epoch(0)
    assert set(drawn.negatives) == {7}
    assert 7 not in drawn.anchors


@pytest.mark.parametrize("crowded", [0, 1])
def test_an_image_without_the_attribute_is_never_the_negative_however_rare_the_others_are(crowded):
    rows = {(i, crowded, v) for i in range(6) for v in (0, 1)} | {(6, crowded, 1)}
    rows |= {(7, 1 - crowded, 1), (0, 1 - crowded, 1), (1, 1 - crowded, 0)}
    drawn = TripletSampler(table_of(rows), 1000).epoch(0)
    assert set(drawn.negatives[drawn.attributes == crowded]) == {6}


def test_an_epoch_is_a_function_of_seed_and_number():
    sampler = TripletSampler(tiny.table(), 50, seed=1)
    first, again = sampler.epoch(4), TripletSampler(tiny.table(), 50, seed=1).epoch(4)
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not np.array_equal(first.anchors, sampler.epoch(5).anchors)
    assert not np.array_equal(
        first.anchors, TripletSampler(tiny.table(), 50, seed=2).epoch(4).anchors
    )


def test_the_usual_seed_and_purpose_are_zero():
    table = tiny.table()
    usual, zero = TripletSampler(table, 50).epoch(1), TripletSampler(table, 50, seed=0).epoch(1)
    assert np.array_equal(usual.anchors, zero.anchors)
    images, zeroth = ImageSampler(table).epoch(1)[0], ImageSampler(table, seed=0).epoch(1)[0]
    assert np.array_equal(images, zeroth)
    assert generator(3, 4).random() == generator(3, 4, 0).random() != generator(3, 4, 1).random()


def test_processes_share_a_batch_without_overlap():
    for size, processes in itertools.product((5, 12, 13), (1, 3, 5)):
        parts = [range(size)[share(size, rank, processes)] for rank in range(processes)]
        assert [i for part in parts for i in part] == list(range(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(InputError, match="by 5 processes; choose a larger batch, or fewer"):
        share(4, 0, 5)


def test_fixed_triplets_come_whole_in_a_new_order():
    listed = Triplets(*(np.arange(30) + 100 * i for i in range(4)))
    drawn = FixedTriplets(listed).epoch(1)
    assert sorted(drawn.anchors) == sorted(listed.anchors)
    assert np.array_equal(drawn.negatives - drawn.attributes, np.full(30, 300))
    assert not np.array_equal(drawn.anchors, FixedTriplets(listed).epoch(2).anchors)


def test_image_batches_hold_every_labelled_image_once_with_its_values():
    rows = {(0, 0, 1), (0, 1, 0), (3, 0, 2), (5, 1, 1)}
    images, values = ImageSampler(table_of(rows)).epoch(0)
    got = {int(i): v.tolist() for i, v in zip(images, values, strict=True)}
    assert got == {0: [1, 0], 3: [2, -1], 5: [-1, 1]}
    with pytest.raises(InputError, match="no labelled image"):
        ImageSampler(table_of(set()))


def test_one_of_several_values_is_picked_anew():
    sampler = ImageSampler(table_of({(0, 0, 0), (0, 0, 1), (1, 0, 2)}))
    picked = {int(values[images == 0, 0][0]) for images, values in map(sampler.epoch, range(20))}
    assert picked == {0, 1}
