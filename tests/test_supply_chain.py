"""What the project takes from others: each dependency has a reason, each copied file a licence."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import vendor
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def rows(file: Path, heading: str = "") -> list[list[str]]:
    """The cells of the first table below a heading of a Markdown file, without its head."""
    text = file.read_text(encoding="utf-8").partition(heading)[2] if heading else file.read_text()
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None, f"{file.name} has no table"
    return [line.strip("|").split(" | ") for line in table[0].splitlines()[2:]]


def test_every_dependency_has_a_reason_and_no_reason_is_left_over() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)]
    table = rows(ROOT / "CONTRIBUTING.md", "## Why each dependency is there")
    named = {name for first, _ in table for name in re.findall(r"`([\w.-]+)`", first)}
    assert named - (extras.keys() - {"timm"}) == {Requirement(line).name for line in asked}
    assert all(len(reason.strip()) > 5 for _, reason in table)


def test_every_vendored_package_has_its_licence_beside_it() -> None:
    listed = {
        name.strip(" `|"): re.findall(r"licenses/[\w.-]+", licence)
        for name, _, _, licence in rows(vendor.VENDOR / "README.md")
    }
    assert listed.keys() == vendor.PACKAGES.keys()
    for package, files in listed.items():
        assert files, f"{package}: name its licence's file"
        for file in files:
            assert len((vendor.VENDOR / file).read_text(encoding="utf-8")) > 500
    unnamed = {f"licenses/{p.name}" for p in (vendor.VENDOR / "licenses").iterdir()}
    assert unnamed == {file for files in listed.values() for file in files}


def test_the_weekly_run_mirrors_ours_on_every_python_and_in_colab() -> None:
    text = (ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13"]
    oldest = Requirement(f"x{PROJECT['requires-python']}").specifier
    assert [p in oldest for p in ("3.10", *pythons)] == [False, True, True, True]
    run = {job: " ".join(s.get("run", "") for s in body["steps"]) for job, body in jobs.items()}
    assert ".ci/run" in run["test"]
    script = re.search(r"/course/(\S+)", run["colab"])
    assert script is not None
    assert (ROOT / script[1]).stat().st_mode & 0o100, "Colab's image has to be able to run it"
    assert jobs["publish"]["needs"] == "test"
