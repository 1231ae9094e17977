"""Work killed at any moment, to see that it goes on to the same end and leaves no half file.

    python -m tests.trust.faults --kills 200 --out book/results/faults.json

Each trial starts a piece of work in an empty folder, kills it one to three times, looks at every
file after each kill, lets it finish, and compares the folder with that of work never disturbed.
The seed and the number of a trial are enough to draw its kills again (a kill after a time, not at
a step, falls where the machine happens to be). Linux and macOS only: it forks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

import agman
from agman import cli
from agman.checkpoint import load_state
from agman.datasets import PackedImages, prepare
from agman.errors import InputError
from agman.index import PhotoIndex
from agman.models import RetrievalModel
from agman.provenance import provenance
from agman.storage import read_json, read_tensors, write_json
from agman.training import TrainConfig, train
from tests import tiny

CONFIG = TrainConfig(
    epochs=3, triplets_per_epoch=48, batch_size=16, learning_rate=3e-3, schedule="cosine"
)
KINDS = ("moment", "step", "write")
SIZE = 32
VARY = {"seconds", "train_seconds", "wall_seconds", "date", "commit", "ended_at_commit"}


@dataclass(frozen=True)
class Job:
    """Work in a folder.

    Args:
        begin: makes what the folder holds beforehand.
        run: does what is left of the work.
        rewrites: whether its files grow from step to step; else each has an old and a new form.
    """

    begin: Callable[[Path], None]
    run: Callable[[Path], None]
    rewrites: bool


def small_model() -> RetrievalModel:
    """AG-MAN of the least size, always with the same weights."""
    torch.manual_seed(0)
    model = agman.create_model("agman", n_attributes=2, backbone="lab")
    model.preprocessing = dataclasses.replace(model.preprocessing, size=SIZE)
    return model


def jobs(inputs: Path) -> dict[str, Job]:
    """All work that leaves files. Reads photos and a prepared data set in `inputs`."""
    data = dataclasses.replace(tiny.data(), name="FashionAI")
    photos = inputs / "photos"
    photos.mkdir()
    store = data.train.images
    for name, picture in zip(store.names, store.array, strict=True):  # type: ignore[attr-defined]
        Image.fromarray(picture).save(photos / name)
    prepare(data, photos, inputs, SIZE, progress=False)
    reproduce = [
        *("reproduce", "fashionai", "--data", str(inputs / "FashionAI"), "--variants", "csn"),
        *("--backbone", "lab", "--weights", "none", "--size", str(SIZE), "--epochs", "2"),
        *("--triplets", "32", "--seeds", "0", "1", "--quiet"),
    ]

    def index(folder: Path, images: Any) -> None:
        PhotoIndex.build(small_model(), images, progress=False).save(folder / "index.safetensors")

    def reproduced(folder: Path) -> None:
        if cli.main([*reproduce, "--runs", str(folder)]):
            raise RuntimeError("agman reproduce failed")

    return {
        "training": Job(
            lambda folder: None,
            lambda folder: void(
                train(small_model(), tiny.data(), CONFIG, run=folder, progress=False)
            ),
            rewrites=True,
        ),
        "conversion": Job(
            lambda folder: None,
            lambda folder: prepare(data, photos, folder, SIZE, progress=False),
            rewrites=False,
        ),
        "index": Job(
            lambda folder: index(folder, tiny.table(4).images),
            lambda folder: index(folder, store),
            rewrites=False,
        ),
        "reproduce": Job(lambda folder: None, reproduced, rewrites=True),
    }


def void(_: object) -> None:
    """Nothing."""


# ------------------------------------------------------------------------------ what is in a folder


def plain(node: Any) -> Any:
    """A form that compares bit for bit, without what differs from one call to the next."""
    if isinstance(node, torch.Tensor):
        return str(node.dtype), tuple(node.shape), node.contiguous().numpy().tobytes()
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if key not in VARY}
    return [plain(value) for value in node] if isinstance(node, (list, tuple)) else node


def content(path: Path) -> Any:
    """What a file says.

    Raises:
        InputError, ValueError: it is not whole.
    """
    if path.suffix == ".json":
        return plain(read_json(path))
    if path.suffix == ".jsonl":
        return [plain(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".pt":
        return plain(load_state(path))
    if path.suffix == ".safetensors":
        return plain(read_tensors(path))
    if path.suffix == ".npz":
        packed = PackedImages.open(path)
        return packed.names, packed.array.tobytes()
    return path.read_bytes()


def files(folder: Path, hidden: bool = True) -> dict[str, Path]:
    """Every file by its path below the folder; locks, which name a process, left out."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.endswith("lock")
        and (hidden or not any(part.startswith(".") for part in path.relative_to(folder).parts))
    }


