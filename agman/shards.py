"""Embeddings in a folder of shards: for more photos than one process embeds or memory holds.

::

    <folder>/manifest.json             the model, the photos, how they are divided
    <folder>/shard_00000.safetensors   rows 0 to R-1: the embeddings of each attribute, the names
    <folder>/shard_00001.safetensors   and so on

Every shard is written whole or not at all. A killed job, started again with any number of
processes, makes the shards that are missing and leaves the others as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor

from agman.datasets.images import ImageStore
from agman.embedding import (
    batches_of,
    describe,
    embed_batches,
    fingerprint,
    open_photos,
    unreadable,
)
from agman.errors import InputError
from agman.models import RetrievalModel
from agman.storage import alone_in, read_json, write_json, write_tensors

_KIND = "agman shards"
_MANIFEST = "manifest.json"
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # torch's name, safetensors'
_MOST = 2**48  # more photos than any disk holds; keeps arithmetic of a hostile manifest small

Result = TypeVar("Result")


@dataclass(frozen=True)
class Manifest:
    """What all shards of a folder have in common.

    Args:
        model: in a few words.
        fingerprint: of the model.
        attributes: their names, or as many empty strings for a model that knows none.
        dimensions: of an embedding.
        dtype: of the stored numbers: float32, float16 or bfloat16.
        photos: how many, those that cannot be read included.
        photos_sha256: of the list of their names.
        rows: photos in each shard; the last may have fewer.
    """

    model: str
    fingerprint: str
    attributes: tuple[str, ...]
    dimensions: int
    dtype: str
    photos: int
    photos_sha256: str
    rows: int

    @classmethod
    def of(
        cls, model: RetrievalModel, store: ImageStore, rows: int, dtype: torch.dtype
    ) -> Manifest:
        """For photos that are to be embedded."""
        schema = model.schema
        names = ("",) * model.n_attributes if schema is None else tuple(schema.names)
        digest = hashlib.sha256()
        for name in store.names:
            digest.update(json.dumps(name).encode() + b"\n")
        kept = str(dtype).removeprefix("torch.")
        if kept not in _TYPES:
            raise InputError(f"Shards hold {', '.join(_TYPES)}, not {dtype}.")
        if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 1:
            raise InputError(f"A shard holds a whole number of photos, at least 1, not {rows!r}.")
        return cls(
            describe(model),
            fingerprint(model),
            names,
            model.dim,
            kept,
            len(store),
            digest.hexdigest(),
            int(rows),
        )

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Of a folder of shards.

        Raises:
            InputError: there is none, or it does not hold together.
        """
        path = folder / _MANIFEST
        if not path.is_file():
            raise InputError(
                f"{folder} is no folder of shards: it has no {_MANIFEST}; make one with `agman "
                "embed --shards` first."
            )
        data = read_json(path)
        try:
            if data.pop("kind") != _KIND:
                raise ValueError("of another kind")
            manifest = cls(**{**data, "attributes": tuple(data["attributes"])})
            manifest._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path} is damaged or of another kind; embed the photos again in a new folder."
            ) from error
        return manifest

    def _check(self) -> None:
        words = (self.model, self.fingerprint, self.photos_sha256, *self.attributes)
        numbers = (self.dimensions, self.photos, self.rows)
        if not all(isinstance(word, str) for word in words) or self.dtype not in _TYPES:
            raise ValueError("not text")
        if not all(type(n) is int and 1 <= n <= _MOST for n in numbers) or not self.attributes:
            raise ValueError("not a number of something")

    @property
    def shards(self) -> int:
        """How many."""
        return -(-self.photos // self.rows)

    @property
    def job(self) -> str:
        """A hash of all of it, which every shard carries."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def rows_of(self, number: int) -> range:
        """Which photos a shard is for."""
        return range(number * self.rows, min((number + 1) * self.rows, self.photos))


class Shards:
    """Embeddings on disk, opened without reading them.

    Stands in for the tensor of embeddings in a `PhotoIndex`; made by `embed_shards` or `open`.
    `counts` are the photos in each shard, `names` those of all photos, read when asked for,
    `skipped` names of those left out, and `problems` says why `embed_shards` left some out.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, counts: Sequence[int], skipped: Sequence[str]
    ) -> None:
        self.folder, self.manifest = folder, manifest
        self.counts, self.skipped = tuple(counts), tuple(skipped)
        self.problems: tuple[str, ...] = ()
        self.names = _Names(self)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Shards:
        """Look at every shard's header.

        Raises:
            InputError: the manifest is missing or wrong, a shard is missing, damaged or of another
                job, or no photo is in any.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        counts, skipped, missing = [], [], 0
        for number in range(manifest.shards):
            path = shard_path(folder, number)
            if not path.is_file():
                missing += 1
                if missing > 5:  # a manifest may name more than there are seconds to look
                    break
                continue
            count, left_out = _check_shard(path, manifest, number)
            counts.append(count)
            skipped += left_out
        if missing:
            several = f"{missing} of" if missing <= 5 else "many of"
            raise InputError(
                f"{folder} is not finished: {several} its {manifest.shards} shards are missing; "
                "run the same `agman embed` again, and it goes on."
            )
        if not sum(counts):
            raise InputError(f"No photo of {folder} could be read; give photos that can.")
        return cls(folder, manifest, counts, skipped)

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Photos, attributes and dimensions."""
        return len(self), len(self.manifest.attributes), self.manifest.dimensions

    @property
    def identity(self) -> str:
        """A hash that other photos or another model would change."""
        return hashlib.sha256(
            f"{self.manifest.job} {self.counts} {self.skipped}".encode()
        ).hexdigest()

    def blocks(self, attribute: int) -> Iterator[tuple[str, Tensor]]:
        """The embeddings (n, D) of one attribute, shard by shard, as memory maps.

        Only what is looked at is read, and it is forgotten with the tensor.
        """
        for number in range(len(self.counts)):
            path = shard_path(self.folder, number)
            yield str(path), _tensor(path, f"attribute_{attribute}")


