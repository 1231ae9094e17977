"""What the self-checks of assignment 5 look for; `make assignments` records the answers only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agman.course.exercises import Exercise
from agman.metrics import t_interval

Runs = Mapping[str, float]
Triple = tuple[float, float, float]


def factor(level: float, degrees: int) -> float:
    """How many standard errors Student's interval reaches to each side."""
    values = [float(i) for i in range(degrees + 1)]
    mean, low, _ = t_interval(values, level)
    return (mean - low) * math.sqrt(len(values)) / statistics.stdev(values)


def normal(level: float) -> float:
    return statistics.NormalDist().inv_cdf((1 + level) / 2)


def shared(a: Runs, b: Runs) -> list[float]:
    return [a[seed] - b[seed] for seed in a if seed in b]


def around(values: Sequence[float], half: float | None, mean: float | None = None) -> Triple:
    """Mean, low and high; all is possible where half is None."""
    middle = (statistics.fmean(values) if values else math.nan) if mean is None else mean
    reach = math.inf if half is None else half
    return middle, middle - reach if values else -math.inf, middle + reach if values else math.inf


def interval(
    a: Runs,
    b: Runs,
    level: float,
    *,
    t: Callable[[float, int], float] = factor,
    spread: Callable[[Sequence[float]], float] = statistics.stdev,
    root: bool = True,
    more_degrees: int = 0,
) -> Triple:
    """The right interval, or one with a mistake in it."""
    d = shared(a, b)
    if len(d) < 2:
        return around(d, None)
    error = spread(d) / (math.sqrt(len(d)) if root else 1)
    return around(d, t(level, len(d) - 1 + more_degrees) * error)


def by_place(a: Runs, b: Runs, level: float) -> Triple:
    d = [x - y for x, y in zip(a.values(), b.values())]
    n = [str(i) for i in range(len(d))]
    return interval(dict(zip(n, d)), dict.fromkeys(n, 0.0), level)


def unpaired(a: Runs, b: Runs, level: float) -> Triple:
    seeds = [seed for seed in a if seed in b]
    if len(seeds) < 2:
        return around(shared(a, b), None)
    variances = [statistics.variance([side[seed] for seed in seeds]) for side in (a, b)]
    return around(
        shared(a, b), factor(level, len(seeds) - 1) * math.sqrt(sum(variances) / len(seeds))
    )


def of_all_seeds(a: Runs, b: Runs, level: float) -> Triple:
    mean, low, high = interval(a, b, level)
    shift = statistics.fmean(a.values()) - statistics.fmean(b.values()) - mean
    return mean + shift, low + shift, high + shift


def uncertain(low: float, high: float) -> bool:
    return not (low > 0 or high < 0)


def needed(
    pilot: Sequence[float],
    difference: float,
    level: float,
    *,
    t: Callable[[float, int], float] = factor,
    spread: Callable[[Sequence[float]], float] = statistics.stdev,
    root: float = 0.5,
    more_degrees: int = 0,
) -> int:
    n = 2
    while t(level, n - 1 + more_degrees) * spread(pilot) / n**root >= difference:
        n += 1
    return n


def rows(
    runs: Mapping[str, Runs],
    reference: str,
    level: float,
    *,
    compare: Callable[[Runs, Runs, float], Triple] = interval,
    keep_reference: bool = False,
    count: Callable[[Runs, Runs], int] = lambda a, b: len(shared(a, b)),
) -> list[tuple[float, ...]]:
    """Rows at the level given, which is that of each interval."""
    found = []
    for name in runs:
        if name != reference or keep_reference:
            mean, low, high = compare(runs[name], runs[reference], level)
            n = count(runs[name], runs[reference])
            found.append((mean, low, high, n, int(uncertain(low, high))))
    return found


def share(level: float, n: int) -> float:
    return 1 - (1 - level) / n


RUNS = {
    "with": {"0": 41.0, "1": 43.5, "2": 42.0},
    "without": {"0": 40.0, "1": 41.5, "2": 40.5},
    "other": {"2": 44.0, "0": 39.0, "5": 70.0},
}
MORE = {
    "a": {"0": 30.0, "1": 31.0, "2": 30.5, "3": 30.2},
    "b": {"0": 32.0, "1": 33.2, "2": 32.4, "3": 32.2},
    "c": {"3": 29.0, "2": 30.0, "1": 29.8, "0": 30.1},
    "d": {"1": 35.0},
}


