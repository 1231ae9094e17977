"""Search engines: exact, and FAISS for galleries too large to compare with one by one.

========  ==============================================================  =====================
engine    how it searches                                                 what it finds
========  ==============================================================  =====================
`exact`   `agman.ranking.top_k`, block by block                           the best, ties in order
`flat`    FAISS, all vectors in memory                                    the best
`ivf`     FAISS; only the `n_probe` of `n_cells` cells nearest the query  most of the best
`hnsw`    FAISS; along a graph of neighbours, `ef_search` at a time       most of the best
========  ==============================================================  =====================

All but `exact` need the package faiss-cpu. The score is the dot product, which is the cosine of
embeddings of unit length.

`build_engine` keeps `ivf` and `hnsw` in a folder. For `ivf` it never holds all vectors: a sample
trains the cells, then the vectors go block by block into a file that searches memory-map. A graph
(`hnsw`) can only be built with the vectors of its attribute in memory, for a time twice; searches
memory-map it too, from FAISS 1.11 on.

Files from strangers: what is kept for `ivf` is numbers in safetensors, JSON and a file of vectors,
whose sizes are checked before use, so the worst it can do is to give wrong answers. `hnsw` keeps
FAISS's own format, whose reader trusts what it reads: a file made for the purpose could crash the
process or worse. Open only a graph that you have built, or have from somebody you would run a
program from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from agman.errors import InputError
from agman.ranking import checked_embeddings, positive, top_k
from agman.storage import alone_in, read_json, read_tensors, replacing, write_json, write_tensors

ENGINES = ("exact", "flat", "ivf", "hnsw")
KEPT = ("ivf", "hnsw")
"""Engines that `build_engine` can keep in a folder."""

SAMPLE = 40
"""Vectors for each cell that the cells of `ivf` are trained on; FAISS asks for 39 at least."""

_KIND = "agman search engine"
_DESCRIPTION = "engine.json"
_CHUNK = 8192  # vectors added between two steps of the progress bar

Blocks = Callable[[], Iterable[tuple[str, Tensor]]]
"""Gives all vectors of one attribute anew, in blocks (n, D), each with a name for messages."""


class Vectors(Protocol):
    """Embeddings of photos under several attributes, wherever they are."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Photos, attributes and dimensions."""

    @property
    def identity(self) -> str:
        """A hash that other photos or another model would change."""

    def blocks(self, attribute: int) -> Iterator[tuple[str, Tensor]]:
        """The vectors of one attribute in blocks (n, D), each with a name for messages."""


