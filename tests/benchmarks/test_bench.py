"""The benchmark itself, at tiny sizes: its ways agree. How fast they are is no test."""

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.benchmarks import bench


@pytest.mark.parametrize("group", bench.GROUPS)
def test_both_ways_of_each_case_give_the_same(group: str) -> None:
    result = bench.run([group], small=True, pairs=1, seconds=0)
    rows = result["rows"]
    assert result["peers"].keys() >= {"scikit-learn", "faiss-cpu"}
    assert rows
    assert all(row["ratio"] > 0 for row in rows)


def test_cases_that_disagree_are_no_benchmark() -> None:
    wrong = bench.Case("sum", lambda: 1.0, lambda: 2.0, "other", 1.0, bench.near)
    with pytest.raises(RuntimeError, match="do not agree"):
        bench.measure(wrong)


def test_short_work_is_repeated_and_both_ways_run_inside_what_the_package_runs_in() -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        seen.append("in")
        yield
        seen.append("out")

    def work() -> float:
        seen.append("work")
        time.sleep(0.01)
        return 1.0

    row = bench.measure(bench.Case("x", work, work, "y", 1.0, bench.near, around), 2, 0.2)
    assert 2 < row["pairs"] <= 10
    assert seen == ["in", *["work"] * (2 + 2 * row["pairs"]), "out"]
    assert bench.measure(bench.Case("x", work, work, "y", 1.0, bench.near), 3, 0)["pairs"] == 3


def test_average_precision_equals_scikit_learns_to_twelve_digits() -> None:
    pytest.importorskip("sklearn")
    assert bench.exactness() < 1e-12


def test_a_slow_store_makes_training_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    load = bench.agman.datasets.PackedImages.load

    def slow(self: object, rows: object, size: int) -> object:
        time.sleep(0.5)
        return load(self, rows, size)

    quick = bench.waiting(16, 8)
    monkeypatch.setattr(bench.agman.datasets.PackedImages, "load", slow)
    assert 0 <= quick < bench.waiting(16, 8) < 1
