"""From photos to embeddings: which files are photos, what a model makes of them, and which model.

One pass of the backbone gives a photo's embeddings under all attributes. `agman.index` keeps them
in one file, `agman.shards` in a folder of many.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from agman.datasets.images import FolderImages, ImageStore, PackedImages
from agman.errors import InputError
from agman.loading import prefetch, prepare
from agman.memory import keep_memory
from agman.models import RetrievalModel

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"),
)
"""Files with these endings, in capitals or not, are taken for photos."""


def find_photos(folder: str | os.PathLike[str]) -> list[str]:
    """The image files below a folder, as sorted paths relative to it with forward slashes.

    Files are known by their ending (`SUFFIXES`); hidden files and folders are passed over.

    Raises:
        InputError: there is no such folder, or no image file in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder of photos; check the path.")
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            (Path(place) / name).relative_to(root).as_posix()
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not found:
        raise InputError(
            f"{root}: there is no photo in this folder or below; files ending in "
            f"{', '.join(SUFFIXES[:5])} and the like are looked for."
        )
    return sorted(found)


def open_photos(images: str | os.PathLike[str] | ImageStore) -> ImageStore:
    """Photos in any form: a folder with its subfolders, a `.npz` of packed images, or a store.

    Raises:
        InputError: there is no photo, or the file is not one of packed images.
    """
    store: ImageStore
    if not isinstance(images, (str, os.PathLike)):
        store = images
    elif str(images).endswith(".npz"):
        store = PackedImages.open(images)
    else:
        store = FolderImages(images, find_photos(images))
    if not len(store):
        raise InputError("There is no photo to index; give a folder or a store that holds some.")
    return store


def batches_of(rows: range, size: int) -> list[np.ndarray]:
    """The rows in their order, `size` at a time."""
    return [np.arange(i, min(i + size, rows.stop)) for i in range(rows.start, rows.stop, size)]


@torch.no_grad()
def embed_batches(
    model: RetrievalModel,
    store: ImageStore,
    batches: Sequence[np.ndarray],
    *,
    skip_bad: bool = False,
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> Iterator[tuple[list[int], Tensor, list[str]]]:
    """Embed batches of photos under all attributes.

    From the first photo that cannot be read on, unless these are left out, the rest is only read,
    to count what else is bad.

    Args:
        model: any of the package's models, on any device; in evaluation mode for the time.
        store: the photos.
        batches: the photos of each pass.
        skip_bad: leave out photos that cannot be read.
        dtype: of the embeddings.
        progress: show a bar.

    Yields:
        For each batch, the n photos that were embedded, their embeddings (n, attributes, D) on the
        CPU, and a sentence for each photo that cannot be read.
    """
    loaded = prefetch(lambda batch: _load(store, batch, model.preprocessing.size), batches)
    nothing = torch.empty(0, model.n_attributes, model.dim, dtype=dtype)
    stopped = False
    with keep_memory(), evaluating(model):
        for rows, pixels, bad in tqdm(
            loaded, "indexing", len(batches), disable=not progress, leave=False
        ):
            stopped |= bool(bad) and not skip_bad
            if pixels is None or stopped:
                yield [], nothing, bad
            else:
                yield rows, model.embed_all(prepare(model, pixels)).to("cpu", dtype), bad


def unreadable(problems: Sequence[str], total: int) -> InputError:
    """One message that counts the photos that cannot be read and names the first five."""
    shown = " | ".join(problem.rstrip(".") for problem in problems[:5])
    first = f", the first 5 of {len(problems)}" if len(problems) > 5 else ""
    remedy = "repair them" if len(problems) == total else "repair them, or pass skip_bad=True"
    return InputError(
        f"{len(problems)} of {total} photos cannot be read ({shown}{first}); {remedy}."
    )


def fingerprint(model: RetrievalModel) -> str:
    """A hash of everything that decides a model's embeddings: weights, config, preprocessing.

    Two models with the same fingerprint embed alike, whatever file they came from.
    """
    described = [model.name, dataclasses.asdict(model.config)]
    described.append(dataclasses.asdict(model.preprocessing))
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def describe(model: RetrievalModel) -> str:
    """A model in a few words that name no file."""
    schema = "" if model.schema is None else f" of {model.schema.name}"
    size = model.preprocessing.size
    return (
        f"{model.name} on {model.config.backbone} at {size} pixels, {model.n_attributes} "
        f"attributes{schema}, fingerprint {fingerprint(model)[:8]}"
    )


def other_weights(place: str | os.PathLike[str], about: Any, model: RetrievalModel) -> InputError:
    """What to say of an index that another model made."""
    return InputError(
        f"{place} was made with other weights (a model {about}) than the given ones (a model "
        f"{describe(model)}); give the weights it was made with, or index the photos again."
    )


def _load(store: ImageStore, rows: np.ndarray, size: int) -> tuple[list[int], Any, list[str]]:
    """Numbers and pixels of the photos that can be read, None for none; why the others cannot."""
    try:
        return rows.tolist(), store.load(rows, size), []
    except InputError:
        pass  # find out which, one by one
    readable, parts, problems = [], [], []
    for row in rows.tolist():
        try:
            parts.append(store.load([row], size))
            readable.append(row)
        except InputError as error:
            problems.append(str(error))
    return readable, torch.cat(parts) if parts else None, problems


@contextmanager
def evaluating(model: RetrievalModel) -> Iterator[None]:
    """The model in evaluation mode for the time."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