class Engine(Protocol):
    """Finds the vectors nearest to others."""

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores (Q, k) and numbers (Q, k) of the best for queries (Q, D), best first.

        Where an engine finds fewer than k, the row ends in number -1 and score -inf.

        Raises:
            InputError: queries of another width, or that are no numbers, or a k below 1.
        """


def settings_for(engine: str, n_photos: int, **given: int) -> dict[str, int]:
    """All settings of an engine: those given, checked, and defaults for the others.

    Args:
        engine: one of `ENGINES`.
        n_photos: in the gallery; the defaults of `ivf` grow with it.
        given: for `ivf`, `n_cells` (default 2 √n, where looking for cells costs as much as looking
            into a few) and `n_probe`, the cells looked into (default 16); for `hnsw`, `n_links` of
            each photo (default 32), and the candidates kept while building, `ef_construction`
            (default 80), and searching, `ef_search` (default 64).

    Raises:
        InputError: an unknown engine or setting, or a number out of range.

    >>> settings_for("ivf", 10_000, n_probe=4)
    {'n_cells': 200, 'n_probe': 4}
    """
    if engine not in ENGINES:
        raise InputError(f"There is no engine {engine!r}; choose among {', '.join(ENGINES)}.")
    for name, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise InputError(f"{name} of a search engine is a whole number, not {number!r}.")
    cells = given.get("n_cells", max(1, min(n_photos, round(2 * n_photos**0.5))))
    defaults: dict[str, dict[str, tuple[int, int, int]]] = {  # default, least, most
        "exact": {},
        "flat": {},
        "ivf": {"n_cells": (cells, 1, n_photos), "n_probe": (min(16, cells), 1, cells)},
        "hnsw": {
            "n_links": (32, 2, 512),
            "ef_construction": (80, 1, 100_000),
            "ef_search": (64, 1, 100_000),
        },
    }
    known = defaults[engine]
    for name, number in given.items():
        if name not in known:
            names = f"its settings are {', '.join(known)}" if known else "it has none"
            raise InputError(f"The engine {engine} has no setting {name}; {names}.")
        _, least, most = known[name]
        if not least <= number <= most:
            raise InputError(
                f"{name} of the engine {engine} must be from {least} to {most}, not {number}."
            )
    return {name: int(given.get(name, default)) for name, (default, _, _) in known.items()}


class Exact:
    """Compares a query with every vector: `agman.ranking.top_k`, block by block.

    The blocks change nothing: neither a score, nor the order of equal ones.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Engine.search`; of equal scores the lower number first."""
        queries, _ = checked_embeddings(queries, queries)
        k = positive(k, "k")
        found: tuple[Tensor, Tensor] | None = None
        start = 0
        for name, block in self.blocks():
            if len(block):
                try:
                    scores, numbers = top_k(queries, block, k)
                except InputError as error:
                    raise InputError(f"{name}: {error}" if name else str(error)) from error
                numbers = torch.where(numbers < 0, numbers, numbers + start)
                found = (scores, numbers) if found is None else _best(found, (scores, numbers), k)
            start += len(block)
        if found is None:
            raise InputError("There is no photo in this index; give at least one.")
        return found


class Faiss:
    """A FAISS index behind the same interface.

    Args:
        index: of inner products.
        engine: its kind, one of `ENGINES`.
        settings: of the search; others are passed over.
    """

    def __init__(self, index: Any, engine: str, settings: dict[str, int]) -> None:
        self.index = index
        if engine == "ivf":
            index.nprobe = settings["n_probe"]
        if engine == "hnsw":
            index.hnsw.efSearch = settings["ef_search"]

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Engine.search`; the order of equal scores is FAISS's."""
        queries, _ = checked_embeddings(queries, queries)
        k = positive(k, "k")
        if queries.shape[1] != self.index.d:
            raise InputError(
                f"query embeddings have {queries.shape[1]} dimensions and the index "
                f"{self.index.d}; embed with the model that made the index"
            )
        rows = np.ascontiguousarray(queries.float().cpu().numpy())
        scores, numbers = (torch.from_numpy(part) for part in self.index.search(rows, k))
        if int(numbers.max()) >= self.index.ntotal:
            raise InputError("The files of this engine are damaged; build it again.")
        return scores.masked_fill(numbers < 0, -torch.inf), numbers


def make_engine(
    engine: str, blocks: Blocks, n_photos: int, width: int, settings: dict[str, int]
) -> Engine:
    """An engine in memory.

    Args:
        engine: one of `ENGINES`.
        blocks: gives the vectors, as often as it is called.
        n_photos: how many these are.
        width: D.
        settings: from `settings_for`.

    Raises:
        InputError: FAISS is needed and not installed, or a vector is not finite.
    """
    if engine == "exact":
        return Exact(blocks)
    if engine == "flat":
        index = _faiss().IndexFlatIP(width)
    elif engine == "ivf":
        index = _cells(_trained(blocks, n_photos, width, settings["n_cells"]))
    else:
        index = _graph(width, settings)
    for _, rows in _chunks(blocks):
        index.add(rows)
    return Faiss(index, engine, settings)


