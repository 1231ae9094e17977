"""Promises that hold for whatever comes: rankings, samplers, and everything written and read back.

Beside the properties in the tests of each module; these go across modules.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import agman
from agman.attributes import ZAPPOS50K, AttributeSchema, AttributeTable
from agman.checkpoint import load_state, save_state
from agman.datasets import PackedImages, read_csn
from agman.errors import InputError
from agman.index import PhotoIndex
from agman.metrics import average_precision, average_precisions, triplet_accuracy
from agman.models import RetrievalModel
from agman.ranking import similarity, top_k
from agman.sampling import FixedTriplets, ImageSampler, Triplets, TripletSampler, share
from agman.shards import embed_shards
from agman.storage import read_json, read_tensors, write_json, write_tensors
from tests import tiny

PROPERTY = settings(deadline=None, max_examples=60)
FEW = settings(deadline=None, max_examples=15)  # of what is slow

seeds = st.integers(0, 10**6)


# ------------------------------------------------------------------------------- rankings


def task(seed: int, n_queries: int, n_gallery: int, exact: bool) -> tuple[torch.Tensor, ...]:
    """Queries, their values, gallery and its values; `exact`: whole numbers with many ties."""
    random = torch.Generator().manual_seed(seed)
    if exact:
        both = torch.randint(-2, 3, (n_queries + n_gallery, 3), generator=random).float()
    else:
        both = torch.randn(n_queries + n_gallery, 3, generator=random)
    values = torch.randint(0, 3, (n_queries + n_gallery,), generator=random)
    return both[:n_queries], values[:n_queries], both[n_queries:], values[n_queries:]


def equal(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Bit for bit, NaN at the same places."""
    return torch.equal(torch.nan_to_num(one, -1.0), torch.nan_to_num(two, -1.0))


@PROPERTY
@given(seeds, st.integers(1, 6), st.integers(1, 40), st.booleans(), st.integers(0, 3))
def test_scores_stretched_and_galleries_shuffled_leave_every_ap(
    seed: int, n_queries: int, n_gallery: int, exact: bool, doublings: int
) -> None:
    queries, wanted, gallery, values = task(seed, n_queries, n_gallery, exact)
    aps = average_precisions(queries, wanted, gallery, values)
    order = torch.randperm(n_gallery, generator=torch.Generator().manual_seed(seed))
    stretched = queries * 2.0**doublings  # exact, so that no tie is made or lost
    again = average_precisions(stretched, wanted, gallery[order], values[order])
    assert torch.allclose(aps, again, rtol=0, atol=1e-12, equal_nan=True)


@PROPERTY
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([np.cbrt, np.arctan, np.exp, lambda s: 3 * s - 7, "places"]),
    st.randoms(use_true_random=False),
)
def test_any_increasing_map_and_any_order_leave_an_ap(
    ranking: list[tuple[float, bool]], stretch: Any, random: Any
) -> None:
    assume(any(relevant for _, relevant in ranking))
    scores, relevant = (np.array(column) for column in zip(*ranking, strict=True))
    scores = scores.round(3)
    if stretch == "places":  # only the order of the different scores is left
        mapped = np.unique(scores, return_inverse=True)[1].astype(float)
    else:
        mapped = stretch(scores)
        assume(len(np.unique(mapped)) == len(np.unique(scores)))  # not rounded into one
    order = random.sample(range(len(scores)), len(scores))
    before = average_precision(scores, relevant)
    assert average_precision(mapped[order], relevant[order]) == pytest.approx(before, abs=1e-12)


@PROPERTY
@given(seeds, st.integers(2, 12), st.integers(1, 4))
def test_duplicates_ties_and_negative_scores_agree_with_scikit_learn(
    seed: int, n_gallery: int, copies: int
) -> None:
    queries, wanted, gallery, values = task(seed, 4, n_gallery, exact=True)
    gallery, values = gallery.repeat(copies, 1), values.repeat(copies)
    aps = average_precisions(queries, wanted, gallery, values)
    for query, value, ap in zip(queries, wanted, aps.tolist(), strict=True):
        relevant = (values == value).numpy()
        if not relevant.any():
            assert np.isnan(ap)
            continue
        scores = (gallery @ query).numpy()
        assert ap == pytest.approx(average_precision_score(relevant, scores), abs=1e-12)
        slow = [
            (relevant & (scores >= score)).sum() / (scores >= score).sum()
            for score in scores[relevant]
        ]
        assert ap == pytest.approx(np.mean(slow), abs=1e-12)


@PROPERTY
@given(seeds, st.integers(1, 5), st.integers(1, 30))
def test_a_collapsed_network_has_the_prevalence(seed: int, n_queries: int, n_gallery: int) -> None:
    _, wanted, gallery, values = task(seed, n_queries, n_gallery, exact=True)
    same = torch.ones(n_queries, 3)
    aps = average_precisions(same, wanted, torch.ones_like(gallery), values)
    shares = (wanted[:, None] == values).double().mean(1)
    shares[shares == 0] = torch.nan
    assert torch.allclose(aps, shares, rtol=0, atol=1e-12, equal_nan=True)


