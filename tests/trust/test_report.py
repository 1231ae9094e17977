"""The record of a test run: every test counted once, under its file, and no part for the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agman.course import promises
from agman.errors import InputError
from tests.trust import report

FILES = {
    "tests/test_one.py": """
import pytest

def test_right(): pass
def test_wrong(): assert False
@pytest.mark.skip(reason="not here")
def test_left_out(): pass
@pytest.fixture
def broken(): raise ValueError
def test_of_a_broken_fixture(broken): pass
class TestClass:
    @pytest.mark.parametrize("name", ["a.b", "tests.deep"])
    def test_inside(self, name): pass
""",
    "tests/deep/test_two.py": "import pytest\npytest.importorskip('no_such_thing')",
    "package/__init__.py": '"""Sums.\n\n>>> 1 + 1\n2\n"""\n',
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository after its tests ran."""
    tmp_path = tmp_path_factory.mktemp("repository")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    words = ["-q", "--import-mode=importlib", "--doctest-modules", "--junitxml=run.xml"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words, "tests", "package"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout
    return tmp_path


def test_every_test_is_counted_under_its_file(run: Path, tmp_path: Path) -> None:
    found = report.report(run / "run.xml", run)
    assert [found[name] for name in report.OUTCOMES] == [4, 2, 2]
    assert found["by_file"] == {
        "package/__init__.py": {"passed": 1, "failed": 0, "skipped": 0},
        "tests/deep/test_two.py": {"passed": 0, "failed": 0, "skipped": 1},
        "tests/test_one.py": {"passed": 3, "failed": 2, "skipped": 1},
    }
    assert found["by_folder"].keys() == {"package", "tests", "tests/deep"}
    assert found["skip_reasons"] == {
        "not here": 1,
        "could not import 'no_such_thing': No module named 'no_such_thing'": 1,
    }
    assert found["seconds"] > 0
    (tmp_path / "tests.json").write_text(json.dumps(found))
    assert promises.recorded("tests", tmp_path) == found


def test_part_of_a_run_is_no_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    young = run / "tests/test_three.py"
    young.touch()
    with pytest.raises(InputError, match=r"lacks tests/test_three\.py"):
        report.report(run / "run.xml", run)
    young.unlink()
    out = run / "tests.json"
    assert report.main([str(run / "none.xml"), "--out", str(out)]) == 2
    assert "holds no test run" in capsys.readouterr().err
    assert not out.exists()


def test_a_file_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.xml").write_text("<testsuite>")
    with pytest.raises(InputError, match="holds no test run"):
        report.report(tmp_path / "run.xml", tmp_path)
