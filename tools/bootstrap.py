"""The cell that every notebook starts with, and the command that puts it there.

    python tools/bootstrap.py            # name the notebooks of book/ whose first code cell differs
    python tools/bootstrap.py --write    # insert or renew it

The cell installs ``agman`` on Colab and does nothing anywhere else. The repository's address in it
comes from ``pyproject.toml``; ``make publish`` rewrites both.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import nbformat
from publish import repository

ROOT = Path(__file__).resolve().parents[1]
CELL_ID = "bootstrap"
CELL_METADATA: dict[str, Any] = {"tags": ["remove-cell"]}  # nothing to see on the rendered page

_TEMPLATE = """\
# On Colab this cell installs the course's package, in about a minute. Elsewhere it does nothing.
import importlib.util
import subprocess
import sys

REPOSITORY = "{repository}"
if "google.colab" in sys.modules and importlib.util.find_spec("agman") is None:
    if "/OWNER/" in REPOSITORY:
        raise RuntimeError("This copy has no address yet: run `make publish REPO=...` once.")
    package = f"agman @ git+{REPOSITORY}"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", package])"""


def source(address: str) -> str:
    """The text of the bootstrap cell for a repository at `address`."""
    return _TEMPLATE.replace("{repository}", address)


def apply(notebook: nbformat.NotebookNode, address: str) -> bool:
    """Make the bootstrap cell the first code cell of `notebook`; True when that changed it."""
    cell = nbformat.v4.new_code_cell(source(address), metadata=CELL_METADATA, id=CELL_ID)
    old = next((i for i, c in enumerate(notebook.cells) if c.get("id") == CELL_ID), None)
    if old is not None and notebook.cells[old] == cell and first_code_cell(notebook) == old:
        return False
    if old is not None:
        del notebook.cells[old]
    position = first_code_cell(notebook)
    notebook.cells.insert(len(notebook.cells) if position is None else position, cell)
    return True


def first_code_cell(notebook: nbformat.NotebookNode) -> int | None:
    """Position of the first code cell, None when there is none."""
    return next((i for i, c in enumerate(notebook.cells) if c.cell_type == "code"), None)


def main(arguments: list[str] | None = None) -> int:
    """Check, or with ``--write`` mend, every notebook of ``book/``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="insert or renew the cell")
    options = parser.parse_args(arguments)
    changed = []
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        if "_build" in path.parts or ".ipynb_checkpoints" in path.parts:
            continue
        notebook = nbformat.read(path, as_version=4)
        if apply(notebook, repository(ROOT)):
            changed.append(path.relative_to(ROOT))
            if options.write:
                nbformat.write(notebook, path)
    for name in changed:
        print(f"{name}: {'renewed' if options.write else 'does not start with the bootstrap cell'}")
    return 1 if changed and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
