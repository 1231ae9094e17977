"""Draw the README's picture: the first figure of the welcome page, by that page's own cells.

    python tools/readme_picture.py

writes ``book/figures/welcome.png``.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "intro.ipynb"
PICTURE = ROOT / "book" / "figures" / "welcome.png"
FIGURE = "fig-one-photo"


def draw(page: Path, name: str) -> Any:
    """Run a page's code cells until the figure of that name, and return the figure."""
    space: dict[str, Any] = {}
    for cell in nbformat.read(page, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        body = ast.parse(cell.source).body
        about = cell.metadata.get("mystnb", {}).get("figure", {})
        if about.get("name") == name:
            *before, last = body
            _run(before, space)
            if not isinstance(last, ast.Expr):
                break
            return eval(compile(ast.Expression(last.value), str(page), "eval"), space)
        _run(body, space)
    raise ValueError(f"{page} has no cell that ends with the figure {name}.")


def _run(body: list[ast.stmt], space: dict[str, Any]) -> None:
    exec(compile(ast.Module(body, []), str(PAGE), "exec"), space)


def main() -> int:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    draw(PAGE, FIGURE).savefig(PICTURE, dpi=150, metadata={"Software": None})
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1024:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
