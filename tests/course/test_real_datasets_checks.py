"""The self-checks pass right answers and name each typical mistake; the page's counts are right."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from torch import Tensor

from agman.course import real_datasets_checks
from agman.metrics import average_precision

ROOT = Path(__file__).resolve().parents[2]
CELLS = nbformat.read(ROOT / "book" / "real_datasets.ipynb", as_version=4).cells
CHECKS = {
    "my_value": real_datasets_checks.check_decode,
    "my_triplet": real_datasets_checks.check_triplet,
    "my_ap": real_datasets_checks.check_without_copies,
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
    space: dict[str, Any] = {"average_precision": average_precision}
    exec(solution, space)
    assert verdict(name, space[name], capsys) == "Passed.\n"


@pytest.mark.parametrize("name", CHECKS)
def test_fails_the_stub_on_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (stub,) = [c.source for c in CELLS if c.cell_type == "code" and f"def {name}(" in c.source]
    exec(stub, {"real_datasets_checks": real_datasets_checks})
    assert capsys.readouterr().out.startswith("Not yet: the function returns nothing")


def by_dictionary(letters: str) -> int:
    return {letter: place for place, letter in enumerate(letters)}.get("y", -1)


def by_pattern(line: str) -> list[int]:
    numbers = [int(n) for n in re.findall(r"\d+", line)]
    return [numbers[0], *reversed(numbers[1:])]


def by_counting(scores: Tensor, relevant: Tensor, copies: Tensor) -> float:
    ranked = sorted(zip(scores.tolist(), relevant.tolist(), copies.tolist()), reverse=True)
    hits = [hit for _, hit, copy in ranked if not copy]
    precision = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
    return sum(precision) / len(precision)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("my_value", by_dictionary), ("my_triplet", by_pattern), ("my_ap", by_counting)],
)
def test_passes_what_is_written_differently(
    name: str, answer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(name, answer, capsys) == "Passed.\n"


MISTAKES: list[tuple[str, Callable[..., Any], str]] = [
    ("my_value", lambda letters: re.search("[ym?]", letters).start(), "an m before the y"),  # type: ignore[union-attr]
    ("my_value", lambda letters: letters.find("y") + 1, "counted from 0"),
    ("my_value", lambda letters: letters.index("y"), "stopped with ValueError"),
    ("my_value", lambda letters: max(letters.find("y"), 0), "Invisible"),
    ("my_value", lambda letters: letters[::-1].find("y"), "from the end"),
    ("my_value", lambda letters: letters.find("m"), "the function gives"),
    ("my_triplet", lambda line: [int(n) for n in line.split()], "the order of the file"),
    ("my_triplet", lambda line: [int(n) for n in line.split()][::-1], "the anchor is the first"),
    ("my_triplet", lambda line: line.split()[1:], "has shape"),
    ("my_triplet", lambda line: line, "not numbers"),
    ("my_ap", lambda s, r, c: average_precision(s, r), "still ranked"),
    ("my_ap", lambda s, r, c: average_precision(s, r & ~c), "wrong answers now"),
    ("my_ap", lambda s, r, c: average_precision(s - 9 * c, r), "to the end of the ranking"),
    ("my_ap", lambda s, r, c: average_precision(s.where(~c, torch.tensor(-9.0)), r), "to the end"),
    ("my_ap", lambda s, r, c: 100 * average_precision(s[~c], r[~c]), "in percent"),
    ("my_ap", lambda s, r, c: average_precision(s[c], r[c]), "stopped with InputError"),
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


def test_the_counts_on_the_page_are_those_of_the_script() -> None:
    tree = ast.parse((ROOT / "data_scripts" / "fashionai.py").read_text(encoding="utf-8"))
    (counts,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PUBLISHED_TEST"
    ]
    (cell,) = [c.source for c in CELLS if c.source.startswith("from agman.experiments import pub")]
    lists = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in ast.parse(cell).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    }
    assert [*zip(lists["n_queries"], lists["n_gallery"])] == [*counts.values()]