def contents(folder: Path) -> dict[str, Any]:
    """Every file and what it says; what a killed writer left behind counts too."""
    return {name: content(path) for name, path in files(folder).items()}


# ---------------------------------------------------------------------------------------- killing


def child(work: Callable[[], None], log: Path, after: float | None = None) -> int:
    """Run work in a process of its own, killed after so many seconds; the wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(300)  # nothing waits for ever, and no child outlives the test by long
            tqdm.set_lock(threading.RLock())  # its own is shared with children that were killed
            with open(log, "w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            work()
            code = 0
        except BaseException:  # whatever it is, the parent must not go on twice
            traceback.print_exc()
        finally:
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def on_each_step(folder: Path, call: Callable[[], None]) -> None:
    """Call before each change of a file or folder below `folder`, until the process ends."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    names = ("os.rename", "os.remove", "os.mkdir", "os.chmod", "os.truncate")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        changes = event in names or (event == "open" and isinstance(args[2], int))
        if not changes or (event == "open" and not args[2] & writing):
            return
        if str(args[0]).startswith(str(folder)):
            call()

    sys.addaudithook(hook)


def killed_at(step: int, folder: Path, work: Callable[[], None]) -> Callable[[], None]:
    """The work, ended before its change of a file with this number."""
    count = iter(range(1_000_000))

    def die_in_time() -> None:
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        on_each_step(folder, die_in_time)
        work()

    return run


def killed_beyond(size: int, work: Callable[[], None]) -> Callable[[], None]:
    """The work, ended by the kernel inside the write that would make a file larger than this."""

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        work()

    return run


# ----------------------------------------------------------------------------------------- trials


