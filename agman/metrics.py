"""Metrics: average precision and its means, top-k, triplet accuracy, intervals, attention maps.

Average precision here is tie-aware: the mean, over the relevant items i, of
(relevant items scoring at least s_i) / (items scoring at least s_i).
This is scikit-learn's `average_precision_score`; it does not depend on the order of the gallery,
and scores that are all equal get exactly the share of relevant items.
`ties="order"` ranks equal scores by their place in the gallery instead, as the released scripts do
up to their unstable sort.

A query without any relevant item has no average precision.
The released scripts would divide by zero; here it is NaN in `average_precisions`, is left out of
every mean, and an `InputError` is raised only if no query is left.
Counts are int64 and averages float64.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from agman.errors import InputError
from agman.ranking import (
    BLOCK,
    EXCLUDED,
    TIES,
    as_tensor,
    best_columns,
    checked_embeddings,
    checked_integers,
    fair_ranks,
    order_ranks,
    positive,
    ranks_among_themselves,
    score_blocks,
    sorted_rows,
)

Numbers = torch.Tensor | np.ndarray | Sequence[float]


def average_precision(scores: torch.Tensor, relevant: torch.Tensor, ties: str = "fair") -> float:
    """Average precision of one ranking.

    Args:
        scores: (N,) numbers, higher is better.
        relevant: (N,) booleans, or zeros and ones.
        ties: "fair" counts equal scores as equally good; "order" puts the lower index first.

    Returns:
        A number in (0, 1].

    Raises:
        InputError: for no relevant item, a score that is NaN or infinite, or shapes that differ.

    >>> average_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True]))
    0.8333333333333333
    >>> average_precision(torch.zeros(4), torch.tensor([True, False, False, False]))
    0.25
    """
    _check_ties(ties)
    scores = _checked_scores(scores)
    columns = _checked_relevance(relevant, len(scores)).nonzero().flatten().to(scores.device)
    if len(columns) == 0:
        raise InputError("no item is relevant, so there is no average precision; leave it out")
    return float(_precisions(scores[None], [(slice(0, 1), columns)], ties)[0])


def average_precisions(
    query_embeddings: torch.Tensor,
    query_values: torch.Tensor,
    gallery_embeddings: torch.Tensor,
    gallery_values: torch.Tensor,
    *,
    query_ids: torch.Tensor | None = None,
    gallery_ids: torch.Tensor | None = None,
    ties: str = "fair",
    block: int = BLOCK,
) -> torch.Tensor:
    """Average precision of every query over the whole gallery; equal values are relevant.

    Args:
        query_embeddings: (Q, D) floating point; compared by dot product, so of unit length if the
            cosine is meant.
        query_values: (Q,) integers.
        gallery_embeddings: (G, D) floating point.
        gallery_values: (G,) integers.
        query_ids: (Q,) integers; gallery items with the query's id are left out of its ranking.
        gallery_ids: (G,) integers, given if and only if `query_ids` is.
        ties: "fair" or "order", see `average_precision`.
        block: scores held at a time, at least one row; it never changes a result.

    Returns:
        (Q,) float64 on the CPU, NaN for a query without a relevant item.

    Raises:
        InputError: for shapes, types or ids that do not fit, an empty gallery, or a row with NaN
            or infinity.
    """
    _check_ties(ties)
    task = _Task(query_embeddings, query_values, gallery_embeddings, gallery_values)
    result = torch.empty(len(task.queries), dtype=torch.float64)
    for places, scores, groups in task.blocks(query_ids, gallery_ids, block):
        result[places] = _precisions(scores, groups, ties)
    return result


def mean_average_precision(
    query_embeddings: torch.Tensor,
    query_values: torch.Tensor,
    gallery_embeddings: torch.Tensor,
    gallery_values: torch.Tensor,
    *,
    query_ids: torch.Tensor | None = None,
    gallery_ids: torch.Tensor | None = None,
    ties: str = "fair",
    block: int = BLOCK,
) -> float:
    """Mean of `average_precisions` over the queries that have a relevant item.

    Takes what `average_precisions` takes.

    Raises:
        InputError: as `average_precisions`, and if no query has a relevant item.

    >>> compass = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> mean_average_precision(compass[:1], [7], compass, [7, 5, 7])
    0.8333333333333333
    """
    return micro_mean(
        average_precisions(
            query_embeddings,
            query_values,
            gallery_embeddings,
            gallery_values,
            query_ids=query_ids,
            gallery_ids=gallery_ids,
            ties=ties,
            block=block,
        )
    )


def recall_at_k(
    query_embeddings: torch.Tensor,
    query_values: torch.Tensor,
    gallery_embeddings: torch.Tensor,
    gallery_values: torch.Tensor,
    k: int,
    *,
    query_ids: torch.Tensor | None = None,
    gallery_ids: torch.Tensor | None = None,
    block: int = BLOCK,
) -> float:
    """Share of a query's relevant items that are among its k best, mean over queries.

    Many papers on metric learning call something else recall at k: see `hit_rate_at_k`.
    Of equal scores the lower gallery index is the better, here and in all metrics at k.
    Arguments and errors are those of `mean_average_precision`.
    """
    task = _Task(query_embeddings, query_values, gallery_embeddings, gallery_values)
    hits, relevant = task.hits_at(positive(k, "k"), query_ids, gallery_ids, block)
    return micro_mean(hits / relevant)


def hit_rate_at_k(
    query_embeddings: torch.Tensor,
    query_values: torch.Tensor,
    gallery_embeddings: torch.Tensor,
    gallery_values: torch.Tensor,
    k: int,
    *,
    query_ids: torch.Tensor | None = None,
    gallery_ids: torch.Tensor | None = None,
    block: int = BLOCK,
) -> float:
    """Share of queries with at least one relevant item among their k best ("Recall@k" of papers).

    Arguments and errors are those of `mean_average_precision`.
    """
    task = _Task(query_embeddings, query_values, gallery_embeddings, gallery_values)
    hits, _ = task.hits_at(positive(k, "k"), query_ids, gallery_ids, block)
    return micro_mean(hits.clamp(max=1))


def precision_at_k(
    query_embeddings: torch.Tensor,
    query_values: torch.Tensor,
    gallery_embeddings: torch.Tensor,
    gallery_values: torch.Tensor,
    k: int,
    *,
    query_ids: torch.Tensor | None = None,
    gallery_ids: torch.Tensor | None = None,
    block: int = BLOCK,
) -> float:
    """Relevant items among the k best, divided by k (also in a smaller gallery), mean over queries.

    Arguments and errors are those of `mean_average_precision`.
    """
    task = _Task(query_embeddings, query_values, gallery_embeddings, gallery_values)
    hits, _ = task.hits_at(positive(k, "k"), query_ids, gallery_ids, block)
    return micro_mean(hits / k)


def map_at_r(
    query_embeddings: torch.Tensor,
    query_values: torch.Tensor,
    gallery_embeddings: torch.Tensor,
    gallery_values: torch.Tensor,
    *,
    query_ids: torch.Tensor | None = None,
    gallery_ids: torch.Tensor | None = None,
    block: int = BLOCK,
) -> float:
    """MAP@R: average precision cut at rank R, a query's number of relevant items.

    For one query: the sum of the precisions at the relevant ranks up to R, divided by R.
    Source: Musgrave et al., "A Metric Learning Reality Check", ECCV 2020.
    Arguments and errors are those of `mean_average_precision`.
    """
    task = _Task(query_embeddings, query_values, gallery_embeddings, gallery_values)
    result = torch.full((len(task.queries),), torch.nan, dtype=torch.float64)
    for places, scores, groups in task.blocks(query_ids, gallery_ids, block):
        for rows, columns in groups:
            if len(columns):
                result[places[rows]] = _precision_at_r(scores[rows], columns)
    return micro_mean(result)


def triplet_accuracy(anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Share of triplets whose anchor is more similar to the positive than to the negative.

    A tie counts as wrong, so a collapsed network gets 0.

    Args:
        anchor: (T, D) embeddings.
        positive: (T, D) embeddings.
        negative: (T, D) embeddings.

    Raises:
        InputError: for no triplet, shapes that differ, or a row with NaN or infinity.

    >>> one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> triplet_accuracy(one, one, other), triplet_accuracy(one, one, one)
    (1.0, 0.0)
    """
    anchor, positive = checked_embeddings(anchor, positive, names=("anchor", "positive"))
    anchor, negative = checked_embeddings(anchor, negative, names=("anchor", "negative"))
    if not len(anchor) == len(positive) == len(negative):
        raise InputError(
            f"a triplet has one row in each, but there are {len(anchor)} anchors, {len(positive)} "
            f"positives and {len(negative)} negatives"
        )
    right = 0
    for rows in torch.arange(len(anchor)).split(4096):
        a, p, n = (side[rows].double() for side in (anchor, positive, negative))
        right += int(((a * p).sum(dim=1) > (a * n).sum(dim=1)).sum())
    return right / len(anchor)


