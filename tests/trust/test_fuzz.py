"""A short run of the fuzzer, and proof that it can fail; the long run is `fuzz.py` itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from agman.errors import InputError
from tests.trust import fuzz


def test_damaged_files_give_our_own_error_and_no_other() -> None:
    found = fuzz.fuzz(1980, seed=4)
    assert found["escapes"] == []
    assert sum(count["inputs"] for count in found["targets"].values()) == found["inputs"] == 1980
    for name, count in found["targets"].items():
        assert count["refused"] > 0, name
        assert count["accepted"] == 0 or name not in fuzz.UNREADABLE, name


def run(read: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[int, Any]:
    """Exit code and summary with this reader alone."""
    monkeypatch.setattr(fuzz, "targets", lambda: {"one": fuzz.Target({"file": b"1 2 3"}, read)})
    code = fuzz.main(["--inputs", "20", "--out", str(tmp_path / "fuzz.json")])
    return code, json.loads((tmp_path / "fuzz.json").read_text())


@pytest.mark.parametrize("error", [KeyError, SystemExit, RecursionError])
def test_the_fuzzer_sees_any_other_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[BaseException]
) -> None:
    calls = []

    def read(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 8:
            raise error
        if len(calls) > 1:
            raise InputError("as it should be")

    code, found = run(read, monkeypatch, tmp_path)
    assert code == 1
    assert found["escapes"] == [f"input 6 (seed 0), one, file: {error()!r}"]
    assert found["targets"] == {"one": {"inputs": 20, "refused": 19, "accepted": 0}}


def test_the_fuzzer_sees_a_file_that_was_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def read(folder: Path) -> None:
        (folder / "more.txt").touch()

    code, found = run(read, monkeypatch, tmp_path)
    assert (code, found["escapes"]) == (1, ["one left more.txt"])


def test_a_clean_run_ends_well_and_says_what_it_ran_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, found = run(lambda folder: None, monkeypatch, tmp_path)
    assert (code, found["escaped"]) == (0, 0)
    assert found["provenance"]["versions"]["agman"]
