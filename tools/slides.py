"""Cut the slides of three lectures from the chapters: `make slides`, into `_build/slides`.

A chapter gives its title, what it lets the students predict, each figure with its caption, and
its takeaways. Figures are those of the last build of the book, so nothing is run again.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
from jupyter_cache import get_cache
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from agman.storage import write_text

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
CACHE = ROOT / "_build" / ".jupyter_cache"
OUT = ROOT / "_build" / "slides"

LECTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "measuring": ("The feature gap, measured", ("measuring_retrieval", "feature_gap")),
    "spaces": (
        "One space, many spaces, attention",
        ("one_space", "one_space_per_attribute", "attention"),
    ),
    "agman": (
        "AG-MAN, and what its parts are worth",
        ("multi_level", "whole_network", "full_evaluation", "ablations", "better"),
    ),
}
_SECTIONS = ("Predict", "Takeaways")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="reveal/reset.css">
<link rel="stylesheet" href="reveal/reveal.css">
<style>
body {{ background: #fff }}
.reveal {{ font: 28px/1.45 system-ui, sans-serif; color: #1a1a1a }}
.reveal h1 {{ font-size: 2em; font-weight: 700; line-height: 1.2; margin-bottom: .6em }}
.reveal h2 {{ font-size: 1.3em; font-weight: 700; margin-bottom: .5em }}
.reveal section {{ text-align: left }}
.reveal p {{ margin: .5em 0 }}
.reveal ol, .reveal ul {{ margin-left: 1.2em }}
.reveal ol {{ list-style: decimal }}
.reveal ul {{ list-style: disc }}
.reveal li {{ margin: .35em 0 }}
.reveal code {{ font-family: monospace; font-size: .9em }}
.reveal em {{ font-style: italic }}
.reveal strong {{ font-weight: 700 }}
.reveal figure img {{ display: block; margin: 0 auto; max-height: 460px; max-width: 100% }}
.reveal figcaption {{ font-size: .7em; margin-top: .6em }}
.reveal footer {{ font-size: .6em; margin-top: 2em }}
</style></head><body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/reveal.js"></script>
<script>
Reveal.initialize({{ hash: true, center: false, width: 1280, height: 720, slideNumber: true }});
</script>
<script defer src="mathjax/tex-mml-chtml.js"></script>
</body></html>
"""

_markdown = MarkdownIt("commonmark").use(dollarmath_plugin)
# MathJax reads these delimiters; what is between them stays as it is.
_markdown.add_render_rule("math_inline", lambda s, t, i, *_: f"\\({html.escape(t[i].content)}\\)")
_markdown.add_render_rule("math_block", lambda s, t, i, *_: f"\\[{html.escape(t[i].content)}\\]")


def executed(chapter: str) -> Any:
    """A chapter's notebook with the outputs of the last build.

    Raises:
        SystemExit: if it was not built as it is now.
    """
    notebook = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4)
    try:
        _, merged = get_cache(CACHE).merge_match_into_notebook(notebook)
    except KeyError:
        raise SystemExit(f"{chapter} is not built as it is now: run `make book` first") from None
    return merged


def sections(notebook: Any) -> list[tuple[str, str, Any]]:
    """Title, text and figures of each part of a chapter that begins with a heading."""
    parts: list[tuple[str, str, list[Any]]] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            pieces = re.split(r"^#{1,3} (.*)\n*", cell.source, flags=re.MULTILINE)[1:]
            parts += [(title, text, []) for title, text in zip(pieces[::2], pieces[1::2])]
        elif parts and "figure" in cell.metadata.get("mystnb", {}):
            parts[-1][2].append(cell)
    return parts


def picture(cell: Any) -> str | None:
    """The figure of a cell as a data address."""
    for output in cell.outputs:
        data = output.get("data", {}).get("image/png")
        if data:
            return "data:image/png;base64," + "".join(data.split())
    return None


def slides_of(chapter: str) -> list[str]:
    """The slides of a chapter, as HTML."""
    (title, intro, _), *parts = sections(executed(chapter))
    made = [f"<h1>{html.escape(title)}</h1>{rendered(intro)}"]
    for heading, text, figures in parts:
        if heading in _SECTIONS:
            made.append(f"<h2>{html.escape(heading)}</h2>{rendered(text)}")
        for cell in figures:
            about = cell.metadata["mystnb"]
            source = picture(cell)
            if source:
                caption = _markdown.renderInline(about["figure"]["caption"])
                alt = html.escape(about["image"]["alt"], quote=True)
                made.append(
                    f"<h2>{html.escape(heading)}</h2><figure><img src='{source}' alt=\"{alt}\">"
                    f"<figcaption>{caption}</figcaption></figure>"
                )
    return made


def rendered(text: str) -> str:
    """Markdown as HTML, without what only a page has: pictures, citations, ends of links."""
    text = re.sub(r"^(:{3,}|`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r" ?\{cite[^}]*\}`[^`]*`", "", text)
    text = re.sub(r"\{\w+\}`([^`<]*)[^`]*`", r"\1", text)
    text = re.sub(r"<img[^>]*>|!\[[^]]*\]\([^)]+\)", "", text)
    return str(_markdown.render(re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text)))


def lecture(title: str, chapters: tuple[str, ...]) -> str:
    """One lecture as a page of Reveal: chapters side by side, their slides below each other."""
    first = (
        f"<section><h1>{html.escape(title)}</h1><footer>From the course &ldquo;Retrieval by "
        "Attribute&rdquo;. Text and figures: CC BY 4.0.</footer></section>"
    )
    columns = [
        "<section>" + "\n".join(f"<section>{s}</section>" for s in slides_of(name)) + "</section>"
        for name in chapters
    ]
    return _PAGE.format(title=html.escape(title), slides="\n".join([first, *columns]))


def write_all() -> None:
    """Write all lectures and what they need."""
    OUT.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "tools" / "reveal", OUT / "reveal", dirs_exist_ok=True)
    shutil.copytree(BOOK / "_assets" / "vendor" / "mathjax", OUT / "mathjax", dirs_exist_ok=True)
    for name, (title, chapters) in LECTURES.items():
        write_text(OUT / f"{name}.html", lecture(title, chapters))


if __name__ == "__main__":
    write_all()
    for name, (title, _) in LECTURES.items():
        print(f"{(OUT / name).relative_to(ROOT)}.html  {title}")
