"""The page of promises: what it shows was recorded, and the tests it names exist."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from agman.course import promises
from agman.errors import InputError
from agman.provenance import provenance
from agman.storage import write_json

ROOT = Path(__file__).resolve().parents[2]
PAGE = nbformat.read(ROOT / "book" / "promises.ipynb", as_version=4)
MADE = provenance()
COUNTS = {"passed": 5, "failed": 1, "skipped": 2}
HELD = "tests/test_metrics.py"
RUNS: dict[str, dict[str, Any]] = {
    "tests": {
        **COUNTS,
        "by_folder": {"tests": COUNTS},
        "by_file": {HELD: COUNTS},
        "skip_reasons": {"No <browser>.": 2},
        "seconds": 600,
    },
    "fuzz": {
        "inputs": 1234,
        "targets": {"tables": {"inputs": 1234, "refused": 1000, "accepted": 234}},
        "escaped": 3,
        "seed": 0,
        "seconds": 9.5,
    },
    "faults": {
        "kills": {"moment": 7, "write": 8},
        "lost": 1,
        "half_files": 2,
        "resumed": 10,
        "bit_equal": 9,
        "seconds": 60.0,
    },
    "mutants": {
        "tool": "mutmut",
        "modules": {
            "ranking": {"mutants": 50, "killed": 44, "timeout": 4, "survived": 2, "equivalent": 1}
        },
        "survivors": [
            {"module": "ranking", "name": f"x_{i}", "change": "a → b", "why": "no difference"}
            for i in range(2)
        ],
        "seconds": 7200.0,
    },
    "coverage": {"lines": 10, "branches": 4, "percent": 97.25, "below": {"agman/a.py": 90.0}},
    "bench": {
        "rows": [
            {"work": "map", "against": "x", "ratio": 7.5, "target": 5.0, "met": True},
            {"work": "step", "against": "y", "ratio": 1.25, "target": 1.5, "met": False},
            {"work": "bf16", "against": "z", "ratio": 0.5, "target": None, "met": None},
        ]
    },
}
SHOWN = (
    promises.overview, promises.folders, promises.versions, promises.skips, promises.fuzz,
    promises.faults, promises.mutants, promises.survivors, promises.coverage, promises.speed,
    promises.origins,
)  # fmt: skip


def write(folder: Path, name: str, **changes: Any) -> None:
    """A run of the right form, with other parts on demand."""
    run = {**RUNS[name.partition("-")[0]], "provenance": MADE, **changes}
    write_json(folder / f"{name}.json", run)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files, each whole."""
    for name in RUNS:
        write(tmp_path, name)
    return tmp_path


