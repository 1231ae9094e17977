"""The feature gap on real photographs, level by level, with its controls::

    python -m agman.course.gap --data FOLDER/labels.csv

Photographs of goods with a column `articleType`, what an object network is trained for, and a
column `baseColour`, which it is not: each photograph is asked for the others of its value.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from agman.attributes import AttributeTable
from agman.backbones import Backbone, create_backbone
from agman.course.results import FOLDERS
from agman.datasets import read_csv
from agman.evaluation import rank
from agman.provenance import provenance
from agman.storage import read_json, write_json

BACKBONE = "timm/tf_efficientnet_lite0"
LEVELS = (1, 2, 3, 4)
ATTRIBUTES = ("articleType", "baseColour")
SIDE = 128
BINS = 4
RESULTS = Path("book/results/gap_photos.json")


@torch.no_grad()
def pooled_levels(
    backbone: Backbone, table: AttributeTable, *, progress: bool = True
) -> dict[int, Tensor]:
    """The mean over positions of each level: level to (N, C), one row for each image.

    Args:
        backbone: with all four levels.
        table: of N images.
        progress: show a bar.
    """
    backbone.eval()
    parts: dict[int, list[Tensor]] = {level: [] for level in LEVELS}
    numbers = np.array_split(np.arange(len(table.images)), 1 + len(table.images) // 64)
    for rows in tqdm(numbers, "levels", disable=not progress):
        taps = backbone(backbone.preprocessing(table.images.load(rows, SIDE)), LEVELS)
        for level in LEVELS:
            parts[level].append(taps[level].mean(dim=(2, 3)))
    return {level: torch.cat(some) for level, some in parts.items()}


def color_histograms(table: AttributeTable) -> Tensor:
    """Roots of how often each of 4 x 4 x 4 colours occurs in an image: (N, 64) float32."""
    counts = []
    for rows in np.array_split(np.arange(len(table.images)), 1 + len(table.images) // 64):
        pixels = table.images.load(rows, SIDE).long() * BINS // 256  # (B, 3, H, W)
        cell = (pixels[:, 0] * BINS + pixels[:, 1]) * BINS + pixels[:, 2]
        counts += [torch.bincount(one.flatten(), minlength=BINS**3) for one in cell]
    return (torch.stack(counts) / SIDE**2).sqrt()


def search(table: AttributeTable, features: Tensor) -> dict[str, Any]:
    """Every image asked for the others of its value, by cosine similarity.

    Args:
        table: N images with their labels.
        features: (N, C).

    Returns:
        MAP and chance of each attribute, in percent.
    """
    embeddings = F.normalize(features, dim=1)[table.image]
    report = rank(table, table, embeddings, embeddings)
    chance = report.chance_per_attribute
    return {
        "map": {name: 100 * value for name, value in report.per_attribute.items()},
        "chance": {name: 100 * chance[name] for name in report.per_attribute},
    }


def measure(
    table: AttributeTable, backbones: Mapping[str, Backbone], *, progress: bool = True
) -> list[dict[str, Any]]:
    """One row for each backbone and level, and one for the colour histogram.

    Args:
        table: what to search.
        backbones: by the name of their rows.
        progress: show bars.
    """
    rows: list[dict[str, Any]] = []
    for name, backbone in backbones.items():
        for level, features in pooled_levels(backbone, table, progress=progress).items():
            rows.append({"features": name, "level": level, **search(table, features)})
    histogram = search(table, color_histograms(table))
    return [*rows, {"features": "colour histogram", "level": None, **histogram}]


def recorded() -> dict[str, Any]:
    """What `main` wrote for the course, in the repository and in the installed package.

    Raises:
        InputError: it is in neither.
    """
    files = [place / RESULTS.name for place in FOLDERS]
    file = next((file for file in files if file.exists()), files[0])
    content: dict[str, Any] = read_json(file)
    return content


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="labels.csv of the product photos")
    parser.add_argument("--out", default=RESULTS, type=Path)
    options = parser.parse_args(argv)
    about, started = provenance(), time.perf_counter()
    table = read_csv(options.data, attributes=ATTRIBUTES)
    backbones = {"ImageNet": create_backbone(BACKBONE, weights="imagenet")}
    for seed in range(3):
        torch.manual_seed(seed)
        backbones[f"untrained, seed {seed}"] = create_backbone(BACKBONE)
    rows = measure(table, backbones)
    about_run = {"backbone": BACKBONE, "side": SIDE, "images": len(table.images)}
    seconds = time.perf_counter() - started
    write_json(
        options.out,
        {"experiment": "gap_photos", **about_run, "rows": rows, "seconds": seconds}
        | {"provenance": about},
    )
    for row in rows:
        numbers = ", ".join(f"{name} {value:.1f}" for name, value in row["map"].items())
        print(f"{row['features']:20s} level {row['level'] or '-'}: {numbers}")


if __name__ == "__main__":
    main()
