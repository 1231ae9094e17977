"""What the scripts of `data_scripts/` and `agman` print on small made-up data, recorded.

    python -m tools.transcripts            # name the transcripts that differ from what is printed
    python -m tools.transcripts --write    # record them, and renew the copies in the chapter

Each transcript in `book/results/transcripts/` is a session on a tree in the true format of a
download. What differs from machine to machine is left out: progress bars and free room on the
disk, and an x stands for a digit that is measured. Long lines are broken at blanks.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
import textwrap
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import nbformat

from agman import cli
from tests.data_scripts import products_tree, trees, zappos_tree

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "book" / "results" / "transcripts"
CHAPTER = ROOT / "book" / "real_datasets.ipynb"
WIDTH = 86

_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)


# ----------------------------------------------------------------------------- the sessions


def fashionai() -> Iterator[str]:
    """Two archives; then an archive cut short, a lost image, other labels, lists that do not fit.

    Yields:
        The commands, one after the other, in a folder where the trees lie.
    """
    script = "python data_scripts/fashionai.py --root downloads"
    tree = trees.fashionai_tree(Path("made_fashionai"), per_attribute=60)
    for part in trees.PARTS:
        _zip(tree, part, Path(f"downloads/fashionai/{part}.zip"))
    shutil.copytree("downloads/fashionai", "downloads/cut_short")
    yield from _right(f"{script}/fashionai --out data")

    archive = Path(f"downloads/cut_short/{trees.PARTS[1]}.zip")
    archive.write_bytes(archive.read_bytes()[:-5000])
    yield f"{script}/cut_short --out other"

    lost = Path(shutil.copytree(tree, "downloads/lost_image"))
    min((lost / trees.PARTS[1] / "Images/coat_length_labels").iterdir()).unlink()
    yield f"{script}/lost_image --out other"

    labels = Path(shutil.copytree(tree, "downloads/other_labels"), trees.PARTS[0], "Annotations")
    file = labels / "label.csv"
    file.write_text(re.sub(r"(coat_length_labels,\w{7})\w\n", r"\1\n", file.read_text()))
    yield f"{script}/other_labels --out other"

    lists = Path(shutil.copytree("data/FashionAI", "downloads/other_lists"))
    file = lists / "filenames_test.txt"
    file.write_text(file.read_text().replace(".jpg", "0.jpg"))
    yield f"{script}/fashionai --out other \\\n    --splits downloads/other_lists"


def deepfashion() -> Iterator[str]:
    """Annotations as folders, images as an archive; then faults as above."""
    script = "python data_scripts/deepfashion.py --root downloads"
    tree = trees.deepfashion_tree(Path("made_deepfashion"), n=120)
    root = Path(shutil.copytree(tree, "downloads/deepfashion"))
    shutil.rmtree(root / "Img")
    _zip(tree / "Img", "img", root / "Img/img.zip")
    shutil.copytree(root, "downloads/cut_short_too")
    yield from _right(f"{script}/deepfashion --out data")

    archive = Path("downloads/cut_short_too/Img/img.zip")
    archive.write_bytes(archive.read_bytes()[:-5000])
    yield f"{script}/cut_short_too --out other"

    lost = Path(shutil.copytree(tree, "downloads/lost_item"))
    shutil.rmtree(min((lost / "Img/img").iterdir()))
    yield f"{script}/lost_item --out other"

    short = Path(shutil.copytree(tree, "downloads/short_list"))
    file = short / "Anno_coarse/list_attr_img.txt"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-9]))
    yield f"{script}/short_list --out other"


def zappos50k() -> Iterator[str]:
    """Nothing yet; then the three archives; then one cut short, a lost photo, an older list."""
    script = "python data_scripts/zappos50k.py --root downloads"
    yield f"{script}/zappos50k --out data --dry-run  # before the download"
    tree = zappos_tree.zappos_tree(Path("made_zappos50k"))
    zappos_tree.zappos_archives(tree, Path("downloads/zappos50k"))
    shutil.copytree("downloads/zappos50k", "downloads/half_shoes")
    yield from _right(f"{script}/zappos50k --out data")

    archive = Path(f"downloads/half_shoes/{zappos_tree.IMAGES}.zip")
    archive.write_bytes(archive.read_bytes()[:-5000])
    yield f"{script}/half_shoes --out other"

    lost = Path(shutil.copytree(tree, "downloads/lost_shoe"))
    min((lost / zappos_tree.IMAGES).rglob("*.jpg")).unlink()
    yield f"{script}/lost_shoe --out other"

    older = Path(shutil.copytree(tree, "downloads/other_triplets"))
    file = older / zappos_tree.TRIPLETS / "filenames.json"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:100]))
    yield f"{script}/other_triplets --out other"


def products() -> Iterator[str]:
    """A table of photos as the hub has it; then a lost photo and a damaged one."""
    script = "python data_scripts/product_photos.py --root downloads"
    rows = products_tree.products()
    table = Path("downloads/products/data/train-00000-of-00001.parquet")
    products_tree.write_stand_in(rows, table)
    yield from _right(f"{script}/products --out data")

    lost = products_tree.products_tree(Path("downloads/lost_photo"), rows)
    min((lost / "images").iterdir()).unlink()
    yield f"{script}/lost_photo --out other"

    damaged = products_tree.products_tree(Path("downloads/half_photo"), rows)
    photo = min((damaged / "images").iterdir())
    photo.write_bytes(photo.read_bytes()[:600])
    yield f"{script}/half_photo --out other"


def lab() -> Iterator[str]:
    """Few drawn pictures; then one is spoilt."""
    script = "python data_scripts/lab.py --out data"
    yield f"{script} --n 40 10 20 --dry-run"
    yield f"{script} --n 40 10 20"
    yield f"{script} --n 40 10 20  # again"
    yield f"{script} --check"

    picture = min(Path("data/images/lab").rglob("*.png"))
    picture.write_bytes(max(Path("data/images/lab").rglob("*.png")).read_bytes())
    yield f"{script} --check  # after a picture was replaced"


def training() -> Iterator[str]:
    """From the prepared folders to tables, on the lab's small backbone."""
    small = "--backbone lab --weights none --size 32 --triplets 64"
    for name in ("FashionAI", "DeepFashion", "Zappos50k"):
        yield f"agman data check data/{name}"
    yield (
        "agman train --data data/FashionAI --preset fashionai --model asenet_v2 \\\n"
        f"    --run runs/try --epochs 2 {small}"
    )
    yield f"agman reproduce fashionai --dry-run \\\n    {small}"
    for name in ("deepfashion", "zappos50k", "products"):
        yield f"agman reproduce {name} --dry-run --variants AG-MAN \\\n    {small}"
    yield f"agman reproduce fashionai --variants AG-MAN --seeds 0 1 --epochs 1 \\\n    {small}"
    yield "agman evaluate --weights runs/FashionAI/ag_man-0 --data data/FashionAI --ties order"
    yield "agman reproduce deepfashion --data data/DeepFashoin"


