"""Self-checks of the exercises in "One space for everything"; see `agman.course.exercises`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course.exercises import Exercise, report
from agman.losses import triplet_loss

__all__ = ["check_comparisons", "check_hardest_negative", "check_triplet_loss"]


def check_triplet_loss(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(anchor, positive, negative, margin)`, the mean triplet loss.

    Args:
        function: takes three (B, D) of unit length and a number, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _TRIPLET_LOSS, hint)


def check_comparisons(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(values)`, how many triplets a batch holds for one attribute.

    Args:
        function: takes (B,) value ids, -1 where unknown, returns a whole number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _COMPARISONS, hint)


def check_hardest_negative(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(embeddings, values)`, the highest similarity to an image of another value.

    Args:
        function: takes (B, D) of unit length and (B,) value ids, returns (B,) similarities.
        hint: 1 to 3 for more and more help.
    """
    report(function, _HARDEST_NEGATIVE, hint)


def _units(*shape: int, seed: int) -> Tensor:
    """Random vectors of unit length."""
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _gap(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    return (anchor * positive).sum(1) - (anchor * negative).sum(1)


_A, _P, _N = _units(3, 6, 4, seed=2)

_TRIPLET_LOSS = Exercise(
    right=triplet_loss,
    cases=((_A, _P, _N, 0.2), (_A, _P, _N, 0.5), (_A[:1], _A[:1], _N[:1], 0.3)),
    mistakes=(
        (
            "the mean was taken before the cut at zero, so an easy triplet pays for a violated "
            "one; cut each triplet first.",
            lambda a, p, n, m: F.relu(m - _gap(a, p, n).mean()),
        ),
        (
            "nothing is cut at zero, so the loss goes on falling for triplets that are right.",
            lambda a, p, n, m: (m - _gap(a, p, n)).mean(),
        ),
        (
            "positive and negative are the wrong way round: the loss falls as the negative comes "
            "closer.",
            lambda a, p, n, m: triplet_loss(a, n, p, m),
        ),
        (
            "the margin is missing; the positive should win by that much.",
            lambda a, p, n, m: triplet_loss(a, p, n, 0.0),
        ),
        (
            "the margin makes the loss smaller; add it to the similarity of the negative.",
            lambda a, p, n, m: triplet_loss(a, p, n, -m),
        ),
        ("you took the sum over triplets; take the mean.", lambda a, p, n, m: _total(a, p, n, m)),
        (
            "you compared positive and negative with each other; both are compared with the "
            "anchor.",
            lambda a, p, n, m: F.relu(m - (a * p).sum(1) + (p * n).sum(1)).mean(),
        ),
        (
            "you compared Euclidean distances; here similarity is the dot product.",
            lambda a, p, n, m: F.relu(m + (a - p).norm(dim=1) - (a - n).norm(dim=1)).mean(),
        ),
        (
            "you returned one loss for each triplet; return their mean.",
            lambda a, p, n, m: F.relu(m - _gap(a, p, n)),
        ),
    ),
    hints=(
        "(anchor * positive).sum(1) is the similarity of every pair at once.",
        "Subtract it from the margin and add the similarity of anchor and negative.",
        "F.relu cuts at zero; the mean comes last.",
    ),
)


def _total(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    return triplet_loss(anchor, positive, negative, margin) * len(anchor)


def _pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs of different images with a known value share it, and which do not: (B, B)."""
    known = (values >= 0)[:, None] & (values >= 0)
    same = values[:, None] == values
    return same & known & ~torch.eye(len(values), dtype=torch.bool), ~same & known


def _comparisons(values: Tensor) -> int:
    same, other = _pairs(values)
    return int((same.sum(1) * other.sum(1)).sum())


def _own_positive(values: Tensor) -> int:
    same, other = _pairs(values)
    known = (values >= 0).int()
    return int(((same.sum(1) + known) * other.sum(1)).sum())


def _unknown_is_a_value(values: Tensor) -> int:
    return _comparisons(values + 1)


def _unknown_is_a_negative(values: Tensor) -> int:
    same, _ = _pairs(values)
    return int((same.sum(1) * (values[:, None] != values).sum(1)).sum())


def _totals_multiplied(values: Tensor) -> int:
    same, other = _pairs(values)
    return int(same.sum() * other.sum())


_COMPARISONS = Exercise(
    right=_comparisons,
    cases=(
        (torch.tensor([3, 3, 5, -1, 3, 5, -1, 0]),),
        (torch.tensor([1, 1, 0]),),
        (torch.tensor([2, 2, 2]),),
    ),
    mistakes=(
        (
            "an image was counted as its own positive; anchor and positive are two images.",
            _own_positive,
        ),
        (
            "-1 was taken for a value; an image whose value is unknown is in no triplet.",
            _unknown_is_a_value,
        ),
        (
            "an image whose value is unknown was taken as a negative; nobody knows that it is one.",
            _unknown_is_a_negative,
        ),
        (
            "you counted anchor and positive in one order only; each of the two can be the anchor.",
            lambda v: _comparisons(v) / 2,
        ),
        (
            "you counted pairs; each positive of an anchor meets each negative of that anchor.",
            lambda v: int(sum(pairs.sum() for pairs in _pairs(v))),
        ),
        (
            "you multiplied the totals of the batch; multiply for each anchor, then add.",
            _totals_multiplied,
        ),
        (
            "you counted the pairs of one value; multiply by the anchor's number of negatives.",
            lambda v: int(_pairs(v)[0].sum()),
        ),
    ),
    hints=(
        "For one anchor: how many positives has it, and how many negatives?",
        "values[:, None] == values compares all pairs; so does values[:, None] >= 0 for known.",
        "Add up positives times negatives over the anchors; the anchor is not its own positive.",
    ),
)


def _best(embeddings: Tensor, allowed: Tensor) -> Tensor:
    """Highest similarity among the allowed pairs of each row."""
    return (embeddings @ embeddings.T).masked_fill(~allowed, -2).amax(1)


def _differs(values: Tensor) -> Tensor:
    return values[:, None] != values


_HARDEST_NEGATIVE = Exercise(
    right=lambda e, v: _best(e, _differs(v)),
    cases=(
        (_units(6, 3, seed=3), torch.tensor([0, 0, 1, 1, 2, 0])),
        (_units(5, 4, seed=4), torch.tensor([7, 2, 2, 7, 2])),
        (F.normalize(torch.tensor([[1.0, 0.2], [-1.0, 0.3]]), dim=1), torch.tensor([0, 1])),
    ),
    mistakes=(
        (
            "you took the most similar of all images, the anchor itself included; leave out "
            "everything that has the anchor's value.",
            lambda e, v: (e @ e.T).amax(1),
        ),
        (
            "you left out the anchor but not the other images of its value; they are positives.",
            lambda e, v: _best(e, ~torch.eye(len(e), dtype=torch.bool)),
        ),
        (
            "you took the least similar image of another value; that one is the easiest.",
            lambda e, v: (e @ e.T).masked_fill(~_differs(v), 2).amin(1),
        ),
        (
            "you took the least similar image of the same value; that is the hardest positive.",
            lambda e, v: (e @ e.T).masked_fill(_differs(v), 2).amin(1),
        ),
        (
            "you returned which image it is; return its similarity.",
            lambda e, v: (e @ e.T).masked_fill(~_differs(v), -2).argmax(1),
        ),
        (
            "you set the similarities that do not count to zero, which wins over a negative one; "
            "set them below -1.",
            lambda e, v: ((e @ e.T) * _differs(v)).amax(1),
        ),
        (
            "you took the mean over images of another value; take the highest.",
            lambda e, v: ((e @ e.T) * _differs(v)).sum(1) / _differs(v).sum(1),
        ),
    ),
    hints=(
        "embeddings @ embeddings.T holds all similarities.",
        "values[:, None] != values says which of them count.",
        "masked_fill the others with -2, which no cosine reaches, and take amax(1).",
    ),
)
