"""Ranking against slow, obvious versions of itself."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agman import ranking
from agman.errors import InputError
from agman.ranking import (
    GALLERY_TILE,
    QUERY_TILE,
    best_columns,
    fair_ranks,
    order_ranks,
    ranks_among_themselves,
    score_blocks,
    similarity,
    top_k,
)


def normal(*shape, seed=0, dtype=torch.float32):
    """Random embeddings of unit length."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1).to(dtype)


def whole(*shape, seed=0, top=3):
    """Small whole numbers: exact products with many ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-top, top + 1, shape, generator=generator).float()


def slow_top_k(scores, k):
    """Sort (score descending, index ascending) in plain Python."""
    rows = []
    for row in scores.tolist():
        items = sorted((-score, j) for j, score in enumerate(row) if score != -np.inf)[:k]
        rows.append([(-score, j) for score, j in items] + [(-np.inf, -1)] * (k - len(items)))
    values = torch.tensor([[score for score, _ in row] for row in rows])
    return values, torch.tensor([[j for _, j in row] for row in rows])


# --- similarity -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (50, 961, 7), (97, 1930, 130)])
def test_similarity_is_the_dot_product(shape, dtype):
    n_queries, n_gallery, width = shape
    queries, gallery = normal(n_queries, width, dtype=dtype), normal(n_gallery, width, seed=1)
    scores = similarity(queries, gallery.to(dtype))
    assert scores.dtype == dtype
    assert scores.shape == (n_queries, n_gallery)
    expected = queries.double() @ gallery.double().T
    assert (scores - expected).abs().max() < (1e-6 if dtype == torch.float32 else 1e-14)


@pytest.fixture(params=["oneDNN", "BLAS"])
def library(request, monkeypatch):
    """Both libraries that products in float32 come from, where torch has them."""
    if request.param == "BLAS":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    elif not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    return request.param


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 2, 3, 31, 64, 100, 300, 512])
def test_a_score_depends_on_its_two_embeddings_only(width, dtype, threads, library):
    """Bit for bit: not on the place, the neighbours, the number of rows, the order of memory."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        queries, gallery = normal(100, width, dtype=dtype), normal(2000, width, seed=1, dtype=dtype)
        gallery[1::7] = gallery[0]
        queries[1::5] = queries[0]
        scores = similarity(queries, gallery)
        assert (scores[:, 1::7] == scores[:, :1]).all()
        assert (scores[1::5] == scores[:1]).all()
        rows, columns = torch.randperm(100), torch.randperm(2000)
        assert (similarity(queries[rows], gallery[columns]) == scores[rows][:, columns]).all()
        assert (similarity(queries[7:9], gallery[3:1000]) == scores[7:9, 3:1000]).all()
        assert (similarity(queries[7:8], gallery[5:6]) == scores[7:8, 5:6]).all()
        assert (similarity(queries, gallery.T.contiguous().T) == scores).all()
    finally:
        torch.set_num_threads(before)


def test_every_product_has_one_fixed_shape(monkeypatch):
    shapes = []
    plain = ranking.product

    def spy(a, b):
        shapes.append((tuple(a.shape), tuple(b.shape), a.stride(), b.stride()))
        return plain(a, b)

    monkeypatch.setattr(ranking, "product", spy)
    similarity(normal(QUERY_TILE + 1, 5), normal(2 * GALLERY_TILE + 1, 5))
    assert len(shapes) == 6
    similarity(normal(1, 5), normal(1, 5).T.contiguous().T)
    assert len(shapes) == 7
    assert set(shapes) == {((QUERY_TILE, 5), (GALLERY_TILE, 5), (5, 1), (5, 1))}


def test_products_come_from_the_library_that_is_named(monkeypatch, library):
    queries, gallery = normal(3, 5), normal(4, 5, seed=1)
    expected = similarity(queries, gallery)
    unused = {"oneDNN": (torch, "mm"), "BLAS": (ranking.F, "linear")}[library]
    monkeypatch.setattr(*unused, lambda *_, **__: pytest.fail("the other library was taken"))
    assert torch.equal(similarity(queries, gallery), expected)
    assert not ranking.product(queries.requires_grad_(), gallery).requires_grad
    if library == "oneDNN":  # which has no float64
        with pytest.raises(pytest.fail.Exception, match="other library"):
            similarity(queries.detach().double(), gallery.double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    queries, gallery = normal(4, 300, dtype=dtype), normal(9, 300, seed=1, dtype=dtype)
    scores = similarity(queries, gallery)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, similarity(queries.float(), gallery.float()))
    assert similarity(queries, gallery.double()).dtype == torch.float64


