"""Self-checks of the exercises in "Your own photos"; see `agman.course.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from agman.course.exercises import Exercise, report

__all__ = ["check_exponent", "check_machines", "check_rare", "check_recall"]


def check_rare(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(values, least)`, the values of a column that too few photos have.

    Args:
        function: takes (N,) ids of values, -1 for an empty cell, and a number; returns ids.
        hint: 1 to 3 for more and more help.
    """
    report(function, _RARE, hint)


def check_exponent(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(sizes, seconds)`, the power of the size with which seconds grow.

    Args:
        function: takes two lists of numbers, from the smallest size to the largest; returns one.
        hint: 1 to 3 for more and more help.
    """
    report(function, _EXPONENT, hint)


def check_recall(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(found, exact)`, the share of the exact answers that were found.

    Args:
        function: takes (Q, K) and (Q, K) numbers of photos, -1 in `found` for none; returns one
            number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _RECALL, hint)


def check_machines(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(n_photos, n_attributes, width, bytes_each, gigabytes)`.

    Args:
        function: takes five numbers, returns how many machines hold the index in memory.
        hint: 1 to 3 for more and more help.
    """
    report(function, _MACHINES, hint)


# --- rare values ----------------------------------------------------------------------------------


def _counts(values: Tensor) -> dict[int, int]:
    """How often each id occurs, ids ascending; empty cells count as the id -1."""
    ids, counts = torch.unique(values, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _rare(values: Tensor, least: int) -> list[int]:
    return [v for v, n in _counts(values).items() if v >= 0 and n < least]


_EMPTY_CELLS = "-1 marks an empty cell and is no value; leave it out."

_RARE = Exercise(
    right=_rare,
    cases=(
        (torch.tensor([3, 0, 0, 5, 3, 0, -1, 3, 6, 6]), 3),
        (torch.tensor([7, 2, 2, -1, -1, 9, 9, 9]), 3),
        (torch.tensor([1, 1, 4, 4]), 2),
    ),
    mistakes=(
        (_EMPTY_CELLS, lambda v, least: [i for i, n in _counts(v).items() if n < least]),
        (
            "a value with exactly `least` photos has enough of them; compare with <.",
            lambda v, least: [i for i, n in _counts(v).items() if i >= 0 and n <= least],
        ),
        (
            "a value that no photo of the column has was counted as rare; name only those that "
            "occur.",
            lambda v, least: [i for i in range(int(v.max()) + 1) if _counts(v).get(i, 0) < least],
        ),
        (
            "these are the numbers of photos; return the ids of the values.",
            lambda v, least: [n for i, n in _counts(v).items() if i >= 0 and n < least],
        ),
        (
            "these are the values with enough photos; return the others.",
            lambda v, least: [i for i, n in _counts(v).items() if i >= 0 and n >= least],
        ),
        (
            "the ids are not in ascending order; sort them, so that two runs agree.",
            lambda v, least: _rare(v, least)[::-1],
        ),
        (
            "only values with a single photo were found; `least` can be more than 2.",
            lambda v, least: _rare(v, 2),
        ),
    ),
    hints=(
        "Take the empty cells out first: values[values >= 0].",
        "torch.unique(..., return_counts=True) gives the ids that occur and how often, ascending.",
        "ids[counts < least] is the answer.",
    ),
)

# --- growth ---------------------------------------------------------------------------------------


def _exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    return math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])


_EXPONENT = Exercise(
    right=_exponent,
    cases=(
        ([10, 100, 1000], [0.5, 3.0, 50.0]),
        ([2, 4, 8, 16], [1.0, 4.0, 16.0, 64.0]),
        ([1000, 4000], [3.0, 3.0]),
    ),
    mistakes=(
        (
            "this is the slope of a straight line, in seconds a photo; take logarithms of both "
            "first.",
            lambda n, s: (s[-1] - s[0]) / (n[-1] - n[0]),
        ),
        (
            "this is how many times longer it takes; divide its logarithm by that of how many "
            "times larger.",
            lambda n, s: s[-1] / s[0],
        ),
        (
            "the two factors were divided without logarithms; the exponent is log over log.",
            lambda n, s: (s[-1] / s[0]) / (n[-1] / n[0]),
        ),
        (
            "the logarithm of the seconds alone; divide it by the logarithm of the sizes.",
            lambda n, s: math.log(s[-1] / s[0]),
        ),
        (
            "the logarithm of the seconds alone; divide it by the logarithm of the sizes.",
            lambda n, s: math.log10(s[-1] / s[0]),
        ),
        (
            "sizes and seconds are interchanged: seconds grow with a power of the size.",
            lambda n, s: math.log(n[-1] / n[0]) / math.log(s[-1] / s[0]) if s[-1] != s[0] else 0.0,
        ),
        (
            "only the first two points were used; take the first and the last.",
            lambda n, s: _exponent(n[:2], s[:2]),
        ),
        (
            "logarithms were divided at one point, log(seconds) by log(size); compare two points.",
            lambda n, s: math.log(s[-1]) / math.log(n[-1]),
        ),
    ),
    hints=(
        "If seconds are c * size ** p, how many times longer takes a photo collection that is r "
        "times larger?",
        "It is r ** p, whatever c is; the logarithm brings p down.",
        "math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])",
    ),
)

# --- recall ---------------------------------------------------------------------------------------


def _recall(found: Tensor, exact: Tensor) -> float:
    return float((exact[:, :, None] == found[:, None, :]).any(dim=2).float().mean())


def _share_of_found(found: Tensor, exact: Tensor) -> float:
    """Precision: of what was found, the share that is among the exact answers."""
    right = (found[:, :, None] == exact[:, None, :]).any(dim=2)
    return float(right.sum() / (found >= 0).sum())


_RECALL = Exercise(
    right=_recall,
    cases=(
        (
            torch.tensor([[4, 1, 9, -1], [2, 7, -1, -1]]),
            torch.tensor([[1, 4, 9, 6], [7, 2, 3, 5]]),
        ),
        (torch.tensor([[8, 3, 5], [0, 1, -1]]), torch.tensor([[3, 8, 1], [4, 6, 9]])),
        (torch.tensor([[5, 2]]), torch.tensor([[1, 2]])),
    ),
    mistakes=(
        (
            "places were compared one by one; a photo that was found at another rank was found.",
            lambda f, e: float((f == e).float().mean()),
        ),
        (
            "you divided by how many were found, which is precision; divide by how many there are "
            "to find.",
            _share_of_found,
        ),
        (
            "a query counts as found with a single hit; count every exact answer.",
            lambda f, e: float((e[:, :, None] == f[:, None, :]).any(2).any(1).float().mean()),
        ),
        (
            "only the first exact answer was looked for; look for all K.",
            lambda f, e: float((e[:, :1] == f).any(dim=1).float().mean()),
        ),
        (
            "photos that one query found were counted for another; compare row by row.",
            lambda f, e: float(torch.isin(e, f).float().mean()),
        ),
        (
            "your answer is in percent; return a number from 0 to 1.",
            lambda f, e: 100 * _recall(f, e),
        ),
        (
            "this is a number of photos; divide it by how many there are to find.",
            lambda f, e: _recall(f, e) * e.numel(),
        ),
    ),
    hints=(
        "For one query: how many of its exact photos are among the found ones, in any order?",
        "exact[:, :, None] == found[:, None, :] compares each with each, row by row.",
        ".any(dim=2) says of each exact photo whether it was found; then take the mean.",
    ),
)

# --- machines -------------------------------------------------------------------------------------


def _gigabytes(photos: float, attributes: float, width: float, each: float) -> float:
    return photos * attributes * width * each / 1e9


_MACHINES = Exercise(
    right=lambda p, a, w, b, m: math.ceil(_gigabytes(p, a, w, b) / m),
    cases=(
        (100_000_000, 8, 512, 4, 64),
        (100_000_000, 8, 512, 2, 64),
        (1_000_000, 4, 64, 4, 16),
        (31_250_000, 8, 64, 4, 16),
        (70_000_000, 2, 128, 1, 1),
    ),
    mistakes=(
        (
            "part of a machine is a machine: round up, not down.",
            lambda p, a, w, b, m: int(_gigabytes(p, a, w, b) / m),
        ),
        (
            "part of a machine is a machine: round up, not to the nearest.",
            lambda p, a, w, b, m: round(_gigabytes(p, a, w, b) / m),
        ),
        (
            "machines come in whole numbers; round up.",
            lambda p, a, w, b, m: _gigabytes(p, a, w, b) / m,
        ),
        (
            "where the index fits exactly, no machine more is needed; round up instead of adding "
            "one.",
            lambda p, a, w, b, m: int(_gigabytes(p, a, w, b) / m) + 1,
        ),
        (
            "each photo has one embedding for every attribute; multiply by their number.",
            lambda p, a, w, b, m: math.ceil(_gigabytes(p, 1, w, b) / m),
        ),
        (
            "numbers were counted, not bytes; multiply by the bytes of each.",
            lambda p, a, w, b, m: math.ceil(_gigabytes(p, a, w, 1) / m),
        ),
        (
            "bytes_each counts bytes already; 8 bits are one of them.",
            lambda p, a, w, b, m: math.ceil(_gigabytes(p, a, w, 8 * b) / m),
        ),
        (
            "a gigabyte is 10**9 bytes here, as on the label of a disk, not 2**30.",
            lambda p, a, w, b, m: math.ceil(p * a * w * b / 2**30 / m),
        ),
    ),
    hints=(
        "Count the numbers of the index: photos times attributes times width.",
        "Times bytes_each, divided by 10**9, gives gigabytes.",
        "math.ceil(... / gigabytes) rounds up to whole machines.",
    ),
)
