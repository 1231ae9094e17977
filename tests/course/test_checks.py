"""The self-checks: they pass what is right however it is written, and name each usual mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course import checks
from agman.metrics import average_precision, macro_mean, micro_mean

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = ("measuring_retrieval", "feature_gap")
EXERCISES = {
    checks.check_average_precision: checks._AVERAGE_PRECISION,
    checks.check_fair_average_precision: checks._FAIR,
    checks.check_means: checks._MEANS,
    checks.check_leave_one_out: checks._LEAVE_ONE_OUT,
    checks.check_pooled: checks._POOLED,
    checks.check_above_chance: checks._ABOVE_CHANCE,
    checks.check_linear_map: checks._LINEAR_MAP,
}


def said(capsys: Any, check: Callable[..., None], function: Any, hint: int = 0) -> list[str]:
    """The lines a check prints."""
    capsys.readouterr()
    check(function, hint)
    return capsys.readouterr().out.splitlines()


# --- right answers, written differently from the package ------------------------------------------


def ap_by_counting(scores: Tensor, relevant: Tensor) -> float:
    pairs = sorted(zip(scores.tolist(), relevant.tolist(), strict=True), reverse=True)
    found, total = 0, 0.0
    for rank, (_, hit) in enumerate(pairs, start=1):
        found += hit
        total += hit * found / rank
    return total / found


def ap_by_thresholds(scores: Tensor, relevant: Tensor) -> float:
    """Steps of recall times precision, as scikit-learn describes it."""
    total, before = 0.0, 0.0
    for threshold in scores.unique().flip(0):
        reached = scores >= threshold
        recall = float((reached & relevant).sum() / relevant.sum())
        total += (recall - before) * float((reached & relevant).sum() / reached.sum())
        before = recall
    return total


def means_by_package(ap: Tensor, attributes: Tensor) -> list[float]:
    return [micro_mean(ap), macro_mean(ap, attributes)]


def leave_one_out_by_lists(embeddings: Tensor, values: Tensor) -> Tensor:
    n, results = len(values), []
    for i in range(n):
        keep = [j for j in range(n) if j != i]
        relevant = torch.tensor([bool(values[j] == values[i]) for j in keep])
        scores = torch.stack([embeddings[i].dot(embeddings[j]) for j in keep])
        if any(relevant):
            results.append(ap_by_counting(scores, relevant))
    return torch.tensor(results).mean()


def pooled_by_sums(features: Tensor) -> Tensor:
    total = torch.einsum("bchw->bc", features)  # the mean's factor is lost in the length
    return total / (total**2).sum(1, keepdim=True).sqrt()


def ridge_by_more_rows(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Least squares with one extra row for each channel, which is the same as a penalty."""
    n, width = features.shape[1], targets.shape[1]
    extra = penalty**0.5 * torch.eye(n, dtype=features.dtype)
    rows = torch.cat([features, extra])
    wanted = torch.cat([targets, torch.zeros(n, width, dtype=targets.dtype)])
    return torch.linalg.lstsq(rows, wanted).solution


RIGHT = [
    (checks.check_average_precision, ap_by_counting),
    (checks.check_average_precision, average_precision),
    (checks.check_average_precision, ap_by_thresholds),
    (checks.check_fair_average_precision, ap_by_thresholds),
    (checks.check_fair_average_precision, average_precision),
    (checks.check_means, means_by_package),
    (checks.check_leave_one_out, leave_one_out_by_lists),
    (checks.check_pooled, pooled_by_sums),
    (checks.check_above_chance, lambda m, c: 1 - (1 - m) / (1 - c)),
    (checks.check_linear_map, ridge_by_more_rows),
]


@pytest.mark.parametrize(("check", "function"), RIGHT)
def test_passes_a_right_answer_however_it_is_written(
    check: Callable[..., None], function: Callable[..., Any], capsys: Any
) -> None:
    assert said(capsys, check, function) == ["Passed."]


# --- typical mistakes -----------------------------------------------------------------------------


def in_order(scores: Tensor, relevant: Tensor, descending: bool = True) -> Tensor:
    return relevant[scores.argsort(descending=descending, stable=True)].float()


def precisions(hits: Tensor, first_rank: int = 1) -> Tensor:
    return hits.cumsum(0) / torch.arange(first_rank, first_rank + len(hits))


def leave_out(e: Tensor, v: Tensor, **how: Any) -> float:
    """Each query against all, wrong in the way that `how` says."""
    results = []
    for i in range(len(v)):
        scores, relevant = e @ e[i], v == v[i]
        if "own" in how:
            scores[i] = how["own"]
        if how.get("drop"):
            relevant[i] = False
        keep = torch.arange(len(v)) != i if how.get("keep_out") else torch.ones(len(v)).bool()
        scores, relevant = scores[keep], relevant[keep]
        if relevant.any():
            results.append(average_precision(scores, relevant))
        elif "lonely" in how:
            results.append(how["lonely"])
    return sum(results) / len(results)