def test_autocast_around_it_changes_nothing(library):
    queries, gallery = normal(4, 300), normal(9, 300, seed=1)
    expected = similarity(queries, gallery)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(similarity(queries, gallery), expected)


def test_no_gradient_is_kept_and_arrays_are_taken():
    queries, gallery = normal(2, 3).requires_grad_(), normal(4, 3, seed=1)
    scores = similarity(queries, gallery)
    assert not scores.requires_grad
    read_only = gallery.numpy()[::-1]
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that must not be written to
        assert torch.equal(similarity(queries, read_only), scores.flip(1))
    array = np.ones(3)
    assert np.shares_memory(ranking.as_tensor(array, "array").numpy(), array)  # not held twice
    array.flags.writeable = False
    assert not np.shares_memory(ranking.as_tensor(array, "array").numpy(), array)
    as_lists = similarity(queries.tolist(), gallery.tolist())
    assert torch.allclose(as_lists, scores.double())


# --- blocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 30, 31, 3000, 10**9])
def test_blocks_cover_every_query_once_and_never_change_a_score(block):
    queries, gallery = normal(100, 8), normal(30, 8, seed=1)
    expected = similarity(queries, gallery)
    seen = []
    for rows, scores in score_blocks(queries, gallery, block=block):
        assert scores.shape == (rows.stop - rows.start, 30)
        assert scores.numel() <= max(block, 30)
        assert torch.equal(scores, expected[rows])
        seen += range(rows.start, rows.stop)
        scores.zero_()  # the caller's to overwrite
    assert seen == list(range(100))


def test_blocks_of_many_queries_are_whole_tiles():
    gallery = normal(10, 2)
    sizes = [len(s) for _, s in score_blocks(normal(200, 2), gallery, block=1000)]
    assert sizes == [72, 72, 56]
    sizes = [len(s) for _, s in score_blocks(normal(100, 2), gallery, block=10 * QUERY_TILE)]
    assert sizes == [72, 28]
    sizes = [len(s) for _, s in score_blocks(normal(9, 2), gallery, block=40)]
    assert sizes == [4, 4, 1]


def test_a_gallery_item_with_the_query_id_is_excluded():
    queries, gallery = normal(5, 3), normal(4, 3, seed=1)
    query_ids, gallery_ids = torch.tensor([7, 1, 9, 1, 3]), np.array([1, 7, 1, 2])
    expected = similarity(queries, gallery)
    for i, query in enumerate(query_ids.tolist()):
        for j, item in enumerate(gallery_ids.tolist()):
            if query == item:
                expected[i, j] = -torch.inf
    for block in (1, 8, 1000):
        blocks = score_blocks(
            queries, gallery, query_ids=query_ids, gallery_ids=gallery_ids, block=block
        )
        assert torch.equal(torch.cat([scores for _, scores in blocks]), expected)


# --- top k ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_queries=st.integers(0, 5),
    n_gallery=st.integers(1, 40),
    k=st.integers(1, 50),
    with_ids=st.booleans(),
)
def test_top_k_is_a_full_sort_with_lower_index_first(seed, n_queries, n_gallery, k, with_ids):
    queries, gallery = whole(n_queries, 2, seed=seed), whole(n_gallery, 2, seed=seed + 1)
    scores = similarity(queries, gallery)
    ids = {}
    if with_ids:
        ids = {
            "query_ids": whole(n_queries, seed=seed + 2).long(),
            "gallery_ids": whole(n_gallery, seed=seed + 3).long(),
        }
        scores[ids["query_ids"][:, None] == ids["gallery_ids"]] = -torch.inf
    best, index = top_k(queries, gallery, k, **ids)
    assert best.shape == index.shape == (n_queries, k)
    assert index.dtype == torch.int64
    if n_queries:
        values, columns = slow_top_k(scores, k)
        assert torch.equal(best, values)
        assert torch.equal(index, columns)