@FEW
@given(seeds, st.integers(1, 5), st.integers(1, 40), st.integers(1, 200), st.booleans())
def test_no_block_size_changes_a_rank(
    seed: int, n_queries: int, n_gallery: int, block: int, exact: bool
) -> None:
    queries, wanted, gallery, values = task(seed, n_queries, n_gallery, exact)
    ids = {"query_ids": torch.arange(n_queries), "gallery_ids": torch.arange(n_gallery)}
    for some in ({}, ids):
        for ties in ("fair", "order"):
            whole = average_precisions(queries, wanted, gallery, values, ties=ties, **some)
            parts = average_precisions(
                queries, wanted, gallery, values, ties=ties, block=block, **some
            )
            assert equal(whole, parts)
        whole, parts = (top_k(queries, gallery, 5, **some, **b) for b in ({}, {"block": block}))
        assert all(map(torch.equal, whole, parts))


ASKED: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "similarity": similarity,
    "top_k": lambda one, two: top_k(one, two, 2),
    "average_precisions": lambda one, two: average_precisions(
        one, torch.zeros(len(one), dtype=torch.int64), two, torch.zeros(len(two), dtype=torch.int64)
    ),
    "triplet_accuracy": lambda one, two: triplet_accuracy(one, two, two.clone()),
}


@PROPERTY
@given(
    st.sampled_from(sorted(ASKED)), seeds, st.sets(st.integers(0, 11), min_size=1, max_size=5),
    st.sampled_from([np.nan, np.inf, -np.inf]), st.booleans(),
)  # fmt: skip
def test_what_is_no_number_is_refused_with_its_rows(
    name: str, seed: int, rows: set[int], value: float, first: bool
) -> None:
    one, two = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(seed))
    spoiled = one if first else two
    for row in rows:
        spoiled[row, row % 3] = value
    said = ", ".join(map(str, sorted(rows)))
    with pytest.raises(InputError, match=rf"{len(rows)} of 12 rows \(row {said}\)"):
        ASKED[name](one, two)


# ------------------------------------------------------------------------------- samplers


@st.composite
def tables(draw: Any) -> AttributeTable:
    """Any valid table: few or many attributes, values without images, images without rows."""
    n_values = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    n_images = draw(st.integers(1, 12))
    schema = AttributeSchema(
        tuple(f"a{i}" for i in range(len(n_values))),
        tuple(tuple(map(str, range(n))) for n in n_values),
    )
    row = st.integers(0, len(n_values) - 1).flatmap(
        lambda a: st.tuples(
            st.integers(0, n_images - 1), st.just(a), st.integers(0, n_values[a] - 1)
        )
    )
    rows = np.array(draw(st.lists(row, max_size=30)), dtype=np.int64).reshape(-1, 3)
    images = PackedImages(
        np.zeros((n_images, 1, 1, 3), np.uint8), [str(i) for i in range(n_images)]
    )
    return AttributeTable(schema, images, *rows.T)


def made(sampler: Callable[[], Any]) -> Any:
    """A sampler, or None where it says in a sentence that the table cannot do."""
    try:
        return sampler()
    except InputError:
        return None


def same(one: Any, two: Any) -> bool:
    return all(map(np.array_equal, one, two))


@PROPERTY
@given(tables(), st.integers(1, 50), seeds, st.integers(0, 100))
def test_samplers_end_on_every_table_and_repeat_for_a_seed(
    table: AttributeTable, n_triplets: int, seed: int, epoch: int
) -> None:
    labels: dict[tuple[int, int], set[int]] = {}
    for i, a, v in zip(table.image, table.attribute, table.value, strict=True):
        labels.setdefault((int(i), int(a)), set()).add(int(v))
    sampler = made(lambda: TripletSampler(table, n_triplets, seed))
    if sampler is not None:
        drawn = sampler.epoch(epoch)
        assert {len(column) for column in drawn} == {n_triplets}
        for a, anchor, positive, negative in zip(*map(np.ndarray.tolist, drawn), strict=True):
            shared = labels[anchor, a] & labels[positive, a]
            assert anchor != positive
            assert shared - labels[negative, a]
        assert same(drawn, sampler.epoch(epoch))
        assert same(drawn, TripletSampler(table, n_triplets, seed).epoch(epoch))
        fixed = FixedTriplets(drawn, seed)
        assert sorted(zip(*fixed.epoch(epoch))) == sorted(zip(*drawn))
        assert same(fixed.epoch(epoch), FixedTriplets(drawn, seed).epoch(epoch))
    sampler = made(lambda: ImageSampler(table, seed))
    assert (sampler is None) == (len(table) == 0)
    if sampler is not None:
        images, values = sampler.epoch(epoch)
        assert sorted(images) == sorted(set(table.image))
        for image, row in zip(images.tolist(), values.tolist(), strict=True):
            for a, value in enumerate(row):
                assert value in labels.get((image, a), {-1})
        assert same((images, values), ImageSampler(table, seed).epoch(epoch))


