"""Train every model on a catalogue of real photographs and record what it finds.

    python tools/products.py ../shared/realdata/product-photos-224

The backbone is an EfficientNet-Lite0 with ImageNet weights, frozen; a third of the photos is held
back. Finished runs are kept in the results file and not repeated, so it can be stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agman.attributes import AttributeTable, QueryGallery, RetrievalData
from agman.datasets import pack, read_csv, split_by_image
from agman.evaluation import evaluate, rank
from agman.loading import cache_taps
from agman.metrics import bootstrap_interval
from agman.models import RetrievalModel, create_model, list_models
from agman.provenance import provenance
from agman.storage import read_json, write_json
from agman.training import PRESETS, TrainConfig, train

RESULTS = Path("book/results/products.json")
BACKBONE, SIZE = "timm/tf_efficientnet_lite0", 128
RECIPES: dict[str, TrainConfig] = {
    "all_pairs": PRESETS["products"],
    "triplet": dataclasses.replace(PRESETS["products"], recipe="triplet", epochs=10, batch_size=64),
}


def with_images(data: RetrievalData, store: Any) -> RetrievalData:
    """The same rows over another store, of images or of their taps."""

    def swap(table: AttributeTable) -> AttributeTable:
        return dataclasses.replace(table, images=store)

    def both(part: QueryGallery) -> QueryGallery:
        return QueryGallery(swap(part.queries), swap(part.gallery))

    return dataclasses.replace(
        data, train=swap(data.train), valid=both(data.valid), test=both(data.test)
    )


def build(name: str, n_attributes: int, seed: int, **options: Any) -> RetrievalModel:
    """A model on the frozen backbone, its own weights drawn from the seed."""
    torch.manual_seed(seed)
    model = create_model(
        name, n_attributes=n_attributes, backbone=BACKBONE, weights="imagenet", **options
    )
    model.preprocessing = dataclasses.replace(model.preprocessing, size=SIZE)
    return model


def frozen_features(data: RetrievalData) -> dict[str, Any]:
    """The control: level 3 of the backbone, pooled, with no training and no attribute."""
    store: Any = data.test.queries.images
    pooled = torch.nn.functional.normalize(store.taps[3].float().mean(dim=(2, 3)), dim=1)
    queries, gallery = data.test.queries, data.test.gallery
    report = rank(queries, gallery, pooled[queries.image], pooled[gallery.image])
    return report.to_dict()


def run(name: str, recipe: str, seed: int, data: RetrievalData) -> dict[str, Any]:
    """Train one model and evaluate it on the photos held back."""
    about = provenance()  # of the code that starts now, whatever is committed meanwhile
    model = build(name, len(data.schema), seed)
    config = dataclasses.replace(RECIPES[recipe], seed=seed)
    started = time.perf_counter()
    history = train(model, data, config)
    seconds = time.perf_counter() - started
    report = evaluate(model, data.test.queries, data.test.gallery, progress=False)
    micro = torch.from_numpy(report.ap)
    return {
        **report.to_dict(),
        "map_micro_interval": [100 * bound for bound in bootstrap_interval(micro)],
        "model": name,
        "recipe": recipe,
        "seed": seed,
        "train_seconds": seconds,
        "best_epoch": max(history, key=lambda row: row["map_micro"])["epoch"],
        "model_config": dataclasses.asdict(model.config),
        "train_config": dataclasses.asdict(config),
        "provenance": about,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for and has not been run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path, help="folder with labels.csv and images/")
    parser.add_argument("--models", nargs="+", default=list_models(), choices=list_models())
    parser.add_argument("--recipes", nargs="+", default=["all_pairs"], choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args(argv)

    table = read_csv(options.photos / "labels.csv")
    data = split_by_image(table)
    started = time.perf_counter()
    taps = cache_taps(build("agman", len(data.schema), 0), pack(table.images, SIZE))
    data, taps_seconds = with_images(data, taps), time.perf_counter() - started
    results: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {"runs": []}
    results["data"] = f"{options.photos.name}: {len(table.images):,} photos, a third held back"
    results["frozen_features"] = {
        **frozen_features(data),
        "taps_seconds": taps_seconds,
        "provenance": provenance(),
    }
    write_json(RESULTS, results)
    done = {(r["model"], r["recipe"], r["seed"]) for r in results["runs"]}
    for seed in options.seeds:
        for recipe in options.recipes:
            for name in options.models:
                if (name, recipe, seed) in done:
                    continue
                results["runs"].append(run(name, recipe, seed, data))
                write_json(RESULTS, results)
                shown = ("model", "recipe", "seed", "map_micro", "train_seconds", "per_attribute")
                print(json.dumps({k: results["runs"][-1][k] for k in shown}), flush=True)


if __name__ == "__main__":
    main()
