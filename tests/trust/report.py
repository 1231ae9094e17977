"""What a whole test run found, as `book/results/tests.json` for the page of promises.

    PYTEST_ADDOPTS=--junitxml=_build/tests.xml make test
    python -m tests.trust.report _build/tests.xml

The provenance is that of the process that calls this: call it in the environment that ran the
tests, before the code changes. A run with other versions goes beside the first, as in
`--out book/results/tests-3.12.json`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from agman.errors import InputError
from agman.provenance import provenance
from agman.storage import write_json

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = ("passed", "failed", "skipped")


def report(xml: Path, root: Path = ROOT) -> dict[str, Any]:
    """Outcomes by folder and by file, and the reasons of what was skipped.

    Args:
        xml: what `pytest --junitxml` wrote.
        root: of the repository whose tests ran.

    Raises:
        InputError: the file holds no test run, or one that left a test file out.
    """
    try:
        suites = list(ElementTree.parse(xml).getroot().iter("testsuite"))
    except (ElementTree.ParseError, OSError) as error:
        raise InputError(f"{xml} holds no test run ({error}); make it with --junitxml.") from error
    files: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for file, outcome, reason in (found for suite in suites for found in _cases(suite, root)):
        files.setdefault(file, Counter())[outcome] += 1
        if outcome == "skipped":
            reasons[reason.replace(str(root), ".")] += 1
    expected = {path.relative_to(root).as_posix() for path in root.glob("tests/**/test_*.py")}
    if missing := sorted(expected - files.keys()):
        raise InputError(
            f"{xml} is not of the whole run: it lacks {', '.join(missing)}; run `make test`."
        )
    folders: dict[str, Counter[str]] = {}
    for file, counts in files.items():
        folders.setdefault(str(PurePosixPath(file).parent), Counter()).update(counts)
    total = sum(files.values(), Counter())
    return {
        "experiment": "tests",
        **_plain(total),
        "by_folder": {name: _plain(folders[name]) for name in sorted(folders)},
        "by_file": {name: _plain(files[name]) for name in sorted(files)},
        "skip_reasons": dict(reasons.most_common()),
        "seconds": round(sum(float(suite.get("time", 0)) for suite in suites), 3),
        "provenance": provenance(),
    }


def _cases(suite: ElementTree.Element, root: Path) -> Iterator[tuple[str, str, str]]:
    """File, outcome and reason of each test; an error beside a test counts as its failure."""
    for case in suite.iter("testcase"):
        outcome, reason = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                outcome = "failed"
            elif child.tag == "skipped" and outcome == "passed":
                outcome, reason = "skipped", _reason(child)
        # A module that skips or breaks as a whole has its name where a test has its own.
        yield _file(case.get("classname") or case.get("name") or "", root), outcome, reason


def _reason(skipped: ElementTree.Element) -> str:
    """Why; of a whole module it stands at the end of the text, after the file and the line."""
    whole = re.search(r"Skipped: (.+?)['\"]\)$", skipped.text or "", re.DOTALL)
    return whole[1] if whole else skipped.get("message") or "no reason given"


def _file(dotted: str, root: Path) -> str:
    """The file of a test: the longest start of its class's dotted name that is one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        for file in ("/".join(parts[:end]) + ".py", "/".join([*parts[:end], "__init__.py"])):
            if (root / file).is_file():
                return file
    raise InputError(f"There is no file of the test {dotted!r} below the repository's root.")


def _plain(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in OUTCOMES}


def main(argv: list[str] | None = None) -> int:
    """Write the report, and say what it says; 2 and a sentence if there is none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("xml", type=Path, help="what `pytest --junitxml` wrote")
    parser.add_argument("--out", type=Path, default=ROOT / "book" / "results" / "tests.json")
    options = parser.parse_args(argv)
    try:
        found = report(options.xml)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, found)
    print(", ".join(f"{found[name]:,} {name}" for name in OUTCOMES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
