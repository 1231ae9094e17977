"""Submissions made from an assignment's source: its solution, and what students do to it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import assignments

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "book" / "assignments"
NAMES = assignments.NAMES


def source(name: str) -> Path:
    """The source notebook of an assignment."""
    return SOURCES / name / f"{name}.ipynb"


def read(path: Path) -> dict[str, Any]:
    """A notebook as JSON."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def write(path: Path, notebook: dict[str, Any]) -> Path:
    """A notebook as a file, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def is_solution(cell: dict[str, Any]) -> bool:
    """Whether students write in this cell of code."""
    marked = cell["metadata"].get("nbgrader", {}).get("solution", False)
    return bool(marked) and cell["cell_type"] == "code"


def with_functions(name: str, written: dict[str, str]) -> dict[str, Any]:
    """The assignment with other sources for some of the functions."""
    notebook = read(source(name))
    for cell in notebook["cells"]:
        if is_solution(cell):
            function = re.search(r"^def (\w+)\(", "".join(cell["source"]), re.MULTILINE)
            if function and function[1] in written:
                cell["source"] = written[function[1]]
    return notebook


def blank(name: str) -> dict[str, Any]:
    """The students' edition."""
    return read(SOURCES / "students" / f"{name}.ipynb")


def plus(notebook: dict[str, Any], code: str, at: int | None = None) -> dict[str, Any]:
    """The notebook with one more cell of code, at the end or before cell `at`."""
    cells = list(notebook["cells"])
    new = {"cell_type": "code", "metadata": {}, "source": code, "outputs": []}
    cells.insert(len(cells) if at is None else at, new)
    return {**notebook, "cells": cells}