def exercises(right: Mapping[str, Callable[..., Any]]) -> dict[str, Exercise]:
    """The checks by function name.

    Args:
        right: the functions of the solution.
    """
    return {
        "paired_interval": Exercise(
            right=right["paired_interval"],
            cases=(
                (
                    {"0": 61.0, "1": 63.5, "2": 60.5, "3": 64.0},
                    {"2": 60.0, "0": 60.0, "1": 61.0, "5": 40.0},
                    0.95,
                ),
                ({"4": 50.0, "6": 52.5}, {"4": 50.5, "6": 52.0}, 0.9),
                ({"4": 50.0, "7": 52.5}, {"4": 50.5, "6": 52.0}, 0.95),
            ),
            mistakes=(
                (
                    "the difference is turned: a less b.",
                    lambda a, b, level: interval(b, a, level),
                ),
                (
                    "results were paired by their place; pair them by their seed.",
                    by_place,
                ),
                (
                    "the means are those of all seeds; only shared seeds count.",
                    of_all_seeds,
                ),
                (
                    "the spreads of a and b were added; what counts is the spread of the "
                    "differences.",
                    unpaired,
                ),
                (
                    "the standard deviation divides by n; from a few seeds divide by n - 1.",
                    lambda a, b, level: interval(a, b, level, spread=statistics.pstdev),
                ),
                (
                    "the standard deviation of one seed is not that of the mean; divide by the "
                    "root of n.",
                    lambda a, b, level: interval(a, b, level, root=False),
                ),
                (
                    "the variance stands where its root, the standard deviation, belongs.",
                    lambda a, b, level: interval(a, b, level, spread=statistics.variance),
                ),
                (
                    "n differences have n - 1 degrees of freedom.",
                    lambda a, b, level: interval(a, b, level, more_degrees=1),
                ),
                (
                    "that is the factor of a normal distribution, which is too short for a few "
                    "seeds; take Student's t.",
                    lambda a, b, level: interval(a, b, level, t=lambda x, _: normal(x)),
                ),
                (
                    "what is left out lies on both sides; t_factor takes the level as it is.",
                    lambda a, b, level: interval(a, b, 2 * level - 1),
                ),
            ),
            hints=(
                "[a[seed] - b[seed] for seed in a if seed in b] are the differences.",
                "statistics.stdev divides by n - 1; it needs two numbers, so look at the length "
                "before.",
                "half = t_factor(level, n - 1) * stdev(d) / sqrt(n), or infinity for n < 2.",
            ),
        ),
        "undecided": Exercise(
            right=right["undecided"],
            cases=(
                (-1.0, 2.0),
                (1.0, 2.0),
                (-2.0, -1.0),
                (0.0, 1.0),
                (-1.0, 0.0),
                (-math.inf, math.inf),
                (math.nan, math.nan),
            ),
            mistakes=(
                (
                    "that says when it is decided; return the opposite.",
                    lambda low, high: low > 0 or high < 0,
                ),
                (
                    "an end at zero leaves zero possible.",
                    lambda low, high: not (low >= 0 or high <= 0),
                ),
                (
                    "an interval of NaN decides nothing, and yours calls it decided; ask when it "
                    "is decided, and return the opposite.",
                    lambda low, high: low <= 0 <= high,
                ),
                (
                    "NaN decides nothing, and an end at zero leaves zero possible.",
                    lambda low, high: low < 0 < high,
                ),
                (
                    "an interval that lies below zero is decided as well: the change harms.",
                    lambda low, high: not low > 0,
                ),
                (
                    "an interval that lies above zero is decided as well: the change helps.",
                    lambda low, high: not high < 0,
                ),
            ),
            hints=(
                "When is it decided? If the whole interval lies on one side of zero.",
                "low > 0 is one side and high < 0 the other; a comparison with NaN is False.",
                "not (low > 0 or high < 0)",
            ),
        ),
        "corrected_level": Exercise(
            right=right["corrected_level"],
            cases=((0.95, 1), (0.95, 5), (0.9, 3)),
            mistakes=(
                (
                    "the level itself was divided; the rows share what is outside of it.",
                    lambda level, n: level / n,
                ),
                (
                    "the rows got a lower level each; more rows need a higher one.",
                    lambda level, n: level**n,
                ),
                (
                    "that is Šidák's correction, for independent rows; these share a reference.",
                    lambda level, n: level ** (1 / n),
                ),
                (
                    "that is the chance of an error; the level is what is left of 1.",
                    lambda level, n: (1 - level) / n,
                ),
                (
                    "the chance of an error was multiplied; each row gets a share of it.",
                    lambda level, n: 1 - (1 - level) * n,
                ),
                (
                    "there is one share too many; rows are counted without the reference already.",
                    lambda level, n: 1 - (1 - level) / (n + 1),
                ),
            ),
            hints=(
                "The whole table may be wrong with the chance 1 - level.",
                "One row gets (1 - level) / rows of it.",
                "1 - (1 - level) / rows",
            ),
        ),
        "seeds_needed": Exercise(
            right=right["seeds_needed"],
            cases=(
                ([1.0, -0.5, 2.0], 1.0, 0.95),
                ([0.2, 0.9, 0.4, -0.3], 0.25, 0.95),
                ([2.0, 4.0], 1.0, 0.95),
                ([1.0, 1.0], 0.5, 0.95),
            ),
            mistakes=(
                (
                    "the pilot's standard deviation divides by its number less one.",
                    lambda p, d, level: needed(p, d, level, spread=statistics.pstdev),
                ),
                (
                    "the pilot's variance stands where its standard deviation belongs.",
                    lambda p, d, level: needed(p, d, level, spread=statistics.variance),
                ),
                (
                    "that is the factor of a normal distribution; with n seeds take Student's t.",
                    lambda p, d, level: needed(p, d, level, t=lambda x, _: normal(x)),
                ),
                (
                    "the factor is that of the pilot; more seeds have a smaller one.",
                    lambda p, d, level: needed(p, d, level, t=lambda x, _: factor(x, len(p) - 1)),
                ),
                (
                    "the interval shrinks with the root of n, not with n.",
                    lambda p, d, level: needed(p, d, level, root=1.0),
                ),
                (
                    "n seeds have n - 1 degrees of freedom.",
                    lambda p, d, level: needed(p, d, level, more_degrees=1),
                ),
                (
                    "that is how many are still to run; count those of the pilot too.",
                    lambda p, d, level: needed(p, d, level) - len(p),
                ),
                (
                    "the whole interval was made shorter than the difference; the equation asks "
                    "for the half to each side.",
                    lambda p, d, level: needed(p, d / 2, level),
                ),
                (
                    "that is the last number which is not enough; one more is.",
                    lambda p, d, level: needed(p, d, level) - 1,
                ),
            ),
            hints=(
                "Try n = 2, 3, 4, ... and stop at the first that is enough.",
                "The spread is that of the pilot and stays; the factor and the root change with n.",
                "while t_factor(level, n - 1) * stdev(pilot) / sqrt(n) >= difference: n += 1",
            ),
        ),
        "results_table": Exercise(
            right=right["results_table"],
            cases=((RUNS, "without", 0.95), (MORE, "a", 0.9)),
            mistakes=(
                (
                    "the intervals are those of a single row; correct the level for all rows.",
                    rows,
                ),
                (
                    "the level is corrected for the reference too, which is no row.",
                    lambda r, ref, level: rows(r, ref, share(level, len(r))),
                ),
                (
                    "the differences are turned: variant less reference.",
                    lambda r, ref, level: rows(
                        r,
                        ref,
                        share(level, len(r) - 1),
                        compare=lambda a, b, x: interval(b, a, x),
                    ),
                ),
                (
                    "the reference has a row of its own, which says nothing; leave it out.",
                    lambda r, ref, level: rows(
                        r, ref, share(level, len(r) - 1), keep_reference=True
                    ),
                ),
                (
                    "the number of seeds is that of the variant; count those that it shares with "
                    "the reference.",
                    lambda r, ref, level: rows(
                        r, ref, share(level, len(r) - 1), count=lambda a, b: len(a)
                    ),
                ),
                (
                    "the last number is 1 where the row is undecided, not where it is decided.",
                    lambda r, ref, level: [
                        (*row[:4], 1 - row[4]) for row in rows(r, ref, share(level, len(r) - 1))
                    ],
                ),
                (
                    "the rows are sorted by size; keep the order of the variants.",
                    lambda r, ref, level: sorted(
                        rows(r, ref, share(level, len(r) - 1)), reverse=True
                    ),
                ),
            ),
            hints=(
                "[name for name in runs if name != reference] are the rows, and their number "
                "corrects the level.",
                "paired_interval(runs[name], runs[reference], that level) is most of a row.",
                "len(runs[name].keys() & runs[reference].keys()) counts shared seeds; "
                "int(undecided(low, high)) ends the row.",
            ),
        ),
    }
