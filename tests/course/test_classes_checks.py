"""The self-checks of "Classes that ignore values" pass right answers and name each mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course import classes_checks as checks
from agman.course.exercises import problem
from agman.losses import LearnedWeighting

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "classes.ipynb"
CHECKS = {
    "class_loss": checks.check_class_loss,
    "my_lowest_loss": checks.check_lowest_loss,
    "settled_weight": checks.check_settled_weight,
}
EXERCISES = (checks._CLASS_LOSS, checks._LOWEST, checks._SETTLED)


def verdict(name: str, answer: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What the check of an exercise prints about an answer."""
    CHECKS[name](answer)
    return capsys.readouterr().out


def sources(kind: str) -> list[str]:
    """Sources of the chapter's cells of one kind."""
    notebook = nbformat.read(CHAPTER, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


@pytest.mark.parametrize("name", CHECKS)
def test_passes_the_solution_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [
        code
        for cell in sources("markdown")
        for code in re.findall(r"```python\n(.*?)```", cell, flags=re.DOTALL)
        if f"def {name}(" in code
    ]
    assert len(blocks) == 1
    space: dict[str, Any] = {"torch": torch}
    exec(blocks[0], space)
    assert verdict(name, space[name], capsys) == "Passed.\n"


@pytest.mark.parametrize("name", CHECKS)
def test_fails_the_stub_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (stub,) = [cell for cell in sources("code") if f"def {name}(" in cell]
    exec(stub, {"classes_checks": checks})
    assert capsys.readouterr().out.startswith("Not yet: the function returns nothing")


# --- right answers, written differently -----------------------------------------------------------


def class_loss_one_by_one(logits: Tensor, targets: Tensor) -> float:
    costs = []
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        for x, t in zip(row, wanted, strict=True):
            probability = 1 / (1 + np.exp(-x))
            costs.append(-np.log(probability if t else 1 - probability))
    return float(np.mean(costs))


def lowest_by_draws(counts: Tensor) -> float:
    """Every draw a target of its own, answered by the shares of its image."""
    losses = []
    for row in counts.tolist():
        targets = np.repeat(np.eye(len(row)), row, axis=0)
        for target in targets:
            answer = np.where(target > 0, targets.mean(0), 1 - targets.mean(0))
            losses.append(-np.log(answer).mean())
    return float(np.mean(losses))


def settled_by_search(loss: float) -> float:
    """The lowest total between two variances that close in on it."""
    low, high = 0.05, 20.0
    for _ in range(200):
        third = (high - low) / 3
        left, right = (loss / (2 * v) + np.log1p(v) for v in (low + third, high - third))
        low, high = (low, high - third) if left < right else (low + third, high)
    return 1 / (low + high)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("class_loss", class_loss_one_by_one),
        ("my_lowest_loss", lowest_by_draws),
        ("settled_weight", settled_by_search),
    ],
)
def test_passes_a_right_answer_however_it_is_written(
    name: str, answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(name, answer, capsys) == "Passed.\n"


@pytest.mark.parametrize("loss", [0.0, 0.1, 1.0, 3.0])
def test_the_settled_weight_is_where_the_weighting_of_the_package_rests(loss: float) -> None:
    weighting = LearnedWeighting("a")
    adam = torch.optim.Adam(weighting.parameters(), lr=0.02)
    for _ in range(600):
        adam.zero_grad()
        weighting({"a": torch.tensor(loss)}).backward()
        adam.step()
    variance = LearnedWeighting.SMALLEST + float(weighting.scale["a"].detach()) ** 2
    assert 1 / (2 * variance) == pytest.approx(checks._SETTLED.right(loss), rel=1e-2)


# --- typical mistakes -----------------------------------------------------------------------------

MISTAKES: list[tuple[str, Callable[..., Any], str]] = [
    ("class_loss", lambda x, t: F.cross_entropy(x, t), "softmax cross-entropy"),
    (
        "class_loss",
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none").sum(1).mean(),
        "summed over the attributes",
    ),
    ("class_loss", lambda x, t: -(t * x.sigmoid().log()).mean(), "cost nothing"),
    ("class_loss", lambda x, t: F.binary_cross_entropy(x, t), "stopped with RuntimeError"),
    ("class_loss", lambda x, t: x.sigmoid(), "has shape"),
    ("class_loss", lambda x, t: ((x.sigmoid() - t) ** 2).mean(), "is right"),
    (
        "my_lowest_loss",
        lambda c: torch.special.entr(c / c.sum(1, keepdim=True).clamp(min=1)).sum(1).mean(),
        "is right",
    ),
    (
        "my_lowest_loss",
        lambda c: lowest_by_draws(c.sum(0)[None]),
        "one answer for all images",
    ),
    (
        "my_lowest_loss",
        lambda c: np.mean([lowest_by_draws(row[None]) for row in c if row.sum()]),
        "an image that is drawn often",
    ),
    ("my_lowest_loss", lambda c: lowest_by_draws(c) / np.log(2), "base 2"),
    ("my_lowest_loss", lambda c: float("nan"), "NaN in PyTorch"),
    ("my_lowest_loss", lambda c: c / c.sum(1, keepdim=True), "has shape"),
    ("settled_weight", lambda x: 0.5 / x, "stopped with ZeroDivisionError"),
    ("settled_weight", lambda x: 2 * settled_by_search(x), "that is 1 / v"),
    ("settled_weight", lambda x: 0.5 / settled_by_search(x), "that is v"),
    ("settled_weight", lambda x: 0.5, "is right for"),
]


@pytest.mark.parametrize(("name", "answer", "expected"), MISTAKES)
def test_names_the_mistake(
    name: str, answer: Callable[..., Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = verdict(name, answer, capsys)
    assert said.startswith("Not yet: ")
    assert expected in said
    assert said.endswith("hint=1.\n")


@pytest.mark.parametrize("exercise", EXERCISES)
def test_no_listed_mistake_passes_or_stands_for_another(exercise: Any) -> None:
    """Each listed mistake differs from the right answer and is told by its own sentence."""
    for sentence, wrong in exercise.mistakes:
        assert problem(wrong, exercise) == sentence


@pytest.mark.parametrize("name", CHECKS)
def test_gives_hints_in_stages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for hint in (1, 2, 3):
        CHECKS[name](lambda *_: None, hint=hint)
        said = capsys.readouterr().out
        assert [f"Hint {n}" in said for n in (1, 2, 3)] == [hint >= n for n in (1, 2, 3)]
