"""The self-checks of "Looking inside" pass right answers and name each typical mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from torch import Tensor

from agman.course import looking_inside_checks as checks
from agman.course.exercises import problem

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "looking_inside.ipynb"
CHECKS = {
    "my_mass": checks.check_mass,
    "my_rank_correlation": checks.check_rank_correlation,
    "my_cover": checks.check_cover,
}
EXERCISES = (checks._MASS, checks._RANK_CORRELATION, checks._COVER)


def verdict(name: str, answer: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What the check of an exercise prints about an answer."""
    capsys.readouterr()
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
    exec(stub, {"checks": checks})
    said = capsys.readouterr().out
    assert said.startswith("Not yet: the function returns nothing")
    assert said.endswith("hint=1.\n")


# --- right answers, written differently -----------------------------------------------------------


def mass_pixel_by_pixel(map_: Tensor, region: tuple[int, ...], size: int) -> float:
    x0, y0, x1, y1 = region
    height, width = map_.shape
    inside = sum(
        float(map_[y * height // size, x * width // size])
        for y in range(y0, y1)
        for x in range(x0, x1)
    )
    return inside * (height / size) * (width / size) / float(map_.sum())


def correlation_by_differences(x: Tensor, y: Tensor) -> float:
    """Spearman's own formula, for numbers without ties."""
    n = len(x)
    ranks = [(v[:, None] > v).sum(1) for v in (x, y)]
    return 1 - 6 * float((ranks[0] - ranks[1]).square().sum()) / (n * (n * n - 1))


def cover_by_mask(picture: Tensor, x: int, y: int, side: int) -> np.ndarray:
    rows, columns = (np.arange(n) for n in picture.shape[1:])
    top = np.clip(y - side // 2, 0, len(rows) - side)
    left = np.clip(x - side // 2, 0, len(columns) - side)
    inside = ((rows >= top) & (rows < top + side))[:, None] & (
        (columns >= left) & (columns < left + side)
    )
    return np.where(inside, 128, picture.numpy())


RIGHT: dict[str, Callable[..., Any]] = {
    "my_mass": mass_pixel_by_pixel,
    "my_rank_correlation": correlation_by_differences,
    "my_cover": cover_by_mask,
}


@pytest.mark.parametrize("name", RIGHT)
def test_passes_a_right_answer_however_it_is_written(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(name, RIGHT[name], capsys) == "Passed.\n"


# --- typical mistakes -----------------------------------------------------------------------------


def fine(map_: Tensor, size: int) -> Tensor:
    height, width = map_.shape
    return map_.repeat_interleave(size // height, 0).repeat_interleave(size // width, 1)


def mass_with_rows_first(map_: Tensor, region: tuple[int, ...], size: int) -> Tensor:
    x0, y0, x1, y1 = region
    return fine(map_, size)[x0:x1, y0:y1].sum() / fine(map_, size).sum()


def mass_without_total(map_: Tensor, region: tuple[int, ...], size: int) -> Tensor:
    x0, y0, x1, y1 = region
    return fine(map_, size)[y0:y1, x0:x1].sum() * map_.numel() / size**2


def mean_inside(map_: Tensor, region: tuple[int, ...], size: int) -> Tensor:
    x0, y0, x1, y1 = region
    return fine(map_, size)[y0:y1, x0:x1].mean() / fine(map_, size).mean()


def slice_of_cells(map_: Tensor, region: tuple[int, ...], size: int) -> Tensor:
    height, width = map_.shape
    x0, y0, x1, y1 = region
    part = map_[y0 * height // size : y1 * height // size, x0 * width // size : x1 * width // size]
    return part.sum() / map_.sum()


def correlated(x: Tensor, y: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1]


def cut_at_the_border(picture: Tensor, x: int, y: int, side: int) -> Tensor:
    h = side // 2
    picture[:, max(y - h, 0) : y + h, max(x - h, 0) : x + h] = 128
    return picture


def gone_over_the_border(picture: Tensor, x: int, y: int, side: int) -> Tensor:
    h = side // 2
    picture[:, y - h : y + h, x - h : x + h] = 128
    return picture


def columns_first(picture: Tensor, x: int, y: int, side: int) -> Tensor:
    left = min(max(x - side // 2, 0), picture.shape[1] - side)
    top = min(max(y - side // 2, 0), picture.shape[2] - side)
    picture[:, left : left + side, top : top + side] = 128
    return picture


MISTAKES: list[tuple[str, Callable[..., Any], str]] = [
    ("my_mass", lambda m, r, s: None, "returns nothing"),
    ("my_mass", slice_of_cells, "whole cells"),
    ("my_mass", mass_with_rows_first, "interchanged"),
    ("my_mass", mass_without_total, "divide by its sum"),
    ("my_mass", mean_inside, "the mean inside"),
    ("my_mass", lambda m, r, s: (r[2] - r[0]) * (r[3] - r[1]) / s / s, "an even map"),
    ("my_mass", lambda m, r, s: m[r[1] : r[3], r[0] : r[2]].sum() / m.sum(), "is right"),
    ("my_rank_correlation", correlated, "of the numbers"),
    ("my_rank_correlation", lambda x, y: correlated(x.argsort(), y.argsort()), "one argsort"),
    (
        "my_rank_correlation",
        lambda x, y: correlated(x.argsort().argsort(), y),
        "only one of the two",
    ),
    (
        "my_rank_correlation",
        lambda x, y: correlated((-x).argsort().argsort(), y.argsort().argsort()),
        "the sign",
    ),
    (
        "my_rank_correlation",
        lambda x, y: correlated(x.argsort().argsort(), y.argsort().argsort()).square(),
        "its square",
    ),
    ("my_cover", cut_at_the_border, "equally much"),
    ("my_cover", gone_over_the_border, "a negative index"),
    ("my_cover", columns_first, "interchanged"),
    ("my_cover", lambda p, x, y, s: p, "as it was"),
    ("my_cover", lambda p, x, y, s: p[0], "where (3, 8, 10) is right"),
]


@pytest.mark.parametrize(("name", "answer", "expected"), MISTAKES)
def test_names_the_mistake(
    name: str, answer: Callable[..., Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = verdict(name, answer, capsys)
    assert said.startswith("Not yet: ")
    assert expected in said
    assert said.endswith("hint=1.\n")


def test_each_mistake_has_one_name() -> None:
    for exercise in EXERCISES:
        for sentence, wrong in exercise.mistakes:
            assert problem(wrong, exercise) == sentence


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("hint", [1, 2, 3])
def test_gives_hints_in_stages(name: str, hint: int, capsys: pytest.CaptureFixture[str]) -> None:
    CHECKS[name](lambda *_: None, hint=hint)
    said = capsys.readouterr().out
    assert [f"Hint {n}" in said for n in (1, 2, 3)] == [n <= hint for n in (1, 2, 3)]