@dataclass(frozen=True)
class Reference:
    """Work that was not disturbed.

    Args:
        before: what its folder held beforehand.
        after: and in the end.
        seconds: it took.
        steps: changes of files it made.
        largest: bytes of its largest file.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    seconds: float
    steps: int
    largest: int


def reference(job: Job, place: Path) -> Reference:
    """Do the work undisturbed, in a process of its own as well."""
    folder, log, count = place / "whole", place / "log", place / "count"
    folder.mkdir()
    steps: list[int] = []

    def counted() -> None:
        on_each_step(folder, lambda: steps.append(1))
        job.run(folder)
        count.write_text(str(len(steps)))

    job.begin(folder)
    before = contents(folder)
    started = time.perf_counter()
    status = child(counted, log)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"undisturbed work failed:\n{log.read_text()}")
    largest = max(path.stat().st_size for path in files(folder).values())
    return Reference(before, contents(folder), seconds, int(count.read_text()), largest)


def kill_once(
    kind: str, job: Job, known: Reference, folder: Path, log: Path, random: np.random.Generator
) -> bool:
    """Start the work and kill it; False if it had ended before."""

    def work() -> None:
        job.run(folder)

    if kind == "moment":
        status = child(work, log, after=random.uniform(0, known.seconds))
    elif kind == "step":
        status = child(killed_at(int(random.integers(known.steps)), folder, work), log)
    else:
        size = int(np.exp(random.uniform(0, np.log(known.largest))))
        status = child(killed_beyond(size, work), log)
    if status and not os.WIFSIGNALED(status):
        raise RuntimeError(log.read_text())
    return os.WIFSIGNALED(status)


def half_files(job: Job, known: Reference, folder: Path) -> list[str]:
    """Files under their own name that cannot be read, or say what they never should."""
    found = []
    for name, path in files(folder, hidden=False).items():
        try:
            said = content(path)
        except (InputError, ValueError) as error:
            found.append(f"{name}: {error}")
            continue
        allowed = [part[name] for part in (known.before, known.after) if name in part]
        if not job.rewrites and said not in allowed:
            found.append(f"{name}: neither its old nor its new content")
    return found


def faults(
    kills: int, seed: int = 0, only: Sequence[str] = (), progress: bool = False
) -> dict[str, Any]:
    """Kill work so many times, the jobs in turn.

    Args:
        kills: over all jobs.
        seed: of their kinds and places.
        only: names of jobs; none for all.
        progress: print a line for each trial.

    Returns:
        `kills`: how many of each kind, and `by_job`; `trials`: how many pieces of work; `resumed`:
        how many of them came to their end after the kills; `bit_equal`: and left the same as
        undisturbed work; `lost`: the other trials; `half_files`: how many were found; `problems`:
        a sentence on each thing that went wrong.
    """
    started = time.perf_counter()
    done: dict[str, Counter[str]] = {}
    wrong: dict[str, list[str]] = {"half file": [], "not resumed": [], "difference": []}
    number = 0
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "inputs").mkdir()
        known: dict[str, tuple[Job, Reference]] = {}
        for name, job in jobs(place / "inputs").items():
            if only and name not in only:
                continue
            (place / name).mkdir()
            known[name] = job, reference(job, place / name)
            done[name] = Counter()
        while (so_far := sum(count.total() for count in done.values())) < kills:
            name = list(known)[number % len(known)]
            random = np.random.default_rng((seed, number))
            times = min(int(random.integers(1, 4)), kills - so_far)
            trial = f"trial {number} (seed {seed}), {name}"
            one_trial(
                *known[name], times, random, place / f"trial{number}", trial, done[name], wrong
            )
            number += 1
            if progress:
                print(trial, dict(done[name]), file=sys.stderr, flush=True)
    return {
        "experiment": "faults",
        "seed": seed,
        "kills": {kind: sum(count[kind] for count in done.values()) for kind in KINDS},
        "by_job": {name: {kind: count[kind] for kind in KINDS} for name, count in done.items()},
        "trials": number,
        "lost": len(wrong["not resumed"]),
        "half_files": len(wrong["half file"]),
        "resumed": number - len(wrong["not resumed"]),
        "bit_equal": number - len(wrong["not resumed"]) - len(wrong["difference"]),
        "problems": [f"{what}, {one}" for what, found in wrong.items() for one in found],
        "seconds": round(time.perf_counter() - started, 1),
    }


def one_trial(
    job: Job,
    known: Reference,
    times: int,
    random: np.random.Generator,
    folder: Path,
    trial: str,
    done: Counter[str],
    wrong: dict[str, list[str]],
) -> None:
    """Kill the work up to so many times, look, finish it, compare."""
    log = folder.with_suffix(".log")
    folder.mkdir()
    job.begin(folder)
    try:
        for _ in range(times):
            kind = KINDS[random.integers(len(KINDS))]
            if not kill_once(kind, job, known, folder, log, random):
                break  # it came to its end
            done[kind] += 1
            wrong["half file"] += [f"{trial}: {what}" for what in half_files(job, known, folder)]
        if child(lambda: job.run(folder), log):
            raise RuntimeError(log.read_text())
        after = contents(folder)
    except (RuntimeError, InputError, ValueError) as error:
        wrong["not resumed"].append(f"{trial}: {error}")
    else:
        names = {name for name in after | known.after if after.get(name) != known.after.get(name)}
        if names:
            wrong["difference"].append(f"{trial}: {', '.join(sorted(names))}")
    shutil.rmtree(folder)


def main(words: Sequence[str] | None = None) -> int:
    """Kill, and print the summary as JSON; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", action="store_true", help="a line on stderr for each trial")
    parser.add_argument("--out", help="JSON file for the counts and their provenance")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    found = faults(options.kills, options.seed, progress=options.progress)
    print(json.dumps(found, indent=1))
    if options.out:
        write_json(options.out, found | {"provenance": provenance()})
    return int(bool(found["problems"]))


if __name__ == "__main__":
    sys.exit(main())
