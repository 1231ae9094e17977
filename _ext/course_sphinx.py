"""What Jupyter Book 1 leaves to be mended in this book's pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

import agman.course


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("self-checks", SelfChecks)
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("missing-reference", find_in_another_module)
    app.connect("autodoc-process-docstring", keep_colons_in_attribute_docstrings, priority=600)
    app.connect("doctree-read", number_exercise_bodies)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
