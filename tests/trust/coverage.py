"""How much of the package a test run reached, as `book/results/coverage.json` for the book.

    make coverage
    python -m tests.trust.coverage --out book/results/coverage.json

The first runs the tests and ends with this program, which fails below the floor; the second
records what the first has found. Processes that tests start are counted too, but not those that
are killed, nor the closed one that holds a student's code. The provenance is that of the process
that calls this: call it before the code changes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agman.errors import InputError
from agman.provenance import provenance
from agman.storage import read_json, write_json

MEASURED = Path("_build/coverage.json")
FLOOR = 95.0
"""In percent of lines and branches together, of the whole package; modules below it are named."""


def measured(path: Path = MEASURED) -> dict[str, Any]:
    """Lines and branches of the package, what share of both was run, and the modules below `FLOOR`.

    Args:
        path: what `pytest --cov --cov-branch --cov-report=json:PATH` wrote.

    Raises:
        InputError: there is no such report, or none with branches.
    """
    report = read_json(path)
    try:
        totals = report["totals"]
        shares = {
            Path(file).as_posix(): entry["summary"]["percent_covered"]
            for file, entry in report["files"].items()
        }
        below = {file: share for file, share in shares.items() if share < FLOOR}
        return {
            "experiment": "coverage",
            "lines": totals["num_statements"],
            "lines_run": totals["covered_lines"],
            "branches": totals["num_branches"],
            "branches_run": totals["covered_branches"],
            "percent": totals["percent_covered"],
            "below": dict(sorted(below.items(), key=lambda pair: pair[1])),
            "provenance": provenance(),
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no report of lines and branches ({error!r}); make it with `make coverage`."
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Say what was reached; 1 below the floor, 2 and a sentence where nothing was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("report", nargs="?", type=Path, default=MEASURED, help="of pytest-cov")
    parser.add_argument("--out", type=Path, help="file to record the numbers in (default: none)")
    options = parser.parse_args(argv)
    try:
        found = measured(options.report)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for file, share in found["below"].items():
        print(f"{share:6.1f} %  {file}")
    print(
        f"{found['percent']:6.1f} %  of agman: {found['lines_run']:,} of {found['lines']:,} lines, "
        f"{found['branches_run']:,} of {found['branches']:,} branches"
    )
    if options.out:
        write_json(options.out, found)
    if found["percent"] < FLOOR:
        print(f"The floor is {FLOOR:.0f} %.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
