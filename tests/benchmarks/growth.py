"""How evaluation, search, embedding and training grow over three decades of size.

    python -m tests.benchmarks.growth --out book/results/growth.json   # some minutes

Beside every measured time stands its limit: the longer of what this machine needs for the
multiply-adds and for the bytes that the work cannot do without (the roofline). Both rates are
measured in turn with the work, so that whatever else the machine does slows all three. A killed
run goes on with the sizes that are missing.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import agman
from agman.errors import InputError
from agman.loading import prepare
from agman.losses import supervised_contrastive_loss
from agman.memory import keep_memory
from agman.metrics import mean_average_precision
from agman.models import RetrievalModel
from agman.provenance import provenance
from agman.ranking import product, top_k
from agman.storage import read_json, write_json

WIDTH, QUERIES, VALUES, K = 512, 64, 6, 10
"""Of the embeddings; queries of a search; values of the evaluated attribute; photos wanted."""
PASS, STEP = 64, 48
"""Photos that are embedded, and trained on, at once."""
FLOAT = 4  # bytes

SIZES: dict[str, tuple[int, ...]] = {
    "evaluation": (30, 100, 300, 1_000, 3_000, 10_000, 30_000),
    "search": (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
    "embedding": (1, 3, 10, 30, 100, 300, 1_000),
    "embedding, ResNet-50": (1, 3, 10, 30),
    "training": (1, 3, 10, 30, 100, 300, 1_000),
}
COST = {"evaluation": 6e11, "search": 8e10, "embedding": 5e10, "embedding, ResNet-50": 2e11,
        "training": 2e11}  # fmt: skip
"""What a call at the largest size usually takes, in multiply-adds at full rate: an estimate."""


@dataclass(frozen=True)
class Point:
    """One work at one size.

    Args:
        work: a key of `SIZES`.
        size: photos in the gallery, embedded, or trained on.
        run: does it once.
        n_bytes: that have to be moved at least: what is given and what is kept, once each.
        multiply_adds: that it cannot do without; None to have them counted while it runs.
    """

    work: str
    size: int
    run: Callable[[], Any]
    n_bytes: float
    multiply_adds: float | None = None


# ------------------------------------------------------------------------------------------ works


def vectors(n: int) -> Tensor:
    """Random embeddings (n, WIDTH) of unit length, made where they stay."""
    made = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(0))
    return F.normalize(made, dim=1, out=made)


def evaluation(sizes: Sequence[int]) -> Iterator[Point]:
    """MAP of a fifth of a gallery as queries, whose items are known by id and left out."""
    for n in sizes:
        q, ids, shelf = max(1, n // 5), torch.arange(n), vectors(n)
        own = torch.randint(VALUES, (n,), generator=torch.Generator().manual_seed(1))

        def run(shelf: Tensor = shelf, own: Tensor = own, ids: Tensor = ids, q: int = q) -> float:
            return mean_average_precision(
                shelf[:q], own[:q], shelf, own, query_ids=ids[:q], gallery_ids=ids
            )

        # Products of every query with every item; embeddings read once, ranking not counted.
        yield Point("evaluation", n, run, (q + n) * WIDTH * FLOAT, q * n * WIDTH)


def search(sizes: Sequence[int]) -> Iterator[Point]:
    """The ten best of a gallery for 64 queries, exactly."""
    for n in sizes:
        gallery = vectors(n)

        def run(shelf: Tensor = gallery) -> Any:
            return top_k(shelf[:QUERIES], shelf, K)

        yield Point("search", n, run, (QUERIES + n) * WIDTH * FLOAT, QUERIES * n * WIDTH)


def photos(model: RetrievalModel, n: int) -> Tensor:
    """Prepared random photos (n, 3, size, size); what they show costs nothing."""
    size = model.preprocessing.size
    random = torch.Generator().manual_seed(0)
    return prepare(
        model, torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=random)
    )


def embedding(
    sizes: Sequence[int], backbone: str = "lab", work: str = "embedding"
) -> Iterator[Point]:
    """Photos to embeddings under all eight attributes, in passes of 64."""
    model = agman.create_model("agman", backbone=backbone, classification=False).eval()
    weights = sum(p.numel() for p in model.parameters())
    for n in sizes:
        inputs = photos(model, n)

        @torch.no_grad()
        def run(inputs: Tensor = inputs) -> Any:
            return [model.embed_all(part) for part in inputs.split(PASS)]

        passes = -(-n // PASS)
        numbers = inputs.numel() + n * model.n_attributes * model.dim + passes * weights
        with keep_memory():  # as in the package
            yield Point(work, n, run, numbers * FLOAT)


def resnet(sizes: Sequence[int]) -> Iterator[Point]:
    """`embedding` by AG-MAN on a ResNet-50 at 224 pixels."""
    yield from embedding(sizes, "resnet50", "embedding, ResNet-50")


def training(sizes: Sequence[int]) -> Iterator[Point]:
    """Steps of 48 photos or fewer under all attributes: forward, backward and Adam."""
    model = agman.create_model("agman", backbone="lab", classification=False)
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    weights = sum(p.numel() for p in model.parameters())

    def step(images: Tensor, own: Tensor) -> None:
        loss = supervised_contrastive_loss(model.embed_all(images), own)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    for n in sizes:
        inputs = photos(model, n)
        values = torch.randint(VALUES, (n, model.n_attributes))

        def run(inputs: Tensor = inputs, values: Tensor = values) -> None:
            for images, own in zip(inputs.split(STEP), values.split(STEP), strict=True):
                step(images, own)

        # Each step reads and writes the weights and both averages of Adam.
        steps = -(-n // STEP)
        with keep_memory():
            yield Point("training", n, run, (inputs.numel() + 6 * weights * steps) * FLOAT)


WORKS: dict[str, Callable[[Sequence[int]], Iterator[Point]]] = {
    "evaluation": evaluation,
    "search": search,
    "embedding": embedding,
    "embedding, ResNet-50": resnet,
    "training": training,
}

# --------------------------------------------------------------------------------------- measuring


def seconds_of(run: Callable[[], Any], times: int = 1) -> float:
    """Seconds of one call, the mean of several."""
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times


class Machine:
    """What this machine can do at best, with the threads that PyTorch uses.

    Args:
        side: of the two float32 matrices that are multiplied.
        length: of the three float32 vectors of the triad a = b + 2 c; together they are larger
            than any cache.
    """

    def __init__(self, side: int = 1024, length: int = 2**24) -> None:
        self.square = torch.rand(side, side)
        self.a, self.b, self.c = (torch.rand(length) for _ in range(3))

    def rates(self) -> tuple[float, float]:
        """Multiply-adds and bytes a second, each the fastest of three.

        Networks and rankings multiply by one of two libraries; the limit is the faster one's.
        """
        products = (lambda: self.square @ self.square, lambda: product(self.square, self.square))
        multiply = min(seconds_of(one) for one in products for _ in range(3))
        move = min(
            seconds_of(lambda: torch.add(self.b, self.c, alpha=2, out=self.a)) for _ in range(3)
        )
        return len(self.square) ** 3 / multiply, 3 * self.a.nbytes / move


def limit(multiply_adds: float, n_bytes: float, rates: tuple[float, float]) -> float:
    """Seconds that a work takes at least: the longer of multiplying and of moving."""
    return max(multiply_adds / rates[0], n_bytes / rates[1])


def counted(run: Callable[[], Any]) -> float:
    """Multiply-adds of one call in products and convolutions, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def measure(point: Point, machine: Machine, repetitions: int) -> dict[str, Any]:
    """Median of the repetitions, the machine's rates before each of them, after a warm-up."""
    forget_peak()
    first = seconds_of(point.run)
    needed = point.multiply_adds
    needed = counted(point.run) if needed is None else needed
    often = max(1, min(1000, int(0.02 / max(first, 1e-6))))
    rates, times = [], []
    for _ in range(repetitions):
        rates.append(machine.rates())
        times.append(seconds_of(point.run, often))
    limits = [limit(needed, point.n_bytes, rate) for rate in rates]
    multiply, move = (statistics.median(column) for column in zip(*rates, strict=True))
    return {
        "work": point.work,
        "size": point.size,
        "seconds": statistics.median(times),
        "limit_seconds": statistics.median(limits),
        "times_limit": statistics.median(t / best for t, best in zip(times, limits, strict=True)),
        "bound": "arithmetic" if needed / multiply >= point.n_bytes / move else "memory",
        "multiply_adds": needed,
        "bytes": point.n_bytes,
        "multiply_adds_per_second": multiply,
        "bytes_per_second": move,
        "each_seconds": times,
        "each_limit_seconds": limits,
        "load": os.getloadavg()[0],
        "peak_mb": peak_mb(),
    }


