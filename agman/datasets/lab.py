"""The lab wardrobe as retrieval data: drawn once, kept in a cache, ready in any notebook.

Image i of a split depends only on the seed, the split, i and the size: not on how many images are
asked for, on the number of worker processes, or on their order.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import astuple, dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from agman.attributes import FASHIONAI, AttributeSchema, AttributeTable, QueryGallery, RetrievalData
from agman.datasets.images import PackedImages
from agman.datasets.wardrobe import (
    CATEGORIES,
    DRAWING_VERSION,
    Nuisance,
    Outfit,
    draw,
    random_outfit,
)
from agman.errors import InputError
from agman.storage import replacing

__all__ = [
    "LAB_CATEGORIES",
    "Nuisance",
    "Outfit",
    "draw",
    "lab",
    "lab_categories",
    "lab_outfit",
    "random_outfit",
]

LAB_CATEGORIES = AttributeSchema(("category",), (CATEGORIES,), "lab categories")
_SPLITS = ("train", "valid", "test", "objects-train", "objects-valid", "objects-test")
_QUERY_EVERY = 5  # one query to four gallery images, as in FashionAI
_CHUNK = 100  # images a worker draws at a time
_SERIAL_BELOW = 600  # fewer images than this are drawn sooner than workers start


def lab(
    n_train: int = 8000,
    n_valid: int = 1000,
    n_test: int = 2000,
    *,
    labels: str = "attributes",
    size: int = 96,
    seed: int = 0,
    nuisance: Nuisance | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> RetrievalData:
    """The lab wardrobe: drawn people in FashionAI's schema, with true regions.

    Args:
        n_train, n_valid, n_test: numbers of images; the first n are always the same.
        labels: ``"attributes"`` for FashionAI's eight attributes, ``"category"`` for the kind of
            garment on the same images (one attribute, no regions).
        size: side of the square images in pixels.
        seed: another seed draws other people in other clothes.
        nuisance: strength of everything that is not a value; default the shipped strength.
        cache: folder of the drawn images; default ``$AGMAN_CACHE``, else ``~/.cache/agman``.
        progress: show a bar while drawing.
        workers: processes that draw; default one per processor.

    Returns:
        Train rows, and queries and gallery for validation and test; every fifth image is a query
        image for all its attributes.

    Raises:
        InputError: a number that makes no sense, or a cache folder that cannot be written.
    """
    if labels not in ("attributes", "category"):
        raise InputError(f"labels is 'attributes' or 'category', not {labels!r}; choose one.")
    request = _Request(size, seed, nuisance or Nuisance(), cache_folder(cache), progress, workers)
    parts = _parts(request, dict(zip(_SPLITS[:3], (n_train, n_valid, n_test))))
    return _retrieval_data("lab", parts, labels)


def lab_categories(
    n_train: int = 6000,
    n_valid: int = 500,
    n_test: int = 1000,
    *,
    size: int = 96,
    seed: int = 0,
    nuisance: Nuisance | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> RetrievalData:
    """Other images than :func:`lab`'s, labelled with the kind of garment; for object pretraining.

    Categories are equally frequent. The arguments are those of :func:`lab`, whose
    ``labels="category"`` gives the categories of its own images.

    Raises:
        InputError: a number that makes no sense, or a cache folder that cannot be written.
    """
    request = _Request(size, seed, nuisance or Nuisance(), cache_folder(cache), progress, workers)
    parts = _parts(request, dict(zip(_SPLITS[3:], (n_train, n_valid, n_test))))
    return _retrieval_data("lab categories", parts, "category")


def lab_outfit(
    split: str, index: int, *, seed: int = 0, nuisance: Nuisance | None = None
) -> Outfit:
    """The outfit behind one image of the lab, to redraw it or to change one thing about it.

    Args:
        split: ``"train"``, ``"valid"`` or ``"test"``, or these after ``"objects-"``.
        index: number of the image in its split.
        seed: seed of the lab.
        nuisance: strength the lab was drawn with.

    Raises:
        InputError: an unknown split, or a negative number.
    """
    if split not in _SPLITS:
        raise InputError(f"The lab has no split {split!r}; choose one of {_SPLITS}.")
    if min(seed, index) < 0:
        raise InputError("The lab's seed and image numbers are not negative; correct them.")
    rng = np.random.default_rng((seed, _SPLITS.index(split), index))
    if split.startswith("objects"):
        category = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
        return random_outfit(rng, nuisance, category=category)
    return random_outfit(rng, nuisance)


@dataclass(frozen=True)
class _Request:
    size: int
    seed: int
    nuisance: Nuisance
    folder: Path
    progress: bool
    workers: int | None

    def __post_init__(self) -> None:
        if self.size < 32:
            raise InputError(f"The lab is drawn from 32 pixels upwards, not {self.size}.")
        if self.seed < 0:
            raise InputError(f"The lab's seed is not negative, not {self.seed}.")


@dataclass(frozen=True)
class _Labels:
    """The labels of one split's images: rows, and the category of every image."""

    image: np.ndarray  # (R,)
    attribute: np.ndarray  # (R,)
    value: np.ndarray  # (R,)
    regions: np.ndarray  # (R, 4)
    category: np.ndarray  # (N,)


