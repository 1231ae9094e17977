"""Recorded results are found where the package is, and what is said of them follows the numbers."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agman.course import results
from agman.errors import InputError
from agman.experiments import EXPERIMENTS, paired
from agman.metrics import paired_difference

ROOT = Path(__file__).resolve().parents[2]


def run(variant: str, seed: int, micro: float, **more: Any) -> dict[str, Any]:
    return {"variant": variant, "seed": seed, "map_micro": micro, **more}


def written(folder: Path, name: str, content: Any) -> Path:
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


# --- finding and reading --------------------------------------------------------------------------


def test_the_book_and_the_wheel_have_the_same_results() -> None:
    """The second folder is where pyproject.toml puts the first in an installed package."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    ((source, target),) = build["wheel"]["force-include"].items()
    assert results.FOLDERS[0] == ROOT / source
    assert results.FOLDERS[1] == ROOT / target
    assert f"/{source}" in build["sdist"]["include"]


def test_an_installed_package_reads_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "lab", {"runs": [run("CSN", 0, 30.0)]})
    monkeypatch.setattr(results, "FOLDERS", (tmp_path / "absent", tmp_path))
    assert results.recorded("lab")["runs"] == [run("CSN", 0, 30.0)]


def test_nothing_recorded_is_no_error(tmp_path: Path) -> None:
    empty = results.recorded("lab_ablations", tmp_path)
    assert empty == {"experiment": "lab_ablations", "runs": []}
    said = results.coverage(empty)
    assert said == (
        "Nothing of lab_ablations is recorded yet; `agman reproduce lab_ablations` makes it."
    )
    assert results.by_seed(empty) == {}
    assert results.difference(empty, "AG-MAN", "without the mask") is None
    assert "nothing is known" in results.verdict(empty, "AG-MAN", "without the mask")


def test_a_wrong_name_or_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no experiment 'labb'; choose one of"):
        results.recorded("labb")
    for content in ([], {"map": 1}, {"runs": "many"}):
        with pytest.raises(InputError, match=r"lab\.json holds no runs; make it with"):
            results.recorded("lab", written(tmp_path, "lab", content))
    (tmp_path / "lab.json").write_text("{")
    with pytest.raises(InputError, match="line 1: not JSON"):
        results.recorded("lab", tmp_path)


def test_every_file_of_the_book_can_be_read() -> None:
    for name in EXPERIMENTS:
        found = results.recorded(name)
        planned = {variant.name for variant in EXPERIMENTS[name]}
        assert {one["variant"] for one in found["runs"]} <= planned
        assert all(values for values in results.by_seed(found).values())


# --- what is there --------------------------------------------------------------------------------


def test_coverage_counts_the_seeds_of_each_planned_variant() -> None:
    runs = [run("AG-MAN", seed, 40.0) for seed in range(3)]
    runs += [run("CSN", seed, 30.0) for seed in range(3)] + [run("Backbone alone", 0, 19.0)]
    said = results.coverage({"experiment": "lab", "runs": runs})
    assert said == (
        "Recorded for lab: 3 seeds of each variant, except 1 of 'Backbone alone' "
        "and none of 'Triplet network', 'ASENet', 'ASENet_V2'."
    )
    one_each = [run(variant.name, 0, 40.0) for variant in EXPERIMENTS["lab"]]
    said = results.coverage({"experiment": "lab", "runs": one_each})
    assert said == "Recorded for lab: 1 seed of each variant."


def test_numbers_come_in_the_order_of_variants_and_seeds(tmp_path: Path) -> None:
    runs = [run("AG-MAN", 0, 9.0), run("CSN", 1, 2.0), run("CSN", 0, 1.0)]
    found = results.recorded("lab", written(tmp_path, "lab", {"runs": runs}))
    assert list(results.by_seed(found).items()) == [("CSN", [1.0, 2.0]), ("AG-MAN", [9.0])]
    labelled = {"runs": [run("a", 0, 3.0, per_attribute={"x": 9.0})]}
    assert results.by_seed(labelled, attribute="x") == {"a": [9.0]}


# --- what follows ---------------------------------------------------------------------------------

PERCENT = st.floats(0, 100, allow_nan=False)


