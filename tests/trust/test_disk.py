"""A disk that is full, read-only, shared or emptied: one sentence, nothing lost, and on it goes."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tqdm.auto import tqdm

import agman
from agman import training
from agman.attributes import RetrievalData
from agman.datasets import FolderImages, lab, prepare
from agman.errors import InputError
from agman.storage import alone_in, read_tensors
from agman.training import Steps, train
from tests import tiny

resource = pytest.importorskip("resource", reason="limits are set as on Linux and macOS")
faults = pytest.importorskip("tests.trust.faults")
NAMES = ("training", "conversion", "index", "reproduce")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder whose files anybody may read; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def known(place: Path) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Every kind of work, and what its folder holds in the end."""
    (place / "inputs").mkdir()
    found = {}
    for name, job in faults.jobs(place / "inputs").items():
        whole = place / f"whole-{name}"
        whole.mkdir()
        job.begin(whole)
        before = faults.contents(whole)
        job.run(whole)
        found[name] = job, faults.Reference(before, faults.contents(whole), 0, 0, 0)
    return found


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes; a write beyond fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def said_once(error: str) -> None:
    """One sentence, one line, with a remedy."""
    assert "\n" not in error.strip()
    assert any(word in error for word in ("free some space", "choose", "need"))


@pytest.mark.parametrize("size", [50, 5_000])
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name: str, size: int, known: Any, tmp_path: Path, capsys: Any) -> None:
    job, reference = known[name]
    job.begin(tmp_path)
    capsys.readouterr()
    with disk_of(size), pytest.raises((InputError, RuntimeError)) as caught:
        job.run(tmp_path)
    if name == "reproduce":  # a command, which prints its sentence
        assert "could not be written" in "".join(capsys.readouterr())
    else:
        assert caught.type is InputError
        assert "could not be written" in str(caught.value)
        said_once(str(caught.value))
    assert not list(tmp_path.rglob("*.part"))
    assert faults.half_files(job, reference, tmp_path) == []
    job.run(tmp_path)
    assert faults.contents(tmp_path) == reference.after


