"""Chapters as a reader meets them: alike in shape, with sources that are the package's own."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [
    chapter["file"]
    for part in TOC["parts"]
    for chapter in part["chapters"]
    if part["caption"] != "Appendix"
]
each_chapter = pytest.mark.parametrize("name", CHAPTERS)

DIFFICULTY = re.compile(r"^\*(Easy|Medium|Hard), \d+ minutes")


@cache
def cells(name: str) -> tuple[Any, ...]:
    return tuple(nbformat.read(BOOK / f"{name}.ipynb", as_version=4).cells)


def prose(name: str) -> str:
    return "\n\n".join(cell.source for cell in cells(name) if cell.cell_type == "markdown")


def sections(name: str) -> dict[str, str]:
    """Text below each heading of the second level."""
    found = re.split(r"^## (.+)$", prose(name), flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


@each_chapter
def test_a_chapter_has_the_shape_of_a_chapter(name: str) -> None:
    found = sections(name)
    titles = list(found)
    assert titles[:3] == ["What you will be able to do", "Before you start", "Predict"]
    assert titles[-2:] == ["Takeaways", "Further reading"]
    assert "What can go wrong" in titles
    bullets = {title: len(re.findall(r"^- ", text, re.M)) for title, text in found.items()}
    assert 3 <= bullets["What you will be able to do"] <= 6
    assert 3 <= bullets["Takeaways"] <= 8
    assert "{cite}`" in found["Further reading"]
    start = found["Before you start"]
    for needed in ("Chapters needed**: ", "Time**: ", "GPU**: "):
        assert f"- **{needed}" in start
    assert re.search(r"\*\*Time\*\*: \d+ minutes", start)


@each_chapter
def test_every_exercise_says_how_hard_it_is_and_has_a_check_and_a_hidden_solution(
    name: str,
) -> None:
    text = prose(name)
    numbers = re.findall(r"^### Exercise (\d+): .+$", text, re.MULTILINE)
    assert numbers == [str(i + 1) for i in range(len(numbers))]
    assert numbers
    solved = re.findall(r"\{admonition\} Solution of exercise (\d+)\n:class: dropdown", text)
    parts = re.split(r"^### Exercise \d+: .+\n+", text, flags=re.MULTILINE)[1:]
    code = "\n".join(cell.source for cell in cells(name) if cell.cell_type == "code")
    open_ended = 0
    for number, part in zip(numbers, parts, strict=True):
        assert DIFFICULTY.match(part), (number, part[:60])
        open_ended += "no check" in part
        assert number in solved or "no check" in part, number
    assert len(re.findall(r"check_\w+\(", code)) >= len(numbers) - open_ended


@each_chapter
def test_a_chapter_asks_at_least_one_quiz(name: str) -> None:
    assert any("quiz(" in cell.source for cell in cells(name) if cell.cell_type == "code")


@each_chapter
def test_every_figure_has_a_caption_a_name_and_a_text(name: str) -> None:
    named = []
    for cell in cells(name):
        settings = cell.metadata.get("mystnb", {})
        if "figure" in settings or "image" in settings:
            assert len(settings["figure"]["caption"]) > 30, cell.id
            assert len(settings["image"]["alt"]) > 60, cell.id
            named.append(settings["figure"]["name"])
        elif cell.cell_type == "code":
            last = cell.source.strip().splitlines()[-1]
            bare = last.startswith("figures.") and last != "figures.style()"
            assert not bare, f"a figure without caption: {cell.source}"
    assert named, "a chapter has a figure worth remembering"


def test_figures_have_names_of_their_own() -> None:
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for chapter in CHAPTERS
        for cell in cells(chapter)
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(set(names)) == len(names)


# --- what is shown is what runs -------------------------------------------------------------------


def shown(name: str) -> list[tuple[str, Any]]:
    """What a chapter shows by `show(...)`: the words and the object, by the chapter's imports."""
    trees = [
        ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE))
        for cell in cells(name)
        if cell.cell_type == "code" and not cell.source.startswith("%%")
    ]
    imports = [
        node
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), name, "exec"), namespace)
    calls = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "show"
    ]
    words = [ast.unparse(call.args[0]) for call in calls]
    return [(word, eval(word, namespace)) for word in words]


@each_chapter
def test_what_a_chapter_shows_is_the_source_of_the_package(name: str) -> None:
    from agman.course import show

    for word, thing in shown(name):
        file = Path(inspect.getsourcefile(thing) or "")
        assert file.is_relative_to(ROOT / "agman"), word
        text, source = file.read_text(encoding="utf-8"), show(thing).data
        assert any(textwrap.indent(source, " " * n) in text for n in (0, 4)), word


def package_bodies() -> dict[str, str]:
    """Every function and class of the package by what it does, docstrings aside."""
    found = {}
    for file in (ROOT / "agman").rglob("*.py"):
        if "course" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[body(node)] = f"{file.stem}.{node.name}"
    return found


def body(node: ast.FunctionDef | ast.ClassDef) -> str:
    statements = node.body[1:] if ast.get_docstring(node) else node.body
    return "\n".join(ast.dump(statement) for statement in statements)


def test_no_chapter_holds_a_copy_of_the_package() -> None:
    ours = package_bodies()
    copies = []
    for name in CHAPTERS:
        for cell in cells(name):
            if cell.cell_type != "code" or cell.source.startswith("%%"):
                continue
            tree = ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE))
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and len(node.body) > 1:
                    if body(node) in ours:
                        copies.append(f"{name}: {node.name} is {ours[body(node)]}")
    assert not copies


def test_the_search_for_copies_sees_one() -> None:
    from agman import losses

    source = inspect.getsource(losses.triplet_loss)
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    assert package_bodies()[body(node)] == "losses.triplet_loss"


# --- minutes --------------------------------------------------------------------------------------


def minutes(name: str) -> tuple[int, int]:
    """What a chapter says it takes: to read, and more with all exercises."""
    found = re.search(
        r"\*\*Time\*\*: (\d+) minutes, and (\d+) more with all exercises", prose(name)
    )
    assert found, "say: **Time**: N minutes, and N more with all exercises"
    return int(found[1]), int(found[2])


@each_chapter
def test_the_exercises_add_up_to_the_minutes_that_are_stated(name: str) -> None:
    each = re.findall(r"^\*(?:Easy|Medium|Hard), (\d+) minutes", prose(name), re.MULTILINE)
    assert sum(map(int, each)) == minutes(name)[1]


def test_the_teachers_guide_states_the_minutes_of_every_chapter() -> None:
    text = (BOOK / "teaching.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(.+?)\]\((\w+)\.ipynb\) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    stated = {name: (int(reading), int(more)) for _, name, reading, more in rows}
    assert stated == {name: minutes(name) for name in CHAPTERS}
    for title, name, _, _ in rows:
        assert cells(name)[0].source.splitlines()[0] == f"# {title}"
