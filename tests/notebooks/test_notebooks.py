"""Notebooks as files: they start alike, hold no results, and need nothing Colab lacks.

That they run from top to bottom is shown by the book's build, which executes each in an empty
folder and stops at the first error.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import bootstrap
import nbformat
import publish
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(
    p for p in BOOK.rglob("*.ipynb") if not {"_build", ".ipynb_checkpoints"} & set(p.parts)
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTABLE = {
    "agman", "torch", "torchvision", "numpy", "matplotlib", "seaborn", "PIL", "ipywidgets",
    "tqdm", "safetensors", "IPython",
}  # fmt: skip

each_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=[str(p.relative_to(BOOK)) for p in NOTEBOOKS]
)


def code_cells(path: Path) -> list[str]:
    """Sources of a notebook's code cells, without the lines of IPython's own commands."""
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    return [
        "\n".join(line for line in cell.splitlines() if not line.lstrip().startswith(("%", "!")))
        for cell in cells
    ]


@each_notebook
def test_starts_with_the_bootstrap_cell(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[bootstrap.first_code_cell(notebook)]
    assert first.source == bootstrap.source(publish.repository(ROOT)), (
        "run: python tools/bootstrap.py --write"
    )
    assert first.metadata == bootstrap.CELL_METADATA
    assert notebook.cells[0].cell_type == "markdown", "a chapter opens with its title"
    assert notebook.cells[0].source.startswith("# ")


@each_notebook
def test_is_valid_and_holds_no_results(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each_notebook
def test_imports_only_what_colab_has(path: Path) -> None:
    allowed = IMPORTABLE | set(sys.stdlib_module_names)
    for source in code_cells(path):
        for node in ast.walk(ast.parse(source)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {n.split(".")[0] for n in names} <= allowed


@each_notebook
def test_cells_are_short_enough_to_read(path: Path) -> None:
    for source in code_cells(path):
        assert len(source.splitlines()) < 40, source[:200]


def test_every_notebook_is_in_the_table_of_contents() -> None:
    text = (BOOK / "_toc.yml").read_text(encoding="utf-8")
    names = set(json.dumps(yaml.safe_load(text)).replace('"', " ").replace(",", " ").split())
    chapters = [p for p in NOTEBOOKS if p.parent == BOOK]
    assert {p.stem for p in chapters} <= names


# --- what the bootstrap cell does -----------------------------------------------------------------

RUN = """
import importlib.util, json, subprocess, sys, types
if {on_colab}:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
if not {installed}:
    importlib.util.find_spec = lambda name: None
calls = []
subprocess.check_call = lambda command: calls.append(command)
try:
    exec({cell!r}, {{}})
except RuntimeError as error:
    calls = str(error)
print(json.dumps(calls))
"""


def run_bootstrap(address: str, on_colab: bool, installed: bool) -> list[list[str]] | str:
    """What the cell would run: pip's command lines, or the sentence it stops with."""
    code = RUN.format(cell=bootstrap.source(address), on_colab=on_colab, installed=installed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_bootstrap_does_nothing_outside_colab() -> None:
    assert run_bootstrap("https://github.com/me/agman", on_colab=False, installed=False) == []


def test_bootstrap_does_nothing_where_agman_is_installed() -> None:
    assert run_bootstrap("https://github.com/me/agman", on_colab=True, installed=True) == []


def test_bootstrap_installs_from_the_repository_on_colab() -> None:
    (command,) = run_bootstrap("https://github.com/me/agman", on_colab=True, installed=False)
    assert command[1:] == ["-m", "pip", "install", "-q", "agman @ git+https://github.com/me/agman"]


def test_bootstrap_stops_with_one_sentence_before_publishing() -> None:
    owner = "OWNER"  # apart from the rest, so that `make publish` leaves this test alone
    address = f"https://github.com/{owner}/agman"
    message = run_bootstrap(address, on_colab=True, installed=False)
    assert isinstance(message, str)
    assert message.endswith(".")
    assert "make publish" in message


def test_bootstrap_tool_inserts_renews_and_then_leaves_alone() -> None:
    v4 = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), v4.new_code_cell("1 + 1")])
    assert bootstrap.apply(notebook, "https://github.com/a/b")
    assert not bootstrap.apply(notebook, "https://github.com/a/b")
    assert bootstrap.apply(notebook, "https://github.com/c/d")
    assert [c.cell_type for c in notebook.cells] == ["markdown", "code", "code"]
    assert "github.com/c/d" in notebook.cells[1].source
