"""The self-checks of "Full evaluation", "Ablations" and "Better than the paper"."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from torch import Tensor

from agman import metrics
from agman.course import ablations_checks, better_checks, full_evaluation_checks

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = {
    "full_evaluation": full_evaluation_checks,
    "ablations": ablations_checks,
    "better": better_checks,
}
EXERCISES = {
    full_evaluation_checks.check_paired_interval: full_evaluation_checks._PAIRED,
    full_evaluation_checks.check_seeds_needed: full_evaluation_checks._SEEDS,
    full_evaluation_checks.check_bootstrap: full_evaluation_checks._BOOTSTRAP,
    ablations_checks.check_false_alarms: ablations_checks._FALSE_ALARMS,
    ablations_checks.check_corrected: ablations_checks._CORRECTED,
    ablations_checks.check_interaction: ablations_checks._INTERACTION,
    better_checks.check_time_to_reach: better_checks._TIME,
    better_checks.check_rate_left: better_checks._RATE,
    better_checks.check_kept: better_checks._KEPT,
}

each_check = pytest.mark.parametrize("check", EXERCISES, ids=lambda check: check.__name__)


def said(capsys: Any, check: Callable[..., None], function: Any, hint: int = 0) -> list[str]:
    """The lines a check prints."""
    capsys.readouterr()
    check(function, hint)
    return capsys.readouterr().out.splitlines()


# --- right answers, written differently from the package ------------------------------------------


def interval_with_numpy(a: Tensor, b: Tensor, factor: float) -> list[float]:
    d = np.asarray(a) - np.asarray(b)
    half = factor * np.sqrt(((d - d.mean()) ** 2).sum() / (len(d) - 1) / len(d))
    return [d.mean(), d.mean() - half, d.mean() + half]


def seeds_by_list(spread: float, difference: float, factors: Tensor) -> int:
    enough = [
        n for n in range(2, len(factors)) if float(factors[n]) * spread < difference * math.sqrt(n)
    ]
    return min(enough)


def bootstrap_with_numpy(ap: Tensor, draws: Tensor) -> np.ndarray:
    means = [np.mean([float(ap[i]) for i in row]) for row in draws]
    return np.percentile(means, [2.5, 97.5])


def alarms_one_by_one(n: int, level: float) -> float:
    silent = 1.0
    for _ in range(n):
        silent -= silent * level
    return 1 - silent


def corrected_by_pairs(differences: Tensor, n: int) -> Tensor:
    return torch.tensor(
        metrics.paired_difference(differences, torch.zeros(len(differences)), (n - 0.05) / n)[1:]
    )


def interaction_by_steps(full: float, a: float, b: float, both: float) -> float:
    """What b is worth when a is gone already, less what it is worth while a is there."""
    return (a - both) - (full - b)


def time_by_small_steps(seconds: Any, quality: Any, target: float) -> float:
    if max(quality) < target:
        return math.nan
    times = np.linspace(seconds[0], seconds[-1], 2_000_001)
    return float(times[np.argmax(np.interp(times, seconds, quality) >= target)])


def rate_by_epochs(epoch: int, step: int, decay: float) -> float:
    rate = 1.0
    for now in range(1, epoch + 1):
        if now % step == 0:
            rate *= decay
    return rate


def kept_by_pixels(region: Any, crop: Any) -> float:
    image = np.zeros((96, 96), bool)
    image[crop[1] : crop[3], crop[0] : crop[2]] = True
    return float(image[region[1] : region[3], region[0] : region[2]].mean())


RIGHT = [
    (full_evaluation_checks.check_paired_interval, interval_with_numpy),
    (full_evaluation_checks.check_seeds_needed, seeds_by_list),
    (full_evaluation_checks.check_bootstrap, bootstrap_with_numpy),
    (ablations_checks.check_false_alarms, alarms_one_by_one),
    (ablations_checks.check_corrected, corrected_by_pairs),
    (ablations_checks.check_interaction, interaction_by_steps),
    (better_checks.check_time_to_reach, time_by_small_steps),
    (better_checks.check_rate_left, rate_by_epochs),
    (better_checks.check_kept, kept_by_pixels),
]


@pytest.mark.parametrize(("check", "function"), RIGHT)
def test_passes_a_right_answer(check: Any, function: Any, capsys: Any) -> None:
    assert said(capsys, check, function) == ["Passed."]


def test_every_check_is_tried_with_a_right_answer() -> None:
    assert {check for check, _ in RIGHT} == EXERCISES.keys()


# --- wrong answers, as readers write them ---------------------------------------------------------


def interval(d: Tensor, factor: float, spread: float) -> tuple[float, float, float]:
    mean = float(d.mean())
    return mean, mean - factor * spread, mean + factor * spread


def stepwise(spread: float, difference: float, factor: Callable[[int], float]) -> int:
    n = 2
    while factor(n) * spread >= difference:
        n += 1
    return n


def boxes(function: Callable[[float, float, float, float], float]) -> Callable[[Any, Any], float]:
    """A function of the overlap's width and height, and of both areas."""

    def answer(r: Any, c: Any) -> float:
        width, height = min(r[2], c[2]) - max(r[0], c[0]), min(r[3], c[3]) - max(r[1], c[1])
        return function(width, height, (r[2] - r[0]) * (r[3] - r[1]), (c[2] - c[0]) * (c[3] - c[1]))

    return answer


