"""N processes, and parts of a batch, train what one process trains, whatever does not divide.

Started by torchrun, this file is also the program that the processes run. It computes in float64,
where only the order of sums can differ: the wrong weighing of parts would show far above it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.run
from torch import nn
from torch.profiler import ProfilerActivity, profile

from agman import cli, training
from agman.attributes import QueryGallery
from agman.errors import InputError
from agman.training import Objective, Step, Steps, TrainConfig, train
from tests import tiny
from tests.test_cli import SMALL, make_shop
from tests.test_cli import run as agman_says
from tests.test_training import model, weights, without_time

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "tools" / "cluster"

# 7 is odd, and 31 triplets or 24 images make no whole number of batches of 7.
TRIPLETS = TrainConfig(
    epochs=2, triplets_per_epoch=31, batch_size=7, learning_rate=3e-3, clip=1.0, seed=4
)
PAIRS = dataclasses.replace(TRIPLETS, recipe="all_pairs")
FEW = dataclasses.replace(TRIPLETS, triplets_per_epoch=5, batch_size=16)  # an epoch is one batch
FROZEN = dataclasses.replace(PAIRS, freeze_backbone=True)

# Of each run: its config, and the parts that a process cuts its rows into.
EQUAL = {
    "triplets": (TRIPLETS, 1),
    "triplets in parts": (TRIPLETS, 2),
    "all pairs": (PAIRS, 1),
    "all pairs in parts": (PAIRS, 2),
    "fewer triplets than a batch": (FEW, 1),
    "a frozen backbone": (FROZEN, 2),
}
ALONE = ("triplets", "all pairs")  # as a control also with each process's own mean
TOLERANCE = 1e-11  # of weights; a step moves them by some 3e-3
DIFFERENT = 1e-4


@contextlib.contextmanager
def sharp() -> Iterator[None]:
    """Training in float64, with batch normalisation as in evaluation."""
    training_mode = training._training_mode

    def still(network: nn.Module, config: TrainConfig) -> None:
        training_mode(network, config)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_training_mode", still)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def trained(
    config: TrainConfig, accumulate: int = 1, run: Path | None = None
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Weights and history of a network with every kind of layer and loss."""
    rows = tiny.data()
    nothing = rows.valid.queries.select([])
    data = dataclasses.replace(rows, valid=QueryGallery(nothing, nothing))
    with sharp():
        network = model()
        history = train(network, data, config, run=run, accumulate=accumulate, progress=False)
    return weights(network), without_time(history)


# ------------------------------------------------------------------ what the processes run


def main(folder: Path) -> None:
    """All runs and their controls, and then a run in which the last process is killed."""
    rank, world = training.processes()
    for name, (config, parts) in EQUAL.items():
        torch.save(trained(config, parts), folder / f"{name} {rank} of {world}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_of_all_processes", lambda own: own)
        for name in ALONE:
            torch.save(trained(*EQUAL[name]), folder / f"{name}, alone {rank} of {world}")
    rate = training.learning_rate

    def killed(config: TrainConfig, epoch: float) -> float:
        if epoch > KILLED_IN[world] and rank == world - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return rate(config, epoch)

    training.learning_rate = killed
    trained(LONGER, run=folder / "run")


