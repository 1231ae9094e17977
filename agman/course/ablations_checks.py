"""Self-checks of the exercises in "Ablations"; see `agman.course.exercises`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agman.course.exercises import Exercise, report
from agman.metrics import t_interval

__all__ = ["check_corrected", "check_false_alarms", "check_interaction"]


def check_false_alarms(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(n, level)`, the chance of at least one false alarm in n tests.

    Args:
        function: takes a whole number and a number from 0 to 1, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _FALSE_ALARMS, hint)


def check_corrected(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(differences, n)`, the interval of one row among n after Bonferroni.

    Args:
        function: takes (V,) differences, one for each seed, and a number; returns low, high.
        hint: 1 to 3 for more and more help.
    """
    report(function, _CORRECTED, hint)


def check_interaction(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(full, without_a, without_b, without_both)`, what two parts share.

    Args:
        function: takes four numbers, returns one.
        hint: 1 to 3 for more and more help.
    """
    report(function, _INTERACTION, hint)


_FALSE_ALARMS = Exercise(
    right=lambda n, level: 1 - (1 - level) ** n,
    cases=((1, 0.05), (9, 0.05), (30, 0.05), (4, 0.2)),
    mistakes=(
        (
            "you added the chances up; two alarms at once are counted twice, and many tests "
            "would give more than 1.",
            lambda n, level: n * level,
        ),
        (
            "you added the chances up and cut at 1; two alarms at once are counted twice.",
            lambda n, level: min(1, n * level),
        ),
        ("that is the chance that all of them are alarms.", lambda n, level: level**n),
        ("that is the chance of no alarm at all.", lambda n, level: (1 - level) ** n),
        (
            "that is the chance that not all of them are alarms; ask when none is.",
            lambda n, level: 1 - level**n,
        ),
        (
            "that is the chance of exactly one alarm; more than one is also at least one.",
            lambda n, level: n * level * (1 - level) ** (n - 1),
        ),
        (
            "your answer is in percent; return a number from 0 to 1.",
            lambda n, level: 100 - 100 * (1 - level) ** n,
        ),
    ),
    hints=(
        "Ask for the opposite: that no test gives an alarm.",
        "One test stays silent with the chance 1 - level, and n independent ones with its power.",
        "1 minus that is the answer.",
    ),
)


def _ends(differences: Tensor, confidence: float) -> tuple[float, float]:
    return t_interval(differences, confidence)[1:]


_CORRECTED = Exercise(
    right=lambda d, n: _ends(d, 1 - 0.05 / n),
    cases=((torch.tensor([1.0, 1.4, 2.1]), 9), (torch.tensor([-0.5, 0.4, 0.2, 0.3, 0.8]), 3)),
    mistakes=(
        (
            "that is the interval of a single row; every further row is another chance to be "
            "wrong.",
            lambda d, n: _ends(d, 0.95),
        ),
        (
            "you divided the 95 % by n; it is the 5 % outside that the rows share.",
            lambda d, n: _ends(d, 0.95 / n),
        ),
        (
            "you took 0.95 to the power of n, which makes the intervals narrower; more rows need "
            "wider ones.",
            lambda d, n: _ends(d, 0.95**n),
        ),
        (
            "that is Šidák's correction, which is exact for independent rows; here all rows share "
            "the runs of the full network, so divide the 5 % by n.",
            lambda d, n: _ends(d, 0.95 ** (1 / n)),
        ),
        (
            "you multiplied the width of the interval by n; change its confidence instead.",
            lambda d, n: _widened(d, n),
        ),
        (
            "you divided by the number of seeds; divide by the number of rows.",
            lambda d, n: _ends(d, 1 - 0.05 / len(d)),
        ),
        ("you gave the mean as well; return low, high.", lambda d, n: t_interval(d, 1 - 0.05 / n)),
    ),
    hints=(
        "All rows together may be wrong with a chance of 5 %; one row of n gets its share of that.",
        "t_interval takes the confidence: 1 minus the share of this row.",
        "_, low, high = t_interval(differences, 1 - 0.05 / n).",
    ),
)


def _widened(differences: Tensor, n: int) -> tuple[float, float]:
    mean, low, high = t_interval(differences)
    return mean - n * (mean - low), mean + n * (high - mean)


_INTERACTION = Exercise(
    right=lambda full, a, b, both: a + b - full - both,
    cases=((60.0, 57.0, 58.0, 50.0), (60.0, 55.0, 56.0, 54.0), (40.0, 38.0, 37.0, 35.0)),
    mistakes=(
        (
            "the sign is turned: what both are worth together comes first, and what they are "
            "worth one by one is taken from it.",
            lambda full, a, b, both: full + both - a - b,
        ),
        (
            "that is what both are worth together; take away what each is worth alone.",
            lambda full, a, b, both: full - both,
        ),
        (
            "that is what each is worth alone, added up; compare it with both together.",
            lambda full, a, b, both: 2 * full - a - b,
        ),
        ("you compared one part with the other.", lambda full, a, b, both: b - a),
        (
            "you took the mean of the two parts, not their sum.",
            lambda full, a, b, both: (a + b) / 2 - both,
        ),
    ),
    hints=(
        "A part alone is worth full - without_a; both together are worth full - without_both.",
        "If the parts did separate jobs, both together would be worth the sum of the two.",
        "(full - without_both) - (full - without_a) - (full - without_b).",
    ),
)
