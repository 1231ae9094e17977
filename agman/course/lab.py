"""The weights that come with the package: what `make lab` runs before and after the experiments.

    python -m agman.course.lab objects     train the backbone that all experiments start from
    python -m agman.course.lab ship        copy one run of each kind into the package

The backbone learns to name garments and nothing else, the lab's stand-in for ImageNet. The
retrieval networks are the first seeds of `agman reproduce lab` and `agman reproduce lab_triplets`.
"""

from __future__ import annotations

import argparse
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
from agman.datasets import lab_categories
from agman.datasets.lab import LAB_CATEGORIES
from agman.errors import InputError
from agman.experiments import Variant
from agman.models import load
from agman.provenance import provenance
from agman.sampling import ImageSampler, generator
from agman.storage import read_json, write_json, write_tensors
from agman.training import TrainConfig, learning_rate

RESULTS = Path("book/results")
RUNS = Path("runs")

# Name of the shipped file: the experiment and the variant whose first seed it is.
SHIPPED_RUNS = {
    "triplet": ("lab", "Triplet network"),
    "csn": ("lab", "CSN"),
    "asenet_v2": ("lab", "ASENet_V2"),
    "agman_all_pairs": ("lab", "AG-MAN"),
    "agman": ("lab_triplets", "AG-MAN, triplets"),
}


def train_objects(epochs: int = 12, seed: int = 0) -> tuple[Backbone, dict[str, Any]]:
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
    started, batch_size = time.perf_counter(), 32
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


def ship(name: str, runs: Path = RUNS, results: Path = RESULTS) -> None:
    """Copy the weights of a recorded run into the package, with its figures inside.

    Raises:
        InputError: the run is not recorded, or its folder is gone.
    """
    experiment, variant = SHIPPED_RUNS[name]
    file = results / f"{experiment}.json"
    recorded = read_json(file)["runs"] if file.exists() else []
    found = [run for run in recorded if run["variant"] == variant and run["seed"] == 0]
    weights = runs / "lab" / f"{Variant(variant, 'agman', None).slug}-0" / "best.safetensors"
    if not found or not weights.exists():
        raise InputError(
            f"{weights} or its figures in {file} are missing; run `agman reproduce {experiment}`."
        )
    model = load(weights)
    figures = {key: value for key, value in found[0].items() if key != "history"}
    model.provenance = {"data": "lab wardrobe", "licence": "MIT", "test": figures}
    model.save(SHIPPED / f"{name}.safetensors")


def main(argv: Sequence[str] | None = None) -> None:
    """Train the backbone, or copy the finished networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("step", choices=("objects", "ship"))
    parser.add_argument("names", nargs="*", help=f"to ship: {', '.join(SHIPPED_RUNS)}; default all")
    options = parser.parse_args(argv)
    if options.step == "objects":
        backbone, result = train_objects()
        about = {"backbone": "lab", "licence": "MIT", **result}
        write_tensors(SHIPPED / "objects.safetensors", backbone.state_dict(), about)
        write_json(RESULTS / "objects.json", result)
        print(f"objects: {result['accuracy']:.1f} % of {len(LAB_CATEGORIES.values[0])} kinds named")
        return
    for name in options.names or SHIPPED_RUNS:
        ship(name)


if __name__ == "__main__":
    main()
