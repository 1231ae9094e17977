"""Search photos by attribute: index a folder once, then ask with any photo.

An index holds the embeddings of every photo under every attribute, made by one model. It keeps a
fingerprint of that model, because embeddings of two models cannot be compared.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from agman.datasets.images import (
    FolderImages,
    ImageStore,
    PackedImages,
    read_image,
    to_rgb,
)
from agman.errors import InputError
from agman.loading import prefetch, prepare
from agman.models import RetrievalModel
from agman.ranking import top_k
from agman.storage import read_tensors, remove_leftovers, write_tensors

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"),
)
"""Files with these endings, in capitals or not, are taken for photos."""

Photo = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
_KIND = "agman photo index"


@dataclass(frozen=True)
class Hit:
    """One photo that was found.

    Args:
        name: its name in the index: for a folder, the path below it.
        score: cosine similarity to the query under the attribute, at most 1.
        number: its place in the index.
    """

    name: str
    score: float
    number: int


class PhotoIndex:
    """Photos that can be searched by another photo, attribute by attribute.

    Made by `build` or `load`; the model stays with it, to embed the query.

    Args:
        model: what made the embeddings.
        embeddings: (N, attributes, D), unit length, on the CPU.
        names: N names.
        skipped: one sentence for each photo that `build` left out; not saved.

    Raises:
        InputError: the three do not fit together.
    """

    def __init__(
        self,
        model: RetrievalModel,
        embeddings: Tensor,
        names: Sequence[str],
        skipped: Sequence[str] = (),
    ) -> None:
        if embeddings.dim() != 3 or embeddings.shape[:2] != (len(names), model.n_attributes):
            raise InputError(
                f"An index of {len(names)} photos and {model.n_attributes} attributes cannot have "
                f"embeddings of shape {tuple(embeddings.shape)}."
            )
        self.model, self.embeddings = model, embeddings
        self.names, self.skipped = tuple(names), tuple(skipped)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        _, attributes, width = self.embeddings.shape
        return f"PhotoIndex({len(self)} photos, {attributes} attributes, {width} dimensions)"

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        model: RetrievalModel,
        images: str | os.PathLike[str] | ImageStore,
        *,
        batch_size: int = 64,
        skip_bad: bool = False,
        dtype: torch.dtype = torch.float32,
        progress: bool = True,
    ) -> PhotoIndex:
        """Embed photos under all attributes, each with one pass of the backbone.

        Args:
            model: any of the package's models, on any device.
            images: a folder, searched with all its subfolders, or an image store.
            batch_size: photos in one pass.
            skip_bad: leave out photos that cannot be read, instead of refusing them.
            dtype: of the stored embeddings; float16 halves the index and moves scores by less
                than 0.001.
            progress: show a bar.

        Raises:
            InputError: there is no photo, or some cannot be read: one message counts them and
                names the first five.
        """
        store = _store(images)
        problems: list[str] = []
        kept, rows = [], []
        batches = [
            np.arange(start, min(start + batch_size, len(store)))
            for start in range(0, len(store), batch_size)
        ]
        loaded = prefetch(lambda batch: _load(store, batch, model.preprocessing.size), batches)
        with _evaluating(model):
            for readable, pixels, bad in tqdm(
                loaded, "indexing", len(batches), disable=not progress, leave=False
            ):
                problems += bad
                if pixels is None or (problems and not skip_bad):
                    continue  # go on reading, so that the message counts all
                kept.append(model.embed_all(prepare(model, pixels)).to("cpu", dtype))
                rows += readable
        if problems and (not skip_bad or not rows):
            raise _unreadable(problems, len(store))
        return cls(model, torch.cat(kept), [store.names[row] for row in rows], problems)

    @torch.no_grad()
    def search(self, photo: Photo, attribute: str | int, k: int = 10) -> list[Hit]:
        """The k photos most like this one under an attribute, best first.

        Args:
            photo: a path, a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W).
            attribute: its name, if the model knows names, or its id.
            k: how many; a smaller index gives all it has.

        Raises:
            InputError: a photo that cannot be read, an unknown attribute, or a k below 1.
        """
        wanted = self.attribute(attribute)
        pixels = _as_batch(photo, self.model.preprocessing.size)
        device = next(self.model.parameters()).device
        with _evaluating(self.model):
            ids = torch.tensor([wanted], device=device)
            embedding = self.model(prepare(self.model, pixels), ids).embedding
        return self.search_embedding(embedding[0].cpu(), wanted, k)

    def search_embedding(self, embedding: Tensor, attribute: str | int, k: int = 10) -> list[Hit]:
        """The k photos nearest to an embedding (D,) that the model made under the attribute."""
        gallery = self.embeddings[:, self.attribute(attribute)]  # (N, D)
        scores, numbers = top_k(embedding[None], gallery, k)
        return [
            Hit(self.names[number], score, number)
            for score, number in zip(scores[0].tolist(), numbers[0].tolist(), strict=True)
            if number >= 0
        ]

    def attribute(self, key: str | int) -> int:
        """The id of an attribute given by name or id.

        Raises:
            InputError: there is no such attribute; the message offers close names.
        """
        if self.model.schema is not None:
            return self.model.schema.attribute(key)
        last = self.model.n_attributes - 1
        if isinstance(key, str) or not 0 <= int(key) <= last:
            raise InputError(
                f"There is no attribute {key!r}: this model knows no names of attributes, only "
                f"the ids 0 to {last}."
            )
        return int(key)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write embeddings, names and the model's fingerprint as one safetensors file.

        Raises:
            InputError: the file cannot be written; an older one is left as it was.
        """
        metadata = {
            "kind": _KIND,
            "names": self.names,
            "model": _describe(self.model),
            "fingerprint": fingerprint(self.model),
        }
        path = Path(path)
        remove_leftovers(path.parent, glob.escape(path.name))
        write_tensors(path, {"embeddings": self.embeddings}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: RetrievalModel) -> PhotoIndex:
        """Read what `save` wrote, for the model that made it.

        Raises:
            InputError: the file is missing, damaged, no index, or made by another model.
        """
        if not Path(path).is_file():
            raise InputError(f"There is no index {path}; make one with `agman embed` first.")
        tensors, metadata = read_tensors(Path(path))
        try:
            if metadata["kind"] != _KIND:
                raise ValueError("of another kind")
            names, made_by = [str(name) for name in metadata["names"]], metadata["fingerprint"]
            about, embeddings = metadata["model"], tensors["embeddings"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not an index of photos; give a file that `agman embed` wrote."
            ) from error
        if made_by != fingerprint(model):
            raise InputError(
                f"{path} was made with other weights (a model {about}) than the given ones (a "
                f"model {_describe(model)}); give the weights it was made with, or index the "
                "photos again."
            )
        try:
            return cls(model, embeddings, names)
        except InputError as error:
            raise InputError(f"{path} is damaged; index the photos again.") from error


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


