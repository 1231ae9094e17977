"""Self-checks of "Measuring retrieval" and "The feature gap"; see `agman.course.exercises`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course.exercises import Exercise, report
from agman.metrics import average_precision

__all__ = [
    "check_above_chance",
    "check_average_precision",
    "check_fair_average_precision",
    "check_leave_one_out",
    "check_linear_map",
    "check_means",
    "check_pooled",
]


def check_average_precision(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(scores, relevant)`, the average precision of a ranking without ties.

    Args:
        function: takes (N,) scores and (N,) booleans, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _AVERAGE_PRECISION, hint)


def check_fair_average_precision(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(scores, relevant)`, the average precision that treats equal scores alike.

    Args:
        function: takes (N,) scores and (N,) booleans, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _FAIR, hint)


def check_means(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(ap, attributes)`, the micro and the macro mean.

    Args:
        function: takes (Q,) average precisions, some NaN, and (Q,) ids; returns two numbers.
        hint: 1 to 3 for more and more help.
    """
    report(function, _MEANS, hint)


def check_leave_one_out(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(embeddings, values)`, the MAP when each image searches all the others.

    Args:
        function: takes (N, D) embeddings and (N,) values, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _LEAVE_ONE_OUT, hint)


def check_pooled(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(features)`, global average pooling followed by normalisation.

    Args:
        function: takes (B, C, H, W), returns (B, C) of unit length.
        hint: 1 to 3 for more and more help.
    """
    report(function, _POOLED, hint)


def check_above_chance(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(map_, chance)`, the share of the way from chance to perfect.

    Args:
        function: takes two numbers from 0 to 1, returns one.
        hint: 1 to 3 for more and more help.
    """
    report(function, _ABOVE_CHANCE, hint)


def check_linear_map(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(features, targets, penalty)`, the ridge regression of targets on features.

    Args:
        function: takes (N, C), (N, V) and a number, returns (C, V).
        hint: 1 to 3 for more and more help.
    """
    report(function, _LINEAR_MAP, hint)


# --- average precision ----------------------------------------------------------------------------


def _ranked(scores: Tensor, relevant: Tensor) -> Tensor:
    """Relevance from the highest score to the lowest, as 0.0 and 1.0."""
    return relevant[scores.argsort(descending=True, stable=True)].double()


def _precision(ranked: Tensor) -> Tensor:
    return ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)


def _ap(ranked: Tensor) -> float:
    return float((_precision(ranked) * ranked).sum() / ranked.sum())


def _ap_from_rank_zero(scores: Tensor, relevant: Tensor, lowest: int = 0) -> float:
    """Ranks 0, 1, 2, ..., which divide by zero; `lowest=1` is how one then gets rid of that."""
    ranked = _ranked(scores, relevant)
    ranks = torch.arange(len(ranked)).clamp(min=lowest)
    return float((ranked.cumsum(0) / ranks)[ranked > 0].mean())


def _ap_from_rank_zero_by_product(scores: Tensor, relevant: Tensor) -> float:
    """The same with a product in place of a selection, which makes NaN of an irrelevant first."""
    ranked = _ranked(scores, relevant)
    return float((ranked.cumsum(0) / torch.arange(len(ranked)) * ranked).sum() / ranked.sum())


def _trapezoids(scores: Tensor, relevant: Tensor) -> float:
    """The area under straight lines between the points of precision and recall."""
    ranked = _ranked(scores, relevant)
    precision = torch.cat([torch.ones(1, dtype=torch.float64), _precision(ranked)])
    return float(((precision[1:] + precision[:-1]) / 2 * ranked).sum() / ranked.sum())


_AVERAGE_PRECISION = Exercise(
    right=average_precision,
    cases=(
        (torch.tensor([0.9, 0.2, 0.7, 0.4, 0.6]), torch.tensor([True, True, False, False, True])),
        (torch.tensor([-0.3, 0.8, 0.1, 0.5]), torch.tensor([True, False, False, True])),
        (torch.tensor([0.1, 0.2, 0.3]), torch.tensor([False, True, False])),
    ),
    mistakes=(
        (
            "you divided by the number of items, not by the number of relevant items.",
            lambda s, r: float((_precision(_ranked(s, r)) * _ranked(s, r)).mean()),
        ),
        (
            "you averaged the precision over all ranks, not only over those that hold a relevant "
            "item.",
            lambda s, r: float(_precision(_ranked(s, r)).mean()),
        ),
        (
            "you ranked the lowest score first; the highest score has rank 1.",
            lambda s, r: _ap(_ranked(-s, r)),
        ),
        (
            "you did not rank by the scores: the items were taken in the order of the file.",
            lambda s, r: _ap(r.double()),
        ),
        ("you counted ranks from 0; the first rank is 1.", _ap_from_rank_zero),
        ("you counted ranks from 0; the first rank is 1.", _ap_from_rank_zero_by_product),
        (
            "you counted ranks from 0; the first rank is 1.",
            lambda s, r: _ap_from_rank_zero(s, r, lowest=1),
        ),
        (
            "you added the precisions up and did not divide by the number of relevant items.",
            lambda s, r: float((_precision(_ranked(s, r)) * _ranked(s, r)).sum()),
        ),
        (
            "you took the precision at the last relevant rank only, not the mean over all of them.",
            lambda s, r: float(_precision(_ranked(s, r))[_ranked(s, r) > 0][-1]),
        ),
        (
            "you joined the points of precision and recall by straight lines; average precision "
            "takes the precision at the relevant rank itself.",
            _trapezoids,
        ),
        (
            "your answer is in percent; return a number from 0 to 1.",
            lambda s, r: 100 * _ap_of(s, r),
        ),
    ),
    hints=(
        "Sort the relevance by descending score first.",
        "The precision at rank t is the number of relevant items up to t, divided by t: "
        "a cumsum and an arange that starts at 1.",
        "Keep the precisions at the relevant ranks only, and take their mean.",
    ),
)


def _ap_of(scores: Tensor, relevant: Tensor) -> float:
    return _ap(_ranked(scores, relevant))


def _counts(scores: Tensor, relevant: Tensor, strict: bool = False) -> tuple[Tensor, Tensor]:
    """For each relevant item, how many relevant items and how many items score as much."""
    own = scores[relevant][:, None]
    reaches = scores[None] > own if strict else scores[None] >= own
    return (reaches & relevant).sum(1).double(), reaches.sum(1).double()


def _above_only(scores: Tensor, relevant: Tensor) -> float:
    better, above = _counts(scores, relevant, strict=True)
    return float(((better + 1) / (above + 1)).mean())


def _mean_rank(scores: Tensor, relevant: Tensor) -> float:
    """Each tied item at the middle of its ties."""
    better, above = _counts(scores, relevant, strict=True)
    among, reaching = _counts(scores, relevant)
    return float(((better + among + 1) / (above + reaching + 1)).mean())


def _one_per_score(scores: Tensor, relevant: Tensor) -> float:
    """The mean over distinct scores instead of over relevant items."""
    among, reaching = _counts(scores, relevant)
    own = scores[relevant]
    first = torch.tensor([int((own == s).nonzero()[0]) for s in own.unique()])
    return float((among / reaching)[first].mean())


_FAIR = Exercise(
    right=average_precision,
    cases=(
        (torch.tensor([0.5, 0.5, 0.9, 0.5, 0.1]), torch.tensor([False, True, False, True, True])),
        (torch.zeros(4), torch.tensor([True, False, False, False])),
        (
            torch.tensor([0.2, 0.8, 0.8, 0.2, 0.5, 0.2]),
            torch.tensor([False, True, False, True, True, True]),
        ),
    ),
    mistakes=(
        (
            "equal scores still get different ranks: your sort puts the one that stands first in "
            "the file first.",
            _ap_of,
        ),
        (
            "among equal scores you put the relevant items first, which is the best luck there is.",
            lambda s, r: _ap_of(*_reordered(s, r, r.int().argsort(descending=True, stable=True))),
        ),
        (
            "among equal scores you put the relevant items last, which is the worst luck there is.",
            lambda s, r: _ap_of(*_reordered(s, r, r.int().argsort(stable=True))),
        ),
        (
            "you counted the items that score more than each relevant item; count those that score "
            "at least as much, itself included.",
            _above_only,
        ),
        (
            "you gave tied items the mean of their ranks; the rule counts all items that score at "
            "least as much.",
            _mean_rank,
        ),
        (
            "you took one precision for each distinct score; each relevant item counts once, tied "
            "or not.",
            _one_per_score,
        ),
        (
            "you divided by the number of items, not by the number of relevant items.",
            lambda s, r: float((_counts(s, r)[0] / _counts(s, r)[1]).sum() / len(s)),
        ),
        (
            "you compared the relevant items with each other in both counts; the lower one counts "
            "all items.",
            lambda s, r: 1.0,
        ),
    ),
    hints=(
        "No sort is needed: ask of each relevant item how many items score at least as much.",
        "For one relevant item with score s the precision is "
        "(relevant & (scores >= s)).sum() / (scores >= s).sum().",
        "Compare scores[relevant][:, None] with scores[None] to ask all of them at once, and take "
        "the mean.",
    ),
)


def _reordered(scores: Tensor, relevant: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    return scores[order], relevant[order]


# --- means and protocols --------------------------------------------------------------------------


def _attribute_means(ap: Tensor, attributes: Tensor) -> Tensor:
    """Means of the attributes that have a known average precision."""
    known = ~ap.isnan()
    means = [ap[known & (attributes == a)].mean() for a in attributes[known].unique()]
    return torch.stack(means)


def _micro_macro(ap: Tensor, attributes: Tensor) -> tuple[float, float]:
    return float(ap[~ap.isnan()].mean()), float(_attribute_means(ap, attributes).mean())


def _nan_as_zero(ap: Tensor, attributes: Tensor) -> tuple[float, float]:
    return _micro_macro(ap.nan_to_num(0.0), attributes)


def _weighted_macro(ap: Tensor, attributes: Tensor) -> tuple[float, float]:
    micro, _ = _micro_macro(ap, attributes)
    return micro, micro


def _all_ids(ap: Tensor, attributes: Tensor) -> tuple[float, float]:
    """Attributes nobody asks about, counted with a zero."""
    micro, _ = _micro_macro(ap, attributes)
    return micro, float(_attribute_means(ap, attributes).sum() / (int(attributes.max()) + 1))


_NAN = float("nan")
_MEANS = Exercise(
    right=_micro_macro,
    cases=(
        (torch.tensor([1.0, 0.5, 0.3, 0.2]), torch.tensor([0, 0, 0, 2])),
        (torch.tensor([0.9, _NAN, 0.1, 0.4, 0.6]), torch.tensor([1, 1, 5, 5, 5])),
    ),
    mistakes=(
        (
            "the two means are the wrong way round: first micro (over queries), then macro.",
            lambda a, b: _micro_macro(a, b)[::-1],
        ),
        (
            "both numbers are the mean over queries; for macro, average each attribute first and "
            "then the attributes.",
            _weighted_macro,
        ),
        (
            "both numbers are the mean over attributes; micro is the plain mean over all queries.",
            lambda a, b: (_micro_macro(a, b)[1],) * 2,
        ),
        (
            "a NaN makes the whole mean NaN: a query with nothing to find has to be left out.",
            lambda a, b: (float(a.mean()), float(_nan_means(a, b).mean())),
        ),
        (
            "a query with nothing to find was counted as 0; it has to be left out.",
            _nan_as_zero,
        ),
        (
            "macro was divided by the highest attribute id, but an attribute nobody asks about "
            "does not count.",
            _all_ids,
        ),
        (
            "your answers are in percent; return numbers from 0 to 1.",
            lambda a, b: tuple(100 * m for m in _micro_macro(a, b)),
        ),
    ),
    hints=(
        "Begin with known = ~ap.isnan() and use only those queries.",
        "Micro is ap[known].mean().",
        "For macro, take the mean of ap over each id in attributes[known].unique(), then the mean "
        "of those means.",
    ),
)


def _nan_means(ap: Tensor, attributes: Tensor) -> Tensor:
    return torch.stack([ap[attributes == a].mean() for a in attributes.unique()])


def _leave_one_out(
    embeddings: Tensor,
    values: Tensor,
    *,
    own_score: float | None = None,
    own_relevant: bool = False,
    lonely: float | None = None,
) -> float:
    """MAP of each image against the others.

    Args:
        embeddings: (N, D).
        values: (N,).
        own_score: keep the query in its own gallery with this score; None removes it.
        own_relevant: count the query as one of its relevant items.
        lonely: what a query without a relevant item gets; None leaves it out.
    """
    scores = embeddings @ embeddings.T
    results = []
    for i in range(len(values)):
        others = torch.arange(len(values)) != i
        relevant = values == values[i]
        row = scores[i].clone()
        if own_score is not None:
            row[i] = row[i] if np.isnan(own_score) else own_score
            relevant[i] = own_relevant
            others[i] = True
        if relevant[others].any():
            results.append(average_precision(row[others], relevant[others]))
        elif lonely is not None:
            results.append(lonely)
    return float(np.mean(results))


def _one_denominator_too_many(embeddings: Tensor, values: Tensor) -> float:
    """The query leaves the ranking but stays in the number of relevant items."""
    results = []
    for i in range(len(values)):
        others = torch.arange(len(values)) != i
        relevant = (values == values[i])[others]
        scores = (embeddings @ embeddings[i])[others]
        n = int(relevant.sum())
        if n:
            results.append(average_precision(scores, relevant) * n / (n + 1))
    return float(np.mean(results))


_LEAVE_ONE_OUT = Exercise(
    right=_leave_one_out,
    cases=(
        (
            F.normalize(
                torch.tensor(
                    [[3.0, 1.0], [-1.0, 2.0], [2.0, -1.0], [-2.0, -1.0], [1.0, 2.5], [-3.0, 1.0]]
                ),
                dim=1,
            ),
            torch.tensor([4, 4, 7, 7, 4, 9]),
        ),
        (
            F.normalize(torch.tensor([[1.0, 0.2], [0.3, -1.0], [-1.0, 0.4], [-0.2, -1.0]]), dim=1),
            torch.tensor([0, 1, 0, 1]),
        ),
    ),
    mistakes=(
        (
            "the query is still in its own gallery, so its first hit is itself; take it out of the "
            "ranking.",
            lambda e, v: _leave_one_out(e, v, own_score=_NAN, own_relevant=True),
        ),
        (
            "the query is still in its own gallery, at rank 1 as a wrong answer; take the item out "
            "of scores and relevance alike.",
            lambda e, v: _leave_one_out(e, v, own_score=_NAN),
        ),
        (
            "the query's own score was set to 0, so it still has a rank; take the item out of the "
            "ranking.",
            lambda e, v: _leave_one_out(e, v, own_score=0.0, own_relevant=True),
        ),
        (
            "the query's own score was set very low, but it is still a relevant item, found last; "
            "take it out of the relevance as well.",
            lambda e, v: _leave_one_out(e, v, own_score=-9.0, own_relevant=True),
        ),
        (
            "the query left the ranking but still counts among the relevant items you divide by.",
            _one_denominator_too_many,
        ),
        (
            "a query whose value no other image has was counted as 0; it has to be left out.",
            lambda e, v: _leave_one_out(e, v, lonely=0.0),
        ),
        (
            "a query whose value no other image has made the mean NaN; it has to be left out.",
            lambda e, v: _leave_one_out(e, v, lonely=_NAN),
        ),
    ),
    hints=(
        "For query i build others = torch.arange(len(values)) != i and index everything with it.",
        "average_precision(scores[others], relevant[others]) never sees the query.",
        "If relevant[others] is all False, go on to the next query without adding anything.",
    ),
)


# --- features -------------------------------------------------------------------------------------

_FEATURES = torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(0)) + 0.5

_POOLED = Exercise(
    right=lambda f: F.normalize(f.mean(dim=(2, 3)), dim=1),
    cases=((_FEATURES,), (_FEATURES[:2, :, :1] * 3,)),
    mistakes=(
        (
            "the embeddings are not of unit length; divide each row by its length.",
            lambda f: f.mean(dim=(2, 3)),
        ),
        (
            "you took the maximum over positions, not the mean.",
            lambda f: F.normalize(f.amax(dim=(2, 3)), dim=1),
        ),
        (
            "you kept all positions; average over height and width, so that C numbers are left.",
            lambda f: F.normalize(f.flatten(1), dim=1),
        ),
        (
            "you averaged over the channels; average over the two dimensions of the map instead.",
            lambda f: F.normalize(f.mean(dim=1).flatten(1), dim=1),
        ),
        (
            "you normalised each column over the batch; normalise each image, dim=1.",
            lambda f: F.normalize(f.mean(dim=(2, 3)), dim=0),
        ),
        (
            "you normalised each position before averaging; average first, then normalise.",
            lambda f: F.normalize(f, dim=1).mean(dim=(2, 3)),
        ),
        (
            "you divided by the sum of the numbers; unit length means that their squares add up "
            "to 1.",
            lambda f: F.normalize(f.mean(dim=(2, 3)), p=1, dim=1),
        ),
    ),
    hints=(
        "A map has shape (B, C, H, W); dimensions 2 and 3 are positions.",
        "features.mean(dim=(2, 3)) leaves (B, C).",
        "torch.nn.functional.normalize(..., dim=1) divides each row by its length.",
    ),
)

_ABOVE_CHANCE = Exercise(
    right=lambda m, c: (m - c) / (1 - c),
    cases=((0.6, 0.2), (0.1, 0.25), (1.0, 0.4), (0.3, 0.3)),
    mistakes=(
        (
            "you only subtracted chance; also divide by what is left above it, 1 - chance.",
            lambda m, c: m - c,
        ),
        (
            "you divided by chance, so easy attributes look worse than hard ones; divide by "
            "1 - chance.",
            lambda m, c: m / c,
        ),
        (
            "you divided the gain by chance; divide it by 1 - chance, so that a perfect ranking "
            "gives 1.",
            lambda m, c: (m - c) / c,
        ),
        (
            "you divided the gain by the MAP itself; divide it by 1 - chance.",
            lambda m, c: (m - c) / m,
        ),
        (
            "the sign is wrong: a MAP above chance gives a positive number.",
            lambda m, c: (c - m) / (1 - c),
        ),
        (
            "you cut off what is below chance; leave it negative, because it says something.",
            lambda m, c: max(0.0, (m - c) / (1 - c)),
        ),
        (
            "your answer is in percent; return a number of at most 1.",
            lambda m, c: 100 * (m - c) / (1 - c),
        ),
    ),
    hints=(
        "It is 0 for map_ == chance and 1 for map_ == 1.",
        "The way walked is map_ - chance.",
        "The whole way is 1 - chance.",
    ),
)

_X = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
_T = F.one_hot(torch.tensor([0, 1, 0, 2, 1, 2, 3, 0, 3])).double()


def _ridge(features: Tensor, targets: Tensor, penalty: float | Tensor) -> Tensor:
    square = features.T @ features + penalty * torch.eye(features.shape[1], dtype=features.dtype)
    return torch.linalg.solve(square, features.T @ targets)


def _penalty_everywhere(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    return torch.linalg.solve(features.T @ features + penalty, features.T @ targets)


_LINEAR_MAP = Exercise(
    right=_ridge,
    cases=((_X, _T, 0.5), (_X[:6] * 2, _T[:6], 4.0)),
    mistakes=(
        (
            "the penalty has no effect; add it to the diagonal of features.T @ features.",
            lambda x, t, p: _ridge(x, t, 0.0),
        ),
        (
            "you added the penalty to every entry; it belongs on the diagonal only, "
            "penalty * torch.eye(C).",
            _penalty_everywhere,
        ),
        (
            "the map is transposed; it takes features of shape (N, C) to scores (N, V), so it has "
            "shape (C, V).",
            lambda x, t, p: _ridge(x, t, p).T,
        ),
        (
            "you returned the scores of the training rows; return the map itself.",
            lambda x, t, p: x @ _ridge(x, t, p),
        ),
        (
            "features.T @ targets alone is not solved for; divide by the matrix with "
            "torch.linalg.solve.",
            lambda x, t, p: x.T @ t,
        ),
        (
            "the penalty was multiplied by the number of rows; add it as it is.",
            lambda x, t, p: _ridge(x, t, p * len(x)),
        ),
        (
            "the penalty was squared; add it as it is.",
            lambda x, t, p: _ridge(x, t, p**2),
        ),
    ),
    hints=(
        "The map W solves (X^T X + penalty I) W = X^T T with X the features and T the targets.",
        "Build the square matrix: features.T @ features + penalty * torch.eye(C).",
        "torch.linalg.solve(square, features.T @ targets) is the answer; mind that torch.eye takes "
        "the type of the features.",
    ),
)
