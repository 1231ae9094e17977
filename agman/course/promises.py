"""What the page of promises shows: the recorded run behind each promise, or that there is none.

The files lie beside the recorded experiments and are written by the tests themselves:
`tests.json`, `fuzz.json`, `faults.json`, `mutants.json`, `coverage.json` and `bench.json`.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from agman.course.results import FOLDERS
from agman.course.status import duration, html_table
from agman.errors import InputError
from agman.storage import read_json

if TYPE_CHECKING:
    from IPython.display import HTML

_OUTCOMES = {"passed": int, "failed": int, "skipped": int}
# A type stands for a value of it, `str` as a key for any name, a list of one for any number.
LAYOUTS: dict[str, dict[str, Any]] = {
    "tests": {
        **_OUTCOMES,
        "by_folder": {str: _OUTCOMES},
        "by_file": {str: _OUTCOMES},
        "skip_reasons": {str: int},
        "seconds": float,
    },
    "fuzz": {
        "inputs": int,
        "targets": {str: {"inputs": int, "refused": int, "accepted": int}},
        "escaped": int,
        "seed": int,
        "seconds": float,
    },
    "faults": {
        "kills": {str: int},
        "lost": int,
        "half_files": int,
        "resumed": int,
        "bit_equal": int,
        "seconds": float,
    },
    "mutants": {
        "tool": str,
        "modules": {
            str: {"mutants": int, "killed": int, "timeout": int, "survived": int, "equivalent": int}
        },
        "survivors": [{"module": str, "name": str, "change": str, "why": str}],
        "seconds": float,
    },
    "coverage": {"lines": int, "branches": int, "percent": float, "below": {str: float}},
    "bench": {
        "rows": [
            {
                "work": str,
                "against": str,
                "ratio": float,
                "target": float | None,
                "met": bool | None,
            }
        ]
    },
}
"""What each file has to hold, beside a provenance; it may hold more."""

PROVENANCE = {
    "date": str,
    "commit": object,
    "python": str,
    "versions": {str: str},
    "machine": {"system": str, "processor": object, "cores": object},
}


def recorded(name: str, folder: str | Path | None = None) -> dict[str, Any] | None:
    """One recorded run; None where it is not recorded.

    Args:
        name: of the file without its ending: a key of `LAYOUTS`, or `tests-` and what differs.
        folder: of the files; None for the book's.

    Raises:
        InputError: the file lacks a part, holds one of another kind, has no whole provenance, or
            its counts do not add up.
    """
    folders = FOLDERS if folder is None else (Path(folder),)
    file = next((path for place in folders if (path := place / f"{name}.json").exists()), None)
    if file is None:
        return None
    run = read_json(file)
    kind = name.partition("-")[0]
    fault = _fault(run, {**LAYOUTS[kind], "provenance": PROVENANCE}, "") or _disagreement(kind, run)
    if fault:
        raise InputError(f"{file}: {fault}; record the run again.")
    return dict(run)


def _fault(node: Any, layout: Any, where: str) -> str | None:
    """The first place where a value is not what the layout asks for."""
    if isinstance(layout, dict):
        if not isinstance(node, dict):
            return f"{where.removesuffix(', ') or 'the file'} is no table of names"
        for key, inner in layout.items():
            if key is not str and key not in node:
                return f"{where}{key!r} is missing"
            for name in node if key is str else (key,):
                if fault := _fault(node[name], inner, f"{where}{name!r}, "):
                    return fault
        return None
    if isinstance(layout, list):
        if not isinstance(node, list):
            return f"{where.removesuffix(', ')} is no list"
        faults = (_fault(one, layout[0], f"{where}{i}, ") for i, one in enumerate(node))
        return next((fault for fault in faults if fault), None)
    allowed = layout | int if float in (layout, *get_args(layout)) else layout
    right = isinstance(node, allowed)
    if isinstance(node, bool):
        right = layout is object or bool in (layout, *get_args(layout))
    elif isinstance(node, int | float):
        right = right and 0 <= node < math.inf
    return None if right else f"{where.removesuffix(', ')} is {node!r}"


def _disagreement(kind: str, run: Mapping[str, Any]) -> str | None:
    """What does not add up in a run of the right layout."""
    if kind == "tests":
        for part in ("by_folder", "by_file"):
            for outcome in _OUTCOMES:
                if sum(row[outcome] for row in run[part].values()) != run[outcome]:
                    return f"{part!r} does not add up to {outcome!r}"
        if sum(run["skip_reasons"].values()) != run["skipped"]:
            return "'skip_reasons' does not add up to 'skipped'"
    if kind == "fuzz" and sum(row["inputs"] for row in run["targets"].values()) != run["inputs"]:
        return "'targets' does not add up to 'inputs'"
    if kind == "mutants":
        for name, row in run["modules"].items():
            if row["killed"] + row["timeout"] + row["survived"] != row["mutants"]:
                return f"the counts of {name!r} do not add up to 'mutants'"
        if sum(row["survived"] for row in run["modules"].values()) != len(run["survivors"]):
            return "'survivors' does not list what 'survived'"
    if kind == "bench":
        wrong = [
            row["work"]
            for row in run["rows"]
            if row["target"] is not None and row["met"] != (row["ratio"] >= row["target"])
        ]
        return f"'met' of {wrong[0]!r} is not what its ratio says" if wrong else None
    return None


# ---------------------------------------------------------------------------- what the page shows


class Promise(NamedTuple):
    """A promise, and what is recorded of it.

    Args:
        tests: files of the tests that hold it.
        run: name of the file with a long run of its own, or "".
        figure: what that run found, in a few words.
    """

    tests: tuple[str, ...]
    run: str = ""
    figure: Callable[[Mapping[str, Any]], str] = str


def overview(folder: str | Path | None = None) -> HTML:
    """One line for each promise: what the last recorded runs found."""
    whole = recorded("tests", folder)
    rows = []
    for title, promise in PROMISES.items():
        found = [_counted(_sum(whole, promise.tests)) if whole else "tests not recorded yet"]
        if promise.run:
            run = recorded(promise.run, folder)
            found.append(promise.figure(run) if run else "long run not recorded yet")
        rows.append((title, "; ".join(found)))
    return _shown(("promise", "found"), rows, whole or {}, stamp=whole is not None)


def outcomes(title: str, folder: str | Path | None = None) -> HTML:
    """What became of the tests of one promise, file by file, folded away."""
    run = recorded("tests", folder)
    if run is None:
        return _shown((), [], None)
    rows = [
        (file.removeprefix("tests/").removesuffix(".py"), _counted(run["by_file"].get(file)))
        for file in PROMISES[title].tests
    ]
    fold = _counted(_sum(run, PROMISES[title].tests))
    return _shown(("file", "tests"), rows, run, fold, stamp=False)


def folders(folder: str | Path | None = None) -> HTML:
    """What became of all tests, folder by folder."""
    run = recorded("tests", folder)
    rows = [] if run is None else [(name, _counted(n)) for name, n in run["by_folder"].items()]
    return _shown(("folder", "tests"), rows, run, "All, folder by folder", stamp=False)


def versions(folder: str | Path | None = None) -> HTML:
    """What became of all tests with each recorded set of versions."""
    runs = [run for name in _names(folder, "tests*") if (run := recorded(name, folder))]
    rows = [(_made_with(run, ("torch", "numpy")), _counted(run)) for run in runs]
    return _shown(("versions", "tests"), rows, runs[-1] if runs else None, stamp=False)


def skips(folder: str | Path | None = None) -> HTML:
    """Why tests were skipped, and how many for each reason."""
    run = recorded("tests", folder)
    rows = [] if run is None else list(run["skip_reasons"].items())
    return _shown(("reason", "tests"), rows, run, "Tests that were skipped, and why", stamp=False)


def fuzz(folder: str | Path | None = None) -> HTML:
    """What came of the damaged files given to each reader."""
    run = recorded("fuzz", folder)
    found = {} if run is None else run["targets"]
    rows = [(name, f"{n['refused']:,}", f"{n['accepted']:,}") for name, n in found.items()]
    return _shown(("reader", "refused", "accepted"), rows, run, "Reader by reader")


def faults(folder: str | Path | None = None) -> HTML:
    """How often work was killed, in which way, and what came of it."""
    run = recorded("faults", folder)
    ways = {
        "moment": "killed at a random moment",
        "step": "killed before a change of a file",
        "write": "killed inside a write",
    }
    rows: list[tuple[str, int]] = []
    if run is not None:
        rows = [(ways.get(kind, f"killed: {kind}"), n) for kind, n in run["kills"].items()]
        rows += [("went on to its end", run["resumed"])]
        rows += [("ended with the same bits", run["bit_equal"])]
        rows += [("half files found", run["half_files"]), ("results lost", run["lost"])]
    return _shown(("work", "times"), rows, run)


def mutants(folder: str | Path | None = None) -> HTML:
    """How many small changes of the code a test noticed, module by module."""
    run = recorded("mutants", folder)
    found = {} if run is None else run["modules"]
    rows = [(name, *_noticed(counts)) for name, counts in found.items()]
    return _shown(("module", "noticed", "share"), rows, run)


def survivors(folder: str | Path | None = None) -> HTML:
    """Why there are changes of the code that no test noticed, and how many for each reason."""
    run = recorded("mutants", folder)
    why = Counter((row["module"], row["why"]) for row in (run or {"survivors": []})["survivors"])
    rows = [(module, reason, n) for (module, reason), n in why.items()]
    fold = "Changes of the code that no test noticed, and why"
    return _shown(("module", "reason", "changes"), rows, run, fold, stamp=False)


def coverage(folder: str | Path | None = None) -> HTML:
    """How much of the package the tests run, and the modules of which they run least."""
    run = recorded("coverage", folder)
    rows: list[tuple[str, str]] = []
    if run is not None:
        rows = [("the whole package", f"{run['percent']:.1f} %")]
        rows += [(name, f"{percent:.1f} %") for name, percent in run["below"].items()]
    return _shown(("module", "lines and branches that run"), rows, run)


def speed(folder: str | Path | None = None) -> HTML:
    """How many times faster each piece of work is than another way to do it, and than asked."""
    run = recorded("bench", folder)
    rows = []
    for row in [] if run is None else run["rows"]:
        asked = "-"
        if row["target"] is not None:
            asked = f"{row['target']:.3g}, {'reached' if row['met'] else 'missed'}"
        against = row["against"].replace("_", " ")  # breaks where a phone's line ends
        rows.append((f"{row['work']}, against {against}", f"{row['ratio']:.3g}", asked))
    return _shown(("work", "times faster", "target"), rows, run)


def origins(folder: str | Path | None = None) -> HTML:
    """The machines and versions with which the runs were made."""
    names = [name for kind in LAYOUTS for name in _names(folder, f"{kind}*")]
    runs = {name: run for name in names if (run := recorded(name, folder))}
    files: dict[str, list[str]] = {}
    for name, run in runs.items():
        files.setdefault(f"{_machine(run)}; {_made_with(run)}", []).append(name)
    rows = [(", ".join(found), made_with) for made_with, found in files.items()]
    return _shown(
        ("runs", "machine and versions"), rows, next(iter(runs.values()), None), stamp=False
    )


def _names(folder: str | Path | None, pattern: str) -> list[str]:
    """Files of results, without their endings."""
    places = FOLDERS if folder is None else (Path(folder),)
    return sorted({file.stem for place in places for file in place.glob(f"{pattern}.json")})


def _sum(run: Mapping[str, Any], files: Sequence[str]) -> dict[str, int] | None:
    found = [run["by_file"][file] for file in files if file in run["by_file"]]
    total = {outcome: sum(counts[outcome] for counts in found) for outcome in _OUTCOMES}
    return total if found else None


def _counted(counts: Mapping[str, int] | None) -> str:
    """Outcomes in words; a file may be younger than the run."""
    if counts is None:
        return "not in this run"
    skipped = f", {counts['skipped']:,} skipped" if counts["skipped"] else ""
    return f"{counts['passed']:,} tests passed, {counts['failed']:,} failed{skipped}"


def _noticed(row: Mapping[str, int]) -> tuple[str, str]:
    noticed, changes = row["killed"] + row["timeout"], row["mutants"]
    share = f"{100 * noticed / changes:.1f}\N{NO-BREAK SPACE}%" if changes else "-"
    return f"{noticed:,} of {changes:,}", share


def _all_noticed(run: Mapping[str, Any]) -> str:
    total: Counter[str] = Counter()
    for row in run["modules"].values():
        total.update({name: row[name] for name in ("killed", "timeout", "mutants")})
    counts, share = _noticed(total)
    return f"{counts} small changes of the code noticed ({share})"


def _targets_reached(run: Mapping[str, Any]) -> str:
    asked = [row["met"] for row in run["rows"] if row["target"] is not None]
    return f"{sum(asked)} of {len(asked)} targets reached"


PROMISES: dict[str, Promise] = {
    "The numbers are right": Promise(
        (
            *("tests/test_metrics.py", "tests/test_ranking.py", "tests/test_sampling.py"),
            *("tests/test_losses.py", "tests/test_reference.py", "tests/trust/test_properties.py"),
        ),
        "mutants",
        _all_noticed,
    ),
    "Nothing is lost when work is killed": Promise(
        ("tests/trust/test_faults.py", "tests/trust/test_disk.py"),
        "faults",
        lambda run: (
            f"{sum(run['kills'].values()):,} kills, {run['lost']:,} results lost, "
            f"{run['half_files']:,} half files"
        ),
    ),
    "A damaged file gets one sentence": Promise(
        ("tests/trust/test_fuzz.py", "tests/trust/test_hostile_files.py"),
        "fuzz",
        lambda run: (
            f"{run['inputs']:,} damaged files, {run['escaped']:,} errors other than InputError"
        ),
    ),
    "Nothing in a file is executed": Promise(
        (
            *("tests/trust/test_hostile.py", "tests/trust/test_hostile_files.py"),
            *("tests/trust/test_markup.py", "tests/test_cli.py"),
            *("tests/datasets/test_archives.py", "tests/datasets/test_images.py"),
        )
    ),
    "The same seed gives the same run": Promise(
        ("tests/test_training.py", "tests/test_distributed.py", "tests/trust/test_numbers.py")
    ),
    "It works with these versions": Promise(("tests/test_colab.py", "tests/test_repository.py")),
    "Private by default": Promise(
        (
            *("tests/trust/test_private.py", "tests/datasets/test_downloads.py"),
            "tests/test_supply_chain.py",
        )
    ),
    "Pages for everyone": Promise(
        ("tests/book/test_site.py", "tests/book/test_keyboard.py", "tests/book/test_explorers.py")
    ),
    "A submission gets what it earned": Promise(
        ("tests/assignments/test_grading.py", "tests/assignments/test_assignments.py")
    ),
    "As fast as stated": Promise(("tests/benchmarks/test_bench.py",), "bench", _targets_reached),
}
"""Every promise by its heading on the page."""


def _stamp(run: Mapping[str, Any]) -> str:
    made = run["provenance"]
    took = f" in {duration(run['seconds'])}" if "seconds" in run else ""
    return f"Recorded on {made['date'][:10]}{took}, at commit {made['commit'] or 'unknown'}."


def _made_with(run: Mapping[str, Any], packages: Sequence[str] = ()) -> str:
    """Versions of Python and of some packages, or of all that are known."""
    made = run["provenance"]
    known = made["versions"]
    named = [f"{name} {known[name]}" for name in packages or known if name in known]
    return ", ".join([f"Python {made['python']}", *named])


def _machine(run: Mapping[str, Any]) -> str:
    machine = run["provenance"]["machine"]
    return f"{machine['system']}, {machine['processor']}, {machine['cores']} cores"


def _shown(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    run: Mapping[str, Any] | None,
    fold: str = "",
    stamp: bool = True,
) -> HTML:
    """A table, folded under a line of its own if asked, and when it was recorded."""
    from IPython.display import HTML

    if run is None:
        return HTML(f"<p>{html.escape(f'{fold}: not' if fold else 'Not')} recorded yet.</p>")
    if not rows:
        return HTML(f"<p>{html.escape(f'{fold}: none' if fold else 'None')}.</p>")
    shown = html_table(head, rows).data
    if fold:
        shown = f"<details><summary>{html.escape(fold)}</summary>{shown}</details>"
    if stamp:
        shown += f"\n<p><small>{html.escape(_stamp(run))}</small></p>"
    # The book shows a table on the page's own background, so its colour of text has to follow.
    return HTML(f'<div style="color: var(--pst-color-text-base)">{shown}</div>')
