"""Speed of what the course's package does, side by side with other ways to do it.

    make bench                                     # everything, some minutes
    python -m tests.benchmarks.bench sampling map  # parts, by the start of their names

Every row compares two ways that give the same result, run in turn after a warm-up, five pairs or
as many as two seconds hold; the ratio is the median of the pairs' ratios. Absolute times depend on
the machine and on what else it does, so its load is printed too. Libraries that are not installed
(extra `bench`) are left out.
open-metric-learning (`oml`) asks for a NumPy before 2, so it is no part of that extra; with a copy
of it and of what it imports on PYTHONPATH its ranking runs here all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

import agman
from agman.attributes import FASHIONAI, AttributeTable
from agman.datasets import FolderImages
from agman.loading import prepare
from agman.losses import triplet_loss
from agman.memory import keep_memory
from agman.metrics import mean_average_precision
from agman.provenance import provenance
from agman.ranking import product, top_k
from agman.sampling import TripletSampler
from agman.storage import write_json
from agman.training import Objective, Steps, TrainConfig

Work = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """Two ways to the same result.

    Args:
        name: of the work.
        ours: what agman does.
        other: the other way, named by `against`.
        against: its name.
        target: the least ratio of times, other over ours, to be reached.
        same: whether two results agree.
        inside: what both run in, as they do where the package uses them.
    """

    name: str
    ours: Work
    other: Work
    against: str
    target: float
    same: Callable[[Any, Any], bool]
    inside: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


def near(a: float, b: float, by: float = 1e-6) -> bool:
    """Whether two numbers agree up to `by`, relative to the second."""
    return abs(a - b) <= by * max(abs(b), 1e-30)


# ------------------------------------------------------------------------------------- ranking


def retrieval(n: int, m: int, dim: int, values: int) -> tuple[torch.Tensor, ...]:
    """Unit embeddings and values of n queries and m gallery items."""
    random = torch.Generator().manual_seed(0)
    embeddings = [F.normalize(torch.randn(k, dim, generator=random), dim=1) for k in (n, m)]
    labels = [torch.randint(values, (k,), generator=random) for k in (n, m)]
    return embeddings[0], labels[0], embeddings[1], labels[1]


def loop_map(queries: Any, query_values: Any, gallery: Any, gallery_values: Any) -> float:
    """MAP by a Python loop over every candidate of every query, values as plain numbers."""
    return _loop(queries, query_values.tolist(), gallery, gallery_values.tolist())


def released_map(queries: Any, query_values: Any, gallery: Any, gallery_values: Any) -> float:
    """The same loop with each value a tensor of its own, as the released scripts keep them."""
    return _loop(queries, list(query_values), gallery, list(gallery_values))


def _loop(queries: Any, query_values: list[Any], gallery: Any, gallery_values: list[Any]) -> float:
    found = []
    for row, value in zip((queries @ gallery.T).numpy(), query_values):
        hits, total = 0, 0.0
        for rank, column in enumerate(np.argsort(-row), 1):
            if gallery_values[column] == value:
                hits += 1
                total += hits / rank
        found.append(total / max(hits, 1))
    return float(np.mean(found))


def sklearn_map(queries: Any, query_values: Any, gallery: Any, gallery_values: Any) -> float:
    from sklearn.metrics import average_precision_score

    scores = (queries @ gallery.T).numpy()
    relevant = query_values.numpy()[:, None] == gallery_values.numpy()
    return float(np.mean([average_precision_score(r, s) for r, s in zip(relevant, scores)]))


def torchmetrics_map(queries: Any, query_values: Any, gallery: Any, gallery_values: Any) -> float:
    from torchmetrics.functional.retrieval import retrieval_average_precision

    scores = 1.5 + queries @ gallery.T  # it takes items with scores below zero for irrelevant
    relevant = query_values[:, None] == gallery_values
    found = [retrieval_average_precision(s, r) for s, r in zip(scores, relevant)]
    return float(torch.stack(found).mean())


def pml_map(queries: Any, query_values: Any, gallery: Any, gallery_values: Any) -> float:
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    knn = CustomKNN(DotProductSimilarity(normalize_embeddings=False), batch_size=1024)
    name = "mean_average_precision"
    calculator = AccuracyCalculator(include=(name,), k=None, knn_func=knn)
    found = calculator.get_accuracy(queries, query_values, gallery, gallery_values)
    return float(found[name])


def oml_map(queries: Any, query_values: Any, gallery: Any, gallery_values: Any) -> float:
    from oml.functional.metrics import calc_retrieval_metrics

    order = (queries @ gallery.T).argsort(dim=1, descending=True)
    relevant = [(gallery_values == value).nonzero().flatten() for value in query_values]
    n, off = len(gallery), {"cmc_top_k": (), "precision_top_k": (), "verbose": False}
    return float(calc_retrieval_metrics(tuple(order), relevant, map_top_k=(n,), **off)["map"][n])


PEERS: dict[str, Callable[..., float]] = {
    "sklearn": sklearn_map,
    "torchmetrics": torchmetrics_map,
    "oml": oml_map,
    "pytorch_metric_learning": pml_map,
}


def map_cases(small: bool) -> Iterator[Case]:
    """Full-ranking MAP from embeddings, against each library that is installed."""
    sizes = [(20, 200, 16, 6)] if small else [
        (450, 1_800, 128, 6), (450, 1_800, 512, 6), (200, 20_000, 128, 50), (200, 20_000, 512, 50),
        (1_000, 100_000, 128, 50), (1_000, 100_000, 512, 50),
    ]  # fmt: skip
    for size in sizes:
        data = retrieval(*size)
        large = size[1] == 100_000  # the slower peers would take an hour
        for module, peer in PEERS.items():
            if installed(module) and not (large and module in ("sklearn", "oml")):
                yield Case(
                    f"map {size[0]:,} x {size[1]:,}, {size[2]}-d",
                    lambda d=data: mean_average_precision(*d),
                    lambda d=data, p=peer: p(*d),
                    module,
                    2.0 if size[3] == 6 else 5.0,
                    lambda a, b: near(a, b, 1e-4),  # float32 scores, other order of sums
                )


def fashionai_cases(small: bool) -> Iterator[Case]:
    """The size of FashionAI's test split: eight rankings of 450 queries and 1,800 candidates."""
    sizes = (10, 60, 16) if small else (450, 1_800, 512)
    parts = [retrieval(*sizes, values) for values in FASHIONAI.n_values]

    def each(work: Callable[..., float]) -> float:
        return float(np.mean([work(*part) for part in parts]))

    for name, loop in {"loop, numbers": loop_map, "loop, as released": released_map}.items():
        yield Case(
            "evaluating FashionAI's test split",
            lambda: each(mean_average_precision),
            lambda loop=loop: each(loop),
            name,
            10.0,
            lambda a, b: near(a, b, 1e-4),
        )


