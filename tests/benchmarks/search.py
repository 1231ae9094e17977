"""Search among many vectors: exact, and FAISS flat, IVF and HNSW; recall, time, size and memory.

    python -m tests.benchmarks.search --rows 1000000 --out book/results/search.json

The vectors are synthetic. Embeddings that were trained to tell values of an attribute lie in
clusters, some large and some small, and vary within a cluster along few directions (pose, light,
cut), far fewer than their width; what is left is noise in all of them. So a vector here is a centre
plus a Gaussian, both in a space of few dimensions, laid into the full width by an orthonormal map,
plus a little noise, at unit length. Approximate engines live on such structure: among vectors
without any (isotropic noise) they find next to nothing, and photos of your own may be easier or
harder than these.

Each engine works in a process of its own, which makes the vectors block by block, so that its peak
memory is its own. Finished engines stay in the file: the same command goes on. The process of flat
also times exact and flat in turn, on the same queries.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from agman.engines import Engine, Faiss, make_engine, settings_for
from agman.provenance import provenance
from agman.storage import read_json, write_json

ENGINES = ("exact", "flat", "ivf", "hnsw")
WIDTH, LATENT, CLUSTERS, NOISE = 512, 32, 500, 0.3
BATCH, BATCHES, K, REPEATS = 64, 4, 10, 5
BLOCK = 10_000
PROBES = (1, 2, 4, 8, 16, 32, 64, 128)
EFFORTS = (10, 20, 40, 80, 160, 320)
LINKS, CONSTRUCTION = 16, 80


# ------------------------------------------------------------------------------------ vectors


def vectors(n: int, seed: int) -> torch.Tensor:
    """(n, WIDTH) unit vectors; the clusters are the same for every seed."""
    fixed = torch.Generator().manual_seed(0)
    centres = torch.randn(CLUSTERS, LATENT, generator=fixed)
    spread = 0.2 + 0.4 * torch.rand(CLUSTERS, 1, generator=fixed)
    into = torch.linalg.qr(torch.randn(WIDTH, LATENT, generator=fixed)).Q
    weights = 1 / torch.arange(1, CLUSTERS + 1)  # some values are worn often, many seldom
    random = torch.Generator().manual_seed(1 + seed)
    own = torch.multinomial(weights, n, replacement=True, generator=random)
    inner = centres[own] + spread[own] * torch.randn(n, LATENT, generator=random)
    noise = torch.randn(n, WIDTH, generator=random) * (NOISE / math.sqrt(WIDTH))
    return normalize(inner @ into.T + noise, dim=1)


def queries() -> torch.Tensor:
    """Vectors that are not in the gallery."""
    return vectors(BATCH * BATCHES, 10**6)


class Gallery:
    """Vectors made block by block, and the seconds that took."""

    def __init__(self, rows: int, about: str) -> None:
        self.rows, self.about, self.seconds = rows, about, 0.0

    def blocks(self) -> Iterator[tuple[str, torch.Tensor]]:
        with tqdm(total=self.rows, desc=self.about, unit="vector", unit_scale=True) as bar:
            for start in range(0, self.rows, BLOCK):
                began = time.perf_counter()
                block = vectors(min(BLOCK, self.rows - start), start)
                self.seconds += time.perf_counter() - began
                yield "", block
                bar.update(len(block))

    def all(self) -> torch.Tensor:
        """All of them, in memory once."""
        whole = torch.empty(self.rows, WIDTH)
        start = 0
        for _, block in self.blocks():
            whole[start : start + len(block)] = block
            start += len(block)
        return whole


def intrinsic_dimension(sample: torch.Tensor) -> float:
    """Estimated from how much farther the second neighbour is than the first."""
    nearest = torch.cdist(sample.double(), sample.double()).topk(3, largest=False).values
    return 1 / float((nearest[:, 2] / nearest[:, 1]).log().mean())


# ------------------------------------------------------------------------------------ measuring


def peak_mb() -> float:
    """The most memory this process has had, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return math.nan


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(engine: Engine, wanted: torch.Tensor | None) -> tuple[dict[str, float], torch.Tensor]:
    """Recall and milliseconds of a query, in batches; and what was found, (queries, K)."""
    batches = queries().split(BATCH)
    found = torch.cat([engine.search(batch, K)[1] for batch in batches])  # the warm-up as well
    times = [seconds(lambda b=batches[i % BATCHES]: engine.search(b, K)) for i in range(REPEATS)]
    wanted = found if wanted is None else wanted
    recall = (found[:, :, None] == wanted[:, None]).any(2).float().mean()
    return {
        "recall": float(recall),
        "ms_per_query": 1000 * statistics.median(times) / BATCH,
    }, found