def short_of_own(e: Tensor, v: Tensor) -> float:
    """Divides by all relevant items, the query included."""
    total = []
    for i in range(len(v)):
        keep = torch.arange(len(v)) != i
        relevant = (v == v[i])[keep]
        hits = in_order((e @ e[i])[keep], relevant)
        if relevant.any():
            total.append(float((precisions(hits) * hits).sum() / (v == v[i]).sum()))
    return sum(total) / len(total)


MISTAKES = [
    (
        checks.check_average_precision,
        "number of items, not by the number of relevant",
        lambda s, r: (precisions(in_order(s, r)) * in_order(s, r)).sum() / len(s),
    ),
    (
        checks.check_average_precision,
        "over all ranks",
        lambda s, r: precisions(in_order(s, r)).mean(),
    ),
    (
        checks.check_average_precision,
        "lowest score first",
        lambda s, r: precisions(in_order(s, r, False))[in_order(s, r, False) > 0].mean(),
    ),
    (
        checks.check_average_precision,
        "order of the file",
        lambda s, r: precisions(r.float())[r].mean(),
    ),
    (
        checks.check_average_precision,
        "counted ranks from 0",
        lambda s, r: precisions(in_order(s, r), 0)[in_order(s, r) > 0].mean(),
    ),
    (
        checks.check_average_precision,
        "in percent",
        lambda s, r: 100 * average_precision(s, r),
    ),
    (
        checks.check_fair_average_precision,
        "first in the file first",
        lambda s, r: precisions(in_order(s, r))[in_order(s, r) > 0].mean(),
    ),
    (
        checks.check_fair_average_precision,
        "best luck",
        lambda s, r: ap_by_counting(s, r),  # sorted() puts True before False among equals
    ),
    (
        checks.check_fair_average_precision,
        "worst luck",
        lambda s, r: average_precision(s + 1e-3 * (~r), r, ties="order"),
    ),
    (
        checks.check_fair_average_precision,
        "score more than each",
        lambda s, r: sum((1 + (r & (s > x)).sum()) / (1 + (s > x).sum()) for x in s[r]) / r.sum(),
    ),
    (
        checks.check_fair_average_precision,
        "number of items, not by the number of relevant",
        lambda s, r: sum((r & (s >= x)).sum() / (s >= x).sum() for x in s[r]) / len(s),
    ),
    (checks.check_means, "wrong way round", lambda a, b: means_by_package(a, b)[::-1]),
    (checks.check_means, "both numbers are the mean over queries", lambda a, b: [a.nanmean()] * 2),
    (
        checks.check_means,
        "both numbers are the mean over attributes",
        lambda a, b: [macro_mean(a, b)] * 2,
    ),
    (
        checks.check_means,
        "NaN makes the whole mean NaN",
        lambda a, b: (a.mean(), torch.stack([a[b == i].mean() for i in b.unique()]).mean()),
    ),
    (
        checks.check_means,
        "counted as 0",
        lambda a, b: means_by_package(a.nan_to_num(0), b),
    ),
    (
        checks.check_means,
        "nobody asks about",
        lambda a, b: (
            a.nanmean(),
            sum(a[b == i].nanmean() if (b == i).any() else 0 for i in range(int(b.max()) + 1))
            / (b.max() + 1),
        ),
    ),
    (
        checks.check_leave_one_out,
        "first hit is itself",
        lambda e, v: leave_out(e, v),
    ),
    (checks.check_leave_one_out, "as a wrong answer", lambda e, v: leave_out(e, v, drop=True)),
    (checks.check_leave_one_out, "was set to 0", lambda e, v: leave_out(e, v, own=0)),
    (checks.check_leave_one_out, "found last", lambda e, v: leave_out(e, v, own=-2)),
    (checks.check_leave_one_out, "you divide by", short_of_own),
    (
        checks.check_leave_one_out,
        "was counted as 0",
        lambda e, v: leave_out(e, v, keep_out=True, lonely=0),
    ),
    (checks.check_pooled, "not of unit length", lambda f: f.mean((2, 3))),
    (checks.check_pooled, "maximum", lambda f: F.normalize(f.amax((2, 3)))),
    (checks.check_pooled, "kept all positions", lambda f: F.normalize(f.reshape(len(f), -1))),
    (
        checks.check_pooled,
        "over the channels",
        lambda f: F.normalize(f.mean(1).reshape(len(f), -1)),
    ),
    (checks.check_pooled, "each column", lambda f: f.mean((2, 3)) / f.mean((2, 3)).norm(dim=0)),
    (
        checks.check_pooled,
        "before averaging",
        lambda f: (f / f.norm(dim=1, keepdim=True)).mean((2, 3)),
    ),
    (checks.check_above_chance, "only subtracted", lambda m, c: m - c),
    (checks.check_above_chance, "divided by chance, so easy", lambda m, c: m / c),
    (checks.check_above_chance, "the gain by chance", lambda m, c: m / c - 1),
    (checks.check_above_chance, "sign", lambda m, c: (c - m) / (1 - c)),
    (checks.check_above_chance, "below chance", lambda m, c: max((m - c) / (1 - c), 0)),
    (
        checks.check_linear_map,
        "no effect",
        lambda x, t, p: torch.linalg.lstsq(x, t).solution,
    ),
    (
        checks.check_linear_map,
        "every entry",
        lambda x, t, p: torch.inverse(x.T @ x + p) @ x.T @ t,
    ),
    (checks.check_linear_map, "transposed", lambda x, t, p: ridge_by_more_rows(x, t, p).mT),
    (checks.check_linear_map, "training rows", lambda x, t, p: x @ ridge_by_more_rows(x, t, p)),
    (checks.check_linear_map, "not solved", lambda x, t, p: x.T @ t),
    (
        checks.check_linear_map,
        "number of rows",
        lambda x, t, p: ridge_by_more_rows(x, t, p * len(x)),
    ),
]


