"""The benchmark of searches, at a tiny size: what it measures is right, and it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from agman.engines import Exact
from tests.benchmarks import search

pytest.importorskip("faiss")


def test_vectors_have_few_dimensions_inside_many() -> None:
    sample = search.vectors(2000, 5)
    assert torch.equal(sample, search.vectors(2000, 5))
    torch.testing.assert_close(sample.norm(dim=1), torch.ones(2000))
    inside = search.intrinsic_dimension(sample)
    isotropic = torch.nn.functional.normalize(torch.randn(2000, search.WIDTH), dim=1)
    assert inside < 40 < search.intrinsic_dimension(isotropic)


def test_each_engine_is_measured(tmp_path: Path) -> None:
    """As its process would, on all vectors but few."""
    truth, rows = tmp_path / "truth.npy", 1500
    parts = {engine: search.measure(engine, rows, truth) for engine in search.ENGINES}
    every = [row for part in parts.values() for row in part["rows"]]
    assert {row["recall"] for row in every if row["engine"] in ("exact", "flat")} == {1.0}
    for name, numbers in (("ivf", search.PROBES[:7]), ("hnsw", search.EFFORTS)):
        recalls = [row["recall"] for row in parts[name]["rows"]]
        assert len(recalls) == len(numbers)
        assert recalls[0] < recalls[-1] > 0.95
    assert all(row["ms_per_query"] > 0 and row["index_mb"] >= 3.07 for row in every)
    assert parts["flat"]["paired"]["exact_over_flat"] > 0
    assert parts["flat"]["paired"]["largest_difference"] < 1e-5
    result = {"rows": every, "paired": parts["flat"]["paired"]}
    assert len(search.table(result).splitlines()) == len(every) + 2


def test_ways_that_disagree_are_no_benchmark() -> None:
    with pytest.raises(RuntimeError, match="do not find the same"):
        search.paired(Exact(lambda: [("", search.vectors(300, 9))]), 300)


def test_finished_engines_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = tmp_path / "s.json", []

    class Done:
        returncode = 0

    def process(command: list[str]) -> Done:
        engine = command[command.index("--child") + 1]
        if engine == "ivf" and "ivf" not in asked:
            asked.append(engine)
            Done.returncode = 1
            return Done()
        Done.returncode = 0
        asked.append(engine)
        row = {"engine": engine, "setting": {}}
        Path(command[command.index("--out") + 1]).write_text(json.dumps({"rows": [row]}))
        Path(command[command.index("--truth") + 1]).touch()
        return Done()

    monkeypatch.setattr(search.subprocess, "run", process)
    monkeypatch.setattr(search, "provenance", dict)
    monkeypatch.setattr(search, "estimate", lambda rows: 60.0)
    with pytest.raises(RuntimeError, match="process of ivf failed"):
        search.run(1000, out)
    result = search.run(1000, out)
    assert asked == ["exact", "flat", "ivf", "ivf", "hnsw"]
    assert [row["engine"] for row in result["rows"]] == list(search.ENGINES)
    assert search.run(1000, out) == json.loads(out.read_text())
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(RuntimeError, match="other settings"):
        search.run(2000, out)