@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=1, max_size=6))
def test_a_verdict_says_on_which_side_of_zero_the_interval_lies(
    pairs: list[tuple[float, float]],
) -> None:
    runs = [run("a", seed, one) for seed, (one, _) in enumerate(pairs)]
    runs += [run("b", seed, other) for seed, (_, other) in enumerate(pairs)]
    found = {"experiment": "lab", "runs": runs}
    said = results.verdict(found, "a", "b")
    words = [
        word for word in ("supported", "contradicted", "undecided", "decided.") if word in said
    ]
    if len(pairs) == 1:
        assert "nothing is decided" in said
        return
    _, low, high = paired_difference([one for one, _ in pairs], [other for _, other in pairs])
    right = "supported" if low > 0 else "contradicted" if high < 0 else "undecided"
    assert words[0] == right
    opposite = {"supported": "contradicted", "contradicted": "supported", "undecided": "undecided"}
    assert opposite[right] in results.verdict(found, "b", "a")


def test_a_difference_uses_the_seeds_of_both_only() -> None:
    runs = [run("a", seed, 10.0 + seed) for seed in (0, 1, 2)]
    runs += [run("b", seed, 5.0) for seed in (1, 2, 3)]
    found = results.difference({"runs": runs}, "a", "b")
    assert found == paired({"runs": runs}, "a", "b")
    assert (found.mean, found.n) == (6.5, 2)
    assert results.difference({"runs": runs[:1] + runs[3:]}, "a", "b") is None


def test_a_difference_can_be_of_one_attribute() -> None:
    runs = [run(n, s, 0.0, per_attribute={"x": v}) for n, s, v in (("a", 0, 7.0), ("b", 0, 4.0))]
    found = results.difference({"runs": runs}, "a", "b", attribute="x")
    assert found is not None
    assert found.mean == 3.0


def test_a_failed_run_is_not_taken_for_a_missing_one() -> None:
    runs = [run(name, seed, math.nan) for name in "ab" for seed in (0, 1)]
    with pytest.raises(InputError, match="needs finite values"):
        results.verdict({"runs": runs}, "a", "b")


# --- over time ------------------------------------------------------------------------------------


def test_a_curve_adds_up_the_seconds_of_the_epochs() -> None:
    rows = [{"seconds": s, "map_micro": q} for s, q in ((10.0, 20.0), (12.0, 25.0), (9.0, 24.0))]
    runs = [run("a", 1, 0.0, history=rows), run("b", 0, 0.0, history=rows[:1])]
    assert results.curves({"runs": runs}, "a") == {1: ([10.0, 22.0, 31.0], [20.0, 25.0, 24.0])}


MEASURED = st.lists(st.tuples(st.floats(0.1, 50), PERCENT), min_size=1, max_size=8)


@given(MEASURED, PERCENT)
def test_time_to_reach_is_the_first_crossing(
    rows: list[tuple[float, float]], target: float
) -> None:
    seconds = [sum(s for s, _ in rows[: i + 1]) for i in range(len(rows))]
    quality = [q for _, q in rows]
    time = results.time_to_reach(seconds, quality, target)
    if max(quality) < target:
        assert math.isnan(time)
        return
    assert seconds[0] <= time <= seconds[-1]
    if quality[0] >= target:
        assert time == seconds[0]
        return
    # Walk along the lines in small steps: all is below the target before, and it is met then.
    (i,) = (i for i in range(len(rows) - 1) if seconds[i] < time <= seconds[i + 1])
    assert all(q < target for q in quality[: i + 1])
    share = (time - seconds[i]) / (seconds[i + 1] - seconds[i])
    reached = quality[i] + share * (quality[i + 1] - quality[i])
    assert reached == pytest.approx(target, abs=1e-6)


# --- where attention lies -------------------------------------------------------------------------


def test_attention_is_read_for_each_seed_of_the_runs_that_have_it() -> None:
    def block(macro: float) -> dict[str, Any]:
        share = {"micro": -1.0, "macro": macro, "per_attribute": {"skirt_length": macro + 1}}
        even = {"micro": -1.0, "macro": 9.0, "per_attribute": {"skirt_length": 12.0}}
        return {"mass": {"model": share, "uniform": even}, "pointing": {"model": even}}

    runs = {
        "runs": [
            run("CSN", 0, 30.0),
            run("AG-MAN", 0, 40.0, attention=block(35.0)),
            run("AG-MAN", 1, 41.0, attention=block(37.0)),
            run("ASENet", 0, 29.0, attention=block(13.0)),
        ]
    }
    assert results.attention_by_seed(runs) == {"AG-MAN": [35.0, 37.0], "ASENet": [13.0]}
    assert results.attention_by_seed(runs, kind="uniform")["AG-MAN"] == [9.0, 9.0]
    assert results.attention_by_seed(runs, "pointing", attribute="skirt_length") == {
        "AG-MAN": [12.0, 12.0],
        "ASENet": [12.0],
    }
    assert results.attention_by_seed({"runs": [run("CSN", 0, 30.0)]}) == {}