def build_engine(
    vectors: Vectors,
    folder: str | os.PathLike[str],
    engine: str,
    *,
    attributes: Sequence[int] | None = None,
    progress: bool = True,
    **given: int,
) -> None:
    """Build an engine for each attribute and keep it in a folder, for `open_engine`.

    Every attribute is written whole or not at all, and what is there is kept, so the same call
    goes on after an interruption.

    Args:
        vectors: what to search among.
        folder: for the files of this engine only; made if it is not there.
        engine: "ivf" or "hnsw".
        attributes: for these ids only; default all.
        progress: show bars.
        given: see `settings_for`.

    Raises:
        InputError: FAISS is not installed, a setting is wrong, or the folder cannot be written or
            holds an engine of another kind, other photos or other settings.
    """
    if engine not in KEPT:
        raise InputError(f"Only {' and '.join(KEPT)} are built ahead, not {engine}.")
    folder = Path(folder)
    n_photos, n_attributes, width = vectors.shape
    settings = settings_for(engine, n_photos, **given)
    wanted = range(n_attributes) if attributes is None else attributes
    if not set(wanted) <= set(range(n_attributes)):
        raise InputError(f"There are only the attributes 0 to {n_attributes - 1}, not {wanted}.")
    _faiss()
    description = {
        "kind": _KIND,
        "engine": engine,
        "photos": vectors.identity,
        "settings": settings,
    }
    with alone_in(folder):
        _describe_once(folder, description)
        for attribute in wanted:
            file = engine_file(folder, attribute, engine)
            if file.exists():
                continue

            def blocks(a: int = attribute) -> Iterator[tuple[str, Tensor]]:
                return vectors.blocks(a)

            bar = tqdm(
                total=n_photos * (2 if engine == "ivf" else 1),
                desc=f"{engine} of attribute {attribute}",
                unit="photo",
                disable=not progress,
                leave=False,
            )
            with bar:
                if engine == "ivf":
                    _write_cells(file, blocks, n_photos, width, settings, bar)
                else:
                    _write_graph(file, blocks, width, settings, bar)


def open_engine(
    vectors: Vectors, folder: str | os.PathLike[str], **given: int
) -> tuple[str, dict[str, int], Callable[[int], Engine]]:
    """Open what `build_engine` kept; nothing is read into memory before it is searched.

    Args:
        vectors: what it was built from.
        folder: where it is.
        given: `n_probe` or `ef_search`, if other than it was built with.

    Returns:
        The engine's name, its settings, and a function from an attribute's id to its engine.

    Raises:
        InputError: FAISS is not installed, or the folder holds no engine, or one of other photos
            or weights, or a damaged one; the function raises it where an attribute is missing.
    """
    folder = Path(folder)
    n_photos, _, width = vectors.shape
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise InputError(
            f"There is no search engine in {folder}; build one with `agman index` first."
        )
    kept = read_json(path)
    try:
        if kept["kind"] != _KIND or kept["engine"] not in KEPT:
            raise ValueError("of another kind")
        engine = str(kept["engine"])
        settings = settings_for(engine, n_photos, **dict(kept["settings"]))
        photos = kept["photos"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} does not describe a search engine of this index; delete {folder} and build "
            "the engine again."
        ) from error
    if photos != vectors.identity:
        raise InputError(
            f"{folder} was built from other photos or other weights; delete it and build the "
            "engine again."
        )
    settings = settings_for(engine, n_photos, **{**settings, **given})
    fixed = [name for name in given if name not in ("n_probe", "ef_search")]
    if fixed:
        raise InputError(f"{fixed[0]} was fixed when the engine was built; build another one.")
    _faiss()

    def of(attribute: int) -> Engine:
        file = engine_file(folder, attribute, engine)
        if not file.is_file():
            raise InputError(
                f"{folder} has no engine for attribute {attribute} yet; build it with `agman "
                "index`."
            )
        read = _read_cells if engine == "ivf" else _read_graph
        return Faiss(read(file, n_photos, width, settings), engine, settings)

    return engine, settings, of


# ------------------------------------------------------------------------------------- the parts


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "This search engine needs FAISS, which is not installed; `pip install faiss-cpu`, or "
            "search exactly."
        ) from error
    return faiss


