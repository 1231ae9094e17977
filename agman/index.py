"""Search photos by attribute: index a folder once, then ask with any photo.

An index holds the embeddings of every photo under every attribute, made by one model. It keeps a
fingerprint of that model, because embeddings of two models cannot be compared. It is one file, or
a folder of shards (`agman.shards`) for more photos than memory holds; it searches exactly unless it
is given another engine (`agman.engines`).
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from agman.datasets.images import ImageStore, PackedImages, read_image, to_rgb
from agman.embedding import (
    batches_of,
    describe,
    embed_batches,
    evaluating,
    fingerprint,
    open_photos,
    other_weights,
    unreadable,
)
from agman.engines import (
    Engine,
    Vectors,
    build_engine,
    make_engine,
    open_engine,
    settings_for,
)
from agman.errors import InputError
from agman.loading import prepare
from agman.models import RetrievalModel
from agman.shards import Shards
from agman.storage import read_tensors, remove_leftovers, write_tensors

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
        embeddings: (N, attributes, D), unit length, on the CPU; or shards of such.
        names: N names.
        skipped: what `build` left out, in sentences; not saved. Of shards, the names.

    Raises:
        InputError: the three do not fit together.
    """

    def __init__(
        self,
        model: RetrievalModel,
        embeddings: Tensor | Shards,
        names: Sequence[str],
        skipped: Sequence[str] = (),
    ) -> None:
        shape = tuple(embeddings.shape)
        if len(shape) != 3 or shape[:2] != (len(names), model.n_attributes):
            raise InputError(
                f"An index of {len(names)} photos and {model.n_attributes} attributes cannot have "
                f"embeddings of shape {shape}."
            )
        self.model, self.embeddings, self.skipped = model, embeddings, tuple(skipped)
        # Names of shards are read when asked for.
        self.names: Sequence[str] = names if isinstance(embeddings, Shards) else tuple(names)
        self._use("exact", {}, lambda attribute: self._in_memory("exact", {}, attribute))

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        _, attributes, width = self.embeddings.shape
        return f"PhotoIndex({len(self)} photos, {attributes} attributes, {width} dimensions)"

    @property
    def vectors(self) -> Vectors:
        """The embeddings as engines take them: in blocks, attribute by attribute."""
        if isinstance(self.embeddings, Shards):
            return self.embeddings
        return _TensorVectors(self.embeddings, self)

    @classmethod
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
            images: a folder, searched with all its subfolders, a `.npz` of packed images, or an
                image store.
            batch_size: photos in one pass.
            skip_bad: leave out photos that cannot be read, instead of refusing them.
            dtype: of the stored embeddings; float16 halves the index and moves scores by less
                than 0.001.
            progress: show a bar.

        Raises:
            InputError: there is no photo, or some cannot be read: one message counts them and
                names the first five.
        """
        store = open_photos(images)
        problems: list[str] = []
        parts: list[Tensor] = []
        kept: list[int] = []
        for rows, embeddings, bad in embed_batches(
            model,
            store,
            batches_of(range(len(store)), batch_size),
            skip_bad=skip_bad,
            dtype=dtype,
            progress=progress,
        ):
            kept += rows
            parts.append(embeddings)
            problems += bad
        if problems and (not skip_bad or not kept):
            raise unreadable(problems, len(store))
        return cls(model, torch.cat(parts), [store.names[row] for row in kept], problems)

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
        with evaluating(self.model):
            ids = torch.tensor([wanted], device=device)
            embedding = self.model(prepare(self.model, pixels), ids).embedding
        return self.search_embedding(embedding[0].cpu(), wanted, k)

    def search_embedding(self, embedding: Tensor, attribute: str | int, k: int = 10) -> list[Hit]:
        """The k photos nearest to an embedding (D,) that the model made under the attribute."""
        wanted = self.attribute(attribute)
        if wanted not in self._engines:
            self._engines[wanted] = self._engine_of(wanted)
        scores, numbers = self._engines[wanted].search(embedding[None], k)
        return [
            Hit(self.names[number], score, number)
            for score, number in zip(scores[0].tolist(), numbers[0].tolist(), strict=True)
            if number >= 0
        ]

    def with_engine(self, engine: str, **settings: int) -> PhotoIndex:
        """The same photos, searched by another engine, which is built in memory when first used.

        Args:
            engine: "exact", or one of FAISS's "flat", "ivf" and "hnsw"; see `agman.engines`.
            settings: of `agman.engines.settings_for`, such as n_probe=32; the defaults suit the
                number of photos.

        Raises:
            InputError: an unknown engine or setting, or a number out of range; when it is first
                used, FAISS is not installed.
        """
        chosen = settings_for(engine, len(self), **settings)
        return self._copy()._use(
            engine, chosen, lambda attribute: self._in_memory(engine, chosen, attribute)
        )

    def build_engine(
        self, folder: str | os.PathLike[str], engine: str, *, progress: bool = True, **settings: int
    ) -> PhotoIndex:
        """The same photos, searched by "ivf" or "hnsw", built and kept in a folder.

        Attributes that are in the folder already are kept. For `ivf` not all vectors are held in
        memory, neither now nor in a search. See `agman.engines.build_engine`.

        Raises:
            InputError: as `agman.engines.build_engine`.
        """
        build_engine(self.vectors, folder, engine, attributes=None, progress=progress, **settings)
        return self.open_engine(folder)

    def open_engine(self, folder: str | os.PathLike[str], **settings: int) -> PhotoIndex:
        """The same photos, searched by an engine that was built and kept in a folder.

        Args:
            folder: of `build_engine` or `agman index`. Open no `hnsw` of a stranger; see
                `agman.engines`.
            settings: n_probe or ef_search, if not as it was built.

        Raises:
            InputError: as `agman.engines.open_engine`, among others for other photos or weights.
        """
        return self._copy()._use(*open_engine(self.vectors, folder, **settings))

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
            InputError: the file cannot be written; an older one is left as it was. Or this index
                is a folder of shards, which is on the disk already.
        """
        if isinstance(self.embeddings, Shards):
            raise InputError(f"This index is on the disk already, in {self.embeddings.folder}.")
        metadata = {
            "kind": _KIND,
            "names": self.names,
            "model": describe(self.model),
            "fingerprint": fingerprint(self.model),
        }
        path = Path(path)
        remove_leftovers(path.parent, glob.escape(path.name))
        write_tensors(path, {"embeddings": self.embeddings}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: RetrievalModel) -> PhotoIndex:
        """Open what `save` or `agman.shards.embed_shards` wrote, for the model that made it.

        A file is read into memory. Of a folder of shards only the headers are read; a search then
        reads one attribute of one shard at a time.

        Raises:
            InputError: the file or folder is missing, damaged, unfinished, no index, or made by
                another model.
        """
        if os.path.isdir(path):  # unlike Path, also for a name too long to exist
            shards = Shards.open(path)
            if shards.manifest.fingerprint != fingerprint(model):
                raise other_weights(path, shards.manifest.model, model)
            return cls(model, shards, shards.names, shards.skipped)
        if not os.path.isfile(path):
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
            raise other_weights(path, about, model)
        try:
            return cls(model, embeddings, names)
        except InputError as error:
            raise InputError(f"{path} is damaged; index the photos again.") from error

    def _copy(self) -> PhotoIndex:
        return PhotoIndex(self.model, self.embeddings, self.names, self.skipped)

    def _use(
        self, engine: str, settings: dict[str, int], engine_of: Callable[[int], Engine]
    ) -> PhotoIndex:
        self.engine, self.settings, self._engine_of = engine, settings, engine_of
        self._engines: dict[int, Engine] = {}
        return self

    def _in_memory(self, engine: str, settings: dict[str, int], attribute: int) -> Engine:
        vectors = self.vectors
        n_photos, _, width = vectors.shape
        return make_engine(engine, lambda: vectors.blocks(attribute), n_photos, width, settings)


class _TensorVectors:
    """Embeddings in memory, as engines take them: in one block."""

    def __init__(self, embeddings: Tensor, index: PhotoIndex) -> None:
        self.embeddings, self.index = embeddings, index

    @property
    def shape(self) -> tuple[int, int, int]:
        n_photos, n_attributes, width = self.embeddings.shape
        return n_photos, n_attributes, width

    @property
    def identity(self) -> str:
        about = [fingerprint(self.index.model), *self.index.names]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def blocks(self, attribute: int) -> Iterator[tuple[str, Tensor]]:
        yield "", self.embeddings[:, attribute]


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