def test_a_disk_that_fills_in_the_second_epoch_keeps_the_first(
    known: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, reference = known["training"]
    save, saved = training.save_state, []

    def save_once(*args: Any) -> None:
        saved.append(1)
        with disk_of(1000 if len(saved) > 1 else 10**9):
            save(*args)

    monkeypatch.setattr(training, "save_state", save_once)
    with pytest.raises(InputError, match=r"last\.pt could not be written"):
        job.run(tmp_path)
    monkeypatch.undo()
    assert len(training.load_state(tmp_path / "last.pt")["history"]) == 1
    job.run(tmp_path)
    assert faults.contents(tmp_path) == reference.after


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of the administrator, for whom no folder is read-only."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_folder(name: str, known: Any, place: Path, capsys: Any) -> None:
    job, _ = known[name]
    folder = place / f"closed-{name}"
    folder.mkdir()
    job.begin(folder)
    before = faults.contents(folder)
    folder.chmod(0o555)
    capsys.readouterr()
    with nobody(), pytest.raises((InputError, RuntimeError)) as caught:
        job.run(folder)
    folder.chmod(0o755)
    said = str(caught.value) if name != "reproduce" else "".join(capsys.readouterr())
    assert "Permission denied" in said
    assert str(folder) in said
    assert faults.contents(folder) == before


def test_two_runs_in_one_folder(known: Any, tmp_path: Path) -> None:
    for name, folder in (("training", tmp_path / "a"), ("conversion", tmp_path / "b")):
        job, reference = known[name]
        locked = folder if name == "training" else folder / "FashionAI"
        with alone_in(locked), pytest.raises(InputError, match="another process is at work") as e:
            job.run(folder)
        said_once(str(e.value))
        assert list(locked.iterdir()) == [], "the second has written nothing"
        job.run(folder)
        assert faults.contents(folder) == reference.after


def test_a_run_that_failed_gives_its_folder_back(tmp_path: Path) -> None:
    try:
        with alone_in(tmp_path):
            raise KeyError
    except KeyError as error:
        kept = error  # and with it every frame
    with alone_in(tmp_path):
        assert kept.__traceback__ is not None


def photographed(inputs: Path) -> Any:
    """The tiny data, its images as files in a folder."""
    data = tiny.data()

    def on_files(rows: Any) -> Any:
        return dataclasses.replace(rows, images=FolderImages(inputs, rows.images.names))

    valid = training.QueryGallery(on_files(data.valid.queries), on_files(data.valid.gallery))
    return dataclasses.replace(data, train=on_files(data.train), valid=valid)


def test_a_photo_that_vanishes_while_training(
    place: Path, known: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, away = tmp_path / "photos", tmp_path / "away.png"
    shutil.copytree(place / "inputs" / "photos", photos)
    data, run = photographed(photos), tmp_path / "run"
    draw = Steps.draw

    def draw_and_lose(self: Steps, epoch: int, part: slice) -> Iterator[training.Step]:
        if epoch == 1:
            (photos / "0.png").rename(away)
        yield from draw(self, epoch, part)

    monkeypatch.setattr(Steps, "draw", draw_and_lose)
    with pytest.raises(InputError, match=r"0\.png: there is no such image; check"):
        train(faults.small_model(), data, faults.CONFIG, run=run, progress=False)
    monkeypatch.undo()
    away.rename(photos / "0.png")
    train(faults.small_model(), data, faults.CONFIG, run=run, progress=False)
    assert faults.contents(run) == known["training"][1].after


def test_a_photo_that_vanishes_while_packing(place: Path, known: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(place / "inputs" / "photos", photos)
    data = dataclasses.replace(tiny.data(), name="FashionAI")
    load = FolderImages.load

    def lose_and_load(self: FolderImages, *args: Any) -> torch.Tensor:
        (photos / "40.png").unlink(missing_ok=True)
        return load(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderImages, "load", lose_and_load)
        with pytest.raises(InputError, match=r"40\.png: there is no such image"):
            prepare(data, photos, tmp_path / "out", faults.SIZE, progress=False)
    shutil.copy(place / "inputs" / "photos" / "40.png", photos)
    prepare(data, photos, tmp_path / "out", faults.SIZE, progress=False)
    assert faults.contents(tmp_path / "out") == known["conversion"][1].after


@pytest.mark.parametrize("file", ["best.safetensors", "last.pt", "config.json", "log.jsonl"])
def test_a_file_of_the_run_that_is_gone(file: str, known: Any, tmp_path: Path) -> None:
    """Without its weights a run says so; without the rest it trains again to the same end."""
    job, reference = known["training"]
    job.run(tmp_path)
    (tmp_path / file).unlink()
    if file == "best.safetensors":
        with pytest.raises(InputError, match=r"no weights file .*best\.safetensors; "):
            job.run(tmp_path)
        (tmp_path / "last.pt").unlink()
    job.run(tmp_path)
    assert faults.contents(tmp_path) == reference.after


FEW: dict[str, Any] = {"n_train": 205, "n_valid": 10, "n_test": 10, "size": 32, "progress": False}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> RetrievalData:
    return lab(cache=tmp_path_factory.mktemp("drawn"), workers=1, **FEW)


def same_images(found: RetrievalData, expected: RetrievalData) -> None:
    pairs = ((found.train, expected.train), (found.test.gallery, expected.test.gallery))
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours.images.array, theirs.images.array)
        np.testing.assert_array_equal(ours.value, theirs.value)


def kill_one() -> bool:
    """Kill a process that draws, if there is one."""
    workers = [child.pid for child in multiprocessing.active_children() if child.pid]
    for worker in workers[:1]:
        os.kill(worker, signal.SIGKILL)
    return bool(workers)


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.3])
def test_a_process_that_is_killed_before_it_draws(
    pause: float, drawn: RetrievalData, tmp_path: Path
) -> None:
    """The images are drawn to the end all the same, and are the same."""
    killed = threading.Event()

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            pass
        time.sleep(pause)
        if kill_one():
            killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    same_images(lab(cache=tmp_path, workers=2, **FEW), drawn)
    killer.join()
    assert killed.is_set()


def test_a_process_that_is_killed_while_it_draws(
    drawn: RetrievalData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[bool] = []

    class Killing(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            if not killed:  # the first images are there
                killed.append(kill_one())
            return super().update(n)

    monkeypatch.setattr(importlib.import_module("agman.datasets.lab"), "tqdm", Killing)
    same_images(lab(cache=tmp_path, workers=2, **FEW), drawn)
    assert killed == [True]


def test_a_moved_clock_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun in the future, gone on with in the past."""
    config = training.TrainConfig(epochs=4, triplets_per_epoch=8, batch_size=4)

    def run(folder: Path) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        model = agman.create_model("csn", n_attributes=2, backbone="lab", dim=8)
        return train(model, tiny.data(), config, run=folder, progress=False)

    class Past(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime(1999, 12, 31, tzinfo=tz)

    keep = training.RunFolder.keep

    def keep_two(self: training.RunFolder, *state: Any) -> None:
        keep(self, *state)
        if len(state[-1]) == 2:
            raise KeyboardInterrupt

    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(training.RunFolder, "keep", keep_two)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "moved")
    for file in (tmp_path / "moved").iterdir():
        os.utime(file, (4e9, 4e9))
    monkeypatch.setattr("agman.provenance.datetime.datetime", Past)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    history = run(tmp_path / "moved")
    assert [row["seconds"] >= 0 for row in history] == [True] * 4
    best = [read_tensors(tmp_path / name / "best.safetensors") for name in ("whole", "moved")]
    assert all(torch.equal(best[0][0][key], value) for key, value in best[1][0].items())
    assert len((tmp_path / "moved" / "log.jsonl").read_text().splitlines()) == 4
