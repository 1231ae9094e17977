"""Exact ranking of a gallery for every query: similarities, ranks and the top k.

The similarity of two embeddings is their dot product, which is the cosine for embeddings of unit
length (`torch.nn.functional.normalize` makes them so).
Everything here works on tensors, block by block, and gives the same numbers whatever the block:
a matrix product is not that by itself, because a BLAS library adds the same terms in another
order for another shape of matrix.
So every product has one fixed shape, `QUERY_TILE` x `GALLERY_TILE`, padded with zeros.
Equal embeddings then have equal scores wherever they stand, and a tie is a tie.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from agman.errors import InputError

# Multiples of the sizes that matrix libraries work in, small ones along the queries (4, 6, 8, 12,
# 24) and larger ones along the gallery (16, 32, 48, 64), so that no score of a tile is computed by
# another routine than its neighbours.
QUERY_TILE = 72
GALLERY_TILE = 1920

BLOCK = 2**24
"""Scores held at a time unless told otherwise: 64 MB of float32."""

TIES = ("fair", "order")
EXCLUDED = -torch.inf
"""Score of a gallery item that is the query itself: below every other."""

# Scores that a CPU sorts at a time: what fits into its cache.
_CHUNK = 2**19

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def similarity(queries: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    """Dot products of every query with every gallery item.

    A score depends on its two embeddings only, not on their places or on what else is compared.

    Args:
        queries: (Q, D) floating point; float16 and bfloat16 are computed in float32.
        gallery: (G, D) floating point.

    Returns:
        (Q, G) float32, or float64 if either input is.

    Raises:
        InputError: for a wrong shape or type, or a row with NaN or infinity.

    >>> similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 1.0], [-1.0, 0.0]]))
    tensor([[ 0.5000, -1.0000]])
    """
    queries, gallery = checked_embeddings(queries, gallery)
    return _similarity(queries, gallery)


def score_blocks(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    *,
    query_ids: torch.Tensor | None = None,
    gallery_ids: torch.Tensor | None = None,
    block: int = BLOCK,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Whole rows of scores, as many queries at a time as `block` scores allow, at least one.

    Args:
        queries: (Q, D) floating point.
        gallery: (G, D) floating point.
        query_ids: (Q,) integers; a gallery item with the query's id gets the score `EXCLUDED`.
        gallery_ids: (G,) integers, given if and only if `query_ids` is.
        block: scores held at a time; it changes memory and speed, never a number.

    Yields:
        The slice of queries and their (rows, G) scores, which the caller may overwrite.

    Raises:
        InputError: as `similarity`, and for ids that do not fit or a block below 1.
    """
    queries, gallery = checked_embeddings(queries, gallery)
    ids = _checked_ids(query_ids, gallery_ids, queries, gallery)
    step = max(1, positive(block, "block") // len(gallery))
    if step > QUERY_TILE:
        step -= step % QUERY_TILE
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        scores = _similarity(queries[rows], gallery)
        if ids is not None:
            scores.masked_fill_(ids[0][rows, None] == ids[1][None], EXCLUDED)
        yield rows, scores


def top_k(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    k: int,
    *,
    query_ids: torch.Tensor | None = None,
    gallery_ids: torch.Tensor | None = None,
    block: int = BLOCK // 4,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best gallery items of every query, exactly.

    Best first; of equal scores the lower gallery index first, whatever the block.
    Where fewer than k items remain (a small gallery, items left out by id) the row ends in index
    -1 and score -inf.

    Args:
        queries: (Q, D) floating point.
        gallery: (G, D) floating point.
        k: how many, at least 1; may exceed G.
        query_ids: (Q,) integers; gallery items with the query's id are left out.
        gallery_ids: (G,) integers, given if and only if `query_ids` is.
        block: scores held at a time (one tile at least).

    Returns:
        Scores (Q, k) and gallery indices (Q, k) int64.

    Raises:
        InputError: as `score_blocks`, and for a k below 1.

    >>> top_k(torch.tensor([[1.0]]), torch.tensor([[0.5], [2.0], [0.5]]), 2)[1]
    tensor([[1, 0]])
    """
    queries, gallery = checked_embeddings(queries, gallery)
    ids = _checked_ids(query_ids, gallery_ids, queries, gallery)
    k, block = positive(k, "k"), positive(block, "block")
    step = max(1, min(len(queries), block // GALLERY_TILE))
    width = max(1, block // step // GALLERY_TILE) * GALLERY_TILE
    best = queries.new_full((len(queries), k), EXCLUDED, dtype=_dtype(queries, gallery))
    index = torch.full_like(best, -1, dtype=torch.int64)
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        for left in range(0, len(gallery), width):
            columns = slice(left, left + width)
            scores = _similarity(queries[rows], gallery[columns])
            if ids is not None:
                scores.masked_fill_(ids[0][rows, None] == ids[1][None, columns], EXCLUDED)
            new, place = best_columns(scores, min(k, scores.shape[1]))
            # What was found before has lower indices and stands first, so a stable sort keeps
            # the tie rule.
            both = torch.cat([best[rows], new], dim=1)
            order = both.argsort(dim=1, descending=True, stable=True)[:, :k]
            best[rows] = both.gather(1, order)
            index[rows] = torch.cat([index[rows], place + left], dim=1).gather(1, order)
    return best, index.masked_fill(best == EXCLUDED, -1)


def best_columns(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k highest scores of every row and their columns; of equals the lower column first.

    `torch.topk` is fast but does not say which of several equal scores it returns, so it only
    finds the k-th value and the columns that reach it are put in order here.

    Args:
        scores: (Q, G) without NaN.
        k: between 1 and G.

    Returns:
        Scores (Q, k) and columns (Q, k) int64.

    >>> best_columns(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 3)[1]
    tensor([[1, 2, 3]])
    """
    lowest = scores.topk(k, dim=1).values[:, -1:]
    reaches = scores >= lowest
    row, column = reaches.nonzero(as_tuple=True)  # row by row, columns ascending
    order = scores[row, column].argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]  # by row, then score, then column
    count = reaches.sum(dim=1)
    place = torch.arange(len(order), device=scores.device) - (count.cumsum(0) - count)[row]
    columns = column[order[place < k]].view(len(scores), k)
    return scores.gather(1, columns), columns


def fair_ranks(scores: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Ranks that treat equal scores alike: how many items of a row score at least this much.

    Args:
        scores: (Q, G) without NaN or +infinity.
        thresholds: (Q, R) scores of the items to be ranked; each stands in its row of `scores`.

    Returns:
        (Q, R) int64, 1 for a score above all others, G for the lowest.

    >>> fair_ranks(torch.tensor([[0.5, 0.9, 0.5]]), torch.tensor([[0.9, 0.5]]))
    tensor([[1, 3]])
    """
    on_cpu = scores.device.type == "cpu"
    step = max(1, _CHUNK // max(1, scores.shape[1]) if on_cpu else len(scores))
    parts = zip(scores.split(step), thresholds.contiguous().split(step))
    below = [torch.searchsorted(sorted_rows(rows), some) for rows, some in parts]
    return scores.shape[1] - torch.cat(below)


def ranks_among_themselves(ascending: torch.Tensor) -> torch.Tensor:
    """`fair_ranks(ascending, ascending)` of rows in ascending order, at a tenth of the cost.

    >>> ranks_among_themselves(torch.tensor([[0.5, 0.5, 0.9]]))
    tensor([[3, 3, 1]])
    """
    places = torch.arange(ascending.shape[1], device=ascending.device).expand_as(ascending)
    repeated = ascending[:, 1:] == ascending[:, :-1]
    first = places.masked_fill(F.pad(repeated, (1, 0)), 0).cummax(dim=1).values
    return ascending.shape[1] - first


def sorted_rows(scores: torch.Tensor) -> torch.Tensor:
    """The (Q, G) scores with every row in ascending order; on a CPU by NumPy, which is faster."""
    if scores.device.type != "cpu":
        return scores.sort(dim=1).values
    return torch.from_numpy(np.sort(scores.numpy(), axis=1))


def order_ranks(scores: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Ranks in a stable descending sort: of equal scores the lower gallery index first.

    The released scripts sort by `numpy.argsort(-scores)`, which is not stable, so on ties they
    agree with this rule only where their sort happens to keep the order of the file.

    Args:
        scores: (Q, G) without NaN.
        columns: (R,) int64, the items to be ranked.

    Returns:
        (Q, R) int64, from 1 to G.

    >>> order_ranks(torch.tensor([[0.5, 0.9, 0.5]]), torch.tensor([0, 1, 2]))
    tensor([[2, 1, 3]])
    """
    order = scores.sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)[:, columns]


@torch.no_grad()
def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b.T in the precision of its inputs, even where autocast would lower it.

    On a CPU by oneDNN where torch comes with it: on the AMD processor of our benchmarks it is twice
    as fast as MKL, which torch would take (`python -m tests.benchmarks.bench choice`).

    Args:
        a: (N, D) float32 or float64.
        b: (M, D) of the same type.

    Returns:
        (N, M).

    >>> product(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[11.,  2.]])
    """
    if a.device.type == "cpu" and a.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        with torch.autocast("cpu", enabled=False):
            return F.linear(a.to_mkldnn(), b).to_dense()
    return torch.mm(a, b.T, out=a.new_empty((len(a), len(b))))


def checked_embeddings(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    names: tuple[str, str] = ("query", "gallery"),
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two embedding matrices as plain tensors, or an `InputError` that says what is wrong."""
    one, other = names
    queries = _matrix(queries, one)
    gallery = _matrix(gallery, other)
    if queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"{one} embeddings have {queries.shape[1]} dimensions and {other} embeddings "
            f"{gallery.shape[1]}; embed both with the same model"
        )
    if queries.device != gallery.device:
        raise InputError(
            f"{one} embeddings are on {queries.device} and {other} embeddings on "
            f"{gallery.device}; move both to one device"
        )
    if len(gallery) == 0:
        raise InputError(f"there are no {other} embeddings; give at least one")
    dtype = _dtype(queries, gallery)
    _check_finite(queries, one, dtype)
    _check_finite(gallery, other, dtype)
    return queries, gallery


