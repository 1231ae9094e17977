"""README and CONTRIBUTING keep their word: links lead somewhere, commands run or say why not."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from agman import cli, datasets
from agman.backbones import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")
}
README = TEXTS["README.md"]
RUN = ("agman data", "agman train", "agman embed", "agman search")  # by test_own_photos_example
NOT_RUN = {
    "make book": "`make test` builds the book before it runs this test",
    "make test": "this test is part of it",
    ".venv/bin/python -m pytest tests/test_metrics.py": "`make test` runs all files",
    ".venv/bin/ruff format && make lint": "it writes; `make test` begins with `make lint`",
    "rm -rf _build/.jupyter_cache": "it deletes the outputs of the book that other tests look at",
    "make bench": "it takes minutes on a quiet machine; tests/benchmarks runs it at a small size",
    "make fuzz": "it takes minutes; tests/trust/test_fuzz.py runs it at a small size",
    "make faults": "it takes minutes; tests/trust/test_faults.py runs it at a small size",
    "make coverage": "it runs the tests again; tests/trust/test_coverage.py tests its report",
    "make mutants": "it takes an hour",
    "PYTEST_ADDOPTS=--junitxml=_build/tests.xml make test": "this test is part of it",
    ".venv/bin/python -m tests.trust.report _build/tests.xml": "it records; see test_report.py",
    ".venv/bin/python -m tests.trust.report _build/tests.xml --out book/results/tests-3.12.json": (
        "it records; see tests/trust/test_report.py"
    ),
    "make audit": "it asks a service on the network",
    "tools/in_colab.sh": "it needs an environment with Colab's versions",
}


def blocks(language: str, text: str = README) -> list[str]:
    """A text's code blocks of one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Lines of the blocks for a shell, without their comments."""
    lines = [line.split("#")[0].strip() for one in blocks("bash", text) for line in one.split("\n")]
    return [line for line in lines if line]


@pytest.mark.parametrize("name", TEXTS)
def test_links_to_files_that_exist(name: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", TEXTS[name])
    assert name != "README.md" or "book/figures/welcome.png" in targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_every_block_runs_or_has_a_reason_not_to() -> None:
    found = [command for text in TEXTS.values() for command in commands(text)]
    assert {one for one in found if not one.startswith(RUN)} == NOT_RUN.keys()
    languages = {one for text in TEXTS.values() for one in re.findall(r"^ *```(\w+)", text, re.M)}
    assert languages == {"bash", "python", "csv"}, "how is a block of another kind tested?"


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_is_one(name: str) -> None:
    """In blocks and in sentences: programs, options, targets and files that are there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    spans = re.findall(r"`((?:agman|make|python|tools/|\.venv/bin/)[^`\n]*)`", TEXTS[name])
    for command in [*commands(TEXTS[name]), *spans]:
        for one in command.replace("<name>", "lab").split(" && "):
            program, *arguments = shlex.split(one)
            if program == "make" and arguments:
                assert re.search(rf"^{arguments[0]}:", makefile, flags=re.MULTILINE), one
            elif program == "agman" and (len(arguments) == 1 or "--help" in arguments):
                with pytest.raises(SystemExit, match="0"):
                    cli._parser().parse_args([arguments[0], "--help"])
            elif program == "agman" and arguments:
                cli._parser().parse_args(arguments)
            elif program.startswith("tools/"):
                assert not program.endswith(".sh") or os.access(ROOT / program, os.X_OK), one
            modules = re.findall(r"-m ((?:tools|tests)[.\w]+)", one)
            files = [f"{module.replace('.', '/')}.py" for module in modules]
            files += re.findall(r"(?:tools|tests)/[\w/]+\.\w+", one)
            assert [file for file in files if not (ROOT / file).is_file()] == [], one


def test_own_photos_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The four commands, on the README's table and drawn photos, with more rows to learn from."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    small = datasets.lab(1, 1, 40, progress=False, cache=tmp_path / "cache").test.queries
    Path("photos").mkdir()
    (table,) = blocks("csv")
    rows = table.splitlines()
    for line, picture in zip(rows[1:], small.images.array):
        Image.fromarray(picture).save(Path("photos") / line.split(",")[0])
    for number, picture in enumerate(small.images.array):
        name = f"more_{number:02}.jpg"
        Image.fromarray(picture).save(Path("photos") / name)
        rows.append(f"{name},{('blue', 'white')[number % 2]},{('short', 'long')[number // 2 % 2]}")
    Path("shop.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (commands,) = [block for block in blocks("bash") if "shop.csv" in block]
    for line in commands.strip().splitlines():
        short = ["--epochs", "1", "--quiet"] if " train " in line else ["--quiet"]
        assert cli.main([*shlex.split(line)[1:], *short]) == 0


@pytest.mark.skipif(
    not (SHIPPED / "agman_all_pairs.safetensors").exists(), reason="the model is not trained yet."
)
def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = datasets.lab
    monkeypatch.setattr(datasets, "lab", lambda: original(1, 1, 60, progress=False, cache=tmp_path))
    (example,) = blocks("python")
    space: dict[str, object] = {}
    exec(example, space)
    assert space["vectors"].shape == (2, 8, 64)  # type: ignore[attr-defined]
