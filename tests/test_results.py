"""Recorded results: every file says how each number was made, and the weights still make it."""

import json
from pathlib import Path

import pytest

import agman
from agman.course.lab import SHIPPED_RUNS
from agman.models import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "agman/published.json"
FILES = sorted((ROOT / "book/results").glob("*.json"))
NEEDED = {"date", "commit", "python", "versions", "machine"}


def numbers_without_provenance(node, covered=False, where="$"):
    """Paths of numbers that no enclosing dictionary accompanies with a whole provenance."""
    if isinstance(node, dict):
        covered = covered or set(node.get("provenance", {})) >= NEEDED
        for key, child in node.items():
            if key != "provenance":
                yield from numbers_without_provenance(child, covered, f"{where}.{key}")
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from numbers_without_provenance(child, covered, f"{where}[{i}]")
    elif isinstance(node, float) and not covered:
        yield where


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_number_has_its_provenance(file):
    assert list(numbers_without_provenance(json.loads(file.read_text()))) == []


def test_published_numbers_name_their_source():
    published = json.loads(PUBLISHED.read_text())
    for row in published["results"]:
        assert row["source"]
        assert row["mark"] in published["marks"]


def test_a_published_overall_is_the_mean_over_queries():
    """Weighted by the published split's queries, RPF's eight columns give its overall figure."""
    rows = json.loads(PUBLISHED.read_text())["results"]
    queries = [422, 623, 535, 422, 341, 289, 703, 265]
    for row in rows:
        if row["dataset"] == "FashionAI" and "per_attribute" in row:
            columns = row["per_attribute"].values()
            mean = sum(n * v for n, v in zip(queries, columns, strict=True)) / sum(queries)
            assert mean == pytest.approx(row["overall"], abs=0.01)


def test_the_check_sees_a_number_without_provenance():
    whole = {"map": 1.5, "provenance": dict.fromkeys(NEEDED)}
    assert list(numbers_without_provenance({"runs": [whole, {"map": 2.5}]})) == ["$.runs[1].map"]
    del whole["provenance"]["commit"]
    assert list(numbers_without_provenance(whole)) == ["$.map"]


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.safetensors")))
def test_shipped_weights_are_small_and_say_what_they_are(name):
    file = SHIPPED / f"{name}.safetensors"
    assert file.stat().st_size < 4_000_000
    if name == "objects":
        return
    model = agman.load(f"lab/{name}")
    assert model.schema is not None
    assert model.schema.name == "FashionAI"
    assert set(model.provenance["test"]["provenance"]) >= NEEDED
    assert model.provenance["licence"] == "MIT"


@pytest.fixture(scope="module")
def wardrobe():
    return agman.datasets.lab(progress=False)


@pytest.mark.parametrize("name", sorted(SHIPPED_RUNS))
def test_shipped_weights_reach_their_recorded_figures(name, wardrobe):
    experiment, variant = SHIPPED_RUNS[name]
    runs = json.loads((ROOT / f"book/results/{experiment}.json").read_text())["runs"]
    (recorded,) = (run for run in runs if (run["variant"], run["seed"]) == (variant, 0))
    report = agman.evaluate(
        agman.load(f"lab/{name}"), wardrobe.test.queries, wardrobe.test.gallery, progress=False
    )
    assert 100 * report.map_micro == pytest.approx(recorded["map_micro"], abs=0.5)
    for attribute, measured in report.per_attribute.items():
        assert 100 * measured == pytest.approx(recorded["per_attribute"][attribute], abs=1)
