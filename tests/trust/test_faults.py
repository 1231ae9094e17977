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
    return done.returncode, json.loads(done.stdout.rpartition("---")[2])


def test_killed_work_goes_on_to_the_same_end_and_leaves_no_half_file(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    code, found = run("-m", "tests.trust.faults", "--kills", "16", "--seed", "1", "--out", str(out))
    assert found["problems"] == []
    assert code == found["lost"] == found["half_files"] == 0
    assert found["resumed"] == found["bit_equal"] == found["trials"]
    assert sum(found["kills"].values()) == 16
    recorded = json.loads(out.read_text())
    assert recorded.pop("provenance")["versions"]["agman"]
    assert recorded == found
    assert all(sum(kinds.values()) for kinds in found["by_job"].values()), "every job was killed"


BROKEN = """
import contextlib, json, sys, torch
from agman import storage
from agman.datasets import images
from tests.trust import faults as driver
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
driver.faults = lambda *_, **__: half
code = driver.main(["--out", sys.argv[1]])
print("---", json.dumps([half, forgets]))
sys.exit(code)
"""


def test_the_kills_see_half_files_and_forgotten_states(tmp_path: Path) -> None:
    code, (half, forgets) = run("-c", BROKEN, str(tmp_path / "out.json"))
    assert code == 1
    assert half["half_files"]
    assert half["problems"]
    assert forgets["bit_equal"] < forgets["resumed"]
    assert "difference" in forgets["problems"][0]
    assert "last.pt" in forgets["problems"][0]
    assert not forgets["half_files"]