SESSIONS: tuple[Callable[[], Iterator[str]], ...] = (
    fashionai,
    deepfashion,
    zappos50k,
    products,
    lab,
    training,
)


def _right(command: str) -> Iterator[str]:
    """The four steps of every script."""
    yield f"{command} --dry-run"
    yield command
    yield f"{command}  # again"
    yield f"{command} --check"


def _zip(tree: Path, part: str, archive: Path) -> None:
    """A folder of a tree as an archive that unpacks to it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for file in sorted((tree / part).rglob("*")):
            if file.is_file():
                target.write(file, file.relative_to(tree).as_posix())


# ----------------------------------------------------------------------------- recording


def record(folder: Path) -> dict[str, dict[str, str]]:
    """Run all sessions in an empty folder.

    Returns:
        Of each session its commands, and what each prints.
    """
    # pyarrow is not needed elsewhere; where it is missing its stand-in reads the table.
    parquet = types.ModuleType("pyarrow.parquet")
    parquet.ParquetFile = products_tree.StandIn  # type: ignore[attr-defined]
    modules = {"pyarrow": types.ModuleType("pyarrow"), "pyarrow.parquet": parquet}
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, AGMAN_CACHE=str(folder / "cache")),
        mock.patch.dict(sys.modules, modules),
    ):
        return {s.__name__: {command: printed(command) for command in s()} for s in SESSIONS}


def printed(command: str) -> str:
    """What a command prints here: its output, and the sentence of an error."""
    program, *words = shlex.split(command.replace("\\\n", ""), comments=True)
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        failed = cli.main(words) if program == "agman" else _script(words)
    text = out.getvalue()
    if failed:
        text += error.getvalue().rstrip().splitlines()[-1].rpartition("\r")[2] + "\n"
    return normalised(text, measured=program == "agman")


def _script(words: list[str]) -> int:
    """Run a script as the shell does; its exit code."""
    with mock.patch.object(sys, "argv", words):
        try:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def normalised(text: str, measured: bool) -> str:
    """The text without what differs from machine to machine.

    Args:
        text: what was printed.
        measured: whether decimals behind blanks are measured; published ones never are.
    """
    lines = []
    for line in text.splitlines():
        line = re.sub(r"[\d,.]+ [GM]B( are)? free", r"... GB\1 free", line)
        if measured and not line.startswith(("published", "Random")):
            line = re.sub(r" +\d+(\.\d+)", _masked, line)
            line = re.sub(r"\d+ s$", "x s", line)
        if len(line) > WIDTH and "  " not in line.strip():
            lines += textwrap.wrap(line, WIDTH, break_on_hyphens=False, break_long_words=False)
        else:
            lines.append(line.rstrip())
    return "".join(f"{line}\n" for line in lines)


def _masked(match: re.Match[str]) -> str:
    """A measured number; in a column it stays as wide as it is."""
    decimals = len(match[1]) - 1
    text = f"x.{decimals * 'x'}"
    return f" {text}" if match[0][1] != " " else text.rjust(len(match[0]))


# ----------------------------------------------------------------------------- on paper


def transcript(steps: dict[str, str]) -> str:
    """A session as a terminal shows it."""
    return "\n".join(f"$ {command}\n{output}" for command, output in steps.items())


def renewed(page: str, outputs: dict[str, str]) -> str:
    """A page of the chapter with what its commands print today.

    Raises:
        KeyError: a command was never run.
    """

    def block(match: re.Match[str]) -> str:
        commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", match[0], re.MULTILINE)
        return transcript({command: outputs[command] for command in commands})

    return _BLOCK.sub(block, page)


def main(arguments: list[str] | None = None) -> int:
    """Compare, or with `--write` renew, the transcripts and the chapter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="record what is printed now")
    write = parser.parse_args(arguments).write
    with tempfile.TemporaryDirectory() as folder:
        sessions = record(Path(folder))
    files = {FOLDER / f"{name}.txt": transcript(steps) for name, steps in sessions.items()}
    changed = [p for p, text in files.items() if not p.exists() or p.read_text() != text]
    outputs = {command: text for steps in sessions.values() for command, text in steps.items()}
    chapter = nbformat.read(CHAPTER, as_version=4)
    old = [cell.source for cell in chapter.cells]
    for cell in chapter.cells:
        cell.source = renewed(cell.source, outputs)
    if old != [cell.source for cell in chapter.cells]:
        changed.append(CHAPTER)
    if write:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
        if CHAPTER in changed:
            nbformat.write(chapter, CHAPTER)
    for path in changed:
        print(f"{path.relative_to(ROOT)}: {'renewed' if write else 'differs from what is printed'}")
    return 1 if changed and not write else 0


if __name__ == "__main__":
    sys.exit(main())