@pytest.mark.parametrize(("check", "phrase", "function"), MISTAKES)
def test_names_a_typical_mistake(
    check: Callable[..., None], phrase: str, function: Callable[..., Any], capsys: Any
) -> None:
    first, second = said(capsys, check, function)
    assert first.startswith("Not yet: ")
    assert phrase in first
    assert "hint=1" in second


@pytest.mark.parametrize("check", EXERCISES, ids=lambda check: check.__name__)
def test_every_check_is_tried_with_several_mistakes(check: Callable[..., None]) -> None:
    assert len({phrase for other, phrase, _ in MISTAKES if other is check}) >= 4


# --- stubs, crashes and what nobody has thought of ------------------------------------------------


def unfinished(*_: Any) -> None: ...


def empty(*_: Any) -> None:
    raise NotImplementedError


def broken(*_: Any) -> None:
    raise IndexError("index 7 is out of range")


@pytest.mark.parametrize("check", EXERCISES, ids=lambda check: check.__name__)
def test_a_stub_and_a_crash_are_told_and_never_raised(
    check: Callable[..., None], capsys: Any
) -> None:
    assert "returns nothing" in said(capsys, check, unfinished)[0]
    assert "still empty" in said(capsys, check, empty)[0]
    assert "IndexError (index 7" in said(capsys, check, broken)[0]
    assert "a str, not numbers" in said(capsys, check, lambda *_: "AP")[0]


@pytest.mark.parametrize("check", EXERCISES, ids=lambda check: check.__name__)
def test_an_unknown_mistake_is_shown_with_numbers(check: Callable[..., None], capsys: Any) -> None:
    right = EXERCISES[check].right

    def slightly_off(*case: Any) -> Any:
        return torch.as_tensor(right(*case)) + 0.0123

    assert re.search(
        r"the function gives .* where .* is right", said(capsys, check, slightly_off)[0]
    )
    assert "has shape" in said(capsys, check, lambda *_: torch.zeros(2, 9))[0]


@pytest.mark.parametrize("check", EXERCISES, ids=lambda check: check.__name__)
def test_hints_come_in_stages(check: Callable[..., None], capsys: Any) -> None:
    for stage in (1, 2, 3):
        lines = said(capsys, check, unfinished, stage)
        assert [line.split(":")[0] for line in lines[1:]] == [f"Hint {i + 1}" for i in range(stage)]


def test_a_function_may_change_its_arguments(capsys: Any) -> None:
    def careless(scores: Tensor, relevant: Tensor) -> float:
        result = average_precision(scores, relevant)
        scores.zero_()
        relevant.fill_(True)
        return result

    assert said(capsys, checks.check_average_precision, careless) == ["Passed."]
    assert said(capsys, checks.check_average_precision, average_precision) == ["Passed."]


# --- the chapters ---------------------------------------------------------------------------------


def solutions() -> list[tuple[str, str]]:
    """Name of the reader's function and the code of its solution, from the chapters."""
    found = []
    for chapter in CHAPTERS:
        for cell in nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells:
            if cell.cell_type == "markdown" and "Solution of exercise" in cell.source:
                code = re.search(r"```python\n(.*?)```", cell.source, re.DOTALL)
                assert code, f"{chapter}: a solution without code"
                name = re.search(r"def my_(\w+)\(", code[1])
                assert name, f"{chapter}: a solution without a function"
                found.append((name[1], code[1]))
    return found


def test_each_check_has_its_exercise_in_a_chapter() -> None:
    assert sorted(f"check_{name}" for name, _ in solutions()) == sorted(checks.__all__)


@pytest.mark.parametrize(("name", "code"), solutions(), ids=lambda text: text.split("\n")[0])
def test_the_solution_on_the_page_passes(name: str, code: str, capsys: Any) -> None:
    space: dict[str, Any] = {"torch": torch, "F": F, "average_precision": average_precision}
    exec(code, space)
    assert said(capsys, getattr(checks, f"check_{name}"), space[f"my_{name}"]) == ["Passed."]
