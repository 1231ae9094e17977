"""What the self-checks of assignment 1 look for; `make assignments` records the answers only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course.exercises import Exercise

SCORES = torch.tensor([0.1, 0.9, 0.4, 0.7, -0.3])
RELEVANT = torch.tensor([True, False, True, True, False])
TIED = torch.tensor([0.5, 0.5, 0.9, 0.5, 0.1, 0.1])
MARKS = torch.tensor([False, True, False, True, True, False])


def hits(scores: Tensor, relevant: Tensor) -> Tensor:
    return relevant[scores.argsort(descending=True)].double().cumsum(dim=0)


def ranks(count: Tensor, first: int = 1) -> Tensor:
    return torch.arange(first, len(count) + first).double()


def two(scores: Tensor, relevant: Tensor) -> list[Tensor]:
    found = hits(scores, relevant)
    return [found / ranks(found), found / found[-1]]


def ordinary(scores: Tensor, relevant: Tensor) -> Tensor:
    """Ties as the file has them."""
    ranked = relevant[scores.argsort(descending=True, stable=True)].double()
    return ((ranked.cumsum(0) / ranks(ranked)) * ranked).sum() / ranked.sum()


def counts(scores: Tensor, relevant: Tensor, strict: bool = False) -> tuple[Tensor, Tensor]:
    own = scores[relevant][:, None]
    reaches = scores > own if strict else scores >= own
    return (reaches & relevant).sum(1).double(), reaches.sum(1).double()


def ends(scores: Tensor, relevant: Tensor) -> tuple[Tensor, Tensor]:
    """Ordinary average precision with relevant items last, and first, among equals."""
    found = []
    for mark in (~relevant, relevant):
        order = mark.int().argsort(descending=True, stable=True)
        found.append(ordinary(scores[order], relevant[order]))
    return found[0], found[1]


def searched(
    queries: Mapping[str, Tensor],
    gallery: Mapping[str, Tensor],
    *,
    unit: bool = True,
    out: str = "self",
) -> Tensor:
    """Searches with one thing changed."""
    ours, theirs = queries["embeddings"], gallery["embeddings"]
    if unit:
        ours, theirs = F.normalize(ours, dim=1), F.normalize(theirs, dim=1)
    found = []
    for row, image, value in zip(ours @ theirs.T, queries["images"], queries["values"]):
        relevant = gallery["values"] == value
        kept = torch.ones_like(relevant) if out == "nothing" else gallery["images"] != image
        if out == "value":
            relevant, kept = relevant & kept, torch.ones_like(kept)
        found.append(score_of(row[kept], relevant[kept]))
    return torch.tensor(found, dtype=torch.float64)


def score_of(scores: Tensor, relevant: Tensor) -> float:
    among, reaching = counts(scores, relevant)
    return float((among / reaching).mean())


def part(seed: int, n: int, values: list[int], images: list[int]) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    lengths = torch.rand(n, 1, generator=random, dtype=torch.float64) * 4 + 0.2
    return {
        "embeddings": lengths * torch.randn(n, 3, generator=random, dtype=torch.float64),
        "images": torch.tensor(images),
        "values": torch.tensor(values),
    }


def exercises(right: Mapping[str, Callable[..., Any]]) -> dict[str, Exercise]:
    """The checks by function name.

    Args:
        right: the functions of the solution.
    """
    nan = float("nan")
    return {
        "precision_and_recall": Exercise(
            right=right["precision_and_recall"],
            cases=(
                (SCORES, RELEVANT),
                (torch.tensor([0.2, 0.8, 0.5]), torch.tensor([True, False, False])),
            ),
            mistakes=(
                (
                    "the two rows are exchanged: precision comes first.",
                    lambda s, r: two(s, r)[::-1],
                ),
                (
                    "you ranked the lowest score first; the highest has rank 1.",
                    lambda s, r: two(-s, r),
                ),
                (
                    "you did not rank by the scores; the items are in the order of the file.",
                    lambda s, r: two(-torch.arange(len(s)), r),
                ),
                (
                    "you divided the recall by the number of items; divide by the relevant ones.",
                    lambda s, r: [two(s, r)[0], hits(s, r) / len(s)],
                ),
                (
                    "you divided the precision by the number of relevant items; divide by the "
                    "rank.",
                    lambda s, r: [two(s, r)[1], two(s, r)[1]],
                ),
                (
                    "these say whether each single rank is relevant; count all ranks up to it.",
                    lambda s, r: [
                        r[s.argsort(descending=True)].double() / ranks(s),
                        r[s.argsort(descending=True)].double() / r.sum(),
                    ],
                ),
                (
                    "you counted ranks from 2; the first rank is 1.",
                    lambda s, r: [hits(s, r) / ranks(s, first=2), two(s, r)[1]],
                ),
            ),
            hints=(
                "relevant[scores.argsort(descending=True)] is the relevance in ranked order.",
                "A cumsum over it counts the hits up to each rank.",
                "Divide the hits by torch.arange(1, N + 1), and by the last of them.",
            ),
        ),
        "fair_average_precision": Exercise(
            right=right["fair_average_precision"],
            cases=(
                (TIED, MARKS),
                (torch.zeros(4), torch.tensor([True, False, False, True])),
                (torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([True, False, True])),
            ),
            mistakes=(
                (
                    "equal scores still get different ranks: the sort prefers who stands first.",
                    ordinary,
                ),
                (
                    "you count only items that score higher; an item reaches its own score too.",
                    lambda s, r: float(
                        ((counts(s, r, True)[0] + 1) / (counts(s, r, True)[1] + 1)).mean()
                    ),
                ),
                (
                    "among equals the relevant items came first, which is the best luck.",
                    lambda s, r: ends(s, r)[1],
                ),
                (
                    "among equals the relevant items came last, which is the worst luck.",
                    lambda s, r: ends(s, r)[0],
                ),
                (
                    "you count items that score at most as much; count those that score at least "
                    "as much.",
                    lambda s, r: score_of(-s, r),
                ),
                (
                    "you divided by the number of items; take the mean over the relevant ones.",
                    lambda s, r: float((counts(s, r)[0] / counts(s, r)[1]).sum() / len(s)),
                ),
                (
                    "your answer is in percent; return a number from 0 to 1.",
                    lambda s, r: 100 * score_of(s, r),
                ),
            ),
            hints=(
                "scores[None, :] >= scores[relevant][:, None] compares each relevant item with "
                "all.",
                "Each row of that table, summed, is how many score at least as much.",
                "((reaches & relevant).sum(1) / reaches.sum(1)).mean()",
            ),
        ),
        "luck": Exercise(
            right=right["luck"],
            cases=(
                (TIED, MARKS),
                (torch.tensor([2.0, 2.0, 1.0, 1.0]), torch.tensor([True, False, True, False])),
            ),
            mistakes=(
                ("lowest and highest are exchanged.", lambda s, r: ends(s, r)[::-1]),
                (
                    "both are the fair value; break the ties, once for and once against the "
                    "relevant items.",
                    lambda s, r: (score_of(s, r), score_of(s, r)),
                ),
                (
                    "both take the order of the file.",
                    lambda s, r: (ordinary(s, r), ordinary(s, r)),
                ),
                (
                    "all relevant items were put first; only among equal scores may they be moved.",
                    lambda s, r: (ends(torch.zeros_like(s), r)[0], ends(torch.zeros_like(s), r)[1]),
                ),
                (
                    "the file was turned round; that is one other order, not the worst.",
                    lambda s, r: (
                        torch.minimum(ordinary(s, r), ordinary(s.flip(0), r.flip(0))),
                        torch.maximum(ordinary(s, r), ordinary(s.flip(0), r.flip(0))),
                    ),
                ),
                (
                    "the lowest is right, the highest is that of a perfect ranking.",
                    lambda s, r: (ends(s, r)[0], 1.0),
                ),
            ),
            hints=(
                "Sort by two things: the score, and among equals the relevance.",
                "sorted(range(N), key=lambda i: (-scores[i], ...)) sorts by a pair.",
                "With not relevant[i] in the pair relevant ones come first; with relevant[i] last.",
            ),
        ),
        "map_of_attributes": Exercise(
            right=right["map_of_attributes"],
            cases=(
                (torch.tensor([0.2, nan, 0.6, 0.9]), torch.tensor([2, 2, 2, 0]), 4),
                (torch.tensor([0.5, nan]), torch.tensor([0, 1]), 2),
            ),
            mistakes=(
                (
                    "a single NaN makes the mean of its attribute NaN; leave such queries out.",
                    lambda ap, a, n: torch.stack([ap[a == k].mean() for k in range(n)]),
                ),
                (
                    "queries that are NaN count as 0; leave them out.",
                    lambda ap, a, n: torch.stack(
                        [ap.nan_to_num()[a == k].mean() for k in range(n)]
                    ),
                ),
                (
                    "an attribute without queries that count has no mean; you gave it 0.",
                    lambda ap, a, n: torch.stack(
                        [ap[a == k].nanmean() for k in range(n)]
                    ).nan_to_num(),
                ),
                (
                    "this is the mean over all queries, for every attribute.",
                    lambda ap, a, n: ap.nanmean().expand(n),
                ),
                (
                    "attributes that nobody asked for are missing; there are n_attributes numbers.",
                    lambda ap, a, n: torch.stack([ap[a == k].nanmean() for k in a.unique()]),
                ),
                (
                    "these are sums; divide by the number of queries that count.",
                    lambda ap, a, n: torch.stack(
                        [
                            ap[a == k].nansum()
                            if (~ap[a == k].isnan()).any()
                            else torch.tensor(nan)
                            for k in range(n)
                        ]
                    ),
                ),
            ),
            hints=(
                "ap[attributes == a] are the queries of attribute a.",
                "torch.nanmean leaves NaN out, and gives NaN where nothing is left.",
                "torch.stack of one such mean for each a in range(n_attributes)",
            ),
        ),
        "search_scores": Exercise(
            right=right["search_scores"],
            cases=(
                (
                    part(1, 3, [0, 1, 2], [4, 1, 9]),
                    part(2, 7, [0, 1, 0, 1, 2, 2, 0], [4, 2, 3, 1, 5, 9, 7]),
                ),
                (part(3, 2, [0, 5], [0, 1]), part(3, 2, [0, 0], [0, 1])),
            ),
            mistakes=(
                (
                    "the query is still in its own ranking; leave out what has its image id.",
                    lambda q, g: searched(q, g, out="nothing"),
                ),
                (
                    "the query is no longer a hit but still takes a rank; remove it altogether.",
                    lambda q, g: searched(q, g, out="value"),
                ),
                (
                    "the embeddings are not divided by their lengths.",
                    lambda q, g: searched(q, g, unit=False),
                ),
                (
                    "the most different come first; the highest similarity has rank 1.",
                    lambda q, g: searched({**q, "embeddings": -q["embeddings"]}, g),
                ),
                (
                    "queries with nothing to find have 0; they have NaN.",
                    lambda q, g: searched(q, g).nan_to_num(),
                ),
                (
                    "items are relevant if their image id is the query's value; compare values.",
                    lambda q, g: searched(q, {**g, "values": g["images"]}),
                ),
            ),
            hints=(
                "F.normalize(embeddings, dim=1), and a matrix product gives all similarities.",
                'For one query, gallery["images"] != image says which items stay.',
                "Take scores and relevance of those only, and call fair_average_precision.",
            ),
        ),
    }
