"""The README keeps its word: its links lead somewhere, its example and its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from agman import cli, datasets
from agman.backbones import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_links_to_files_that_exist() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert "book/figures/welcome.png" in targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_every_command_is_one() -> None:
    lines = [line.split("#")[0] for block in blocks("bash") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.strip()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for program, *arguments in commands:
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, flags=re.MULTILINE)
        else:
            assert program == "agman"
            cli._parser().parse_args(arguments)


def test_own_photos_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The four commands, on drawn photos under the README's file and column names."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    small = datasets.lab(1, 1, 40, progress=False, cache=tmp_path / "cache").test.queries
    Path("photos").mkdir()
    rows = ["file,color,sleeve_length"]
    for number, picture in enumerate(small.images.array):
        name = f"shirt_{number:02}.jpg"
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