def search_case(small: bool) -> Iterator[Case]:
    """The ten nearest of a large gallery for a batch of queries, exactly."""
    if not installed("faiss"):
        return
    import faiss

    queries, _, gallery, _ = retrieval(64, 2_000 if small else 1_000_000, 512, 2)
    flat = faiss.IndexFlatIP(gallery.shape[1])
    flat.add(gallery.numpy())
    yield Case(
        f"exact search, {len(gallery):,} x 512",
        lambda: top_k(queries, gallery, 10)[1],
        lambda: flat.search(queries.numpy(), 10)[1],
        "faiss flat",
        1 / 1.5,
        lambda a, b: float((a.numpy() == b).mean()) > 0.99,  # near ties, added in another order
    )


def choice_cases(small: bool) -> Iterator[Case]:
    """Ways that the package took because they are faster here: its product, and its memory."""
    queries, _, gallery, _ = retrieval(20 if small else 200, 200 if small else 20_000, 512, 2)
    yield Case(
        f"product, {len(queries)} x {len(gallery):,}, 512-d",
        lambda: product(queries, gallery),
        lambda: queries @ gallery.T,
        "torch's own",
        1.0,
        lambda a, b: torch.allclose(a, b, atol=1e-5),
    )
    backbone, size, n = ("lab", 32, 2) if small else ("resnet50", 224, 32)
    model = agman.create_model("agman", n_attributes=8, backbone=backbone).eval()
    images = torch.randn(n, 3, size, size).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def embed() -> torch.Tensor:
        return torch.stack([model.embed_all(images) for _ in range(3)])

    yield Case(
        f"{backbone}, 3 x {n} photos, memory kept",
        keep_memory()(embed),
        embed,
        "given back",
        1.0,
        torch.equal,
    )


