"""The self-checks of "Your own photos" pass right answers and name each typical mistake."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from torch import Tensor

from agman.course import own_photos_checks

CELLS = nbformat.read(
    Path(__file__).resolve().parents[2] / "book" / "own_photos.ipynb", as_version=4
).cells
CHECKS = {
    "my_rare": own_photos_checks.check_rare,
    "my_exponent": own_photos_checks.check_exponent,
    "my_recall": own_photos_checks.check_recall,
    "my_machines": own_photos_checks.check_machines,
}


def verdict(name: str, answer: Any, capsys: pytest.CaptureFixture[str], hint: int = 0) -> str:
    """What the check of exercise `name` prints about an answer."""
    capsys.readouterr()
    CHECKS[name](answer, hint)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", CHECKS)
def test_passes_the_solution_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (solution,) = [
        text
        for cell in CELLS
        if cell.cell_type == "markdown"
        for text in re.findall(r"```python\n(.*?)```", cell.source, flags=re.DOTALL)
        if f"def {name}(" in text
    ]
    space: dict[str, Any] = {"torch": torch, "np": np}
    exec(solution, space)
    assert verdict(name, space[name], capsys) == "Passed.\n"


@pytest.mark.parametrize("name", CHECKS)
def test_fails_the_stub_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (stub,) = [c.source for c in CELLS if c.cell_type == "code" and f"def {name}(" in c.source]
    exec(stub, {"own_photos_checks": own_photos_checks})
    assert capsys.readouterr().out.startswith("Not yet: the function returns nothing")


def rare_by_counter(values: Tensor, least: int) -> list[int]:
    counts = Counter(v for v in values.tolist() if v != -1)
    return sorted(v for v, n in counts.items() if n < least)


def recall_by_sets(found: Tensor, exact: Tensor) -> float:
    pairs = zip(found.tolist(), exact.tolist(), strict=True)
    return sum(len(set(a) & set(b)) for a, b in pairs) / exact.numel()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("my_rare", rare_by_counter),
        ("my_exponent", lambda n, s: math.log(s[-1] / s[0], n[-1] / n[0])),
        ("my_recall", recall_by_sets),
        ("my_machines", lambda p, a, w, b, m: math.ceil(p * a * w * b / (m * 1e9))),
    ],
)
def test_passes_what_is_written_differently(
    name: str, answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(name, answer, capsys) == "Passed.\n"


def counted(values: Tensor) -> tuple[Tensor, Tensor]:
    return torch.unique(values, return_counts=True)


MISTAKES: list[tuple[str, Callable[..., Any], str]] = [
    ("my_rare", lambda v, least: counted(v)[0][counted(v)[1] < least], "-1 marks an empty cell"),
    (
        "my_rare",
        lambda v, least: counted(v[v >= 0])[0][counted(v[v >= 0])[1] <= least],
        "compare with <",
    ),
    (
        "my_rare",
        lambda v, least: (torch.bincount(v[v >= 0]) < least).nonzero()[:, 0],
        "name only those that occur",
    ),
    (
        "my_rare",
        lambda v, least: counted(v[v >= 0])[1][counted(v[v >= 0])[1] < least],
        "return the ids of the values",
    ),
    ("my_rare", lambda v, least: sorted(rare_by_counter(v, least))[::-1], "ascending order"),
    ("my_rare", lambda v, least: rare_by_counter(v, 2), "`least` can be more than 2"),
    ("my_rare", lambda v, least: torch.bincount(v), "stopped with RuntimeError"),
    ("my_exponent", lambda n, s: np.ptp(s) / np.ptp(n), "slope of a straight line"),
    ("my_exponent", lambda n, s: s[-1] / s[0], "how many times longer"),
    ("my_exponent", lambda n, s: np.log(s[-1] / s[0]), "the seconds alone"),
    ("my_exponent", lambda n, s: math.log(s[1] / s[0], n[1] / n[0]), "only the first two"),
    ("my_exponent", lambda n, s: np.log(s[-1]) / np.log(n[-1]), "compare two points"),
    ("my_exponent", lambda n, s: 1.0, "the function gives"),
    ("my_recall", lambda f, e: (f == e).float().mean(), "places were compared"),
    ("my_recall", lambda f, e: recall_by_sets(f, e) * e.numel() / (f >= 0).sum(), "precision"),
    ("my_recall", lambda f, e: torch.isin(f, e).float().mean(), "compare row by row"),
    (
        "my_recall",
        lambda f, e: np.mean([bool(set(a) & set(b)) for a, b in zip(f.tolist(), e.tolist())]),
        "with a single hit",
    ),
    ("my_recall", lambda f, e: 100 * recall_by_sets(f, e), "in percent"),
    ("my_recall", lambda f, e: recall_by_sets(f, e) * e.numel(), "a number of photos"),
    ("my_machines", lambda p, a, w, b, m: p * a * w * b // (m * 10**9), "round up, not down"),
    ("my_machines", lambda p, a, w, b, m: p * a * w * b / (m * 10**9), "whole numbers"),
    ("my_machines", lambda p, a, w, b, m: -(-p * w * b // (m * 10**9)), "every attribute"),
    ("my_machines", lambda p, a, w, b, m: -(-p * a * w // (m * 10**9)), "bytes of each"),
    ("my_machines", lambda p, a, w, b, m: -(-p * a * w * b // (m * 2**30)), "not 2**30"),
    ("my_machines", lambda p, a, w, b, m: p * a * w * b // (m * 10**9) + 1, "fits exactly"),
]


@pytest.mark.parametrize(("name", "answer", "expected"), MISTAKES)
def test_names_the_mistake(
    name: str, answer: Callable[..., Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = verdict(name, answer, capsys)
    assert said.startswith("Not yet: ")
    assert expected in said
    hints = verdict(name, answer, capsys, hint=2)
    assert [f"Hint {n}" in hints for n in (1, 2, 3)] == [True, True, False]


def test_the_table_of_a_hundred_million_photos_computes_what_it_says() -> None:
    (source,) = [c.source for c in CELLS if c.source.startswith("TABLE = {")]
    space: dict[str, Any] = {}
    exec(source, space)
    costs = {"N": 1e8, "A": 8, "M": 64e9, "W": 604_800, "D": 512, "b": 2, "s": 0.1, "q": 1e-11}
    costs |= {"r": 1e10, "n": 1e6, "t": 0.3, "d": 256, "c": 8, "g": 130, "e": 6, "m": 1e4}
    found = {label.strip(): eval(formula, {}, costs) for label, formula in space["TABLE"].items()}
    numbers = 100_000_000 * 8 * 512
    assert found["index, GB"] == pytest.approx(2 * numbers / 10**9)
    assert found["of one attribute, GB"] == pytest.approx(2 * numbers / 8 / 10**9)
    assert math.ceil(found["machines of M bytes"]) == 13
    assert found["with cells, GB"] == pytest.approx((4 * numbers + 8 * 800_000_000) / 10**9)
    assert found["with a graph, GB"] == pytest.approx((4 * numbers + 130 * 800_000_000) / 10**9)
    assert found["as codes of 64 bytes, GB"] == pytest.approx(72 * 0.8)
    assert found["embedding, days of a core"] == pytest.approx(1e7 / 86_400)
    assert found["cores, to be done in W"] == pytest.approx(1e7 / 7 / 86_400)
    assert found["exact answer, s of a core"] == pytest.approx(0.512)
    assert found["cores, 100 answers a s"] == pytest.approx(51.2)
    assert found["read once, s"] == pytest.approx(10.24)
    assert found["by cells, ms of a core"] == pytest.approx(0.3 * 10 * 2)
    assert found["MAP of all, core years"] == pytest.approx(6e8 / (365 * 86_400), rel=0.01)
    assert found["MAP, 1000 queries, hours"] == pytest.approx(512 / 3600)
