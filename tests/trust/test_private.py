"""Importing the package and using the shipped weights ask no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUARD = """
import sys

def refuse(event, details):
    if event.startswith("socket.") or event == "urllib.Request":
        raise SystemExit(f"{event} {details}")

sys.addaudithook(refuse)
"""
WORK = """
import importlib, pkgutil, torch, agman
for module in pkgutil.walk_packages(agman.__path__, "agman."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
model = agman.load("lab/agman_all_pairs")
model.embed_all(torch.zeros(1, 3, 96, 96))
print("done")
"""


def guarded(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that ends at the first use of the network."""
    command = [sys.executable, "-c", GUARD + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_every_module_and_the_shipped_weights_ask_no_network() -> None:
    done = guarded(WORK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_the_guard_sees_a_question_to_the_network() -> None:
    for question in (
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
    ):
        done = guarded(question)
        assert done.returncode == 1
        assert "127.0.0.1" in done.stderr or "localhost" in done.stderr