def expected_random_ap(n_relevant: int, n_items: int) -> float:
    """Mean average precision of a ranking drawn at random: what knowing nothing is worth.

    An item at rank t is relevant with probability R/N and then has (R-1)/(N-1) of the t-1 before
    it relevant; summed over t this gives (R-1)/(N-1) (1 - H/N) + H/N with H = 1 + 1/2 + ... + 1/N.

    Args:
        n_relevant: R, from 1 to N.
        n_items: N.

    Raises:
        InputError: for numbers outside these bounds.

    >>> expected_random_ap(1, 2)
    0.75
    """
    if positive(n_relevant, "n_relevant") > positive(n_items, "n_items"):
        raise InputError(f"n_relevant is {n_relevant}, more than the {n_items} items there are")
    if n_items == 1:
        return 1.0
    first = math.fsum(1 / rank for rank in range(1, n_items + 1)) / n_items
    return (n_relevant - 1) / (n_items - 1) * (1 - first) + first


def attribute_means(ap: torch.Tensor, attributes: torch.Tensor) -> dict[int, float]:
    """Mean AP of each attribute, in order of its id; attributes without any AP are left out.

    Args:
        ap: (Q,) average precisions, NaN for a query to be left out.
        attributes: (Q,) integers, the attribute each query is about.

    >>> attribute_means(torch.tensor([1.0, 0.5, torch.nan]), torch.tensor([4, 4, 7]))
    {4: 0.75}
    """
    ap = _checked_averages(ap)
    attributes = checked_integers(attributes, "attributes", len(ap))
    known = ~ap.isnan()
    return {
        int(attribute): float(ap[known & (attributes == attribute)].mean())
        for attribute in attributes[known].unique()
    }


