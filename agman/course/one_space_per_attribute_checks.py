"""Self-checks of the exercises in "One space per attribute"; see `agman.course.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agman.attention import softmax_over_positions
from agman.course.exercises import Exercise, report

__all__ = ["check_attended", "check_ceiling", "check_masked_similarity"]


def check_masked_similarity(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(x, y, mask)`, the cosine of two vectors under a mask.

    Args:
        function: takes three vectors (D,), returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _MASKED_SIMILARITY, hint)


def check_attended(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(features, scores)`, the features weighted by a softmax over positions.

    Args:
        function: takes (C, H, W) and (H, W), returns (C,).
        hint: 1 to 3 for more and more help.
    """
    report(function, _ATTENDED, hint)


def check_ceiling(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(n, bound)`, the largest weight that a softmax of bounded scores can give.

    Args:
        function: takes the number of positions and the bound of every score, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _CEILING, hint)


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return F.cosine_similarity(x, y, dim=0)


def _masked_similarity(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    weights = mask.relu()
    return _cosine(weights * x, weights * y)


def _masked_too_late(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Unit length first, the mask after it."""
    x, y = F.normalize(x, dim=0), F.normalize(y, dim=0)
    return (mask.relu() * x) @ (mask.relu() * y)


_MASKED_SIMILARITY = Exercise(
    right=_masked_similarity,
    cases=(
        (
            torch.tensor([1.0, -2.0, 3.0, 0.5]),
            torch.tensor([2.0, 1.0, 1.5, -1.0]),
            torch.tensor([1.0, 0.1, 0.3, -0.8]),
        ),
        (
            torch.tensor([0.3, 1.0, -2.0]),
            torch.tensor([1.0, 1.0, 1.0]),
            torch.tensor([-0.5, 0.7, 0.2]),
        ),
    ),
    mistakes=(
        (
            "a negative weight of the mask still counts; cut the mask at zero with relu first.",
            lambda x, y, m: _cosine(m * x, m * y),
        ),
        (
            "the mask is applied to one vector only; mask both before you compare them.",
            lambda x, y, m: _cosine(m.relu() * x, y),
        ),
        (
            "the mask is applied to one vector only; mask both before you compare them.",
            lambda x, y, m: _cosine(x, m.relu() * y),
        ),
        (
            "you masked vectors of unit length, so what you compare has no unit length any more; "
            "normalise after the mask.",
            _masked_too_late,
        ),
        (
            "the masked vectors are not of unit length; divide by both lengths.",
            lambda x, y, m: (m.relu() * x) @ (m.relu() * y),
        ),
        (
            "the mask has no effect; multiply both vectors by it.",
            lambda x, y, m: _cosine(x, y),
        ),
        (
            "you cut the masked vectors at zero; only the mask is cut.",
            lambda x, y, m: _cosine((m * x).relu(), (m * y).relu()),
        ),
    ),
    hints=(
        "mask.relu() has no negative weight.",
        "Multiply x and y by it, each dimension by its own weight.",
        "F.cosine_similarity(..., dim=0), or a dot product divided by both lengths.",
    ),
)


def _attended(features: Tensor, scores: Tensor) -> Tensor:
    return (features * softmax_over_positions(scores)).sum((1, 2))


def _uneven(*shape: int, seed: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


_ATTENDED = Exercise(
    right=_attended,
    cases=(
        (_uneven(3, 2, 4, seed=0), _uneven(2, 4, seed=1)),
        (_uneven(2, 5, 3, seed=2), _uneven(5, 3, seed=3)),
    ),
    mistakes=(
        (
            "every row of the map has a softmax of its own; take one over all positions, so "
            "flatten the scores first.",
            lambda f, s: (f * s.softmax(1)).sum((1, 2)),
        ),
        (
            "every column of the map has a softmax of its own; take one over all positions, so "
            "flatten the scores first.",
            lambda f, s: (f * s.softmax(0)).sum((1, 2)),
        ),
        (
            "the scores are used as they are; turn them into weights by a softmax.",
            lambda f, s: (f * s).sum((1, 2)),
        ),
        (
            "you took the mean of the weighted features; the weights sum to one already, so sum.",
            lambda f, s: (f * softmax_over_positions(s)).mean((1, 2)),
        ),
        (
            "all positions count alike, as in the average; weigh them by the softmax of the "
            "scores.",
            lambda f, s: f.mean((1, 2)),
        ),
        (
            "you kept the brightest position only; every position counts by its weight.",
            lambda f, s: f.flatten(1)[:, s.argmax()],
        ),
        (
            "the features went through the softmax; only the scores do.",
            lambda f, s: (f.flatten(1).softmax(1) * s.flatten()).sum(1),
        ),
    ),
    hints=(
        "scores.flatten().softmax(0) gives one weight for each position, with sum 1.",
        "view(scores.shape) gives the weights their places back.",
        "features * weights uses the same weight for all channels; sum over the two last "
        "dimensions.",
    ),
)


def _ceiling(n: int, bound: float) -> float:
    return 1 / (1 + (n - 1) * math.exp(-2 * bound))


_CEILING = Exercise(
    right=_ceiling,
    cases=((144, 1.0), (5, 0.5), (2, 3.0), (1, 1.0)),
    mistakes=(
        (
            "you put the other positions at a score of 0; they can go down to -bound.",
            lambda n, b: 1 / (1 + (n - 1) * math.exp(-b)),
        ),
        (
            "you counted the brightest position among the others; there are n - 1 of them.",
            lambda n, b: 1 / (1 + n * math.exp(-2 * b)),
        ),
        (
            "you forgot the brightest position itself in the sum below.",
            lambda n, b: math.exp(2 * b) / max(n - 1, 1),
        ),
        (
            "you gave how many times brighter the brightest position is than another; divide by "
            "the sum over all positions.",
            lambda n, b: math.exp(2 * b),
        ),
        (
            "that is the even map; give one position the score bound and all others -bound.",
            lambda n, b: 1 / n,
        ),
        (
            "you compared with the even map; return the weight itself.",
            lambda n, b: n * _ceiling(n, b),
        ),
        (
            "your answer is in percent; return a number of at most 1.",
            lambda n, b: 100 * _ceiling(n, b),
        ),
    ),
    hints=(
        "The weight is largest when one score is bound and all the others are -bound.",
        "A softmax divides exp(score) of one position by the sum over all of them.",
        "exp(bound) / (exp(bound) + (n - 1) * exp(-bound)).",
    ),
)