_Job = tuple[str, int, int, int, int, Nuisance]  # split, start, stop, size, seed, strengths
_Chunk = tuple[int, np.ndarray, _Labels]  # start, images, labels


@dataclass(frozen=True)
class _Part:
    """One split: its images and their labels."""

    name: str
    images: PackedImages
    labels: _Labels

    def table(self, labels: str) -> AttributeTable:
        source = f"lab {self.name}"
        if labels == "category":
            n = np.arange(len(self.images))
            return AttributeTable(
                LAB_CATEGORIES, self.images, n, np.zeros_like(n), self.labels.category, None, source
            )
        rows = self.labels
        return AttributeTable(
            FASHIONAI, self.images, rows.image, rows.attribute, rows.value, rows.regions, source
        )


def _retrieval_data(name: str, parts: list[_Part], labels: str) -> RetrievalData:
    train, valid, test = (part.table(labels) for part in parts)
    return RetrievalData(name, train.schema, train, _query_gallery(valid), _query_gallery(test))


def _query_gallery(table: AttributeTable) -> QueryGallery:
    query = table.image % _QUERY_EVERY == 0
    return QueryGallery(table.select(query), table.select(~query))


# ------------------------------------------------------------------------------------ cache


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Where drawn images are kept: the given folder, $AGMAN_CACHE, or ~/.cache/agman."""
    if cache is not None:
        return Path(cache)
    return Path(os.environ.get("AGMAN_CACHE") or Path.home() / ".cache" / "agman")


def _parts(request: _Request, numbers: dict[str, int]) -> list[_Part]:
    """Splits from the cache; those the cache has not whole are drawn first."""
    for split, n in numbers.items():
        if n < 1:
            raise InputError(f"The lab's {split} split needs at least one image, not {n}.")
    missing = {s: n for s, n in numbers.items() if _read_labels(request, s, n) is None}
    if missing:
        _make(request, missing)
    return [_part(request, split, n) for split, n in numbers.items()]


def _part(request: _Request, split: str, n: int) -> _Part:
    pixels, _ = _files(request, split, n)
    labels = _read_labels(request, split, n)
    if labels is None:
        raise InputError(f"{pixels} changed while it was read; delete it and call again.")
    names = [f"lab/{split}/{i:05d}" for i in range(n)]
    return _Part(split, PackedImages(np.load(pixels, mmap_mode="r"), names), labels)


def _files(request: _Request, split: str, n: int) -> tuple[Path, Path]:
    """The two files of a split: pixels and labels."""
    strength = hashlib.sha256(repr(astuple(request.nuisance)).encode()).hexdigest()[:8]
    key = f"v{DRAWING_VERSION}-{strength}-{request.size}px-seed{request.seed}-{split}-{n}"
    return request.folder / f"lab-{key}.npy", request.folder / f"lab-{key}.npz"


def _read_labels(request: _Request, split: str, n: int) -> _Labels | None:
    """The labels, if both files are there, whole, and belong together."""
    pixels, rows = _files(request, split, n)
    try:
        array = np.load(pixels, mmap_mode="r")
        with np.load(rows) as stored:
            whole = array.shape == (n, request.size, request.size, 3)
            if not whole or int(stored["checksum"]) != _checksum(array):
                return None
            return _Labels(*(stored[name] for name in _Labels.__dataclass_fields__))
    except Exception:  # a damaged file can break numpy, zip or zlib alike; all mean "make anew"
        return None


def _checksum(array: np.ndarray) -> int:
    """Of 64 images spread over the array, to notice lost pages without reading everything."""
    picked = np.unique(np.linspace(0, len(array) - 1, 64).astype(int))
    return zlib.crc32(np.ascontiguousarray(array[picked]).tobytes())


def _make(request: _Request, numbers: dict[str, int]) -> None:
    """Draw splits and write their files, all by the same worker processes."""
    jobs = [
        (split, start, min(start + _CHUNK, n), request.size, request.seed, request.nuisance)
        for split, n in numbers.items()
        for start in range(0, n, _CHUNK)
    ]
    total = sum(numbers.values())
    with (
        closing(_drawings(jobs, request.workers, total)) as drawings,
        tqdm(total=total, desc="drawing the lab", disable=not request.progress) as bar,
    ):
        for split, n in numbers.items():
            _write(request, split, n, islice(drawings, -(-n // _CHUNK)), bar)


def _write(request: _Request, split: str, n: int, chunks: Iterable[_Chunk], bar: tqdm) -> None:
    """Write both files of a split, the labels last."""
    pixels, rows = _files(request, split, n)
    shape = (n, request.size, request.size, 3)
    parts = []
    with replacing(pixels) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        for start, images, labels in chunks:
            array[start : start + len(images)] = images
            parts.append(labels)
            bar.update(len(images))
        array.flush()
        checksum = _checksum(array)
        del array  # closes the map, which Windows needs before the file is renamed
    merged = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in _Labels.__dataclass_fields__
    }
    with replacing(rows) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, checksum=np.int64(checksum), **merged)


# ---------------------------------------------------------------------------------- drawing


def _drawings(jobs: list[_Job], workers: int | None, total: int) -> Generator[_Chunk, None, None]:
    """All chunks in order, by several processes if that pays."""
    processes = min(workers or os.cpu_count() or 1, len(jobs))
    done = 0
    if processes > 1 and (total >= _SERIAL_BELOW or workers is not None):
        # No processes to be had (a sandbox, an unguarded script), or one was killed: go on alone.
        with suppress(EOFError, OSError), ExitStack() as stack:
            pipes = [stack.enter_context(_drawer(jobs[k::processes])) for k in range(processes)]
            for i in range(len(jobs)):
                chunk = pipes[i % processes].recv()
                done += 1
                yield chunk
    for job in jobs[done:]:
        yield _draw_chunk(job)


@contextmanager
def _drawer(jobs: Sequence[_Job]) -> Iterator[Connection]:
    """A pipe out of which come the chunks of these jobs, in order, from a process of its own.

    Of its own, not of a pool: a worker that is killed cannot leave a lock behind, its pipe ends.
    """
    # Spawned, not forked: forking a process that runs threads (torch, Jupyter) can hang.
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_draw_all, args=(theirs, jobs), daemon=True)
    try:
        process.start()
    except RuntimeError:  # this is such a process itself, and the script that it imports asks again
        raise SystemExit(
            "Drawing the lab goes on in one process: several would each run your whole script; put "
            'what it does below a line `if __name__ == "__main__":` to have it drawn faster.'
        ) from None
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.kill()
        process.join()


def _draw_all(pipe: Connection, jobs: Sequence[_Job]) -> None:
    """Draw and send; runs in a worker process."""
    for job in jobs:
        pipe.send(_draw_chunk(job))


def _draw_chunk(job: _Job) -> _Chunk:
    """Images start to stop of a split with their labels."""
    split, start, stop, size, seed, nuisance = job
    images = np.empty((stop - start, size, size, 3), np.uint8)
    rows: list[tuple[int, ...]] = []
    category = np.empty(stop - start, np.int64)
    for i in range(start, stop):
        outfit = lab_outfit(split, i, seed=seed, nuisance=nuisance)
        picture, regions = draw(outfit, size)
        images[i - start] = np.asarray(picture)
        category[i - start] = CATEGORIES.index(outfit.category)
        for name, value in outfit.labels().items():
            attribute = FASHIONAI.attribute(name)
            rows.append((i, attribute, FASHIONAI.value(attribute, value), *regions[name]))
    table = np.array(rows, np.int64).reshape(-1, 7)
    return start, images, _Labels(table[:, 0], table[:, 1], table[:, 2], table[:, 3:], category)