def size_mb(engine: Engine, rows: int) -> float:
    """What the engine holds: vectors, and what it needs to find its way among them."""
    numbers = rows * WIDTH * 4
    if isinstance(engine, Faiss):
        import faiss

        index = engine.index
        if isinstance(index, faiss.IndexIVF):
            numbers += rows * 8 + index.nlist * WIDTH * 4
        if isinstance(index, faiss.IndexHNSW):
            graph = index.hnsw
            numbers += graph.neighbors.size() * 4 + graph.offsets.size() * 8
    return numbers / 1e6


def settings_of(engine: str, rows: int) -> dict[str, int]:
    """How an engine is built; the rest is varied."""
    if engine == "hnsw":
        return settings_for(engine, rows, n_links=LINKS, ef_construction=CONSTRUCTION)
    return settings_for(engine, rows)


def varied(engine: str, settings: dict[str, int]) -> list[dict[str, int]]:
    """The settings of a search to be measured."""
    if engine == "ivf":
        return [{"n_probe": n} for n in PROBES if n <= settings["n_cells"]]
    return [{"ef_search": n} for n in EFFORTS] if engine == "hnsw" else [{}]


def measure(engine: str, rows: int, truth: Path) -> dict[str, Any]:
    """One engine: its rows, and for flat the pairs with exact."""
    base, gallery = peak_mb(), Gallery(rows, engine)
    settings = settings_of(engine, rows)
    began = time.perf_counter()
    if engine == "exact":
        whole = gallery.all()
        built: Engine = make_engine(engine, lambda: [("", whole)], rows, WIDTH, settings)
    else:
        built = make_engine(engine, gallery.blocks, rows, WIDTH, settings)
    spent = time.perf_counter() - began - gallery.seconds
    wanted = None if engine == "exact" else torch.from_numpy(np.load(truth))
    result: dict[str, Any] = {"rows": []}
    for setting in varied(engine, settings):
        if isinstance(built, Faiss):
            built = Faiss(built.index, engine, settings | setting)
        numbers, found = measured(built, wanted)
        if wanted is None:
            np.save(truth, found.numpy())
        result["rows"].append({"engine": engine, "setting": setting, **numbers})
    shared = {
        "build_seconds": 0.0 if engine == "exact" else spent,
        "index_mb": size_mb(built, rows),
        "peak_mb": peak_mb() - base,
    }
    result["rows"] = [{**row, **shared} for row in result["rows"]]
    if engine == "flat":
        result["paired"] = paired(built, rows)
    return result


def paired(flat: Engine, rows: int) -> dict[str, Any]:
    """Exact and flat in turn on the same batches.

    Raises:
        RuntimeError: they do not find the same, so their times say nothing.
    """
    whole = Gallery(rows, "exact beside flat").all()
    exact = make_engine("exact", lambda: [("", whole)], rows, WIDTH, {})
    batches = queries().split(BATCH)
    ours, theirs = (engine.search(batches[0], K)[0] for engine in (exact, flat))
    if not torch.allclose(ours, theirs, atol=1e-5):
        raise RuntimeError("Exact and flat do not find the same scores.")
    pairs = []
    for i in range(REPEATS):
        batch = batches[i % BATCHES]
        pairs.append((seconds(lambda b=batch: exact.search(b, K)),
                      seconds(lambda b=batch: flat.search(b, K))))  # fmt: skip
    return {
        "exact_over_flat": statistics.median(a / b for a, b in pairs),
        "pairs": len(pairs),
        "exact_ms_per_query": 1000 * statistics.median(a for a, _ in pairs) / BATCH,
        "flat_ms_per_query": 1000 * statistics.median(b for _, b in pairs) / BATCH,
        "largest_difference": float((ours - theirs).abs().max()),
        "load": os.getloadavg()[0],
    }


