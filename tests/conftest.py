"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Same examples on every run, and no deadline: machines differ, results should not.
settings.register_profile("agman", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("agman")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the processors


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Real photographs and index files beside the repository; skips where there are none."""
    folder = ROOT.parent / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip("No real data beside the repository (../shared/realdata).")
    return folder
