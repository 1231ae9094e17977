"""The self-checks of "Multi-level features" pass right answers and name each typical mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from torch import Tensor, nn

from agman.course import multi_level_checks as checks
from agman.course.exercises import problem

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "multi_level.ipynb"
CHECKS = {
    "pixels_seen": checks.check_pixels_seen,
    "price": checks.check_price,
    "folded": checks.check_folded,
}
EXERCISES = (checks._PIXELS_SEEN, checks._PRICE, checks._FOLDED)


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
    exec(stub, {"multi_level_checks": checks})
    assert capsys.readouterr().out.startswith("Not yet: the function returns nothing")


# --- right answers, written differently -----------------------------------------------------------


def pixels_by_sets(layers: list[tuple[int, int, int]], position: int) -> list[int]:
    """Follow every single position back, and keep the ends."""
    wanted = {position}
    for kernel, stride, padding in layers[::-1]:
        wanted = {i * stride - padding + k for i in wanted for k in range(kernel)}
    return [min(wanted), max(wanted)]


def price_of_modules(channels: list[int], dim: int, side: int) -> Tensor:
    """Built from PyTorch's layers, and counted in them."""
    top = channels.pop()  # also shows that a check is not upset by changed arguments
    wide = 2 * top if channels else top
    layers = nn.ModuleList([*(nn.Conv2d(c, top, 1) for c in channels), nn.Conv2d(wide, dim, 1)])
    weights = sum(layer.weight.numel() for layer in layers)
    return torch.tensor([sum(p.numel() for p in layers.parameters()), weights * side * side])


def folded_by_probing(projection: Tensor, reduction: Tensor) -> Tensor:
    """What the two steps make of each unit vector of [F3; pooled F2]."""
    c, c2 = projection.shape
    units = torch.eye(c + c2, dtype=projection.dtype)
    f3, f2 = units[:c], units[c:]
    return reduction @ torch.cat([f3, f3 + projection @ f2])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("pixels_seen", pixels_by_sets),
        ("price", price_of_modules),
        ("folded", folded_by_probing),
    ],
)
def test_passes_a_right_answer_however_it_is_written(
    name: str, answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(name, answer, capsys) == "Passed.\n"


# --- typical mistakes -----------------------------------------------------------------------------


def from_the_image_on(layers: list[tuple[int, int, int]], position: int) -> tuple[int, int]:
    first = last = position
    for kernel, stride, padding in layers:
        first, last = first * stride - padding, last * stride - padding + kernel - 1
    return first, last


def field_without_place(layers: list[tuple[int, int, int]], position: int) -> int:
    size, step = 1, 1
    for kernel, stride, _ in layers:
        size, step = size + (kernel - 1) * step, step * stride
    return size


def always_joined(channels: list[int], dim: int, side: int) -> tuple[int, int]:
    *lower, top = channels
    weights = sum(c * top for c in lower) + 2 * top * dim
    return weights + len(lower) * top + dim, weights * side**2


MISTAKES: list[tuple[str, Callable[..., Any], str]] = [
    ("pixels_seen", lambda layers, i: None, "returns nothing"),
    ("pixels_seen", lambda layers, i: layers[9], "stopped with IndexError"),
    ("pixels_seen", from_the_image_on, "the last layer comes first"),
    ("pixels_seen", field_without_place, "how many pixels"),
    (
        "pixels_seen",
        lambda layers, i: [max(0, end) for end in pixels_by_sets(layers, i)],
        "leave them negative",
    ),
    (
        "pixels_seen",
        lambda layers, i: pixels_by_sets([(k, s, 0) for k, s, _ in layers], i),
        "padding is missing",
    ),
    ("pixels_seen", lambda layers, i: pixels_by_sets(layers, i)[::-1], "wrong way round"),
    ("pixels_seen", lambda layers, i: (i, i), "is right for"),
    ("price", always_joined, "nothing to join"),
    ("price", lambda c, d, s: price_of_modules(c, d, s) * torch.tensor([1, 2]), "count it once"),
    ("price", lambda c, d, s: (int(price_of_modules(c, d, s)[0]),) * 2, "is right for"),
    (
        "price",
        lambda c, d, s: [(n := int(price_of_modules(c, d, s)[0])), n * s * s],
        "which are only added",
    ),
    ("price", lambda c, d, s: "much", "returns a str"),
    ("folded", lambda p, r: r, "has shape"),
    ("folded", lambda p, r: folded_by_probing(p, r).T, "transposed"),
    (
        "folded",
        lambda p, r: torch.cat([r[:, : len(p)], r[:, len(p) :] @ p], 1),
        "meets both halves of the reduction; add",
    ),
    (
        "folded",
        lambda p, r: torch.cat([r[:, : len(p)] + r[:, len(p) :], r[:, len(p) :]], 1),
        "multiply its second part by the projection",
    ),
    (
        "folded",
        lambda p, r: folded_by_probing(p, r).roll(p.shape[1], 1),
        "wrong way round",
    ),
    ("folded", lambda p, r: p @ r, "stopped with RuntimeError"),
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