# ------------------------------------------------------------------------------------------ run


def config(rows: int) -> dict[str, Any]:
    """What a run depends on."""
    import faiss

    return {
        "rows": rows,
        "dimensions": WIDTH,
        "queries": BATCH * BATCHES,
        "batch": BATCH,
        "k": K,
        "repeats": REPEATS,
        "threads": {"torch": torch.get_num_threads(), "faiss": faiss.omp_get_max_threads()},
        "faiss": faiss.__version__,
        "build": {name: settings_of(name, rows) for name in ENGINES},
        "vectors": {
            "synthetic": True,
            "clusters": CLUSTERS,
            "latent_dimensions": LATENT,
            "noise": NOISE,
            "intrinsic_dimension": round(intrinsic_dimension(vectors(3000, 10**7)), 1),
        },
    }


def estimate(rows: int) -> float:
    """Seconds for all, from building a small graph, which takes the most."""
    few = 4000
    sample = vectors(few, 0)
    took = seconds(
        lambda: make_engine("hnsw", lambda: [("", sample)], few, WIDTH, settings_of("hnsw", few))
    )
    graph = took * rows / few * math.log(rows) / math.log(few)
    return 30 + 1.5 * graph + rows * 15e-5


def run(rows: int, out: Path) -> dict[str, Any]:
    """All engines that the file does not hold yet, each in a process of its own.

    Raises:
        RuntimeError: the file holds a run of other settings, or a process failed.
    """
    result: dict[str, Any] = {"experiment": "search", "config": config(rows), "rows": []}
    if out.exists():
        kept = read_json(out)
        if kept["config"] != result["config"]:
            raise RuntimeError(f"{out} was begun with other settings; choose another file.")
        result = kept
    done = {row["engine"] for row in result["rows"]}
    if done == set(ENGINES):
        return result
    work = out.with_name(f".{out.stem}.work")
    work.mkdir(parents=True, exist_ok=True)
    truth = work / "truth.npy"
    if not truth.exists():  # nothing can be compared without it
        result["rows"], done = [], set()
    todo = [engine for engine in ENGINES if engine not in done]
    print(f"{rows:,} vectors: some {estimate(rows) / 60:.0f} minutes for all", flush=True)
    for engine in todo:
        began = time.perf_counter()
        command = [sys.executable, "-m", "tests.benchmarks.search", "--child", engine]
        command += ["--rows", str(rows), "--out", str(work / "part.json"), "--truth", str(truth)]
        if subprocess.run(command).returncode:
            raise RuntimeError(f"The process of {engine} failed.")
        part = json.loads((work / "part.json").read_text())
        result["rows"] += part.pop("rows")
        result |= part
        result["provenance"] = provenance()
        write_json(out, result)
        print(f"{engine}: {time.perf_counter() - began:.0f} s", flush=True)
    shutil.rmtree(work)
    return result


def table(result: dict[str, Any]) -> str:
    """The rows as text."""
    lines = [
        f"{'engine':<22} {'recall@10':>9} {'ms/query':>9} {'build s':>8} {'MB':>8} {'peak':>8}"
    ]
    for row in result["rows"]:
        name = " ".join([row["engine"], *(f"{k}={v}" for k, v in row["setting"].items())])
        lines.append(
            f"{name:<22} {row['recall']:9.3f} {row['ms_per_query']:9.3f} "
            f"{row['build_seconds']:8.1f} {row['index_mb']:8.0f} {row['peak_mb']:8.0f}"
        )
    if "paired" in result:
        ratio = result["paired"]["exact_over_flat"]
        lines.append(f"exact takes {ratio:.2f} times as long as flat, side by side")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000, help="vectors (default: a million)")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    parser.add_argument("--child", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--truth", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        write_json(options.out, measure(options.child, options.rows, options.truth))
        return
    print(table(run(options.rows, options.out)))


if __name__ == "__main__":
    main()
