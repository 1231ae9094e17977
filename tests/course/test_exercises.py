"""The engine of the self-checks, and what holds for every exercise of the book."""

from __future__ import annotations

import importlib
import pkgutil
from itertools import combinations
from typing import Any

import pytest
import torch

import agman.course
from agman.course.exercises import Exercise, Recorded, agree, numbers, problem, report


def every_exercise() -> dict[str, Exercise]:
    found = {}
    for module in pkgutil.iter_modules(agman.course.__path__):
        if module.name.endswith("checks"):
            names = vars(importlib.import_module(f"agman.course.{module.name}"))
            found.update(
                {f"{module.name}.{n}": e for n, e in names.items() if isinstance(e, Exercise)}
            )
    return found


def test_there_are_exercises() -> None:
    assert len(every_exercise()) > 30


@pytest.mark.parametrize("exercise", every_exercise().values(), ids=every_exercise())
def test_cases_tell_all_mistakes_apart(exercise: Exercise) -> None:
    """Else the first of two look-alikes would be named for both."""
    answers = [("right", exercise.right_answers()), *exercise.wrong_answers()]
    for (one, some), (other, others) in combinations(answers, 2):
        assert one == other or not agree(some, others), (one, other)


HALF = Exercise(
    right=lambda x: x / 2,
    cases=((torch.tensor([1.0, 4.0]),), (torch.tensor([0.0, -2.0]),)),
    mistakes=(("you doubled it.", lambda x: 2 * x),),
    hints=("one", "two", "three"),
)
RECORDED = Recorded(HALF.cases, HALF.right_answers(), list(HALF.wrong_answers()), hints=HALF.hints)


def destroys_its_argument(x: torch.Tensor) -> torch.Tensor:
    half = x / 2
    x.fill_(9)
    return half


@pytest.mark.parametrize("exercise", [HALF, RECORDED], ids=["functions", "recorded"])
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x * 0.5, None),
        (lambda x: [float(each) / 2 for each in x], None),
        (destroys_its_argument, None),
        (lambda x: x + x, "you doubled it."),
        (lambda x: x, "[1.0, 4.0] where [0.5, 2.0] is right for [1.0, 4.0]"),
        (lambda x: x[:1] / 2, "shape (1,) where (2,) is right"),
        (lambda x: None, "returns nothing"),
        (lambda x: "half", "returns a str, not numbers"),
        (lambda x: 1 / 0, "stopped with ZeroDivisionError (division by zero) for [1.0, 4.0]"),
    ],
)
def test_recorded_answers_judge_as_functions_do(
    exercise: Exercise | Recorded, function: Any, said: str | None
) -> None:
    found = problem(function, exercise)
    assert found is None if said is None else said in str(found)


def test_hints_come_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    for hint in (0, 1, 2, 3, 9):
        report(lambda x: x, HALF, hint)
        lines = capsys.readouterr().out.splitlines()[1:]
        shown = [f"Hint {n}: {text}" for n, text in enumerate(HALF.hints[:hint], start=1)]
        assert lines == (shown or ["For a hint, call the check again with hint=1."])


def test_numbers_takes_what_a_reader_may_return() -> None:
    for given in (torch.tensor([1, 2]), [1, 2], (1.0, torch.tensor(2)), torch.tensor([1.0, 2.0])):
        assert numbers(given).tolist() == [1, 2]