def checked_integers(values: torch.Tensor, name: str, length: int) -> torch.Tensor:
    """A vector of integers of the given length as int64, or an `InputError` naming it."""
    values = as_tensor(values, name)
    if values.is_floating_point() or values.is_complex():
        raise InputError(f"{name} must be integers, not {values.dtype}; pass ids, not numbers")
    if values.shape != (length,):
        raise InputError(
            f"{name} must have shape ({length},), one for each embedding, not {tuple(values.shape)}"
        )
    return values.to(torch.int64)


def as_tensor(values: torch.Tensor | np.ndarray | Sequence[float], name: str) -> torch.Tensor:
    """A tensor without gradient from a tensor, an array or nested lists of numbers."""
    if isinstance(values, torch.Tensor):
        return values.detach()
    try:
        array = np.ascontiguousarray(values)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a tensor or an array of numbers ({error})") from None


def positive(number: int, name: str) -> int:
    """A whole number of at least 1, or an `InputError` naming it."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {number!r}")
    return int(number)


def _similarity(queries: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    """`similarity` of checked embeddings: one product of fixed shape for every tile."""
    dtype = _dtype(queries, gallery)
    scores = queries.new_empty((len(queries), len(gallery)), dtype=dtype)
    query_tiles = list(_tiles(queries, QUERY_TILE, dtype))
    for left, some_gallery in _tiles(gallery, GALLERY_TILE, dtype):
        for top, some_queries in query_tiles:
            place = scores[top : top + QUERY_TILE, left : left + GALLERY_TILE]
            tile = product(some_queries, some_gallery)
            place.copy_(tile[: place.shape[0], : place.shape[1]])
    return scores


def _tiles(rows: torch.Tensor, size: int, dtype: torch.dtype) -> Iterator[tuple[int, torch.Tensor]]:
    """Consecutive tiles of `size` rows with the index of their first; zeros complete the last."""
    for start in range(0, len(rows), size):
        tile = rows[start : start + size].to(dtype).contiguous()
        missing = size - len(tile)
        yield start, F.pad(tile, (0, 0, 0, missing)) if missing else tile


def _dtype(queries: torch.Tensor, gallery: torch.Tensor) -> torch.dtype:
    """The type scores are computed in: float32, or float64 if an input is."""
    return torch.promote_types(torch.promote_types(queries.dtype, gallery.dtype), torch.float32)


def _matrix(embeddings: torch.Tensor, side: str) -> torch.Tensor:
    embeddings = as_tensor(embeddings, f"{side} embeddings")
    if embeddings.dtype not in _FLOATS:
        raise InputError(
            f"{side} embeddings must be float16, bfloat16, float32 or float64, "
            f"not {embeddings.dtype}"
        )
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise InputError(
            f"{side} embeddings must have shape (rows, dimensions), not {tuple(embeddings.shape)}"
        )
    return embeddings


def _check_finite(embeddings: torch.Tensor, side: str, dtype: torch.dtype) -> None:
    """Refuse rows whose products could be anything but finite numbers."""
    # No product of two rows exceeds the product of their lengths, so looking at lengths is enough
    # and needs no copy of the embeddings.
    length = torch.linalg.vector_norm(embeddings, dim=1, dtype=dtype)
    bad = ~(length < torch.finfo(dtype).max ** 0.5 / 2)
    if bad.any():
        rows = bad.nonzero().flatten().tolist()
        listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise InputError(
            f"{side} embeddings hold NaN, infinity or a number too large to compare in "
            f"{len(rows)} of {len(bad)} rows (row {listed}); embed those images again or leave "
            "them out"
        )


def _checked_ids(
    query_ids: torch.Tensor | None,
    gallery_ids: torch.Tensor | None,
    queries: torch.Tensor,
    gallery: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    if query_ids is None and gallery_ids is None:
        return None
    if query_ids is None or gallery_ids is None:
        raise InputError("query_ids and gallery_ids belong together; give both or neither")
    return (
        checked_integers(query_ids, "query_ids", len(queries)).to(queries.device),
        checked_integers(gallery_ids, "gallery_ids", len(gallery)).to(queries.device),
    )
