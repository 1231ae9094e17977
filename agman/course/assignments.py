"""Self-checks of the graded assignments: recorded answers, and no solution among them.

`make assignments` records, for the functions of each assignment, the right answers to a few cases
and those of the usual mistakes, as JSON in the folder `recorded` beside this file.
The cases that count for the grade are others.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agman.course.exercises import Exercise, Recorded, numbers, report
from agman.course.plain import from_plain, to_plain

__all__ = ["asked_about", "check", "read_recorded", "to_recorded"]

FOLDER = Path(__file__).parent / "recorded"


def check(function: Callable[..., Any], hint: int = 0) -> None:
    """Run a function of an assignment on a few cases, and say what is wrong with it.

    It goes by the function's name, and never raises.

    Args:
        function: under the name that the assignment gave it.
        hint: 1 to 3 for more and more help.
    """
    known = _all_recorded()
    name = getattr(function, "__name__", None)
    if name not in known:
        print(
            f"Not yet: there is no check for {name or 'what is no function'!s}; give check() the "
            "function itself, under the name that the assignment gave it."
        )
        return
    report(asked_about(name)(function), known[name], hint)


def asked_about(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What a check compares: the answer of a function, or facts about it where answers may differ.

    Args:
        name: of the function.

    Returns:
        Something to apply to the function; it keeps the original as `__wrapped__`.
    """
    return _about_triplets if name == "draw_triplets" else lambda function: function


def _about_triplets(function: Callable[..., Any]) -> Callable[..., Any]:
    """Number of rows; whether all are triplets, in three respects; whether a seed repeats them."""

    @functools.wraps(function)
    def facts(values: list[int], count: int, seed: int) -> list[float]:
        drawn, again = (
            [[int(i) for i in row] for row in function(list(values), count, seed)] for _ in "12"
        )
        return [
            float(len(drawn)),
            float(all(values[a] == values[p] for a, p, _ in drawn)),
            float(all(a != p for a, p, _ in drawn)),
            float(all(values[a] != values[n] for a, _, n in drawn)),
            float(drawn == again),
        ]

    return facts


def to_recorded(exercises: dict[str, Exercise]) -> dict[str, Any]:
    """Exercises as JSON can hold them, without their functions."""
    return {
        name: {
            "cases": [[to_plain(part) for part in case] for case in exercise.cases],
            "right": [to_plain(answer) for answer in exercise.right_answers()],
            "wrong": [
                [said, [to_plain(a) for a in given]] for said, given in exercise.wrong_answers()
            ],
            "hints": list(exercise.hints),
        }
        for name, exercise in exercises.items()
    }


def read_recorded(path: Path) -> dict[str, Recorded]:
    """The checks of one assignment, by the names of its functions."""
    return {
        name: Recorded(
            cases=[tuple(from_plain(part) for part in case) for case in each["cases"]],
            right=[numbers(from_plain(answer)) for answer in each["right"]],
            wrong=[
                (said, [numbers(from_plain(a)) for a in given]) for said, given in each["wrong"]
            ],
            hints=tuple(each["hints"]),
        )
        for name, each in json.loads(path.read_text(encoding="utf-8")).items()
    }


def _all_recorded() -> dict[str, Recorded]:
    found: dict[str, Recorded] = {}
    for path in sorted(FOLDER.glob("*.json")):
        found.update(read_recorded(path))
    return found
