"""Installing `agman` on Colab changes nothing that Colab ships.

A dry run of pip, in an environment that claims to hold every package of Colab's own list. It needs
that list, which lies beside the repository, and a package index; without either it skips.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which each package of Colab's list has a name, a version and no content."""
    folder = ROOT.parent / "shared" / "design"
    lists = sorted(folder.glob("colab-pip-freeze-gpu-*.txt"))
    if not lists:
        pytest.skip("No copy of Colab's package list beside the repository.")
    environment = tmp_path_factory.mktemp("colab") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    shipped = re.findall(r"^([\w.-]+)==(\S+)$", lists[-1].read_text("utf-8"), re.MULTILINE)
    assert len(shipped) > 600
    for name, version in shipped:
        about = packages / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    return environment


def would_install(colab: Path, source: str, report: Path) -> set[str]:
    """Names of the packages that ``pip install source`` would add or replace in `colab`."""
    python = str(colab / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--timeout", "5", "--retries", "1"]
    install = ["install", "--dry-run", "--quiet", "--report", str(report), source]
    done = subprocess.run([*pip, *install], capture_output=True, text=True)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("No package index can be reached.")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {package["metadata"]["name"] for package in found}


def test_nothing_but_agman_would_be_installed(colab: Path, tmp_path: Path) -> None:
    # With the extras that lessons use: Colab ships what they ask for as well.
    assert would_install(colab, f"{ROOT}[timm,hub]", tmp_path / "report.json") == {"agman"}


@pytest.mark.parametrize(
    ("bound", "changed"),
    [("tqdm>=4.66", "tqdm>=4.68"), ("ipywidgets>=7.7", "ipywidgets<7.7.1")],
    ids=["raised", "capped"],
)
def test_another_bound_would_be_noticed(
    colab: Path, tmp_path: Path, bound: str, changed: str
) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{bound}"' in project
    (tmp_path / "pyproject.toml").write_text(project.replace(bound, changed), encoding="utf-8")
    for name in ("README.md", "LICENSE", "agman/__init__.py", "book/results/none.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    replaced = would_install(colab, str(tmp_path), tmp_path / "report.json") - {"agman"}
    assert re.match(r"\w+", bound)[0] in replaced