class _Names(Sequence[str]):
    """Names of all photos, read shard by shard when asked for."""

    def __init__(self, shards: Shards) -> None:
        self.starts = np.cumsum([0, *shards.counts]).tolist()
        self.of_shard = lru_cache(8)(lambda number: _names(shards, number))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[str, ...]: ...
    def __getitem__(self, number: int | slice) -> str | tuple[str, ...]:
        if isinstance(number, slice):
            return tuple(self[i] for i in range(*number.indices(len(self))))
        number = range(len(self))[number]
        shard = bisect_right(self.starts, number) - 1
        return str(self.of_shard(shard)[number - self.starts[shard]])


def embed_shards(
    model: RetrievalModel,
    images: str | os.PathLike[str] | ImageStore,
    folder: str | os.PathLike[str],
    *,
    rows: int = 10_000,
    batch_size: int = 64,
    skip_bad: bool = False,
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> Shards:
    """Embed photos under all attributes into a folder of shards.

    Inside a process group (`torchrun`), every process calls it and takes its share of the shards
    that are missing. What a shard holds does not depend on the number of processes.

    Args:
        model: any of the package's models, the same in every process.
        images: a folder, searched with all its subfolders, a `.npz` of packed images, or a store;
            a job that goes on knows them again by their names, not by what is in them.
        folder: for the shards; made if it is not there. Several machines must share it.
        rows: photos in a shard, which is held in memory while it is made.
        batch_size: photos in one pass.
        skip_bad: leave out photos that cannot be read, instead of refusing them.
        dtype: float32, float16 or bfloat16, of the stored embeddings.
        progress: show a bar, in the first process.

    Raises:
        InputError: in every process alike: there is no photo; some cannot be read (one message
            counts them and names the first five; shards without them are finished); the folder
            holds shards of other photos, another model or other settings, or a damaged one; it
            cannot be written; another job is at work in it.
    """
    store, folder = open_photos(images), Path(folder)
    manifest = Manifest.of(model, store, rows, dtype)
    rank, world = place()
    if len({other.job for other in _of_all(manifest)}) > 1:
        raise InputError(
            "The processes do not see the same photos or weights; give all the same folders."
        )
    with ExitStack() as stack:

        def begin() -> list[int]:
            stack.enter_context(alone_in(folder))
            return _missing(folder, manifest)

        missing = _from_first(begin)
        problems: list[str] = []
        failure = ""
        try:
            problems = _embed(
                model,
                store,
                folder,
                manifest,
                missing[rank::world],
                batch_size=batch_size,
                skip_bad=skip_bad,
                dtype=dtype,
                progress=progress and not rank,
            )
        except InputError as error:
            failure = str(error)
        outcomes = _of_all((problems, failure))
    failures = [text for _, text in outcomes if text]
    if failures:
        raise InputError(failures[0])
    problems = [sentence for some, _ in outcomes for sentence in some]
    if problems and not skip_bad:
        raise unreadable(problems, len(store))
    done = Shards.open(folder)
    done.problems = tuple(problems)
    return done


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"shard_{number:05}.safetensors"


def _embed(
    model: RetrievalModel,
    store: ImageStore,
    folder: Path,
    manifest: Manifest,
    numbers: Sequence[int],
    *,
    batch_size: int,
    skip_bad: bool,
    dtype: torch.dtype,
    progress: bool,
) -> list[str]:
    """Make some shards; a sentence for each photo that cannot be read."""
    batches = {n: batches_of(manifest.rows_of(n), batch_size) for n in numbers}
    in_order = [batch for n in numbers for batch in batches[n]]
    passes = embed_batches(
        model, store, in_order, skip_bad=skip_bad, dtype=dtype, progress=progress
    )
    problems: list[str] = []
    for number in numbers:
        kept, parts = [], []
        for _ in batches[number]:
            readable, embeddings, bad = next(passes)
            kept += readable
            parts.append(embeddings)
            problems += bad
        if problems and not skip_bad:
            continue  # go on reading, so that the message counts all
        embeddings = torch.cat(parts)  # (n, attributes, D)
        tensors = {f"attribute_{a}": embeddings[:, a] for a in range(embeddings.shape[1])}
        tensors["names"] = _as_bytes([store.names[row] for row in kept])
        left_out = sorted(set(manifest.rows_of(number)) - set(kept))
        metadata = {
            "kind": _KIND,
            "job": manifest.job,
            "number": number,
            "skipped": [store.names[row] for row in left_out],
        }
        write_tensors(shard_path(folder, number), tensors, metadata)
    return problems


def _missing(folder: Path, manifest: Manifest) -> list[int]:
    """Shards that are still to be made; the manifest is written or compared."""
    path = folder / _MANIFEST
    if path.exists():
        kept = Manifest.read(folder)
        differing = [
            field.name
            for field in fields(Manifest)
            if getattr(kept, field.name) != getattr(manifest, field.name)
        ]
        if differing:
            what = {"photos_sha256": "list of photos", "photos": "list of photos"}
            what |= {"rows": f"number of photos in a shard ({kept.rows})"}
            what |= {"dtype": f"type of numbers ({kept.dtype})"}
            raise InputError(
                f"{folder} was begun with another {what.get(differing[-1], 'model')}; go on with "
                "what it was begun with, or choose another folder."
            )
    else:
        write_json(path, {"kind": _KIND, **asdict(manifest)})
    missing = []
    for number in range(manifest.shards):
        if shard_path(folder, number).exists():
            _check_shard(shard_path(folder, number), manifest, number)
        else:
            missing.append(number)
    return missing


def _check_shard(path: Path, manifest: Manifest, number: int) -> tuple[int, list[str]]:
    """Photos in a shard and names of those left out, by its header alone.

    Raises:
        InputError: it is damaged, or of another job.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["agman"])
            found = {
                name: (file.get_slice(name).get_dtype(), tuple(file.get_slice(name).get_shape()))
                for name in file.keys()  # noqa: SIM118
            }
        skipped = about["skipped"]
        mine = (about["kind"], about["job"], about["number"]) == (_KIND, manifest.job, number)
        if not isinstance(skipped, list) or not all(isinstance(name, str) for name in skipped):
            raise ValueError("no list of names")
        count = len(manifest.rows_of(number)) - len(skipped)
        shape = (_TYPES[manifest.dtype], (count, manifest.dimensions))
        wanted = {f"attribute_{a}": shape for a in range(len(manifest.attributes))}
        kind, size = found.pop("names")
        whole = count >= 0 and found == wanted and kind == "U8" and len(size) == 1
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if not mine:
        raise InputError(
            f"{path} is of another job than the {_MANIFEST} beside it; delete it and run the same "
            "`agman embed` again."
        )
    if not whole:
        raise _damaged(path)
    return count, skipped


def _tensor(path: Path, name: str) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged; delete it and run the same `agman embed` again, which makes it anew."
    )


def _as_bytes(names: Sequence[str]) -> Tensor:
    """Names as a tensor, so that the header of a shard stays short."""
    return torch.from_numpy(np.frombuffer(json.dumps(names).encode(), np.uint8).copy())


def _names(shards: Shards, number: int) -> list[str]:
    path = shard_path(shards.folder, number)
    try:
        names = json.loads(_tensor(path, "names").numpy().tobytes())
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(names, list) or len(names) != shards.counts[number]:
        raise _damaged(path)
    return names


# --------------------------------------------------------------------------- several processes


def place() -> tuple[int, int]:
    """Number of this process, and of all."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _of_all(mine: Result) -> list[Result]:
    """What every process has, in each of them."""
    _, world = place()
    if world == 1:
        return [mine]
    everyones: list[Any] = [None] * world
    dist.all_gather_object(everyones, mine)
    return everyones


def _from_first(work: Callable[[], Result]) -> Result:
    """What the first process has worked out, or its refusal, in each of them."""
    rank, world = place()
    if world == 1:
        return work()
    box: list[Any] = [None]
    if rank == 0:
        try:
            box = [work()]
        except InputError as error:
            box = [error]
    dist.broadcast_object_list(box)
    if isinstance(box[0], InputError):
        raise box[0]
    result: Result = box[0]
    return result