@pytest.mark.parametrize("block", [1, 2 * GALLERY_TILE, 10 * GALLERY_TILE, 10**8])
@pytest.mark.parametrize("make", [normal, whole])
def test_top_k_is_the_same_whatever_the_block(make, block):
    queries, gallery = make(7, 4), make(4 * GALLERY_TILE + 5, 4, seed=1)
    ids = {"query_ids": torch.arange(7), "gallery_ids": torch.arange(len(gallery)) % 3000}
    best, index = top_k(queries, gallery, 20, block=block, **ids)
    scores = similarity(queries, gallery)
    scores[ids["query_ids"][:, None] == ids["gallery_ids"]] = -torch.inf
    values, columns = slow_top_k(scores, 20)
    assert torch.equal(best, values)
    assert torch.equal(index, columns)


def test_top_k_holds_no_more_scores_than_its_block(monkeypatch):
    sizes = []
    plain = ranking._similarity

    def spy(queries, gallery):
        sizes.append((len(queries), len(gallery)))
        return plain(queries, gallery)

    monkeypatch.setattr(ranking, "_similarity", spy)
    top_k(normal(30, 2), normal(9000, 2), 3, block=20 * GALLERY_TILE)
    assert sizes[:2] == [(20, GALLERY_TILE), (20, GALLERY_TILE)]
    assert max(rows * columns for rows, columns in sizes) <= 20 * GALLERY_TILE
    sizes.clear()
    top_k(normal(4, 2), normal(9 * GALLERY_TILE, 2), 3, block=20 * GALLERY_TILE)
    assert sizes == [(4, 5 * GALLERY_TILE), (4, 4 * GALLERY_TILE)]
    sizes.clear()
    top_k(normal(3, 2), normal(2 * GALLERY_TILE, 2), 3, block=1)  # one tile at least
    assert sizes == [(1, GALLERY_TILE)] * 6


def test_top_k_of_half_precision_is_in_float32_and_that_of_float64_stays_float64():
    queries, gallery = normal(4, 30, dtype=torch.float16), normal(9, 30, seed=1)
    for other in (gallery, gallery.half()):
        best, _ = top_k(queries, other, 3)
        assert best.dtype == torch.float32
        assert torch.equal(best, slow_top_k(similarity(queries, other), 3)[0])
    assert top_k(queries, gallery.double(), 3)[0].dtype == torch.float64
    best, _ = top_k(normal(2, 3, dtype=torch.float64), normal(2, 3), 1)
    assert best.dtype == torch.float64
    assert top_k(normal(0, 3), normal(2, 3), 4)[0].shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), width=st.integers(1, 30))
