"""A short run of the fuzzer, and proof that it can fail; the long run is `fuzz.py` itself."""

import pytest

from agman.errors import InputError
from tests.trust import fuzz


def test_damaged_files_give_our_own_error_and_no_other() -> None:
    counts = fuzz.fuzz(1725, seed=4)
    assert sum(count.total() for count in counts.values()) == 1725
    for name, count in counts.items():
        assert count["refused"] > 0, name
        assert (count["accepted"] == 0) == (name in fuzz.UNREADABLE), name


@pytest.mark.parametrize("error", [IndexError, SystemExit, RecursionError])
def test_the_fuzzer_sees_any_other_error(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    calls = []

    def read(folder):
        calls.append(folder)
        if len(calls) == 8:
            raise error
        if len(calls) > 1:
            raise InputError("as it should be")

    monkeypatch.setattr(fuzz, "targets", lambda: {"one": fuzz.Target({"file": b"1 2 3"}, read)})
    with pytest.raises(AssertionError, match=r"input 6 \(seed 0\), one, file"):
        fuzz.fuzz(20)