LONGER = dataclasses.replace(PAIRS, epochs=3)
KILLED_IN = {3: 1.2, 2: 2.2}  # epochs of the run that three processes begin and two go on with


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes, then two have written."""
    folder = tmp_path_factory.mktemp("processes")
    for n in KILLED_IN:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
        done = subprocess.run(
            [sys.executable, *launch, __file__, str(folder)],
            timeout=300,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode
        assert "Signal 9 (SIGKILL)" in done.stderr
    return folder


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    """What one process makes of each batch as a whole."""
    return {name: trained(config) for name, (config, _) in EQUAL.items()}


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def alike(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> bool:
    """Whether two histories hold the same losses."""
    return len(a) == len(b) and all(
        row == pytest.approx(other, abs=1e-7) for row, other in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("name", EQUAL)
def test_processes_equal_one(name: str, n: int, one: dict[str, Any], folder: Path) -> None:
    wanted, history = one[name]
    for rank in range(n):
        found, rows = torch.load(folder / f"{name} {rank} of {n}")
        assert apart(found, wanted) < TOLERANCE
        assert rank or alike(rows, history)  # the first keeps the log, and it is of whole batches


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("name", ALONE)
def test_means_of_uneven_parts_do_not(name: str, n: int, one: dict[str, Any], folder: Path) -> None:
    found, _ = torch.load(folder / f"{name}, alone 0 of {n}")
    assert apart(found, one[name][0]) > DIFFERENT


def test_another_seed_is_another_training(one: dict[str, Any]) -> None:
    other, _ = trained(dataclasses.replace(TRIPLETS, seed=5))
    assert apart(other, one["triplets"][0]) > DIFFERENT


def test_a_killed_run_goes_on_with_fewer_processes(folder: Path) -> None:
    assert len((folder / "run/log.jsonl").read_text().splitlines()) == 2
    found, rows = trained(LONGER, run=folder / "run")
    wanted, history = trained(LONGER)
    assert apart(found, wanted) < TOLERANCE
    assert alike(rows, history)


# ------------------------------------------------------------------------- parts of a batch


@pytest.mark.parametrize("parts", [2, 100])
@pytest.mark.parametrize("config", [TRIPLETS, PAIRS, FEW, FROZEN], ids=list("tpfz"))
def test_parts_equal_the_whole(config: TrainConfig, parts: int) -> None:
    (whole, history), (in_parts, rows) = trained(config), trained(config, parts)
    assert apart(whole, in_parts) < TOLERANCE
    assert alike(rows, history)


def one_step(accumulate: int) -> tuple[Objective, Step, torch.Tensor]:
    objective = Objective(model(), TRIPLETS, accumulate).train()
    step = next(Steps(tiny.table(), TRIPLETS).draw(0, slice(0, 6)))
    return objective, step, torch.rand(18, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_parts_need_less_memory() -> None:
    peaks = []
    for parts in (1, 3):
        objective, step, images = one_step(parts)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            objective(images, step)[0].backward()
        events = profiled.profiler.kineto_results.events()
        changes = (event.nbytes() for event in events if event.name() == "[memory]")
        peaks.append(max(itertools.accumulate(changes)))
    assert peaks[1] < 0.5 * peaks[0]


def test_running_averages_see_each_part_once() -> None:
    objective, step, images = one_step(2)
    objective(images, step)[0].backward()
    expected = model().train()
    for part in (slice(0, 3), slice(3, 6)):
        rows = np.arange(18).reshape(3, 6)[:, part].ravel()
        expected(images[rows], step.attributes[rows])
    for (name, found), wanted in zip(
        objective.model.named_buffers(), expected.buffers(), strict=True
    ):
        if "running" in name:
            torch.testing.assert_close(found, wanted, msg=name)
    momenta = {m.momentum for m in objective.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_mixed_precision_in_parts() -> None:
    config = dataclasses.replace(TRIPLETS, amp="bf16")
    network = model()
    history = train(network, tiny.data(), config, accumulate=2, progress=False)
    assert history[-1]["loss"] < history[0]["loss"]


def test_no_part_is_refused() -> None:
    with pytest.raises(InputError, match="accumulate must be at least 1, not 0"):
        trained(TRIPLETS, 0)


@pytest.mark.parametrize(("words", "parts"), [((), 1), (("--accumulate", "3"), 3)])
def test_the_command_line_asks_for_parts(
    words: tuple[str, ...], parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*args: object, accumulate: int, **options: object) -> None:
        raise InputError(f"{accumulate} parts")

    monkeypatch.setattr(training, "train", asked)
    shop, run = make_shop(tmp_path / "shop"), tmp_path / "run"
    said = agman_says("train", "--data", shop, "--run", run, *SMALL, *words)
    assert said.err == f"agman: {parts} parts\n"


# ---------------------------------------------------------------------- several machines

EPOCHS = 30  # enough to be stopped between the first and the last

# What a cluster has and this machine has not: two machines, both of them this one.
SCONTROL = '[ "$1 $2 $3" = "show hostnames machine[1-2]" ] && printf "localhost\\nother\\n"'
SRUN = """[ "$1" = --kill-on-bad-exit=1 ] && shift
for _ in $(seq "$SLURM_JOB_NUM_NODES"); do "$@" & started="$started $!"; done
for machine in $started; do wait "$machine" || exit 1; done"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a recipe on one of two machines, or as a job of both, with a process on each."""
    for name, script in {"scontrol": SCONTROL, "srun": SRUN}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    port = free_port()
    path = (str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1",
        "PET_LOCAL_ADDR": "localhost",  # for torchrun: both machines know this one by that name
        "FIRST": "localhost",
        "MACHINES": "2",
        "GPUS": "1",
        "PORT": str(port),
        "SLURM_JOB_NODELIST": "machine[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_ID": str(port),
    }
    shop = make_shop(tmp_path / "shop", 60)
    words = ["--data", shop, "--run", tmp_path / "run", "--epochs", EPOCHS, "--batch-size", 15]
    words += ["--size", 32, "--weights", "none", "--accumulate", 2, "--quiet"]

    started = []

    def start(recipe: str) -> subprocess.Popen[str]:
        command = [str(CLUSTER / recipe), *map(str, words)]
        machine = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(machine)
        return machine

    yield start
    for machine in started:  # only a failed test leaves any
        machine.terminate()