def _describe(model: RetrievalModel) -> str:
    """A model in a few words that name no file."""
    schema = "" if model.schema is None else f" of {model.schema.name}"
    size = model.preprocessing.size
    return (
        f"{model.name} on {model.config.backbone} at {size} pixels, {model.n_attributes} "
        f"attributes{schema}, fingerprint {fingerprint(model)[:8]}"
    )


def _store(images: str | os.PathLike[str] | ImageStore) -> ImageStore:
    store = (
        FolderImages(images, find_photos(images))
        if isinstance(images, (str, os.PathLike))
        else images
    )
    if not len(store):
        raise InputError("There is no photo to index; give a folder or a store that holds some.")
    return store


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


def _unreadable(problems: Sequence[str], total: int) -> InputError:
    shown = " | ".join(problem.rstrip(".") for problem in problems[:5])
    first = f", the first 5 of {len(problems)}" if len(problems) > 5 else ""
    remedy = "repair them" if len(problems) == total else "repair them, or pass skip_bad=True"
    return InputError(
        f"{len(problems)} of {total} photos cannot be read ({shown}{first}); {remedy}."
    )


def _as_batch(photo: Photo, size: int) -> Tensor:
    """uint8 (1, 3, size, size) of one photo in any form, fitted as everywhere."""
    if isinstance(photo, (str, os.PathLike)):
        array = np.array(read_image(photo))
    elif isinstance(photo, Image.Image):
        array = np.array(to_rgb(photo))
    elif isinstance(photo, Tensor) and photo.dim() == 3:
        array = photo.detach().cpu().permute(1, 2, 0).numpy()
    else:
        array = np.asarray(photo)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise InputError(
            "A photo is a path, a PIL image, a uint8 array (height, width, 3) or a uint8 tensor "
            f"(3, height, width), not {type(photo).__name__} of {array.dtype} "
            f"{tuple(getattr(photo, 'shape', ()))}."
        )
    return PackedImages(array[None], ["photo"]).load([0], size)


@contextmanager
def _evaluating(model: RetrievalModel) -> Iterator[None]:
    """The model in evaluation mode for the time."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
