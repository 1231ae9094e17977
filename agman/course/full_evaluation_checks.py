"""Self-checks of the exercises in "Full evaluation"; see `agman.course.exercises`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agman.course.exercises import Exercise, report
from agman.metrics import t_interval

__all__ = ["check_bootstrap", "check_paired_interval", "check_seeds_needed"]


def check_paired_interval(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(a, b, factor)`, the mean difference and its interval.

    Args:
        function: takes two (V,) and a number, returns mean, low, high.
        hint: 1 to 3 for more and more help.
    """
    report(function, _PAIRED, hint)


def check_seeds_needed(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(spread, difference, factors)`, the smallest number of seeds that will do.

    Args:
        function: takes two numbers and (N,) factors by number of seeds, returns a whole number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _SEEDS, hint)


def check_bootstrap(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(ap, draws)`, the percentile bootstrap interval of the mean.

    Args:
        function: takes (Q,) average precisions and (N, Q) row numbers, returns low, high.
        hint: 1 to 3 for more and more help.
    """
    report(function, _BOOTSTRAP, hint)


def _factor(n: int) -> float:
    """By how many standard errors the interval of n seeds reaches to each side."""
    values = torch.arange(n, dtype=torch.float64)
    mean, low, _ = t_interval(values)
    return (mean - low) / float(_error(values))


def _interval(differences: Tensor, spread: Tensor, factor: float) -> tuple[float, float, float]:
    """The mean of some differences, and the factor times a spread to each side."""
    mean, half = float(differences.mean()), float(factor * spread)
    return mean, mean - half, mean + half


def _error(values: Tensor) -> Tensor:
    """The standard error of a mean."""
    return values.std() / len(values) ** 0.5


_PAIRED = Exercise(
    right=lambda a, b, t: _interval(a - b, _error(a - b), t),
    cases=(
        (torch.tensor([61.0, 64.0, 66.0]), torch.tensor([60.0, 62.0, 67.0]), 4.3),
        (torch.tensor([30.0, 35.0, 31.0, 38.0]), torch.tensor([33.0, 36.0, 35.0, 39.0]), 3.18),
    ),
    mistakes=(
        (
            "you took the spread of a and of b apart, as if their seeds were not the same; take "
            "the differences first, then their spread.",
            lambda a, b, t: _interval(a - b, (_error(a) ** 2 + _error(b) ** 2).sqrt(), t),
        ),
        (
            "the spread was not divided by the root of the number of seeds; it is the mean that "
            "has the interval.",
            lambda a, b, t: _interval(a - b, (a - b).std(), t),
        ),
        (
            "the spread was divided by the number of seeds; take its root.",
            lambda a, b, t: _interval(a - b, (a - b).std() / len(a), t),
        ),
        (
            "the standard deviation was taken with n below the fraction; for a few seeds n - 1 "
            "is needed, as in tensor.std().",
            lambda a, b, t: _interval(a - b, (a - b).std(correction=0) / len(a) ** 0.5, t),
        ),
        (
            "you took b - a; the question is by how much a is better.",
            lambda a, b, t: _interval(b - a, _error(a - b), t),
        ),
        (
            "the factor is missing; one standard error to each side is far less than 95 %.",
            lambda a, b, t: _interval(a - b, _error(a - b), 1),
        ),
        (
            "you used 1.96, which is right for hundreds of seeds; use the factor that is given.",
            lambda a, b, t: _interval(a - b, _error(a - b), 1.96),
        ),
        (
            "you gave the interval without the mean; return mean, low, high.",
            lambda a, b, t: _interval(a - b, _error(a - b), t)[1:],
        ),
    ),
    hints=(
        "d = a - b is one number for each seed; forget a and b from here on.",
        "The standard error of their mean is d.std() / len(d) ** 0.5.",
        "low and high are the mean minus and plus the factor times the standard error.",
    ),
)


def _first(spread: float, difference: float, errors: Tensor) -> int:
    """The first number of seeds from 2 on whose half width is below the difference."""
    return 2 + int((spread * errors[2:] < difference).nonzero()[0])


def _per_root(factors: Tensor) -> Tensor:
    return factors / torch.arange(len(factors)) ** 0.5


_FACTORS = torch.tensor([torch.nan, torch.nan, *(_factor(n) for n in range(2, 80))])

_SEEDS = Exercise(
    right=lambda s, d, f: _first(s, d, _per_root(f)),
    cases=((1.0, 1.2, _FACTORS), (2.0, 1.0, _FACTORS), (0.5, 5.0, _FACTORS), (1.5, 0.8, _FACTORS)),
    mistakes=(
        (
            "you divided by the number of seeds; the half width falls with its root only.",
            lambda s, d, f: _first(s, d, f / torch.arange(len(f))),
        ),
        (
            "you used 1.96 for every number of seeds; few seeds have a larger factor.",
            lambda s, d, f: _first(s, d, 1.96 / torch.arange(len(f)) ** 0.5),
        ),
        (
            "that is one seed too many; the first number whose half width is below the "
            "difference will do.",
            lambda s, d, f: _first(s, d, _per_root(f)) + 1,
        ),
        (
            "that is one seed too few; factors[n] belongs to n seeds, and factors[0] to none.",
            lambda s, d, f: _first(s, d, _per_root(f)) - 1,
        ),
        (
            "you compared the whole width of the interval with the difference; half of it "
            "reaches to each side.",
            lambda s, d, f: _first(2 * s, d, _per_root(f)),
        ),
    ),
    hints=(
        "For n seeds the interval reaches factors[n] * spread / n ** 0.5 to each side.",
        "Start at n = 2 and stop at the first n for which that is below the difference.",
        "A while loop does it: n = 2; while factors[n] * spread / n ** 0.5 >= difference: n += 1.",
    ),
)


def _quantiles(values: Tensor, outside: float = 0.05) -> Tensor:
    ends = torch.tensor([outside / 2, 1 - outside / 2], dtype=values.dtype)
    return values.quantile(ends)


def _draws(n: int, size: int) -> Tensor:
    return torch.randint(size, (n, size), generator=torch.Generator().manual_seed(1))


_AP = torch.tensor([0.9, 0.15, 0.4, 0.75, 0.3, 0.05, 0.6], dtype=torch.float64)

_BOOTSTRAP = Exercise(
    right=lambda ap, draws: _quantiles(ap[draws].mean(1)),
    cases=((_AP, _draws(200, 7)), (_AP[:4] ** 2, _draws(90, 4))),
    mistakes=(
        (
            "those are quantiles of the queries; draw first, and take the quantiles of the means.",
            lambda ap, draws: _quantiles(ap),
        ),
        (
            "you averaged over the draws of each place; one mean for each row of draws is wanted.",
            lambda ap, draws: _quantiles(ap[draws].mean(0)),
        ),
        (
            "those are the quantiles of all drawn numbers; take the mean of each row first.",
            lambda ap, draws: _quantiles(ap[draws].flatten()),
        ),
        (
            "you left 5 % out on each side; 95 % in the middle leave 2.5 % to each.",
            lambda ap, draws: _quantiles(ap[draws].mean(1), 0.1),
        ),
        (
            "you took the smallest and the largest mean, which move apart the more often you draw.",
            lambda ap, draws: torch.stack([ap[draws].mean(1).min(), ap[draws].mean(1).max()]),
        ),
        ("low comes first, then high.", lambda ap, draws: _quantiles(ap[draws].mean(1)).flip(0)),
        (
            "your answer is in percent; stay with numbers from 0 to 1.",
            lambda ap, draws: 100 * _quantiles(ap[draws].mean(1)),
        ),
    ),
    hints=(
        "ap[draws] has one row for each draw, and in it as many queries as there are.",
        "ap[draws].mean(1) is the MAP of each draw.",
        "The two quantiles that leave 2.5 % out on each side: 0.025 and 0.975.",
    ),
)
