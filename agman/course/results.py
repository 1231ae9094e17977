"""Recorded experiments as chapters read them, in the repository and in the installed package.

Whatever a chapter says about recorded runs is printed from here, so that it cannot outlive them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agman.errors import InputError
from agman.experiments import EXPERIMENTS, Paired, paired
from agman.storage import read_json

FOLDERS = (
    Path(__file__).parents[2] / "book" / "results",
    Path(__file__).parents[1] / "results",
)
"""Where results lie: in a copy of the repository, and in an installed package."""


def recorded(experiment: str, folder: str | Path | None = None) -> dict[str, Any]:
    """The recorded runs of an experiment, as `agman.experiments.reproduce` writes them.

    Args:
        experiment: one of `agman.experiments.EXPERIMENTS`.
        folder: where `<experiment>.json` lies, for results of your own; None for the book's.

    Returns:
        A dictionary whose "runs", in the order of the experiment's variants and seeds, is empty
        where nothing is recorded.

    Raises:
        InputError: there is no such experiment, or its file holds no runs.
    """
    if experiment not in EXPERIMENTS:
        raise InputError(
            f"There is no experiment {experiment!r}; choose one of {', '.join(EXPERIMENTS)}."
        )
    folders = FOLDERS if folder is None else (Path(folder),)
    files = [file for place in folders if (file := place / f"{experiment}.json").exists()]
    content = read_json(files[0]) if files else {"runs": []}
    if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
        raise InputError(f"{files[0]} holds no runs; make it with `agman reproduce {experiment}`.")
    runs = [*content["runs"]]
    place = {v.name: number for number, v in enumerate(EXPERIMENTS[experiment])}
    try:
        runs.sort(key=lambda run: (place.get(run["variant"], len(place)), run["seed"]))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise InputError(
            f"{files[0]} holds a run that is not whole ({error!r}); restore or remake the file."
        ) from error
    return {"experiment": experiment, "runs": runs}


def coverage(results: Mapping[str, Any]) -> str:
    """One sentence: how many seeds of the planned variants are recorded."""
    experiment = results["experiment"]
    counts = {v.name: len(by_seed(results).get(v.name, ())) for v in EXPERIMENTS[experiment]}
    present = [n for n in counts.values() if n]
    if not present:
        return f"Nothing of {experiment} is recorded yet; `agman reproduce {experiment}` makes it."
    usual = max(set(present), key=present.count)
    exceptions = []
    for n in sorted({*counts.values()} - {usual}, reverse=True):
        names = ", ".join(f"{name!r}" for name, count in counts.items() if count == n)
        exceptions.append(f"{n or 'none'} of {names}")
    text = f"Recorded for {experiment}: {usual} seed{'s' * (usual > 1)} of each variant"
    return text + (f", except {' and '.join(exceptions)}." if exceptions else ".")


def by_seed(
    results: Mapping[str, Any], metric: str = "map_micro", attribute: str | None = None
) -> dict[str, list[float]]:
    """One number per seed of each variant, variants and seeds in the order of the results.

    Args:
        results: what `recorded` gives.
        metric: a number of a run, such as `map_micro` or `map_macro`.
        attribute: take the MAP of this attribute instead.
    """
    numbers: dict[str, list[float]] = {}
    for run in results["runs"]:
        numbers.setdefault(run["variant"], []).append(_number(run, metric, attribute))
    return numbers


def _number(run: Mapping[str, Any], metric: str, attribute: str | None) -> float:
    number: float = run[metric] if attribute is None else run["per_attribute"][attribute]
    return number


def attention_by_seed(
    results: Mapping[str, Any],
    measure: str = "mass",
    kind: str = "model",
    attribute: str | None = None,
) -> dict[str, list[float]]:
    """How much of each run's attention lies in the true regions, in percent, for each seed.

    Args:
        results: what `recorded` gives; runs without attention are left out.
        measure: "mass" or "pointing", see `agman.evaluation.Localization`.
        kind: of map, such as "model" or "average place".
        attribute: one attribute; None for the mean over attributes.
    """
    numbers: dict[str, list[float]] = {}
    for run in results["runs"]:
        if "attention" in run:
            share = run["attention"][measure][kind]
            number = share["macro"] if attribute is None else share["per_attribute"][attribute]
            numbers.setdefault(run["variant"], []).append(number)
    return numbers


def difference(
    results: Mapping[str, Any],
    a: str,
    b: str,
    metric: str = "map_micro",
    attribute: str | None = None,
) -> Paired | None:
    """How much better `a` is than `b` over the seeds of both; None where they share no seed.

    See `agman.experiments.paired` for the result, and `by_seed` for the arguments.
    """
    runs = [
        {**run, "number": _number(run, metric, attribute)}
        for run in results["runs"]
        if run["variant"] in (a, b)
    ]
    ours, theirs = ({run["seed"] for run in runs if run["variant"] == name} for name in (a, b))
    return paired({"runs": runs}, a, b, "number") if ours & theirs else None


def verdict(results: Mapping[str, Any], a: str, b: str, metric: str = "map_micro") -> str:
    """What the recorded seeds say about the claim that `a` beats `b`: difference, then verdict.

    On two lines, because one would not fit on a page.
    """
    found = difference(results, a, b, metric)
    if found is None:
        return f"{a} over {b}: no seed of both is recorded, so nothing is known."
    start = f"{a} over {b}: {found.mean:+.1f} points"
    if found.n == 1:
        return f"{start} in the one seed recorded:\n   it has no interval, so nothing is decided."
    interval = f"{start}, {found.low:+.1f} to {found.high:+.1f} over {found.n} seeds:\n   "
    if found.low > 0:
        return f"{interval}above zero, the claim is supported."
    if found.high < 0:
        return f"{interval}below zero, the claim is contradicted."
    return f"{interval}zero is possible, the claim is undecided."


class Curve(NamedTuple):
    """Quality over training time of one run, at the end of each epoch.

    Args:
        seconds: since training started, validations included.
        quality: of the validation, in percent.
    """

    seconds: list[float]
    quality: list[float]


def curves(results: Mapping[str, Any], variant: str, metric: str = "map_micro") -> dict[int, Curve]:
    """Quality over time of each seed of a variant."""
    return {
        run["seed"]: Curve(
            np.cumsum([row["seconds"] for row in run["history"]]).tolist(),
            [row[metric] for row in run["history"]],
        )
        for run in results["runs"]
        if run["variant"] == variant
    }


def time_to_reach(seconds: Sequence[float], quality: Sequence[float], target: float) -> float:
    """When a run first has a quality, on straight lines between its measurements.

    Args:
        seconds: rising times of the measurements.
        quality: what was measured at each.
        target: the quality to reach.

    Returns:
        Seconds; those of the first measurement if it is that good already, as nothing is known
        of the time before; NaN if no measurement is.

    >>> time_to_reach([10, 20, 30], [5, 15, 25], 20)
    25.0
    """
    reached = np.flatnonzero(np.asarray(quality) >= target)
    if not len(reached):
        return float("nan")
    end = int(reached[0])
    if end == 0:
        return float(seconds[0])
    start = end - 1
    share = (target - quality[start]) / (quality[end] - quality[start])
    return float(seconds[start] + share * (seconds[end] - seconds[start]))
