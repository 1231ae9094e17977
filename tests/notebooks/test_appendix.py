"""The appendix: the glossary defines what it links to, and the API page leaves nothing out."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
API = "".join((BOOK / f"{n}.md").read_text(encoding="utf-8") for n in ("api", "api_course"))
GLOSSARY = (BOOK / "glossary.md").read_text(encoding="utf-8")

# --- the glossary ---------------------------------------------------------------------------------


def entries(text: str) -> list[tuple[list[str], list[str]]]:
    """Words of each entry, and its lines."""
    (body,) = re.findall(r"```\{glossary\}\n:sorted:\n\n(.*?)\n```", text, re.DOTALL)
    found = []
    for entry in body.split("\n\n"):
        lines = entry.split("\n")
        words = [line for line in lines if not line.startswith(" ")]
        found.append((words, [line.strip() for line in lines[len(words) :]]))
    return found


def test_an_entry_has_two_to_four_sentences_one_on_a_line() -> None:
    for words, lines in entries(GLOSSARY):
        assert 2 <= len(lines) <= 4, words
        assert all(line[0].isupper() or line.startswith('"') for line in lines), words
        assert all(line.endswith((".", "?")) for line in lines), words


def test_the_words_stand_in_the_order_of_the_alphabet_and_once() -> None:
    words = [words[0] for words, _ in entries(GLOSSARY)]
    assert words == sorted(words, key=str.casefold)
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    "word",
    [
        *("query", "gallery", "attribute", "value", "embedding", "backbone", "level", "tap"),
        *("attention map", "mask", "triplet", "anchor", "positive", "negative", "margin"),
        *("average precision", "MAP", "micro", "macro", "tie", "collapse", "feature gap"),
        *("leakage", "recipe", "seed", "interval", "provenance"),
    ],
)
def test_the_words_of_the_course_are_there(word: str) -> None:
    assert word in {word for words, _ in entries(GLOSSARY) for word in words}


def test_links_between_entries_meet_a_word() -> None:
    known = {word for words, _ in entries(GLOSSARY) for word in words}
    links = re.findall(r"\{term\}`(?:[^`<]*<)?([^`<>]+)>?`", GLOSSARY)
    assert len(links) > 20
    assert set(links) <= known


# --- the API page ---------------------------------------------------------------------------------


def public_modules() -> list[str]:
    """Every module of the package; the drawing of garments is reached through its package."""
    names = []
    for path in sorted((ROOT / "agman").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        inner = parts[:3] == ("agman", "datasets", "wardrobe") and parts[-1] != "__init__"
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not inner and not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return names


def directives() -> dict[str, dict[str, str]]:
    """Options of each `automodule` of the page; `self-checks` stands for one of each chapter."""
    found = {}
    if ".. self-checks::" in API:
        checks = [name for name in public_modules() if re.match(r"agman\.course\.\w*checks$", name)]
        found = {name: {"members": ""} for name in checks}
    for name, options in re.findall(r"\.\. automodule:: (\S+)\n((?:   :.*\n)*)", API):
        found[name] = dict(re.findall(r":([\w-]+): ?(.*)", options))
    return found


def own(module: ModuleType) -> dict[str, Any]:
    """Public classes and functions that a module defines: those of `__all__`, if it has one."""
    public = getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
    things = {name: getattr(module, name) for name in public}
    return {
        name: thing
        for name, thing in things.items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", public_modules())
def test_no_public_module_is_missing_from_the_api_page(name: str) -> None:
    assert name in directives(), f"add `.. automodule:: {name}` to book/api.md or api_course.md"


def test_the_api_page_names_no_module_that_is_gone() -> None:
    assert set(directives()) == set(public_modules()) | {"agman.datasets.wardrobe"}


def documented() -> set[int]:
    """What the page documents, by identity: a name may come from where it is exported."""
    found = set()
    for name, options in directives().items():
        module = importlib.import_module(name)
        excluded = options.get("exclude-members", "").split(", ")
        names = getattr(module, "__all__", list(own(module))) if "members" in options else []
        found |= {id(getattr(module, one)) for one in names if one not in excluded}
    for target in re.findall(r"\.\. auto(?:function|class):: (\S+)", API):
        module_name, _, one = target.rpartition(".")
        found.add(id(getattr(importlib.import_module(module_name), one)))
    return found


def test_nothing_public_is_left_out_or_without_a_docstring() -> None:
    there = documented()
    for name in public_modules():
        if name == "agman.commands":  # its functions are what `agman --help` explains
            continue
        for one, thing in own(importlib.import_module(name)).items():
            assert id(thing) in there, f"{name}.{one} is not on the API page"
            assert inspect.getdoc(thing), f"{name}.{one} has no docstring, so the page drops it"


def test_excluded_names_are_exported_by_their_package() -> None:
    exported = importlib.import_module("agman.datasets").__all__
    for name, options in directives().items():
        for one in filter(None, options.get("exclude-members", "").split(", ")):
            assert one in exported, f"{name}.{one} would be documented nowhere"


def test_docstrings_that_the_page_shows_are_not_markdown() -> None:
    """Sphinx reads them as reStructuredText: a fence or a table comes out as one long line."""
    for name in public_modules():
        text = inspect.getdoc(importlib.import_module(name)) or ""
        assert not re.search(r"^(```|\| *---)", text, re.MULTILINE), name


# --- the table of contents ------------------------------------------------------------------------


def test_the_appendix_is_the_last_part_and_whole() -> None:
    parts = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    assert parts[-1]["caption"] == "Appendix"
    files = [chapter["file"] for chapter in parts[-1]["chapters"]]
    assert {"glossary", "notation", "paper_to_code", "api", "status", "references"} <= set(files)