def forget_peak() -> None:
    """Let `peak_mb` start anew, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> int:
    """Most memory held since `forget_peak`, in MB, with Python, PyTorch and the data."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# ------------------------------------------------------------------------------------------ a run


def begun(out: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds of this run, or a new run.

    Raises:
        InputError: the file holds another run; times of two runs are not comparable.
    """
    about = provenance()
    if not out.exists():
        return {
            "experiment": "growth",
            "config": dict(config),
            "seconds": 0.0,
            "rows": [],
            "provenance": about,
        }
    found: dict[str, Any] = read_json(out)
    old = found.get("provenance", {})
    if found.get("config") != config or any(
        old.get(key) != about[key] for key in ("commit", "versions", "machine")
    ):
        raise InputError(
            f"{out} holds a run with other settings, code, versions or machine; move it away, or "
            "choose another file with --out."
        )
    return found


def expected(
    sizes: Mapping[str, Sequence[int]], repetitions: int, multiply_adds_per_second: float
) -> float:
    """Seconds that a run should take, from what each work usually takes."""
    calls = sum(
        COST[work] * (n / SIZES[work][-1]) ** (2 if work == "evaluation" else 1)
        for work, some in sizes.items()
        for n in some
    )
    return (repetitions + 2) * calls / multiply_adds_per_second


def run(
    out: Path,
    sizes: Mapping[str, Sequence[int]] = SIZES,
    repetitions: int = 5,
    machine: Machine | None = None,
) -> dict[str, Any]:
    """Measure what a file does not hold yet, and write it after every size.

    Returns:
        All that the file holds in the end.
    """
    config = {
        "sizes": {work: list(some) for work, some in sizes.items()},
        "repetitions": repetitions,
        "threads": torch.get_num_threads(),
        "width": WIDTH,
        "queries": {"evaluation": "a fifth of the gallery", "search": QUERIES},
        "k": K,
        "photos_at_once": {"embedding": PASS, "training": STEP},
    }
    result = begun(out, config)
    done = {(row["work"], row["size"]) for row in result["rows"]}
    missing = {work: [n for n in some if (work, n) not in done] for work, some in sizes.items()}
    machine = machine or Machine()
    rates = machine.rates()
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]}\n"
        f"{rates[0] / 1e9:.1f} billion multiply-adds and {rates[1] / 1e9:.1f} GB a second\n"
        f"this should take {expected(missing, repetitions, rates[0]) / 60:.0f} minutes"
    )
    total = sum(map(len, sizes.values()))
    for work, some in missing.items():
        for point in WORKS[work](some) if some else ():
            started = time.perf_counter()
            row = measure(point, machine, repetitions)
            result["rows"].append(row)
            result["seconds"] += time.perf_counter() - started
            write_json(out, result)
            print(
                f"{len(result['rows']):2d} of {total}  {work:<20} {row['size']:>9,} photos "
                f"{row['seconds']:10.6f} s  {row['times_limit']:6.1f} times the limit",
                flush=True,
            )
    return result


def main(argv: list[str] | None = None) -> None:
    """Estimate, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="file of the results, JSON")
    run(parser.parse_args(argv).out)


if __name__ == "__main__":
    main()