def free_port() -> int:
    """One that slurm.sh makes of a job of the same number."""
    for port in np.random.default_rng(os.getpid()).permutation(np.arange(20_000, 30_000)):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("", int(port)))
            return int(port)
    raise OSError("no port is free")


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are found in /proc")
def test_a_machine_dies_and_the_job_goes_on(
    start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    ours, theirs = (start("machines.sh") for _ in range(2))
    log = tmp_path / "run/log.jsonl"
    while not log.exists() and ours.poll() is None:
        time.sleep(0.02)
    children = Path(f"/proc/{theirs.pid}/task/{theirs.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)  # the process that trains, not torchrun
    said = [machine.communicate(timeout=60)[0] for machine in (ours, theirs)]
    assert 0 not in (ours.returncode, theirs.returncode), said
    done = len(log.read_text().splitlines())
    assert 1 <= done < EPOCHS

    job = start("slurm.sh")
    said, _ = job.communicate(timeout=200)
    assert job.returncode == 0, said
    assert said.count("Training on cpu by 2 processes") == said.count("macro (attributes)") == 1
    assert len(log.read_text().splitlines()) == EPOCHS


def test_slurm_reads_its_options() -> None:
    head, commands = (CLUSTER / "slurm.sh").read_text().split("set -eu\n")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", head, re.M))
    assert len(options) == head.count("#SBATCH") > 5
    assert all(line.startswith("#") for line in head.split("\n") if line)
    assert "#SBATCH" not in commands
    assert options["ntasks-per-node"] == "1"


def test_the_chapter_shows_the_recipes_and_commands_that_parse() -> None:
    chapter = json.loads((ROOT / "book/training_on_a_gpu.ipynb").read_text(encoding="utf-8"))
    text = "\n".join(
        "".join(cell["source"]) for cell in chapter["cells"] if cell["cell_type"] == "markdown"
    )
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    for recipe in sorted(CLUSTER.iterdir()):
        assert recipe.read_text() in blocks, recipe.name
    text = "".join(blocks).replace("\\\n#", " ").replace("\\\n", " ")
    lines = [line.strip("#& ").removeprefix("sbatch ") for line in text.splitlines()]
    tried = []
    for line in lines:
        _, command, rest = re.fullmatch(r"((?:[A-Z]+=\S+ )*)(\S*)(.*)", line).groups()
        words = shlex.split(rest) if "--data" in rest else []
        if command == "torchrun" and words:
            launch = torch.distributed.run.parse_args(words)
            assert (launch.training_script, launch.module) == ("agman.cli", True)
            words = launch.training_script_args
        elif command.startswith("tools/cluster/") and words:
            assert (ROOT / command).is_file()
            words = ["train", *words]
        if words:
            cli._parser().parse_args(words)
            tried.append(command)
    assert set(tried) == {
        "agman",
        "torchrun",
        "tools/cluster/machines.sh",
        "tools/cluster/slurm.sh",
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
