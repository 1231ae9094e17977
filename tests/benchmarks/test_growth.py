"""What is measured for the growth figures: right counts, whole rows, and a run that goes on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import agman
from agman.errors import InputError
from agman.storage import read_json, write_json
from tests.benchmarks import growth

TINY = {"evaluation": (20, 40), "search": (70,), "embedding": (2,), "training": (3,)}


class Steady(growth.Machine):
    """A machine that multiplies 1000 numbers a second and moves 100 bytes."""

    def __init__(self) -> None:
        pass

    def rates(self) -> tuple[float, float]:
        return 1000.0, 100.0


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("growth") / "growth.json"
    growth.run(out, TINY, 3, Steady())
    return out


def point(work: str, size: int) -> growth.Point:
    (only,) = growth.WORKS[work]([size])
    return only


def test_every_size_has_a_row_with_its_limit_beside_it(written: Path) -> None:
    content = read_json(written)
    rows = {(row["work"], row["size"]): row for row in content["rows"]}
    assert list(rows) == [(work, n) for work, sizes in TINY.items() for n in sizes]
    assert content["experiment"] == "growth"
    assert content["config"]["threads"] == torch.get_num_threads()
    assert set(content["provenance"]) >= {"date", "commit", "python", "versions", "machine"}
    for row in rows.values():
        assert len(row["each_seconds"]) == 3
        assert row["seconds"] == statistics.median(row["each_seconds"]) > 0
        needed, moved = row["multiply_adds"] / 1000, row["bytes"] / 100
        assert row["limit_seconds"] == pytest.approx(max(needed, moved))
        assert row["bound"] == ("arithmetic" if needed > moved else "memory")
        ratios = [row["limit_seconds"] / seconds for seconds in row["each_seconds"]]
        assert 1 / row["times_limit"] == pytest.approx(statistics.median(ratios))
        assert row["peak_mb"] > 50


def test_ranking_counts_one_product_for_each_pair() -> None:
    pairs = 8 * 40  # a fifth of forty are queries
    assert point("evaluation", 40).multiply_adds == pairs * growth.WIDTH
    assert point("evaluation", 40).n_bytes == (8 + 40) * growth.WIDTH * 4
    assert point("search", 70).multiply_adds == 64 * 70 * growth.WIDTH
    assert point("search", 70).n_bytes == (64 + 70) * growth.WIDTH * 4


def by_layers(model: nn.Module, call: Callable[[], Any]) -> float:
    """Multiply-adds of convolutions and linear layers, counted from the shapes of what they give.

    Products of attention are in no layer and not counted.
    """
    total: list[int] = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            size = layer.weight[0].numel()
            layer.register_forward_hook(lambda *c, w=size: total.append(c[2].numel() * w))
    call()
    return sum(total)


def test_the_networks_operations_are_those_of_their_layers() -> None:
    model = agman.create_model("agman", backbone="lab", classification=False).eval()
    images = torch.zeros(2, 3, 96, 96)
    expected = by_layers(model, lambda: model.embed_all(images))
    found = growth.counted(point("embedding", 2).run)
    assert expected <= found <= 1.1 * expected
    trained = growth.counted(point("training", 2).run)
    assert 2.5 * found < trained < 3.1 * found  # backward costs twice forward, without the input


def test_a_run_goes_on_with_what_is_missing(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = read_json(written)
    kept, lost = content["rows"][:2], content["rows"][2:]
    out = tmp_path / "growth.json"
    write_json(out, {**content, "rows": kept})
    measured: list[tuple[str, int]] = []

    def measure(point: growth.Point, *rest: Any) -> dict[str, Any]:
        measured.append((point.work, point.size))
        return next(row for row in lost if (row["work"], row["size"]) == measured[-1])

    monkeypatch.setattr(growth, "measure", measure)
    result = growth.run(out, TINY, 3, Steady())
    assert measured == [(row["work"], row["size"]) for row in lost]
    assert read_json(out)["rows"] == result["rows"] == content["rows"]


@pytest.mark.parametrize("change", ["repetitions", "threads"])
def test_times_of_two_runs_are_not_mixed(written: Path, tmp_path: Path, change: str) -> None:
    content = read_json(written)
    content["config"][change] += 1
    write_json(tmp_path / "growth.json", content)
    with pytest.raises(InputError, match="other settings, code, versions or machine"):
        growth.run(tmp_path / "growth.json", TINY, 3, Steady())


def test_the_limit_is_the_longer_of_multiplying_and_moving() -> None:
    assert growth.limit(10, 100, (5, 100)) == 2
    assert growth.limit(10, 300, (5, 100)) == 3


def test_rates_count_all_operations_and_all_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "seconds_of", lambda run, times=1: run() is None or 2.0)
    assert growth.Machine(side=10, length=100).rates() == (1000 / 2, 3 * 100 * 4 / 2)


def test_time_is_that_of_one_call() -> None:
    assert 0.01 <= growth.seconds_of(lambda: time.sleep(0.01), 3) < 0.03


def test_a_run_is_estimated_by_what_grows() -> None:
    def seconds(work: str, *sizes: int) -> float:
        return growth.expected({work: sizes}, 5, 1e9)

    assert seconds("search", 10_000) == pytest.approx(10 * seconds("search", 1_000))
    assert seconds("evaluation", 1_000) == pytest.approx(100 * seconds("evaluation", 100))
    assert seconds("search", 1_000, 2_000) == pytest.approx(3 * seconds("search", 1_000))