def test_best_columns(seed, rows, width):
    scores = whole(rows, width, seed=seed, top=2)
    for k in {1, (width + 1) // 2, width}:
        best, columns = best_columns(scores, k)
        assert torch.equal(best, slow_top_k(scores, k)[0])
        assert torch.equal(columns, slow_top_k(scores, k)[1])


# --- ranks ----------------------------------------------------------------------------------


def slow_fair_ranks(scores, thresholds):
    return [
        [sum(score >= t for score in row) for t in some]
        for row, some in zip(scores.tolist(), thresholds.tolist(), strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "row",
    [
        [0.0],
        [1.0, 1.0, 1.0],
        [3.0, -1.0, 2.0, 2.0, -1.0, 0.5, 0.0, -0.0],
        [0.0, 1e-45, 2e-45, 3e-45],  # distances that underflow
        [3e38, -3e38, 1e38, 0.0, 1e38],  # a distance that overflows in float32
        [1.0, 1.0000001, 0.99999994, 1.0, 5.0],
    ],
)
def test_fair_ranks_of_hard_rows(row, dtype):
    scores = torch.tensor([row], dtype=dtype)
    for columns in ([0], [len(row) - 1], list(range(len(row)))):
        for rows in (scores, torch.cat([scores, scores.flip(1), torch.zeros_like(scores)])):
            thresholds = rows[:, columns]
            assert fair_ranks(rows, thresholds).tolist() == slow_fair_ranks(rows, thresholds)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_items=st.integers(1, 60),
    n_ranked=st.integers(0, 60),
    n_excluded=st.integers(0, 60),
    coarse=st.booleans(),
    chunk=st.sampled_from([1, 100, 2**18]),
)
def test_fair_ranks_count_what_scores_as_much(seed, n_items, n_ranked, n_excluded, coarse, chunk):
    scores = whole(3, n_items, seed=seed) if coarse else normal(3, n_items, seed=seed)
    order = torch.randperm(n_items, generator=torch.Generator().manual_seed(seed))
    scores[:, order.flip(0)[:n_excluded]] = -torch.inf
    thresholds = scores[:, order[:n_ranked]]
    thresholds[0] = scores[0].min()  # rows of one chunk differ in what they rank
    original = scores.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_CHUNK", chunk)
        ranks = fair_ranks(scores, thresholds)
    assert ranks.dtype == torch.int64
    assert ranks.tolist() == slow_fair_ranks(scores, thresholds)
    assert torch.equal(scores, original)
    ascending = ranking.sorted_rows(scores)
    assert ranks_among_themselves(ascending).tolist() == slow_fair_ranks(ascending, ascending)


def test_other_devices_stay_in_torch():
    """The meta device has shapes only: anything that left torch would fail on it."""
    scores = torch.empty(3, 50, device="meta")
    assert fair_ranks(scores, scores[:, :7]).shape == (3, 7)
    assert fair_ranks(scores, scores[:, :7]).device.type == "meta"
    assert ranking.sorted_rows(scores).device.type == "meta"
    assert ranks_among_themselves(scores).shape == (3, 50)
    assert order_ranks(scores, torch.arange(7)).shape == (3, 7)


def test_sorted_rows():
    scores = normal(3, 50)
    original = scores.clone()
    assert torch.equal(ranking.sorted_rows(scores), scores.sort(dim=1).values)
    assert torch.equal(scores, original)


def test_no_more_is_sorted_at_a_time_than_fits_into_a_cache(monkeypatch):
    sizes = []
    plain = ranking.sorted_rows

    def spy(rows):
        sizes.append(tuple(rows.shape))
        return plain(rows)

    monkeypatch.setattr(ranking, "sorted_rows", spy)
    monkeypatch.setattr(ranking, "_CHUNK", 250)
    scores = normal(5, 100)
    fair_ranks(scores, scores[:, ::50])
    assert sizes == [(2, 100), (2, 100), (1, 100)]
    sizes.clear()
    fair_ranks(normal(2, 300), normal(2, 300)[:, :1])  # one row at least
    assert sizes == [(1, 300), (1, 300)]
    sizes.clear()
    fair_ranks(torch.empty(5, 100, device="meta"), torch.empty(5, 2, device="meta"))
    assert sizes == [(5, 100)]  # other devices have enough to do at once


def test_nothing_has_no_ranks():
    assert fair_ranks(torch.empty(2, 0), torch.empty(2, 0)).shape == (2, 0)
    assert fair_ranks(torch.empty(0, 3), torch.empty(0, 1)).shape == (0, 1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n_items=st.integers(1, 40))
def test_order_ranks_are_places_in_a_stable_sort(seed, n_items):
    scores = whole(3, n_items, seed=seed)
    columns = torch.randperm(n_items)[: n_items // 2 + 1]
    expected = []
    for row in scores.tolist():
        order = sorted(range(n_items), key=lambda j, row=row: -row[j])  # Python's sort is stable
        expected.append([order.index(j) + 1 for j in columns.tolist()])
    assert order_ranks(scores, columns).tolist() == expected


# --- refusals -------------------------------------------------------------------------------

GOOD = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("queries", "gallery", "message"),
    [
        (torch.ones(3), GOOD, r"query embeddings must have shape \(rows, dimensions\), not \(3,\)"),
        (GOOD, torch.ones(3, 0), r"gallery embeddings must have shape .* not \(3, 0\)"),
        (GOOD.long(), GOOD, "query embeddings must be float16, .*not torch.int64"),
        (GOOD, "photo", "gallery embeddings must be a tensor or an array"),
        (GOOD, torch.ones(3, 4), "query embeddings have 2 dimensions and gallery embeddings 4"),
        (GOOD, torch.ones(0, 2), "there are no gallery embeddings"),
        (GOOD, torch.ones(3, 2, device="meta"), "query embeddings are on cpu .* on meta"),
        (
            torch.tensor([[1.0, 1.0], [torch.nan, 0.0]]),
            GOOD,
            r"query embeddings hold NaN.* in 1 of 2 rows \(row 1\)",
        ),
        (
            GOOD,
            torch.tensor([[1.0]] + [[-torch.inf]] * 6).expand(7, 2),
            r"gallery embeddings hold NaN, .* 6 of 7 rows \(row 1, 2, 3, 4, 5, \.\.\.\); .* out$",
        ),
        (GOOD, torch.full((5, 2), 1e19), r"5 of 5 rows \(row 0, 1, 2, 3, 4\)"),
    ],
)
def test_bad_embeddings_are_refused(queries, gallery, message):
    with pytest.raises(InputError, match=message):
        similarity(queries, gallery)
    with pytest.raises(InputError, match=message):
        top_k(queries, gallery, 1)
    with pytest.raises(InputError, match=message):
        next(score_blocks(queries, gallery))


def test_large_embeddings_are_compared_while_their_products_are_finite():
    large = torch.tensor([[6e18, 6e18]])
    assert similarity(large, large).isfinite().all()
    assert similarity(large.double() * 1e100, large).isfinite().all()
    half = torch.full((1, 4), 6e4, dtype=torch.float16)  # its length is beyond float16
    assert similarity(half, half).item() == pytest.approx(4 * half[0, 0].item() ** 2)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, None, "3"])
