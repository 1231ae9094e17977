"""Self-checks of the exercises in "Preparing the real datasets"; see `agman.course.exercises`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from agman.course.exercises import Exercise, report
from agman.metrics import average_precision

__all__ = ["check_decode", "check_triplet", "check_without_copies"]


def check_decode(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(letters)`, the value that a label string of FashionAI says.

    Args:
        function: takes a string such as "nynnm", returns the id of the value, -1 without one.
        hint: 1 to 3 for more and more help.
    """
    report(function, _DECODE, hint)


def check_triplet(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(line)`, anchor, positive and negative of a line of CSN's lists.

    Args:
        function: takes a line such as "0 2017 42", returns three image numbers.
        hint: 1 to 3 for more and more help.
    """
    report(function, _TRIPLET, hint)


def check_without_copies(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(scores, relevant, copies)`, average precision without the query's copies.

    Args:
        function: takes (N,) scores, (N,) and (N,) booleans, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _WITHOUT_COPIES, hint)


# --- FashionAI's label strings --------------------------------------------------------------------


def _first_not_n(letters: str) -> int:
    return next((i for i, letter in enumerate(letters) if letter != "n"), -1)


_DECODE = Exercise(
    right=lambda letters: letters.find("y"),
    cases=(("nynnm",), ("mnnyn",), ("ynnnnn",), ("nnnnnnnny",), ("?????",)),
    mistakes=(
        (
            "the first letter that is not n was taken; an m before the y is not the value.",
            _first_not_n,
        ),
        (
            "the first letter that is not n was taken; an m before the y is not the value, and a "
            "row of ? has none.",
            lambda letters: -1 if "?" in letters else _first_not_n(letters),
        ),
        (
            "values are counted from 0, and yours from 1.",
            lambda letters: -1 if "?" in letters else letters.index("y") + 1,
        ),
        ("values are counted from 0, and yours from 1.", lambda letters: letters.find("y") + 1),
        (
            "a row of ? was given value 0, which is a value: Invisible; return -1.",
            lambda letters: max(letters.find("y"), 0),
        ),
        (
            "letters were counted from the end of the string; value 0 comes first.",
            lambda letters: letters[::-1].find("y"),
        ),
        ("you counted the letters y; return the place of the y.", lambda t: t.count("y")),
    ),
    hints=(
        "The place of a letter in the string is the id of its value; the first place is 0.",
        "Only y counts. An m is a second answer that would have been accepted.",
        "letters.find is -1 where there is nothing to find, letters.index an error.",
    ),
)

# --- CSN's triplets -------------------------------------------------------------------------------


def _ordered(*places: int) -> Callable[[str], tuple[int, ...]]:
    """The numbers of a line in another order."""
    return lambda line: tuple(int(line.split()[i]) for i in places)


_TRIPLET = Exercise(
    right=_ordered(0, 2, 1),
    cases=(("0 2017 42",), ("50024 7 19\n",), ("3  11 10",)),
    mistakes=(
        (
            "this is the order of the file: anchor, far, close. Here the positive comes second "
            "and the negative last.",
            _ordered(0, 1, 2),
        ),
        ("the anchor is the first number of the line.", _ordered(2, 0, 1)),
        ("the anchor is the first number of the line.", _ordered(2, 1, 0)),
        ("the anchor is the first number of the line.", _ordered(1, 2, 0)),
    ),
    hints=(
        "The three numbers are anchor, far, close, in the order of the line.",
        "Far is the negative and close is the positive.",
        "anchor, far, close = map(int, line.split())",
    ),
)

# --- copies of the query --------------------------------------------------------------------------


_LAST = (
    "the copies went to the end of the ranking, where they still count as relevant; they have to "
    "leave the gallery altogether."
)

_WITHOUT_COPIES = Exercise(
    right=lambda s, r, c: average_precision(s[~c], r[~c]),
    cases=(
        (
            torch.tensor([0.99, 0.9, 0.7, 0.6, 0.5, 0.4]),
            torch.tensor([True, False, True, False, True, False]),
            torch.tensor([True, False, False, False, False, False]),
        ),
        (
            torch.tensor([0.3, 0.8, 0.6, 0.95, 0.1]),
            torch.tensor([True, True, False, True, True]),
            torch.tensor([False, True, False, True, False]),
        ),
        (
            torch.tensor([0.2, 0.9, 0.5]),
            torch.tensor([True, False, False]),
            torch.tensor([False, False, False]),
        ),
    ),
    mistakes=(
        (
            "the copies are still ranked; they have to leave the gallery.",
            lambda s, r, c: average_precision(s, r),
        ),
        (
            "the copies count as wrong answers now; they have to leave the gallery altogether.",
            lambda s, r, c: average_precision(s, r & ~c),
        ),
        (_LAST, lambda s, r, c: average_precision(s - 1e6 * c, r)),
        (_LAST, lambda s, r, c: average_precision(s.masked_fill(c, -1e6), r)),
        (
            "your answer is in percent; return a number from 0 to 1.",
            lambda s, r, c: 100 * average_precision(s[~c], r[~c]),
        ),
    ),
    hints=(
        "A copy is neither a right nor a wrong answer: it should not be in the ranking.",
        "~copies is a mask of the photos that stay.",
        "average_precision takes scores and relevance of the photos that stay.",
    ),
)
