"""The report of coverage: what it counts, what it names, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agman.course import promises
from tests.trust import coverage


def report(percent: float) -> dict[str, Any]:
    totals = {"num_statements": 200, "covered_lines": 190, "num_branches": 40}
    totals |= {"covered_branches": 35, "percent_covered": percent}
    shares = {"agman/a.py": 100.0, "agman/b.py": 94.9, "agman/c.py": 12.0, "agman/d.py": 95.0}
    files = {file: {"summary": {"percent_covered": share}} for file, share in shares.items()}
    return {"totals": totals, "files": files}


@pytest.mark.parametrize(("percent", "code"), [(95.0, 0), (94.99, 1)])
def test_the_worst_modules_come_first_and_the_whole_decides(
    percent: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report(percent)))
    out = tmp_path / "coverage.json"
    assert coverage.main([str(tmp_path / "report.json"), "--out", str(out)]) == code
    said = capsys.readouterr()
    first, second, last = said.out.splitlines()
    assert (first.split()[-1], second.split()[-1]) == ("agman/c.py", "agman/b.py")
    assert last.endswith("190 of 200 lines, 35 of 40 branches")
    assert ("floor is 95 %" in said.err) == bool(code)
    kept = promises.recorded("coverage", tmp_path)
    assert kept is not None
    assert kept["below"] == {"agman/c.py": 12.0, "agman/b.py": 94.9}
    assert (kept["lines"], kept["branches"], kept["percent"]) == (200, 40, percent)


@pytest.mark.parametrize("content", [None, "[]", '{"totals": {"num_statements": 3}, "files": {}}'])
def test_without_a_measurement_there_is_no_number(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content:
        (tmp_path / "report.json").write_text(content)
    out = tmp_path / "coverage.json"
    assert coverage.main([str(tmp_path / "report.json"), "--out", str(out)]) == 2
    assert "report.json" in capsys.readouterr().err
    assert not out.exists()
