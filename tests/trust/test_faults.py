"""A short run of the kills, and proof that it can fail; the long run is `faults.py` itself.

It forks, which wants a process with one thread: hence a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fcntl", reason="kills are tried where processes fork")
ROOT = Path(__file__).resolve().parents[2]


def run(*words: str) -> tuple[int, Any]:
    """Exit code and summary of a Python of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=600,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


def test_killed_work_goes_on_to_the_same_end_and_leaves_no_half_file() -> None:
    code, found = run("-m", "tests.trust.faults", "--kills", "16", "--seed", "1")
    assert (found["half_files"], found["not_resumed"], found["differences"]) == ([], [], [])
    assert code == 0
    assert found["kills"] == 16
    assert all(sum(kinds.values()) for kinds in found["by_job"].values()), "every job was killed"


BROKEN = """
import contextlib, json, torch
from agman import storage
from agman.datasets import images
from tests.trust.faults import faults
torch.set_num_threads(1)

@contextlib.contextmanager
def in_place(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path

right, storage.replacing, images.replacing = storage.replacing, in_place, in_place
half = faults(6, only=["conversion"])
storage.replacing = images.replacing = right
torch.optim.AdamW.load_state_dict = lambda self, state: None
forgets = faults(6, only=["training"])
print(json.dumps([half, forgets]))
"""


def test_the_kills_see_half_files_and_forgotten_states() -> None:
    _, (half, forgets) = run("-c", BROKEN)
    assert half["half_files"]
    assert forgets["differences"]
    assert "last.pt" in forgets["differences"][0]
    assert not forgets["half_files"]
