"""The engine behind all self-checks: run a reader's function, and name its mistake.

A check prints "Passed.", or one sentence that says what is wrong.
It never raises, so that no exercise blocks the next.
`hint=1`, `hint=2` and `hint=3` print a little more each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["Exercise", "Recorded", "agree", "numbers", "problem", "report", "say", "stopped"]

_TOLERANCE = 1e-4


Named = tuple[str, Callable[..., Any]]
"""A sentence that names a mistake, and a function that makes it."""


@dataclass(frozen=True)
class Exercise:
    """What a right answer is, and what the usual wrong ones are.

    Args:
        right: computes the right answer.
        cases: arguments to try it with; together they tell all mistakes apart.
        mistakes: the usual ones.
        hints: from a nudge to nearly the answer.
    """

    right: Callable[..., Any]
    cases: Sequence[tuple[Any, ...]]
    mistakes: Sequence[Named]
    hints: tuple[str, str, str]

    def right_answers(self) -> list[np.ndarray]:
        """The right answer to each case."""
        return self._answers(self.right)

    def wrong_answers(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Each mistake's sentence, and what it answers to each case."""
        return ((sentence, self._answers(wrong)) for sentence, wrong in self.mistakes)

    def _answers(self, function: Callable[..., Any]) -> list[np.ndarray]:
        return [numbers(function(*_copies(case))) for case in self.cases]


@dataclass(frozen=True)
class Recorded:
    """An exercise as its answers only, so that no solution need be shipped with its check.

    Args:
        cases: arguments to try a function with.
        right: the right answer to each.
        wrong: a sentence that names a mistake, and what it answers to each case.
        hints: from a nudge to nearly the answer.
    """

    cases: Sequence[tuple[Any, ...]]
    right: list[np.ndarray]
    wrong: Sequence[tuple[str, list[np.ndarray]]]
    hints: tuple[str, str, str]

    def right_answers(self) -> list[np.ndarray]:
        """The right answer to each case."""
        return self.right

    def wrong_answers(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Each mistake's sentence, and what it answers to each case."""
        return iter(self.wrong)


def report(function: Callable[..., Any], exercise: Exercise | Recorded, hint: int) -> None:
    """Print what an exercise's check has to say about a function."""
    say(problem(function, exercise), exercise.hints, hint)


def say(wrong: str | None, hints: Sequence[str], hint: int) -> None:
    """Print "Passed.", or what is wrong and as many hints as were asked for."""
    if wrong is None:
        print("Passed.")
        return
    print(f"Not yet: {wrong}")
    for number, text in enumerate(hints[: max(hint, 0)], start=1):
        print(f"Hint {number}: {text}")
    if hint < 1:
        print("For a hint, call the check again with hint=1.")


def problem(function: Callable[..., Any], exercise: Exercise | Recorded) -> str | None:
    """What is wrong with a function, in one sentence, or None if it is right."""
    given: list[np.ndarray] = []
    for case in exercise.cases:
        try:
            answer = function(*_copies(case))
        except Exception as error:  # whatever a reader's code may raise
            return stopped(error, f" for {_text(case)}")
        if answer is None or answer is ...:
            return "the function returns nothing; end it with a return."
        try:
            given.append(numbers(answer))
        except (TypeError, ValueError, RuntimeError):
            return f"the function returns a {type(answer).__name__}, not numbers."
    right = exercise.right_answers()
    if agree(given, right):
        return None
    for sentence, wrong in exercise.wrong_answers():
        if agree(given, wrong):
            return sentence
    return _difference(given, right, exercise.cases)


def stopped(error: Exception, where: str = "") -> str:
    """What to say of a function that raised."""
    if isinstance(error, NotImplementedError):
        return "the function is still empty; replace its last line by your own."
    return f"the function stopped with {type(error).__name__} ({error}){where}."


def _difference(given: list[np.ndarray], right: list[np.ndarray], cases: Sequence[Any]) -> str:
    """The first case whose answer differs, for a mistake nobody has named yet."""
    at = next(i for i in range(len(right)) if not agree(given[i : i + 1], right[i : i + 1]))
    if given[at].shape != right[at].shape:
        return f"the answer has shape {given[at].shape} where {right[at].shape} is right."
    where = f" for {_text(cases[at])}" if right[at].size < 3 else ""
    return f"the function gives {_text(given[at])} where {_text(right[at])} is right{where}."


def agree(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    """Whether answers have the same shapes and, nearly, the same numbers."""
    return all(
        a.shape == b.shape and np.allclose(a, b, atol=_TOLERANCE, equal_nan=True)
        for a, b in zip(some, others, strict=True)
    )


def _copies(case: tuple[Any, ...]) -> list[Any]:
    """The arguments, safe from a function that changes them."""
    return [part.clone() if isinstance(part, Tensor) else part for part in case]


def numbers(answer: Any) -> np.ndarray:
    """Whatever a function returned, as an array."""
    if isinstance(answer, Tensor):
        return answer.detach().cpu().double().numpy()
    if isinstance(answer, tuple | list):
        return np.array([numbers(part) for part in answer], dtype=np.float64)
    return np.asarray(answer, dtype=np.float64)


def _text(thing: Any) -> str:
    """Arguments or answers as a reader would type them."""
    if isinstance(thing, tuple):
        return ", ".join(map(_text, thing))
    if isinstance(thing, Tensor):
        thing = thing.numpy()
    if isinstance(thing, np.ndarray):
        if thing.size > 12:
            return f"an array of shape {thing.shape}"
        rounded = thing.round(4) if thing.dtype.kind == "f" else thing
        return str(rounded.tolist())
    return str(thing)