def test_block_and_k_are_whole_numbers_from_one(number):
    with pytest.raises(InputError, match="block must be a whole number of at least 1"):
        next(score_blocks(GOOD, GOOD, block=number))
    with pytest.raises(InputError, match="k must be a whole number of at least 1"):
        top_k(GOOD, GOOD, number)
    with pytest.raises(InputError, match="block must be a whole number of at least 1"):
        top_k(GOOD, GOOD, 1, block=number)


def test_numpy_numbers_are_numbers():
    assert top_k(GOOD, GOOD, np.int64(1), block=np.int32(1))[1].tolist() == [[0], [0], [0]]


@pytest.mark.parametrize("call", [lambda **ids: next(score_blocks(GOOD, GOOD, **ids)),
                                  lambda **ids: top_k(GOOD, GOOD, 1, **ids)])  # fmt: skip
def test_bad_ids_are_refused(call):
    ids = torch.arange(3)
    with pytest.raises(
        InputError, match=r"^query_ids and gallery_ids belong .*; give both or neither$"
    ):
        call(query_ids=ids)
    with pytest.raises(
        InputError, match=r"^query_ids and gallery_ids belong .*; give both or neither$"
    ):
        call(gallery_ids=ids)
    with pytest.raises(InputError, match=r"query_ids must have shape \(3,\), .* not \(2,\)"):
        call(query_ids=ids[:2], gallery_ids=ids)
    with pytest.raises(InputError, match=r"gallery_ids must have shape \(3,\), .* not \(1, 3\)"):
        call(query_ids=ids, gallery_ids=ids[None])
    with pytest.raises(InputError, match=r"gallery_ids must be integers, not torch.float32"):
        call(query_ids=ids, gallery_ids=ids.float())
    with pytest.raises(InputError, match=r"query_ids must be integers, not torch.complex64"):
        call(query_ids=ids + 0j, gallery_ids=ids)
    with pytest.raises(InputError, match=r"^query_ids must be a tensor or an array of numbers"):
        call(query_ids="photo", gallery_ids=ids)
    with pytest.raises(InputError, match=r"^gallery_ids must be a tensor or an array of numbers"):
        call(query_ids=ids, gallery_ids="photo")


def test_integers_of_any_width_become_int64():
    for width in (np.uint8, np.int16, np.int32):
        assert ranking.checked_integers(np.array([1, 2], width), "ids", 2).dtype == torch.int64
