"""Train the networks that come with the package: `python -m agman.course.lab`, or `make lab`.

First a backbone that only learns to name garments, the lab's stand-in for ImageNet; then, from
it, one retrieval network of each kind. Every step writes its weights and its figures when it
is done, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from agman.attributes import RetrievalData
from agman.backbones import SHIPPED, Backbone, lab_network
from agman.datasets import lab, lab_categories
from agman.evaluation import evaluate
from agman.models import create_model
from agman.provenance import provenance
from agman.sampling import ImageSampler, generator
from agman.storage import read_json, write_json, write_tensors
from agman.training import PRESETS, TrainConfig, learning_rate, train

RESULTS = Path("book/results/lab_models.json")

# Name of the shipped file: model and recipe. All start from the object backbone.
RECIPES: dict[str, tuple[str, TrainConfig]] = {
    "triplet": ("triplet", PRESETS["lab"]),
    "csn": ("csn", PRESETS["lab"]),
    "asenet_v2": ("asenet_v2", PRESETS["lab"]),
    "agman": ("agman", PRESETS["lab"]),
    "agman_all_pairs": (
        "agman",
        dataclasses.replace(PRESETS["lab"], recipe="all_pairs", batch_size=64, epochs=30),
    ),
}


def train_objects(epochs: int = 10, seed: int = 0) -> tuple[Backbone, dict[str, Any]]:
    """A backbone trained to name the garment, and nothing else.

    Returns:
        The network with all four levels, and its accuracy on unseen garments with provenance.
    """
    about = provenance()  # of the code that starts now, whatever is committed meanwhile
    data = lab_categories(n_train=12_000)
    torch.manual_seed(seed)
    backbone = lab_network()
    linear = nn.Linear(backbone.channels[-1], data.schema.n_values[0])
    network = nn.ModuleList([backbone, linear]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    config = TrainConfig(schedule="cosine", epochs=epochs, learning_rate=2e-3)
    started, batch_size = time.perf_counter(), 64
    sampler = ImageSampler(data.train, seed)
    for epoch in range(epochs):
        images, values = sampler.epoch(epoch)
        n_steps = len(images) // batch_size
        for step in tqdm(range(n_steps), f"objects, epoch {epoch + 1}"):
            rows = slice(step * batch_size, (step + 1) * batch_size)
            pixels = data.train.images.load(images[rows], backbone.preprocessing.size)
            inputs = varied(backbone.preprocessing(pixels), generator(seed, epoch, step + 1))
            logits = linear(backbone(inputs, (4,))[4].mean(dim=(2, 3)))
            loss = F.cross_entropy(logits, torch.from_numpy(values[rows, 0]))
            optimizer.param_groups[0]["lr"] = learning_rate(config, epoch + step / n_steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    accuracy = _accuracy(backbone.eval(), linear, data)
    seconds = time.perf_counter() - started
    return backbone, {
        "accuracy": 100 * accuracy,
        "epochs": epochs,
        "seed": seed,
        "seconds": seconds,
        "provenance": about,
    }


def varied(images: Tensor, random: np.random.Generator) -> Tensor:
    """Images mirrored, moved by up to a tenth, scaled by up to a fifth, colours interchanged.

    Args:
        images: (B, 3, H, W), normalised.
        random: where the changes are drawn from.
    """
    n = len(images)
    scale = random.uniform(0.8, 1.2, n)
    mirror = random.choice([-1.0, 1.0], n)
    move = random.uniform(-0.2, 0.2, (n, 2))  # of the half width
    theta = np.zeros((n, 2, 3))
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * mirror, scale, move
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(images.shape), align_corners=False)
    channels = torch.from_numpy(random.permuted(np.tile(np.arange(3), (n, 1)), axis=1))
    images = images[torch.arange(n)[:, None], channels]
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _accuracy(backbone: Backbone, linear: nn.Linear, data: RetrievalData) -> float:
    right = total = 0
    for table in (data.test.queries, data.test.gallery):
        for rows in torch.arange(len(table)).split(256):
            pixels = table.images.load(table.image[rows.numpy()], backbone.preprocessing.size)
            guess = linear(backbone(backbone.preprocessing(pixels), (4,))[4].mean(dim=(2, 3)))
            right += int((guess.argmax(1).numpy() == table.value[rows.numpy()]).sum())
            total += len(rows)
    return right / total


def train_lab(name: str, runs: Path, seed: int = 0) -> dict[str, Any]:
    """Train one of `RECIPES`, save it among the shipped weights, and give its test report."""
    about = provenance()
    kind, config = RECIPES[name]
    data = lab()
    torch.manual_seed(seed)
    model = create_model(kind, n_attributes=len(data.schema), backbone="lab", weights="objects")
    started = time.perf_counter()
    history = train(model, data, dataclasses.replace(config, seed=seed), run=runs / name)
    report = evaluate(model, data.test.queries, data.test.gallery).to_dict()
    report |= {
        "model": kind,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_config": dataclasses.asdict(config),
        "seed": seed,
        "train_seconds": sum(row["seconds"] for row in history),
        "wall_seconds": time.perf_counter() - started,
        "best_epoch": max(history, key=lambda row: row["map_micro"])["epoch"],
        "provenance": about,
    }
    model.provenance = {"data": "lab wardrobe", "licence": "MIT", "test": report}
    model.save(SHIPPED / f"{name}.safetensors")
    return report


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is asked for, all by default, in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = ("objects", *RECIPES)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(names)}; default: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/lab"), help="default: runs/lab")
    options = parser.parse_args(argv)
    for name in options.names or names:
        if name == "objects":
            backbone, result = train_objects()
            about = {"backbone": "lab", "licence": "MIT", **result}
            write_tensors(SHIPPED / "objects.safetensors", backbone.state_dict(), about)
        else:
            result = train_lab(name, options.runs)
        before = read_json(RESULTS) if RESULTS.exists() else {}
        write_json(RESULTS, {**before, name: result})
        print(name, {k: v for k, v in result.items() if k in ("accuracy", "map_micro")})


if __name__ == "__main__":
    main()