def _best(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k best of two results; all numbers of the first are below those of the second."""
    scores, numbers = (torch.cat(pair, dim=1) for pair in zip(a, b))
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return scores.gather(1, order), numbers.gather(1, order)


def _chunks(blocks: Blocks) -> Iterator[tuple[int, np.ndarray]]:
    """All vectors as float32, some thousands at a time, with the number of the first.

    Raises:
        InputError: a vector is not finite.
    """
    start = 0
    for name, block in blocks():
        for chunk in block.split(_CHUNK) if len(block) else ():
            rows = np.ascontiguousarray(chunk.float().cpu().numpy())
            if not np.isfinite(rows).all():
                raise InputError(
                    f"{name or 'The index'} holds embeddings that are no finite numbers; embed "
                    "these photos again."
                )
            yield start, rows
            start += len(rows)


def _trained(blocks: Blocks, n_photos: int, width: int, n_cells: int) -> np.ndarray:
    """Centres (n_cells, D) of cells, from a sample."""
    faiss = _faiss()
    wanted = min(n_photos, SAMPLE * n_cells)
    random = np.random.default_rng(0)
    chosen = np.sort(random.choice(n_photos, wanted, replace=False, shuffle=False))
    sample = np.empty((wanted, width), np.float32)
    start = 0
    for _, block in blocks():
        low, high = np.searchsorted(chosen, (start, start + len(block)))
        rows = torch.from_numpy(chosen[low:high] - start)
        sample[low:high] = block[rows].float().cpu().numpy()
        start += len(block)
    if not np.isfinite(sample).all():
        raise InputError("The index holds embeddings that are no finite numbers; embed again.")
    kmeans = faiss.Clustering(width, n_cells)
    kmeans.min_points_per_centroid = 1  # a warning on stderr otherwise
    kmeans.max_points_per_centroid = SAMPLE
    kmeans.niter, kmeans.seed, kmeans.spherical = 10, 0, True
    quantizer = faiss.IndexFlatIP(width)
    kmeans.train(sample, quantizer)
    return faiss.vector_to_array(kmeans.centroids).reshape(n_cells, width).copy()


def _cells(centres: np.ndarray) -> Any:
    """An empty FAISS index of cells with these centres."""
    faiss = _faiss()
    n_cells, width = centres.shape
    quantizer = faiss.IndexFlatIP(width)
    quantizer.add(centres)
    index = faiss.IndexIVFFlat(quantizer, width, n_cells, faiss.METRIC_INNER_PRODUCT)
    index.own_fields = True
    quantizer.this.disown()
    index.is_trained = True
    return index


def _graph(width: int, settings: dict[str, int]) -> Any:
    """An empty FAISS graph."""
    faiss = _faiss()
    index = faiss.IndexHNSWFlat(width, settings["n_links"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = settings["ef_construction"]
    return index


def engine_file(folder: Path, attribute: int, engine: str) -> Path:
    """The file that is written last, so that the engine of an attribute is whole if it is there."""
    return folder / f"attribute_{attribute}.{'safetensors' if engine == 'ivf' else 'faiss'}"


def _describe_once(folder: Path, description: dict[str, Any]) -> None:
    path = folder / _DESCRIPTION
    if not path.exists():
        write_json(path, description)
        return
    kept = read_json(path)
    search_time = ("n_probe", "ef_search")

    def fixed(settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        return {name: n for name, n in settings.items() if name not in search_time}

    for name, value in description.items():
        other = kept.get(name) if isinstance(kept, dict) else None
        if fixed(other) != fixed(value):
            raise InputError(
                f"{folder} holds an engine of other {name} ({json.dumps(other)[:80]}); delete it "
                "or choose another folder."
            )


def _write_cells(
    file: Path, blocks: Blocks, n_photos: int, width: int, settings: dict[str, int], bar: Any
) -> None:
    """The centres and sizes of the cells, and beside them the vectors, cell after cell.

    FAISS fills such a file by way of a second copy of everything, all of it mapped into memory.
    Here a first pass finds the cell of each vector, so that a second one can write each at its
    place: for cell after cell, all its vectors, then their numbers.
    """
    faiss = _faiss()
    centres = _trained(blocks, n_photos, width, settings["n_cells"])
    quantizer = faiss.IndexFlatIP(width)
    quantizer.add(centres)
    cell = np.empty(n_photos, np.int32)
    for start, rows in _chunks(blocks):
        cell[start : start + len(rows)] = quantizer.search(rows, 1)[1][:, 0]
        bar.update(len(rows))
    sizes = np.bincount(cell, minlength=len(centres))
    starts = _starts(sizes, width)
    filled = np.zeros_like(sizes)
    with replacing(file.with_suffix(".vectors")) as temporary, temporary.open("wb") as out:
        for start, rows in _chunks(blocks):
            own = cell[start : start + len(rows)]
            order = np.argsort(own, kind="stable")
            cells, begins = np.unique(own[order], return_index=True)
            for c, members in zip(cells, np.split(order, begins[1:])):
                out.seek(starts[c] + 4 * width * filled[c])
                out.write(rows[members].tobytes())
                out.seek(starts[c] + 4 * width * sizes[c] + 8 * filled[c])
                out.write((members + start).astype("<i8").tobytes())
                filled[c] += len(members)
            bar.update(len(rows))
    tensors = {"centres": torch.from_numpy(centres), "sizes": torch.from_numpy(sizes)}
    write_tensors(file, tensors, {"kind": _KIND})


def _starts(sizes: np.ndarray, width: int) -> np.ndarray:
    """Where in the file of vectors each cell begins, and where the last ends, in bytes."""
    return np.concatenate([[0], np.cumsum(sizes * (4 * width + 8))])


def _read_cells(file: Path, n_photos: int, width: int, settings: dict[str, int]) -> Any:
    """A FAISS index whose vectors stay on the disk."""
    faiss = _faiss()
    tensors, _ = read_tensors(file)
    vectors = file.with_suffix(".vectors")
    try:
        centres, sizes = tensors["centres"].numpy(), tensors["sizes"].numpy()
        n_cells = settings["n_cells"]
        sound = (
            (centres.shape, centres.dtype) == ((n_cells, width), np.float32)
            and (sizes.shape, sizes.dtype) == ((n_cells,), np.int64)
            and np.isfinite(centres).all()
            and sizes.min() >= 0
            and sizes.max() <= n_photos
            and sizes.sum() == n_photos
            and vectors.stat().st_size == n_photos * (4 * width + 8)
        )
    except (KeyError, TypeError, OSError):
        sound = False
    if not sound:
        raise InputError(
            f"{file} and {vectors.name} are damaged or do not fit this index; delete them and "
            "build the engine again."
        )
    lists = faiss.OnDiskInvertedLists(n_cells, 4 * width, str(vectors))
    lists.lists.clear()
    for size, start in zip(sizes.tolist(), _starts(sizes, width).tolist()):
        one = faiss.OnDiskOneList()
        one.size = one.capacity = size
        one.offset = start
        lists.lists.push_back(one)
    lists.totsize = vectors.stat().st_size
    lists.read_only = True
    lists.do_mmap()
    index = _cells(centres)
    index.replace_invlists(lists, True)
    lists.this.disown()
    index.ntotal = n_photos
    return index


def _write_graph(
    file: Path, blocks: Blocks, width: int, settings: dict[str, int], bar: Any
) -> None:
    index = _graph(width, settings)
    for _, rows in _chunks(blocks):
        index.add(rows)
        bar.update(len(rows))
    with replacing(file) as temporary:
        try:
            _faiss().write_index(index, str(temporary))
        except RuntimeError as error:  # how FAISS says that the disk is full
            raise OSError(str(error).splitlines()[0]) from error


def _read_graph(file: Path, n_photos: int, width: int, settings: dict[str, int]) -> Any:
    faiss = _faiss()
    try:
        # Older versions than 1.11 read it into memory.
        index = faiss.read_index(str(file), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
    except RuntimeError as error:
        raise InputError(
            f"{file} is damaged ({str(error).splitlines()[0][:120]}); delete it and build the "
            "engine again."
        ) from error
    wanted = (faiss.IndexHNSWFlat, n_photos, width, faiss.METRIC_INNER_PRODUCT)
    if (type(index), index.ntotal, index.d, index.metric_type) != wanted:
        raise InputError(f"{file} is no graph of this index; delete it and build it again.")
    return index
