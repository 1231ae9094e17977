"""What Jupyter Book 1 leaves to be mended in this book's pages."""

from __future__ import annotations

import io
import re
import shutil
import textwrap
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

import agman.course

PICTURE = Path("figures/welcome.png")  # shown where somebody shares a link to a page


class SelfChecks(SphinxDirective):
    """Document the self-checks of every chapter, as `automodule` does those of one."""

    def run(self) -> list[nodes.Node]:
        files = sorted(Path(agman.course.__file__).parent.glob("*checks.py"))
        text = (f".. automodule:: agman.course.{file.stem}\n   :members:\n" for file in files)
        return self.parse_text_to_nodes("\n".join(text))


def drop_repeated_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Load each script once: two that come twice stop with "already been declared"."""
    seen, kept = set(), []
    for script in context.get("script_files", []):
        filename = getattr(script, "filename", script) or ""  # None and "" both mean inline
        key = (str(filename), repr(sorted(getattr(script, "attributes", {}).items())))
        if key not in seen:
            seen.add(key)
            kept.append(script)
    context["script_files"] = kept


def number_exercise_bodies(app: Sphinx, doctree: nodes.document) -> None:
    """Give each exercise's body an id of its own: sphinx-exercise calls all of them the same."""
    bodies = [s for s in doctree.findall(nodes.section) if s["ids"] == ["exercise-content"]]
    for number, body in enumerate(bodies, start=1):
        body["ids"] = [f"exercise-content-{number}"]


def find_in_another_module(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Let a docstring say ``InputError`` where the full name is ``agman.errors.InputError``."""
    python = env.get_domain("py")
    if node.get("refdomain") != "py" or not isinstance(python, PythonDomain):
        return None
    target = node["reftarget"].rpartition(".")[2]
    full = min((n for n in python.objects if n.endswith(f".{target}")), key=len, default=None)
    if full is None or not target.isidentifier():
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, content)


def keep_colons_in_attribute_docstrings(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Napoleon takes "FashionAI: eight attributes" for a type and its text; it is a sentence."""
    at = next((i for i, line in enumerate(lines) if line.startswith(":type: ")), None)
    if what in ("attribute", "data", "property") and at is not None:
        first = next(i for i, line in enumerate(lines) if line)
        lines[first] = f"{lines.pop(at).removeprefix(':type: ')}: {lines[first]}"


def site_address(repository: str) -> str | None:
    """Where GitHub Pages serves a repository's book; None before `make publish` named it."""
    found = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", repository)
    if found is None or found[1] == "OWNER":
        return None
    return f"https://{found[1].lower()}.github.io/{found[2]}/"


def _address_of(app: Sphinx) -> str | None:
    return site_address(str(app.config.html_theme_options.get("repository_url", "")))


def describe_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Say in the page's head what it is about: for search engines, and where a link is shared."""
    if doctree is None:
        return
    texts = (p.astext() for p in doctree.findall(nodes.paragraph))
    text = " ".join(next((t for t in texts if t.strip()), "").split())
    address = _address_of(app)
    picture = f"{address}_static/{PICTURE.name}" if address else f"_static/{PICTURE.name}"
    about = {
        "description": textwrap.shorten(text, 200, placeholder=" …"),
        "og:title": re.sub("<[^>]+>", "", str(context.get("title", ""))),
        "og:description": textwrap.shorten(text, 200, placeholder=" …"),
        "og:type": "article",
        "og:image": picture,
        "og:image:alt": "One drawn garment and what is found for each of its attributes.",
    }
    if address:
        about["og:url"] = f"{address}{pagename}.html"
    context["metatags"] = context.get("metatags", "") + "".join(
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}" '
        f'content="{escape(content)}">\n'
        for name, content in about.items()
    )


def lighten(picture: Path) -> None:
    """Give an opaque PNG a palette of 256 colours, where that makes it smaller."""
    with Image.open(picture) as opened:
        if opened.mode not in ("RGB", "RGBA"):
            return
        if opened.mode == "RGBA" and opened.getchannel("A").getextrema() != (255, 255):
            return
        full = opened.convert("RGB")
    palette = full.quantize(256, Image.Quantize.MEDIANCUT)
    few = full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    if len(buffer.getvalue()) < picture.stat().st_size:
        picture.write_bytes(buffer.getvalue())


def finish_site(app: Sphinx, exception: Exception | None) -> None:
    """Light pictures, the one that shared links show, and a sitemap once the address is known."""
    if exception is not None or app.builder.format != "html":
        return
    for picture in sorted((Path(app.outdir) / "_images").glob("*.png")):
        lighten(picture)
    shutil.copy(Path(app.srcdir) / PICTURE, Path(app.outdir) / "_static")
    address = _address_of(app)
    if address:
        pages = "".join(
            f"<url><loc>{address}{name}.html</loc></url>\n" for name in sorted(app.env.found_docs)
        )
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{pages}</urlset>\n'
        )
        (Path(app.outdir) / "sitemap.xml").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("self-checks", SelfChecks)
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("missing-reference", find_in_another_module)
    app.connect("autodoc-process-docstring", keep_colons_in_attribute_docstrings, priority=600)
    app.connect("doctree-read", number_exercise_bodies)
    app.connect("html-page-context", describe_page)
    app.connect("build-finished", finish_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