@PROPERTY
@given(st.integers(1, 300), st.integers(1, 40), seeds)
def test_processes_share_every_batch_without_overlap_and_rest(
    batch_size: int, world: int, seed: int
) -> None:
    triplets = Triplets(*np.arange(4 * batch_size).reshape(4, -1))
    batch = FixedTriplets(triplets, seed).epoch(1)
    if batch_size < world:
        with pytest.raises(InputError, match="cannot be shared"):
            share(batch_size, 0, world)
        return
    parts = [batch.take(share(batch_size, rank, world)) for rank in range(world)]
    joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    assert same(joined, batch)
    sizes = [len(part.anchors) for part in parts]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


# ------------------------------------------------------------------ written, and read back

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**60), 2**60), texts,
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip
names_of_tensors = texts.filter(lambda name: name not in ("", "__metadata__"))
TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8,
         torch.bool)  # fmt: skip


@st.composite
def tensors(draw: Any) -> torch.Tensor:
    """Any shape and type; sometimes not in one piece; NaN among the numbers."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    random = torch.Generator().manual_seed(draw(seeds))
    kind = draw(st.sampled_from(TYPES))
    tensor = torch.randn(shape, generator=random)
    if kind.is_floating_point and tensor.numel() and draw(st.booleans()):
        tensor.view(-1)[0] = torch.nan
    tensor = tensor.to(kind)
    return tensor.T if tensor.dim() == 2 else tensor


def bits(tensor: torch.Tensor) -> tuple[Any, ...]:
    whole = tensor.contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), whole.view(torch.uint8).tolist() if len(whole) else []


@PROPERTY
@given(st.dictionaries(names_of_tensors, tensors(), max_size=3), plain)
def test_tensors_and_what_is_said_of_them(named: dict[str, torch.Tensor], about: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder) / "t", named, about)
        got, said = read_tensors(Path(folder) / "t")
        save_state(Path(folder) / "s", {"named": named, "about": about})
        state = load_state(Path(folder) / "s")
    for found in (got, state["named"]):
        assert {k: bits(t) for k, t in found.items()} == {k: bits(t) for k, t in named.items()}
    assert said == about
    assert state["about"] == about


@PROPERTY
@given(plain)
def test_json(data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "a.json", data)
        assert read_json(Path(folder) / "a.json") == data


@PROPERTY
@given(st.dictionaries(texts, st.lists(texts, unique=True, max_size=4), max_size=4), texts)
def test_a_schema(values: dict[str, list[str]], name: str) -> None:
    schema = AttributeSchema(tuple(values), tuple(map(tuple, values.values())), name)
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "a.json", schema.to_dict())
        assert AttributeSchema.from_dict(read_json(Path(folder) / "a.json")) == schema


@FEW
@given(st.integers(1, 9), seeds)
def test_triplet_lists_of_csn(n_images: int, seed: int) -> None:
    """Written as CSN does: the image that is far stands before the one that is close."""
    random = np.random.default_rng(seed)
    suffix = {"train": "train", "valid": "val", "test": "test"}
    written: dict[str, list[list[int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "filenames.json").write_text("".join(f"a/{i}.jpg\n" for i in range(n_images)))
        for split, name in suffix.items():
            written[split] = []
            for a, attribute in enumerate(ZAPPOS50K.names):
                rows = random.integers(n_images, size=(random.integers(1, 4), 3)).tolist()
                lines = "".join(f"{i} {far} {close}\n" for i, close, far in rows)
                (root / f"{attribute}_tripletlist_{name}.txt").write_text(lines)
                written[split] += [[a, *row] for row in rows]
        read = read_csn(root, check_images=False)
    for split, rows in written.items():
        assert getattr(read, split).tolist() == rows


@pytest.fixture(scope="module")
def model() -> RetrievalModel:
    return agman.create_model("csn", n_attributes=2, backbone="lab").eval()


@FEW
@given(st.lists(texts.filter(bool), min_size=1, max_size=5), st.integers(1, 6))
def test_an_index_in_a_file_and_in_shards(
    model: RetrievalModel, names: list[str], rows: int
) -> None:
    store = PackedImages(tiny.table(len(names)).images.array, names)  # type: ignore[attr-defined]
    index = PhotoIndex.build(model, store, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "i")
        embed_shards(model, store, Path(folder) / "shards", rows=rows, progress=False)
        for place in ("i", "shards"):
            read = PhotoIndex.load(Path(folder) / place, model)
            assert list(read.names) == names
            hits, right = (i.search_embedding(torch.ones(64), 1, 5) for i in (read, index))
            assert [hit.score for hit in hits] == pytest.approx(  # another batch, another last bit
                [hit.score for hit in right], abs=0 if place == "i" else 1e-5
            )