def exactness() -> float:
    """The largest difference from scikit-learn over tied float64 scores; must be below 1e-12."""
    from sklearn.metrics import average_precision_score

    random = np.random.default_rng(0)
    scores = random.integers(0, 40, (50, 600)) / 7.0
    relevant = random.random((50, 600)) < 0.2
    theirs = [average_precision_score(r, s) for r, s in zip(relevant, scores)]
    ours = [agman.metrics.average_precision(torch.from_numpy(s), torch.from_numpy(r))
            for r, s in zip(relevant, scores)]  # fmt: skip
    return float(np.abs(np.array(ours) - np.array(theirs)).max())


# ------------------------------------------------------------------------------------ networks


def network_cases(small: bool) -> Iterator[Case]:
    """All attributes in one pass, and a step of training in one pass instead of three."""
    backbone, size, n = ("lab", 32, 2) if small else ("resnet50", 224, 4)
    model = agman.create_model("agman", n_attributes=8, backbone=backbone).eval()
    image = torch.randn(1, 3, size, size)
    one, all_of_them = torch.zeros(1, dtype=torch.int64), model.all_attributes(1)

    def embed(ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            vectors: torch.Tensor = model(image, ids).embedding
        return vectors.reshape(-1, vectors.shape[-1])

    yield Case(
        "one photo, eight attributes",
        lambda: embed(all_of_them),
        lambda: embed(one),
        "one attribute",
        1 / 1.3,
        lambda a, b: torch.allclose(a[:1], b, atol=1e-4),
    )
    batches = {"resnet50": (224, n)} if not small else {}
    for name, (side, count) in {"lab": (96, 4 if small else 16), **batches}.items():
        yield training_case(name, side, count)
        yield training_case(name, side, count, bf16=True)


def training_case(backbone: str, side: int, n: int, bf16: bool = False) -> Case:
    """A step on n triplets: one joint pass in channels_last, against three passes in NCHW.

    With `bf16` the joint pass is in mixed precision, which is not the same maths.
    """
    torch.manual_seed(0)
    images, ids = torch.randn(3 * n, 3, side, side), torch.arange(n) % 8
    models = [agman.create_model("agman", n_attributes=8, backbone=backbone) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    joint, apart = (model.eval() for model in models)  # fixed statistics: the same maths
    joint = joint.to(memory_format=torch.channels_last)

    def step(model: Any, embeddings: list[torch.Tensor]) -> float:
        model.zero_grad()
        loss = triplet_loss(*embeddings)
        loss.backward()
        return float(loss.detach())

    def together() -> float:
        inputs = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            embedding = joint(inputs, ids.repeat(3)).embedding
        return step(joint, list(embedding.float().chunk(3)))

    def separately() -> float:
        return step(apart, [apart(part, ids).embedding for part in images.chunk(3)])

    name = f"step, {backbone}, {n} triplets" + (", bf16" if bf16 else "")
    by = 0.1 if bf16 else 1e-3
    against = "three passes, NCHW"
    return Case(name, together, separately, against, 1.5, lambda a, b: near(a, b, by), keep_memory)


# ---------------------------------------------------------------------------------------- data


def sampling_case(small: bool) -> Iterator[Case]:
    """Triplets for an epoch, against drawing until they fit, one by one."""
    n_images, n_triplets = (200, 100) if small else (20_000, 100_000)
    random = np.random.default_rng(0)
    attribute = random.integers(8, size=n_images)
    value = random.integers(np.array(FASHIONAI.n_values)[attribute])
    store = FolderImages(".", [f"{i}.jpg" for i in range(n_images)])
    table = AttributeTable(FASHIONAI, store, np.arange(n_images), attribute, value)
    sampler = TripletSampler(table, n_triplets)
    rows = list(zip(attribute.tolist(), value.tolist()))
    by_attribute = [np.flatnonzero(attribute == a).tolist() for a in range(8)]

    def rejection() -> int:
        drawn = 0
        generator = np.random.default_rng(0)
        while drawn < n_triplets:
            own = by_attribute[generator.integers(8)]
            anchor, positive, negative = (own[generator.integers(len(own))] for _ in range(3))
            fits = rows[anchor] == rows[positive] != rows[negative] and anchor != positive
            drawn += fits
        return drawn

    yield Case(
        f"{n_triplets:,} triplets",
        lambda: len(sampler.epoch(0).attributes),
        rejection,
        "rejection in Python",
        50.0,
        lambda a, b: a == b,
    )


def input_case(small: bool) -> Iterator[Case]:
    """A batch of packed images, against decoding their JPEG files."""
    n = 8 if small else 64
    random = np.random.default_rng(0)
    smooth = random.integers(0, 255, (n, 16, 16, 3)).astype(np.uint8)
    files, array = [], np.zeros((n, 224, 224, 3), np.uint8)
    for i, pixels in enumerate(smooth):
        buffer = io.BytesIO()
        picture = Image.fromarray(pixels).resize((400, 533), Image.Resampling.BICUBIC)
        picture.save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
        array[i] = np.asarray(picture.resize((224, 224)))
    packed = agman.datasets.PackedImages(array, [f"{i}.jpg" for i in range(n)])

    rows = np.random.default_rng(0).permutation(n)

    def decode() -> torch.Tensor:
        chosen = (Image.open(io.BytesIO(files[row])) for row in rows)
        pixels = [np.asarray(image.convert("RGB").resize((224, 224))) for image in chosen]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)

    def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
        return float((a.float() - b.float()).abs().mean()) < 4  # of 255: JPEG loses a little

    name = f"{n} images of 224 pixels"
    yield Case(name, lambda: packed.load(rows, 224), decode, "JPEG", 10.0, alike)


def waiting(n_images: int = 480, batch_size: int = 48) -> float:
    """Share of a training epoch, lab network at 96 pixels, that passes in waiting for images."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (n_images, 96, 96, 3)).astype(np.uint8)
    store = agman.datasets.PackedImages(pixels, [f"{i}.jpg" for i in range(n_images)])
    image, attribute = np.divmod(np.arange(n_images * 8), 8)
    value = random.integers(np.array(FASHIONAI.n_values)[attribute])
    table = AttributeTable(FASHIONAI, store, image, attribute, value)
    config = TrainConfig(recipe="all_pairs", batch_size=batch_size)
    model = agman.create_model("agman", n_attributes=8, backbone="lab")
    objective, steps = Objective(model, config), Steps(table, config)
    loaded, waited, started = steps.load(0, model, slice(0, batch_size)), 0.0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        step, batch = next(loaded, (None, None))
        waited += time.perf_counter() - asked
        if step is None:
            return waited / (time.perf_counter() - started)
        objective.zero_grad()
        objective(prepare(model, batch), step)[0].backward()


def imports() -> float:
    """Seconds of `import agman` beyond those of `import torch`, the median of five."""

    def seconds(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - started

    return statistics.median(
        seconds("import torch, agman") - seconds("import torch") for _ in range(5)
    )


# --------------------------------------------------------------------------------------- table

GROUPS: dict[str, Callable[[bool], Iterator[Case]]] = {
    "map": map_cases,
    "fashionai": fashionai_cases,
    "search": search_case,
    "network": network_cases,
    "choice": choice_cases,
    "sampling": sampling_case,
    "input": input_case,
}


def installed(module: str) -> bool:
    """Whether a library can be imported."""
    try:
        importlib.import_module("oml.functional.metrics" if module == "oml" else module)
    except ImportError:
        return False
    return True


def peers() -> dict[str, str]:
    """Versions of the libraries that are compared with."""
    names = ("scikit-learn", "torchmetrics", "pytorch-metric-learning", "open-metric-learning")
    found = {}
    for name in (*names, "faiss-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def measure(case: Case, pairs: int = 5, seconds: float = 2) -> dict[str, Any]:
    """Run both ways in turn, so many pairs or for so long, and compare their results once.

    In short work a few pairs would show how memory settles rather than how fast it is.

    Raises:
        RuntimeError: the two ways do not agree, so their times say nothing.
    """
    times: list[tuple[float, float]] = []
    with case.inside():
        if not case.same(case.ours(), case.other()):  # the warm-up as well
            raise RuntimeError(f"{case.name}: agman and {case.against} do not agree.")
        while len(times) < pairs or sum(map(sum, times)) < seconds:
            started = time.perf_counter()
            case.ours()
            middle = time.perf_counter()
            case.other()
            times.append((middle - started, time.perf_counter() - middle))
    ratio = statistics.median(other / ours for ours, other in times)
    return {
        "work": case.name,
        "against": case.against,
        "seconds": statistics.median(ours for ours, _ in times),
        "other_seconds": statistics.median(other for _, other in times),
        "ratio": ratio,
        "target": case.target,
        "met": ratio >= case.target,
        "pairs": len(times),
        "load": os.getloadavg()[0],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def run(
    groups: list[str], small: bool = False, pairs: int = 5, seconds: float = 2
) -> dict[str, Any]:
    """All cases of some groups, a line each as they finish."""
    print(f"{'work':<38} {'against':<20} {'seconds':>9} {'other':>9} {'ratio':>7} {'target':>7}")
    rows = []
    for group in groups:
        for case in GROUPS[group](small):
            row = measure(case, pairs, seconds)
            rows.append(row)
            print(
                f"{row['work']:<38} {row['against']:<20} {row['seconds']:9.4f} "
                f"{row['other_seconds']:9.4f} {row['ratio']:7.2f} {row['target']:7.2f} "
                f"{'met' if row['met'] else 'MISSED'}",
                flush=True,
            )
    return {
        "experiment": "benchmark",
        "rows": rows,
        "peers": peers(),
        "provenance": provenance(),
    }


def main(argv: list[str] | None = None) -> None:
    """Run, print the table and, if asked, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    options = parser.parse_args(argv)
    chosen = [g for g in GROUPS if not options.groups or any(map(g.startswith, options.groups))]
    if not chosen:
        parser.error(f"choose among {', '.join(GROUPS)}")
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]}"
    )
    print(", ".join(f"{name} {version}" for name, version in peers().items()))
    result = run(chosen)
    if installed("sklearn"):
        result["largest_difference_from_sklearn"] = exactness()
        print(f"from scikit-learn at most: {result['largest_difference_from_sklearn']:.1e}")
    if not options.groups:
        result["share_of_waiting_for_images"] = waiting()
        print(f"training waits for images: {result['share_of_waiting_for_images']:.2%} of its time")
        result["import_seconds"] = imports()
        print(f"import agman over import torch: {result['import_seconds']:.2f} s")
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