def micro_mean(ap: torch.Tensor) -> float:
    """Mean over all queries: each attribute counts by its queries (the papers' "overall").

    Args:
        ap: (Q,) average precisions, NaN for a query to be left out.

    Raises:
        InputError: if nothing is left.
    """
    ap = _checked_averages(ap)
    known = ap[~ap.isnan()]
    if len(known) == 0:
        raise InputError(
            "no query has a relevant item in the gallery, so there is no mean; check that queries "
            "and gallery use the same value ids"
        )
    return float(known.mean())


def macro_mean(ap: torch.Tensor, attributes: torch.Tensor) -> float:
    """Mean over attributes of their means: each attribute counts alike.

    Args:
        ap: (Q,) average precisions, NaN for a query to be left out.
        attributes: (Q,) integers.

    Raises:
        InputError: if nothing is left.
    """
    means = attribute_means(ap, attributes).values()
    return micro_mean(torch.tensor(list(means), dtype=torch.float64))


def bootstrap_interval(
    values: Numbers, confidence: float = 0.95, n: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, for many values such as one AP for each query.

    Draws as many values with replacement as there are, n times, and returns the two quantiles of
    the means that leave out (1 - confidence) / 2 on each side.

    Args:
        values: (V,) numbers, for example average precisions; NaN are left out.
        confidence: between 0 and 1.
        n: number of draws.
        seed: the same seed gives the same interval.

    Raises:
        InputError: for no value, an infinite value, or a confidence outside (0, 1).
    """
    averages = _checked_averages(values)
    known = _interval_values(averages[~averages.isnan()], confidence, at_least=1)
    generator = np.random.default_rng(seed)
    means = [
        known[generator.integers(len(known), size=len(known))].mean()
        for _ in range(positive(n, "n"))
    ]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def t_interval(values: Numbers, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's t interval of it, for a few values such as one MAP for each seed.

    Args:
        values: (V,) numbers, at least two.
        confidence: between 0 and 1.

    Returns:
        The mean and the two ends of the interval: mean, low, high.

    Raises:
        InputError: for fewer than two values, NaN or infinity (a run that failed is not a run to
            leave out), or a confidence outside (0, 1).

    >>> [round(number, 2) for number in t_interval([60.0, 61.0, 62.0])]
    [61.0, 58.52, 63.48]
    """
    array = _interval_values(_checked_averages(values), confidence, at_least=2)
    mean = float(array.mean())
    half = _t_quantile(confidence, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return mean, float(mean - half), float(mean + half)


def paired_difference(
    a: Numbers, b: Numbers, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of a - b and its t interval, where a[i] and b[i] share all but what is compared.

    Two methods trained from the same seeds share what the seed decides, so the interval of their
    differences is often much narrower than the two intervals let one think.

    Args:
        a: (V,) numbers, at least two.
        b: (V,) numbers, in the same order.
        confidence: between 0 and 1.

    Returns:
        The mean difference and the two ends of its interval: mean, low, high.

    Raises:
        InputError: for different lengths, and as `t_interval`.

    >>> paired_difference([61.0, 64.0], [60.0, 63.0])
    (1.0, 1.0, 1.0)
    """
    left, right = _checked_averages(a), _checked_averages(b)
    if len(left) != len(right):
        raise InputError(
            f"paired values come in pairs, but there are {len(left)} and {len(right)}; give one "
            "of each for every seed, in the same order"
        )
    return t_interval(left - right, confidence)


def attention_mass(maps: torch.Tensor, regions: torch.Tensor, size: float) -> torch.Tensor:
    """Share of each attention map that lies inside its region: does the network look there?

    A map spreads evenly over the square image, so that each of its cells is a rectangle; of a
    cell that is only partly inside the region, the part of its area inside counts. A uniform map
    therefore gets the region's share of the image, which is what looking nowhere is worth.

    Args:
        maps: (R, h, w) numbers of at least zero, of any scale.
        regions: (R, 4) x0, y0, x1, y1 in pixels, where the region starts and where it ends; -1
            four times where nothing can be seen.
        size: side of the image in the pixels that regions are given in.

    Returns:
        (R,) float64 in 0..1 on the CPU, NaN without a region.

    Raises:
        InputError: for shapes that do not fit, a map that is negative, not finite or zero all
            over, or a region without area in the image.

    >>> uniform = torch.ones(1, 7, 7)
    >>> round(float(attention_mass(uniform, torch.tensor([[0, 0, 50, 25]]), 100)), 6)
    0.125
    """
    maps, regions = _checked_maps(maps), _checked_regions(regions, size)
    _check_pairs(maps, regions)
    rows = _overlap(regions[:, 1::2], maps.shape[1], size)
    columns = _overlap(regions[:, ::2], maps.shape[2], size)
    inside = maps * (rows[:, :, None] * columns[:, None, :])
    mass = inside.sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
    return mass.masked_fill(_hidden(regions), torch.nan)


def pointing_hit(maps: torch.Tensor, regions: torch.Tensor, size: float) -> torch.Tensor:
    """Whether the centre of each map's brightest cell lies in its region ("pointing game").

    Of several equally bright cells each counts alike: the result is the share of them that hit.
    A region holds the points x0 <= x < x1 and y0 <= y < y1.

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, without
    its tolerance of 15 pixels. Arguments and errors are those of `attention_mass`.

    Returns:
        (R,) float64 in 0..1 on the CPU, NaN without a region.

    >>> maps = torch.tensor([[[1.0, 3.0], [3.0, 0.0]]])
    >>> pointing_hit(maps, torch.tensor([[50, 0, 100, 50]]), 100).tolist()
    [0.5]
    """
    maps, regions = _checked_maps(maps), _checked_regions(regions, size)
    _check_pairs(maps, regions)
    y, x = ((torch.arange(n).double() + 0.5) * size / n for n in maps.shape[1:])
    x0, y0, x1, y1 = regions.T[..., None]  # each (R, 1)
    inside = ((y0 <= y) & (y < y1))[:, :, None] & ((x0 <= x) & (x < x1))[:, None, :]
    brightest = maps == maps.amax(dim=(1, 2), keepdim=True)
    hits = (brightest & inside).sum(dim=(1, 2)) / brightest.sum(dim=(1, 2)).double()
    return hits.masked_fill(_hidden(regions), torch.nan)


def central_map(shape: tuple[int, int], spread: float = 0.25) -> torch.Tensor:
    """A Gaussian in the middle of the image: where a network looks that only knows photographs.

    Args:
        shape: height and width of the map in cells.
        spread: standard deviation, as a share of the image's side.

    Returns:
        (h, w) float64 with sum 1, the density at the centre of each cell.

    Raises:
        InputError: for a shape that is not positive, or a spread that is not.
    """
    if not 0 < spread < math.inf:
        raise InputError(f"spread must be a positive number, not {spread!r}; 0.25 is usual")
    rows, columns = (
        # Whole numbers keep both sides exactly alike, so that the middle of an even map is a tie.
        (-0.5 * ((2 * torch.arange(n) + 1 - n).double() / (2 * n) / spread) ** 2).exp()
        for n in (positive(shape[0], "height"), positive(shape[1], "width"))
    )
    density = rows[:, None] * columns
    return density / density.sum()


def average_place(regions: torch.Tensor, shape: tuple[int, int], size: float) -> torch.Tensor:
    """The mean of many regions: where to look for an attribute without seeing the photograph.

    Args:
        regions: (R, 4) as in `attention_mass`, of one attribute, to be taken from training rows;
            those without a region are left out.
        shape: height and width of the map in cells.
        size: side of the image in the pixels that regions are given in.

    Returns:
        (h, w) float64 with sum 1; each cell by the mean share of it that regions cover.

    Raises:
        InputError: if there is no region, or as `attention_mass`.
    """
    regions = _checked_regions(regions, size)
    seen = regions[~_hidden(regions)]
    if len(seen) == 0:
        raise InputError("there is no region to average; give rows that show the attribute")
    height, width = positive(shape[0], "height"), positive(shape[1], "width")
    covered = _overlap(seen[:, 1::2], height, size).T @ _overlap(seen[:, ::2], width, size)
    return covered / covered.sum()


# Rows of scores that belong to one value, and the gallery columns relevant to them.
_Groups = list[tuple[slice, torch.Tensor]]


class _Task:
    """Checked queries and gallery, the queries in order of their values.

    Queries of one value share their relevant columns, so these are looked up once.
    """

    def __init__(
        self,
        query_embeddings: torch.Tensor,
        query_values: torch.Tensor,
        gallery_embeddings: torch.Tensor,
        gallery_values: torch.Tensor,
    ) -> None:
        self.queries, self.gallery = checked_embeddings(query_embeddings, gallery_embeddings)
        device = self.queries.device
        query_values = checked_integers(query_values, "query_values", len(self.queries))
        gallery_values = checked_integers(gallery_values, "gallery_values", len(self.gallery))
        self.order = query_values.argsort(stable=True).cpu()
        self.query_values = query_values.to(device)
        self.gallery_values, self.columns = gallery_values.to(device).sort()

    def blocks(
        self,
        query_ids: torch.Tensor | None,
        gallery_ids: torch.Tensor | None,
        block: int,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, _Groups]]:
        """Blocks of scores: which queries (int64, on the CPU), their scores, their groups."""
        if query_ids is not None:
            query_ids = checked_integers(query_ids, "query_ids", len(self.queries))[self.order]
        for rows, scores in score_blocks(
            self.queries[self.order],
            self.gallery,
            query_ids=query_ids,
            gallery_ids=gallery_ids,
            block=block,
        ):
            places = self.order[rows]
            yield places, scores, self._groups(places)

    def _groups(self, places: torch.Tensor) -> _Groups:
        values, counts = self.query_values[places].unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).tolist()
        first = torch.searchsorted(self.gallery_values, values).tolist()
        last = torch.searchsorted(self.gallery_values, values, right=True).tolist()
        return [
            (slice(start, end), self.columns[left:right])
            for start, end, left, right in zip([0, *ends], ends, first, last)
        ]

    def hits_at(
        self,
        k: int,
        query_ids: torch.Tensor | None,
        gallery_ids: torch.Tensor | None,
        block: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Relevant items among the k best, NaN if there are none at all, and in all, of each query.

        Both are (Q,) float64.
        """
        hits = torch.zeros(len(self.queries), dtype=torch.float64)
        relevant = torch.zeros_like(hits)
        for places, scores, groups in self.blocks(query_ids, gallery_ids, block):
            best, columns = best_columns(scores, min(k, scores.shape[1]))
            for rows, wanted in groups:
                hit = torch.isin(columns[rows], wanted) & (best[rows] > EXCLUDED)
                hits[places[rows]] = hit.sum(dim=1).double().cpu()
                relevant[places[rows]] = _allowed(scores[rows][:, wanted]).double().cpu()
        return hits.masked_fill(relevant == 0, torch.nan), relevant


def _allowed(scores: torch.Tensor) -> torch.Tensor:
    """How many items of each row are not left out: (Q,) int64."""
    return (scores > EXCLUDED).sum(dim=1)


def _precisions(scores: torch.Tensor, groups: _Groups, ties: str) -> torch.Tensor:
    """(Q,) float64 average precisions of the queries of a block."""
    if ties == "order":
        return torch.cat([_precisions_in_order(scores[rows], wanted) for rows, wanted in groups])
    # Groups have more or fewer relevant items; low scores, which are left out, complete a row.
    width = max(len(columns) for _, columns in groups)
    relevant = scores.new_full((len(scores), width), EXCLUDED)
    for rows, columns in groups:
        relevant[rows, width - len(columns) :] = scores[rows][:, columns]
    relevant = sorted_rows(relevant)
    allowed = relevant > EXCLUDED
    precision = ranks_among_themselves(relevant).double() / fair_ranks(scores, relevant) * allowed
    totals = [_row_sums(precision[rows, width - len(columns) :]) for rows, columns in groups]
    return torch.cat(totals) / allowed.sum(dim=1).cpu()


def _precisions_in_order(scores: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(Q,) float64 average precisions of one group, of equal scores the lower index first."""
    among_all = order_ranks(scores, columns).sort(dim=1).values
    among_relevant = torch.arange(1, len(columns) + 1, device=scores.device)
    # Items that are left out have the last ranks of all.
    allowed = among_all <= _allowed(scores)[:, None]
    precision = among_relevant.double() / among_all * allowed
    return _row_sums(precision) / allowed.sum(dim=1).cpu()


def _row_sums(precision: torch.Tensor) -> torch.Tensor:
    """(Q,) float64: NumPy adds a row in the same order whatever the number of rows, torch not."""
    return torch.from_numpy(precision.cpu().numpy().sum(axis=1))


def _precision_at_r(scores: torch.Tensor, relevant: torch.Tensor) -> torch.Tensor:
    """(Q,) float64 MAP@R of queries that share their relevant columns."""
    best, columns = best_columns(scores, len(relevant))
    n_relevant = _allowed(scores[:, relevant])[:, None]
    rank = torch.arange(1, len(relevant) + 1, device=scores.device)
    hit = torch.isin(columns, relevant) & (best > EXCLUDED) & (rank <= n_relevant)
    precision = hit.cumsum(dim=1).double() / rank * hit
    return (precision.sum(dim=1) / n_relevant[:, 0]).cpu()


@functools.cache  # one number of seeds makes a whole table
def _t_quantile(confidence: float, degrees: int) -> float:
    """The t for which a Student variable lies in (-t, t) with this probability, by bisection."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        if _t_probability(angle, degrees) < confidence:
            low = angle
        else:
            high = angle
    return math.sqrt(degrees) * math.tan(angle)


def _t_probability(angle: float, degrees: int) -> float:
    """Probability that |t| < sqrt(degrees) tan(angle): a finite sum.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    odd = degrees % 2
    # Each term is the one before it times cos^2 (m - 1) / m, for m in steps of two.
    step = np.arange(2 + odd, degrees - 1, 2)
    ratios = math.cos(angle) ** 2 * (step - 1) / step
    series = np.concatenate([[1.0], ratios]).cumprod().sum()
    if not odd:
        return math.sin(angle) * series
    if degrees == 1:
        return 2 / math.pi * angle
    return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * series)


def _overlap(spans: torch.Tensor, n: int, size: float) -> torch.Tensor:
    """Share of each of n cells that lies between the start and the end of a span: (R, n)."""
    edges = torch.arange(n + 1, dtype=torch.float64) * size / n
    low, high = torch.maximum(spans[:, :1], edges[:-1]), torch.minimum(spans[:, 1:], edges[1:])
    return (high - low).clamp(min=0) / (edges[1:] - edges[:-1])


def _hidden(regions: torch.Tensor) -> torch.Tensor:
    """(R,) True where there is no region."""
    return (regions == -1).all(dim=1)


def _check_ties(ties: str) -> None:
    if ties not in TIES:
        raise InputError(f"ties must be one of {', '.join(TIES)}, not {ties!r}")


def _checked_scores(scores: torch.Tensor) -> torch.Tensor:
    """Scores as a float32 or float64 vector, every one finite."""
    scores = as_tensor(scores, "scores")
    if scores.ndim != 1 or scores.is_complex():
        raise InputError(
            f"scores must be a vector of numbers, not {scores.dtype} of shape {tuple(scores.shape)}"
        )
    if not scores.is_floating_point():
        scores = scores.double()
    bad = (~scores.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            f"scores hold NaN or infinity in {len(bad)} of {len(scores)} places (first at "
            f"{bad[0]}); mend what computes them"
        )
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _checked_relevance(relevant: torch.Tensor, length: int) -> torch.Tensor:
    relevant = as_tensor(relevant, "relevant")
    if relevant.shape != (length,):
        raise InputError(
            f"relevant must have one entry for each of the {length} scores, not shape "
            f"{tuple(relevant.shape)}"
        )
    if not ((relevant == 0) | (relevant == 1)).all():
        raise InputError("relevant must be booleans, or zeros and ones; pass values == query_value")
    return relevant


def _checked_maps(maps: torch.Tensor) -> torch.Tensor:
    """Attention maps as float64 on the CPU, each with something to look at."""
    maps = as_tensor(maps, "maps")
    if maps.ndim != 3 or 0 in maps.shape[1:] or maps.is_complex():
        raise InputError(
            f"maps must be numbers of shape (rows, height, width), not {maps.dtype} of shape "
            f"{tuple(maps.shape)}"
        )
    maps = maps.double().cpu()
    bad = ~((maps >= 0) & (maps < torch.inf)).all(dim=(1, 2)) | ~(maps > 0).any(dim=(1, 2))
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {len(maps)} maps hold a negative number, NaN or infinity, or "
            f"zeros only, first row {int(bad.nonzero()[0])}; give maps as a softmax makes them"
        )
    return maps


def _checked_regions(regions: torch.Tensor, size: float) -> torch.Tensor:
    """Regions as float64 on the CPU, each with some area in the image or -1 four times."""
    if not 0 < size < math.inf:
        raise InputError(f"size must be the positive side of the image in pixels, not {size!r}")
    regions = as_tensor(regions, "regions")
    if regions.ndim != 2 or regions.shape[1] != 4 or regions.is_complex():
        raise InputError(
            f"regions must be numbers of shape (rows, 4), not {regions.dtype} of shape "
            f"{tuple(regions.shape)}"
        )
    regions = regions.double().cpu()
    x0, y0, x1, y1 = regions.clamp(0, size).T
    bad = (~((x0 < x1) & (y0 < y1)) & ~_hidden(regions)).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            f"{len(bad)} of {len(regions)} regions have no area in an image of {size} pixels, "
            f"first row {bad[0]} with {regions[bad[0]].tolist()}; write x0, y0, x1, y1, or -1 "
            "four times where nothing can be seen"
        )
    return regions


def _check_pairs(maps: torch.Tensor, regions: torch.Tensor) -> None:
    if len(maps) != len(regions):
        raise InputError(
            f"each map has one region, but there are {len(maps)} maps and {len(regions)} regions"
        )


def _checked_averages(ap: Numbers) -> torch.Tensor:
    ap = as_tensor(ap, "average precisions")
    if ap.ndim != 1 or ap.is_complex():
        raise InputError(
            f"average precisions must be a vector of numbers, not {ap.dtype} of shape "
            f"{tuple(ap.shape)}"
        )
    return ap.double().cpu()


def _interval_values(values: torch.Tensor, confidence: float, at_least: int) -> np.ndarray:
    """Checked float64 values for an interval of their mean."""
    if len(values) < at_least:
        raise InputError(f"an interval needs at least {at_least} values, there are {len(values)}")
    bad = values[~values.isfinite()]
    if len(bad):
        raise InputError(
            f"an interval needs finite values, but one of the {len(values)} is {float(bad[0])}; "
            "mend or repeat what it comes from"
        )
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence!r}; 0.95 is usual")
    return values.numpy()