def cells(shown: Any) -> list[list[str]]:
    """Texts of a table's cells, row by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", shown.data)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


# --- the book's own files -------------------------------------------------------------------------


def test_recorded_runs_are_whole() -> None:
    kinds = "|".join(promises.LAYOUTS)
    for file in sorted((ROOT / "book" / "results").glob("*.json")):
        if re.fullmatch(rf"({kinds})(-.+)?", file.stem):
            assert promises.recorded(file.stem)


def test_the_page_names_the_tests_that_are_counted() -> None:
    text = "\n\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "code")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    for title, promise in promises.PROMISES.items():
        (line,) = re.findall("^Tests: .*", sections[title], re.MULTILINE)
        assert re.findall(r"/blob/main/(.+?)\)", line) == list(promise.tests), title
        assert f'promises.outcomes("{title}")' in code
        assert not promise.run or promise.run in promises.LAYOUTS
    named = re.findall(r"/blob/main/(.+?)\)", text)
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_the_commands_of_the_page_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    prose = "".join(cell.source for cell in PAGE.cells if cell.cell_type == "markdown")
    named = set(re.findall("`make (.+?)`", prose))
    assert {"test", "fuzz", "faults", "mutants", "bench"} <= named
    assert [one for one in named if not re.search(rf"^{one}:", makefile, re.MULTILINE)] == []


def test_no_figure_is_typed_by_hand() -> None:
    for cell in PAGE.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\d", re.sub(r"\(.*?\)", "", cell.source)), cell.source


# --- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize("show", SHOWN, ids=lambda show: show.__name__)
def test_without_a_file_it_says_not_recorded(show: Any, tmp_path: Path) -> None:
    assert "not recorded yet" in show(tmp_path).data.lower()


def test_one_line_for_each_promise(folder: Path) -> None:
    found = dict(cells(promises.overview(folder))[1:])
    assert list(found) == list(promises.PROMISES)
    assert found["The numbers are right"].replace("\N{NO-BREAK SPACE}", " ") == (
        "5 tests passed, 1 failed, 2 skipped; 48 of 50 small changes of the code noticed (96.0 %)"
    )
    assert found["Private by default"] == "not in this run"
    assert found["Nothing is lost when work is killed"].endswith(
        "15 kills, 1 results lost, 2 half files"
    )
    assert found["A damaged file gets one sentence"].endswith(
        "1,234 damaged files, 3 errors other than InputError"
    )
    assert found["As fast as stated"].endswith("1 of 2 targets reached")


def test_a_long_run_is_shown_though_the_tests_are_not_recorded(folder: Path) -> None:
    (folder / "tests.json").unlink()
    found = dict(cells(promises.overview(folder))[1:])
    assert found["As fast as stated"] == "tests not recorded yet; 1 of 2 targets reached"
    assert found["Pages for everyone"] == "tests not recorded yet"


def test_tables_show_what_was_recorded(folder: Path) -> None:
    assert cells(promises.outcomes("The numbers are right", folder))[1:3] == [
        ["test_metrics", "5 tests passed, 1 failed, 2 skipped"],
        ["test_ranking", "not in this run"],
    ]
    assert cells(promises.skips(folder))[1] == ["No &lt;browser&gt;.", "2"]
    assert cells(promises.fuzz(folder))[1] == ["tables", "1,000", "234"]
    assert [row[1] for row in cells(promises.faults(folder))[1:]] == ["7", "8", "10", "9", "2", "1"]
    assert cells(promises.survivors(folder))[1] == ["ranking", "no difference", "2"]
    assert cells(promises.coverage(folder))[1:] == [
        ["the whole package", "97.2 %"],
        ["agman/a.py", "90.0 %"],
    ]
    assert [row[1:] for row in cells(promises.speed(folder))[1:]] == [
        ["7.5", "5, reached"],
        ["1.25", "1.5, missed"],
        ["0.5", "-"],
    ]


def test_every_figure_says_when_at_which_commit_and_with_what(folder: Path) -> None:
    for show in (promises.overview, promises.fuzz, promises.faults, promises.mutants):
        assert f"Recorded on {MADE['date'][:10]} in " in show(folder).data
        assert f"at commit {MADE['commit'] or 'unknown'}." in show(folder).data
    ((names, made_with),) = cells(promises.origins(folder))[1:]
    assert names == ", ".join(RUNS)
    assert MADE["python"] in made_with
    assert f"torch {MADE['versions']['torch']}" in made_with


def test_runs_with_other_versions_have_a_row_each(folder: Path) -> None:
    write(folder, "tests-3.13", provenance={**MADE, "python": "3.13.9"})
    rows = cells(promises.versions(folder))[1:]
    assert len(rows) == 2
    assert any(row[0].startswith("Python 3.13.9, torch ") for row in rows)
    assert len(cells(promises.origins(folder))) == 3


# --- files that are not whole ---------------------------------------------------------------------


def paths(node: Any, layout: Any) -> list[tuple[Any, ...]]:
    """Where a layout asks for something, in a run that has it."""
    if isinstance(layout, dict):
        keys = node if str in layout else layout
        return [
            (key, *rest)
            for key in keys
            for rest in [(), *paths(node[key], layout.get(key, layout.get(str)))]
        ]
    if isinstance(layout, list):
        return [(i, *rest) for i in range(len(node)) for rest in [(), *paths(node[i], layout[0])]]
    return []


@pytest.mark.parametrize("name", RUNS)
def test_a_part_that_is_missing_or_of_another_kind_is_refused(name: str, folder: Path) -> None:
    whole = json.loads((folder / f"{name}.json").read_text())
    layout = {**promises.LAYOUTS[name], "provenance": promises.PROVENANCE}
    for path in paths(whole, layout):
        for harm in ("missing", "wrong"):
            run = copy.deepcopy(whole)
            node = run
            for key in path[:-1]:
                node = node[key]
            if harm == "wrong":
                if path[-1] in ("commit", "processor", "cores"):
                    continue  # any value will do
                node[path[-1]] = [0] if isinstance(node[path[-1]], dict) else {"a": -1}
            elif isinstance(node, list) or path[-2:-1] in [
                ("targets",), ("kills",), ("modules",), ("below",), ("by_folder",), ("by_file",),
                ("skip_reasons",), ("versions",),
            ]:  # fmt: skip
                continue  # names are free
            else:
                del node[path[-1]]
            write_json(folder / f"{name}.json", run)
            with pytest.raises(InputError, match=rf"{name}\.json: .*; record the run again\."):
                promises.recorded(name, folder)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("tests", {"passed": 6}, "'by_folder' does not add up to 'passed'"),
        ("tests", {"skip_reasons": {}}, "'skip_reasons' does not add up"),
        ("fuzz", {"inputs": 1235}, "'targets' does not add up"),
        ("fuzz", {"escaped": -1}, "'escaped' is -1"),
        ("fuzz", {"escaped": True}, "'escaped' is True"),
        ("fuzz", {"seconds": float("nan")}, "'seconds' is nan"),
        ("mutants", {"survivors": []}, "does not list what 'survived'"),
        ("bench", {"rows": [{**RUNS["bench"]["rows"][1], "met": True}]}, "'met' of 'step'"),
        ("coverage", {"provenance": None}, "'provenance' is no table of names"),
    ],
)
def test_what_does_not_add_up_is_refused(
    name: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write(tmp_path, name, **changes)
    with pytest.raises(InputError, match=re.escape(said)):
        promises.recorded(name, tmp_path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fuzz.json").write_text("[]")
    with pytest.raises(InputError, match="the file is no table of names"):
        promises.recorded("fuzz", tmp_path)