def first_good(seconds: Any, quality: Any, target: float) -> float:
    return next((s for s, q in zip(seconds, quality, strict=True) if q >= target), math.nan)


MISTAKES: list[tuple[Any, str, Callable[..., Any]]] = [
    (
        full_evaluation_checks.check_paired_interval,
        "as if their seeds were not the same",
        lambda a, b, t: interval(a - b, t, float(((a.var() + b.var()) / len(a)) ** 0.5)),
    ),
    (
        full_evaluation_checks.check_paired_interval,
        "not divided by the root",
        lambda a, b, t: interval(a - b, t, float((a - b).std())),
    ),
    (
        full_evaluation_checks.check_paired_interval,
        "n - 1",
        lambda a, b, t: interval(a - b, t, float(np.std((a - b).numpy())) / len(a) ** 0.5),
    ),
    (
        full_evaluation_checks.check_paired_interval,
        "b - a",
        lambda a, b, t: interval_with_numpy(b, a, t),
    ),
    (
        full_evaluation_checks.check_paired_interval,
        "factor is missing",
        lambda a, b, t: interval_with_numpy(a, b, 1),
    ),
    (
        full_evaluation_checks.check_paired_interval,
        "hundreds of seeds",
        lambda a, b, t: interval_with_numpy(a, b, 1.96),
    ),
    (
        full_evaluation_checks.check_seeds_needed,
        "with its root only",
        lambda s, d, f: stepwise(s, d, lambda n: float(f[n]) / n),
    ),
    (
        full_evaluation_checks.check_seeds_needed,
        "1.96",
        lambda s, d, f: stepwise(s, d, lambda n: 1.96 / n**0.5),
    ),
    (
        full_evaluation_checks.check_seeds_needed,
        "one seed too many",
        lambda s, d, f: seeds_by_list(s, d, f) + 1,
    ),
    (
        full_evaluation_checks.check_seeds_needed,
        "one seed too few",
        lambda s, d, f: seeds_by_list(s, d, f) - 1,
    ),
    (
        full_evaluation_checks.check_seeds_needed,
        "whole width",
        lambda s, d, f: stepwise(s, d, lambda n: 2 * float(f[n]) / n**0.5),
    ),
    (
        full_evaluation_checks.check_bootstrap,
        "quantiles of the queries",
        lambda ap, draws: np.quantile(ap, [0.025, 0.975]),
    ),
    (
        full_evaluation_checks.check_bootstrap,
        "each place",
        lambda ap, draws: np.quantile(ap[draws].mean(0), [0.025, 0.975]),
    ),
    (
        full_evaluation_checks.check_bootstrap,
        "all drawn numbers",
        lambda ap, draws: np.quantile(ap[draws], [0.025, 0.975]),
    ),
    (
        full_evaluation_checks.check_bootstrap,
        "2.5 % to each",
        lambda ap, draws: np.quantile(ap[draws].mean(1), [0.05, 0.95]),
    ),
    (
        full_evaluation_checks.check_bootstrap,
        "smallest and the largest",
        lambda ap, draws: ap[draws].mean(1).aminmax(),
    ),
    (ablations_checks.check_false_alarms, "counted twice, and many", lambda n, p: n * p),
    (ablations_checks.check_false_alarms, "cut at 1", lambda n, p: min(n * p, 1)),
    (ablations_checks.check_false_alarms, "all of them are alarms", lambda n, p: p**n),
    (ablations_checks.check_false_alarms, "no alarm at all", lambda n, p: (1 - p) ** n),
    (ablations_checks.check_false_alarms, "exactly one", lambda n, p: n * p * (1 - p) ** (n - 1)),
    (
        ablations_checks.check_corrected,
        "a single row",
        lambda d, n: metrics.t_interval(d)[1:],
    ),
    (
        ablations_checks.check_corrected,
        "divided the 95 %",
        lambda d, n: metrics.t_interval(d, 0.95 / n)[1:],
    ),
    (
        ablations_checks.check_corrected,
        "power of n",
        lambda d, n: metrics.t_interval(d, 0.95**n)[1:],
    ),
    (
        ablations_checks.check_corrected,
        "Šidák",
        lambda d, n: metrics.t_interval(d, 0.95 ** (1 / n))[1:],
    ),
    (
        ablations_checks.check_corrected,
        "number of seeds",
        lambda d, n: metrics.t_interval(d, 1 - 0.05 / len(d))[1:],
    ),
    (ablations_checks.check_interaction, "sign is turned", lambda f, a, b, ab: f + ab - a - b),
    (ablations_checks.check_interaction, "worth together; take", lambda f, a, b, ab: f - ab),
    (
        ablations_checks.check_interaction,
        "added up",
        lambda f, a, b, ab: (f - a) + (f - b),
    ),
    (ablations_checks.check_interaction, "with the other", lambda f, a, b, ab: (f - a) - (f - b)),
    (better_checks.check_time_to_reach, "earlier", first_good),
    (
        better_checks.check_time_to_reach,
        "only rise",
        lambda s, q, t: np.interp(t, q, s),
    ),
    (
        better_checks.check_time_to_reach,
        "quality of zero",
        lambda s, q, t: time_by_small_steps([0, *s], [0, *q], t),
    ),
    (
        better_checks.check_time_to_reach,
        "later",
        lambda s, q, t: (
            math.nan if max(q) < t else s[max(next(i for i in range(len(q)) if q[i] >= t) - 1, 0)]
        ),
    ),
    (better_checks.check_rate_left, "not in every epoch", lambda e, s, d: d**e),
    (better_checks.check_rate_left, "smooth", lambda e, s, d: d ** (e / s)),
    (better_checks.check_rate_left, "same amount", lambda e, s, d: 1 - (1 - d) * (e // s)),
    (better_checks.check_rate_left, "to that power", lambda e, s, d: d * (e // s)),
    (better_checks.check_rate_left, "one step too many", lambda e, s, d: d ** (1 + e // s)),
    (better_checks.check_kept, "is negative", boxes(lambda w, h, r, c: w * h / r)),
    (better_checks.check_kept, "one by one", boxes(lambda w, h, r, c: max(w * h, 0) / r)),
    (
        better_checks.check_kept,
        "area of the crop",
        boxes(lambda w, h, r, c: max(w, 0) * max(h, 0) / c),
    ),
    (
        better_checks.check_kept,
        "over union",
        boxes(lambda w, h, r, c: max(w, 0) * max(h, 0) / (r + c - max(w, 0) * max(h, 0))),
    ),
    (
        better_checks.check_kept,
        "area in pixels",
        boxes(lambda w, h, r, c: max(w, 0) * max(h, 0)),
    ),
]


@pytest.mark.parametrize(("check", "phrase", "function"), MISTAKES)
def test_names_a_typical_mistake(check: Any, phrase: str, function: Any, capsys: Any) -> None:
    first, second = said(capsys, check, function)
    assert first.startswith("Not yet: ")
    assert phrase in first
    assert "hint=1" in second


@each_check
def test_every_check_is_tried_with_several_mistakes(check: Any) -> None:
    assert len({phrase for other, phrase, _ in MISTAKES if other is check}) >= 4


# --- stubs, crashes, hints ------------------------------------------------------------------------


@each_check
def test_a_stub_and_a_crash_are_told_and_never_raised(check: Any, capsys: Any) -> None:
    def broken(*_: Any) -> None:
        raise IndexError("index 7 is out of range")

    assert "returns nothing" in said(capsys, check, lambda *_: None)[0]
    assert "IndexError (index 7" in said(capsys, check, broken)[0]
    assert "a str, not numbers" in said(capsys, check, lambda *_: "MAP")[0]


@each_check
def test_hints_come_in_stages(check: Any, capsys: Any) -> None:
    for stage in (1, 2, 3):
        lines = said(capsys, check, lambda *_: None, stage)
        assert [line.split(":")[0] for line in lines[1:]] == [f"Hint {i + 1}" for i in range(stage)]


# --- the chapters ---------------------------------------------------------------------------------


def solutions() -> list[tuple[str, str, str]]:
    """Chapter, name of the reader's function, and the code of its solution."""
    found = []
    for chapter in CHAPTERS:
        for cell in nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells:
            if cell.cell_type == "markdown" and "Solution of exercise" in cell.source:
                code = re.search(r"```python\n(.*?)```", cell.source, re.DOTALL)
                assert code, f"{chapter}: a solution without code"
                name = re.search(r"def my_(\w+)\(", code[1])
                assert name, f"{chapter}: a solution without a function"
                found.append((chapter, name[1], code[1]))
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_check_has_its_exercise_in_the_chapter(chapter: str) -> None:
    names = sorted(f"check_{name}" for where, name, _ in solutions() if where == chapter)
    assert names == sorted(CHAPTERS[chapter].__all__)


@pytest.mark.parametrize(
    ("chapter", "name", "code"), solutions(), ids=lambda text: text.split("\n")[0]
)
def test_the_solution_on_the_page_passes(chapter: str, name: str, code: str, capsys: Any) -> None:
    space: dict[str, Any] = {"torch": torch, "metrics": metrics}
    exec(code, space)
    check = getattr(CHAPTERS[chapter], f"check_{name}")
    assert said(capsys, check, space[f"my_{name}"]) == ["Passed."]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_stub_on_the_page_is_told_that_it_is_empty(chapter: str, capsys: Any) -> None:
    cells = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
    stubs = [c.source for c in cells if c.cell_type == "code" and "# your code here" in c.source]
    assert len(stubs) == len(CHAPTERS[chapter].__all__)
    for stub in stubs:
        exec(stub, {"checks": CHAPTERS[chapter], "torch": torch})
        assert capsys.readouterr().out.startswith("Not yet: the function returns nothing")
