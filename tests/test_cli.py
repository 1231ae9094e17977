"""The command line as a newcomer meets it: from a catalogue to a search, and every typo."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import agman
from agman import cli, commands, datasets
from agman.embedding import fingerprint
from agman.training import RunFolder
from tests import tiny
from tests.test_experiments import prepared, triplet_lists

ROOT = Path(__file__).resolve().parents[1]
COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
SMALL = ["--size", "32", "--weights", "none", "--epochs", "2", "--batch-size", "16", "--quiet"]


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


def run(*words: object) -> Said:
    """One command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return Said(code, out.getvalue(), err.getvalue())


def python_m(*words: object) -> subprocess.CompletedProcess[str]:
    """One command, in a fresh process."""
    command = [sys.executable, "-m", "agman.cli", *map(str, words)]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )


def make_shop(folder: Path, n: int = 90) -> Path:
    """A catalogue of coloured squares, left or right on noise; gives the CSV."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    lines = ["file,color,place"]
    for i in range(n):
        color, place = list(COLORS)[i % 3], ("left", "right")[i // 3 % 2]
        picture = random.integers(90, 150, (40, 40, 3)).astype(np.uint8)
        x, y = random.integers(0, 4) + (22 if place == "right" else 2), random.integers(2, 24)
        picture[y : y + 14, x : x + 14] = COLORS[color]
        Image.fromarray(picture).save(folder / "images" / f"{i:03}.png")
        lines.append(f"{i:03}.png,{color},{place}")
    (folder / "shop.csv").write_text("\n".join(lines) + "\n")
    return folder / "shop.csv"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def trained(shop: Path) -> tuple[Path, Said]:
    """A run folder and what training said."""
    folder = shop.parent / "run"
    return folder, run("train", "--data", shop, "--run", folder, *SMALL, "--epochs", 4)


@pytest.fixture(scope="module")
def index(trained: tuple[Path, Said], shop: Path) -> Path:
    file = shop.parent / "index.safetensors"
    photos = shop.parent / "images"
    said = run("embed", "--weights", trained[0], "--photos", photos, "--out", file, "--quiet")
    assert said.code == 0, said.err
    return file


@pytest.fixture
def small_lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab = functools.partial(datasets.lab, 40, 15, 20, cache=tmp_path / "cache")
    monkeypatch.setattr(datasets, "lab", lab)


# --- the whole way --------------------------------------------------------------------------------


def test_training_says_what_it_does(trained: tuple[Path, Said]) -> None:
    folder, said = trained
    assert said.code == 0, said.err
    for part in ("color: red", "train: 45 photos", "4 epochs of 2 steps, 8 steps", "best, kept"):
        assert part in said.out
    assert "macro (attributes)" in said.out
    wanted = "best.safetensors config.json data data.json images.npz last.pt log.jsonl report.json"
    assert sorted(path.name for path in folder.iterdir()) == wanted.split()


def test_the_report_names_everything_needed_to_repeat_it(trained: tuple[Path, Said]) -> None:
    report = json.loads((trained[0] / "report.json").read_text())
    assert report["per_attribute"]["color"] > report["chance"]["color"] + 20
    assert report["split"] == "test"
    assert report["run"]["size"] == 32
    assert report["provenance"]["versions"]["torch"]
    assert report["training"]["train_config"]["epochs"] == 4
    assert report["fingerprint"] == fingerprint(agman.load(trained[0] / "best.safetensors"))


def test_evaluating_the_run_gives_the_same_numbers(
    trained: tuple[Path, Said], tmp_path: Path
) -> None:
    said = run(
        "evaluate", "--run", trained[0], "--worst", 3, "--json", tmp_path / "e.json", "--quiet"
    )
    assert said.code == 0, said.err
    ours = json.loads((tmp_path / "e.json").read_text())
    first = json.loads((trained[0] / "report.json").read_text())
    assert ours["per_attribute"] == pytest.approx(first["per_attribute"])
    assert len(ours["worst"]) == 3
    assert ours["worst"][0]["image"] in said.out


def test_a_run_is_evaluated_on_photos_it_never_saw(trained: tuple[Path, Said]) -> None:
    lists = trained[0] / "data" / "shop"
    parts = [
        set((lists / f"filenames_{split}.txt").read_text().split())
        for split in ("train", "valid", "test")
    ]
    assert [len(part) for part in parts] == [45, 15, 30]
    assert len(set.union(*parts)) == 90, "no photo is in two parts"


def test_a_run_needs_neither_catalogue_nor_photos_any_more(tmp_path: Path) -> None:
    shop, folder = make_shop(tmp_path / "shop", 30), tmp_path / "run"
    assert run("train", "--data", shop, "--run", folder, *SMALL).code == 0
    (tmp_path / "shop").rename(tmp_path / "elsewhere")
    assert run("evaluate", "--run", folder, "--quiet").code == 0


def test_weights_can_be_evaluated_on_the_catalogue(trained: tuple[Path, Said], shop: Path) -> None:
    """The split depends on names and seed only, so it is that of the run."""
    said = run("evaluate", "--weights", trained[0], "--data", shop, "--quiet")
    assert said.out == run("evaluate", "--run", trained[0], "--quiet").out


def test_search_finds_the_color(index: Path, trained: tuple[Path, Said], shop: Path) -> None:
    right = 0
    for number in (0, 1, 2, 33, 34, 35):
        photo = shop.parent / "images" / f"{number:03}.png"
        ask = ("--index", index, "--weights", trained[0], "--photo", photo, "--quiet")
        said = run("search", *ask, "--attribute", "color", "-k", 11)
        assert said.code == 0, said.err
        names = [line.split()[-1] for line in said.out.splitlines()[1:]]
        assert names[0] == photo.name, "the photo itself"
        right += sum(int(name[:3]) % 3 == number % 3 for name in names[1:])
    assert right >= 45, f"{right} of 60 have the color; chance is 20"


def test_search_draws_what_it_found(
    index: Path, trained: tuple[Path, Said], shop: Path, tmp_path: Path
) -> None:
    photos = shop.parent / "images"
    ask = ("--index", index, "--weights", trained[0], "--photo", photos / "003.png")
    picture = ("--photos", photos, "--png", tmp_path / "found.png")
    said = run("search", *ask, "--attribute", 0, "-k", 12, *picture)
    assert said.code == 0, said.err
    with Image.open(tmp_path / "found.png") as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > drawn.height


def test_embedding_can_leave_out_bad_photos(
    trained: tuple[Path, Said], shop: Path, tmp_path: Path
) -> None:
    Image.open(shop.parent / "images" / "000.png").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG cut short")
    words = ("embed", "--weights", trained[0], "--photos", tmp_path, "--out", tmp_path / "i.st")
    refused = run(*words, "--quiet")
    assert refused.code == 2
    assert "leave them out with --skip-bad" in refused.err
    assert not (tmp_path / "i.st").exists()
    said = run(*words, "--quiet", "--skip-bad")
    assert said.code == 0, said.err
    assert "left out: " in said.out
    assert "1 photos under 2 attributes" in said.out


def test_a_model_of_every_kind_and_recipe_trains(shop: Path, tmp_path: Path) -> None:
    for model in agman.list_models():
        extra = ("--recipe", "triplet", "--triplets", 32) if model != "csn" else ()
        folder = tmp_path / model
        said = run("train", "--data", shop, "--run", folder, "--model", model, *SMALL, *extra)
        assert said.code == 0, said.err


def test_the_released_recipe_and_a_frozen_backbone(shop: Path, tmp_path: Path) -> None:
    words = ("--data", shop, *SMALL, "--triplets", 32)
    assert run("train", "--run", tmp_path / "r", *words, "--released").code == 0
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["train_config"]["recipe"] == "triplet"
    assert config["train_config"]["target"] == "sampled"
    assert config["model_config"]["unowned_mask"]
    assert run("train", "--run", tmp_path / "f", *words, "--freeze").code == 0
    assert json.loads((tmp_path / "f" / "config.json").read_text())["train_config"][
        "freeze_backbone"
    ]


def test_some_columns_only(shop: Path, tmp_path: Path) -> None:
    said = run("train", "--data", shop, "--attributes", "place", "--run", tmp_path, *SMALL)
    assert said.code == 0, said.err
    assert "color" not in said.out
    assert agman.load(tmp_path / "best.safetensors").schema.names == ("place",)


@pytest.mark.usefixtures("small_lab")
def test_the_lab_from_training_to_evaluation(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said = run("train", "--data", "lab", "--run", folder, *SMALL, "--triplets", 32)
    assert said.code == 0, said.err
    assert "sleeve_length" in said.out
    assert not (folder / "images.npz").exists(), "the lab has its own cache"
    assert run("evaluate", "--run", folder, "--quiet").code == 0
    again = run("evaluate", "--weights", folder, "--data", "lab", "--quiet", "--split", "valid")
    assert again.code == 0, again.err
    assert "FashionAI" in (folder / "best.safetensors").read_bytes()[:100_000].decode("latin-1")


def asen_folder(folder: Path) -> Path:
    data = tiny.data(48)
    for name, picture in zip(data.train.images.names, data.train.images.array, strict=True):
        (folder / "tiny").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "tiny" / name)
    datasets.write_asen(data, folder)
    return folder


def test_an_asen_folder_from_training_to_evaluation(tmp_path: Path) -> None:
    data, folder = asen_folder(tmp_path / "asen"), tmp_path / "run"
    assert run("data", "check", data, "--quiet").code == 0
    said = run("train", "--data", data, "--run", folder, *SMALL)
    assert said.code == 0, said.err
    assert run("evaluate", "--run", folder, "--quiet").code == 0


def test_a_prepared_folder_needs_no_images(tmp_path: Path) -> None:
    folder, words = prepared(tmp_path / "data", "FashionAI"), [*SMALL, "--backbone", "lab"]
    said = run("train", "--data", folder, "--run", tmp_path / "run", *words, "--triplets", 32)
    assert said.code == 0, said.err
    assert "Preset fashionai, recipe triplet" in said.out
    assert run("evaluate", "--run", tmp_path / "run", "--quiet").code == 0
    again = ("--preset", "fashionai", "--model", "agman", "--released", "--triplets", 32)
    said = run("train", "--data", folder, "--run", tmp_path / "released", *words, *again)
    assert said.code == 0, said.err
    config = json.loads((tmp_path / "released" / "config.json").read_text())
    assert config["train_config"]["weighting"] == "released"
    assert config["model_config"]["unguarded_norm"]


@pytest.fixture(scope="module")
def shoes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Said]:
    """A folder of triplets, a run on it, and what training said."""
    folder = tmp_path_factory.mktemp("shoes")
    triplet_lists(folder / "Zappos50k")
    words = ("--data", folder / "Zappos50k", "--backbone", "lab", *SMALL)
    said = run("train", *words, "--run", folder / "run", "--triplets", 200)
    assert said.code == 0, said.err
    return folder / "Zappos50k", folder / "run", said


def test_a_folder_of_triplets_from_training_to_evaluation(
    shoes: tuple[Path, Path, Said], tmp_path: Path
) -> None:
    folder, trained, said = shoes
    for part in ("48 photos in triplets", "Preset zappos50k", "valid triplets %", "160 triplets"):
        assert part in said.out
    first = json.loads((trained / "report.json").read_text())
    assert list(first["triplet_accuracy"]) == ["class", "closure", "gender", "heel", "overall"]
    assert first["triplet_accuracy"]["overall"] > 55
    assert first["provenance"]["versions"]["torch"]
    one = run("evaluate", "--run", trained, "--quiet", "--json", tmp_path / "e.json")
    assert one.code == 0, one.err
    assert f"overall  {first['triplet_accuracy']['overall']:16.2f}\n" in one.out
    ours = json.loads((tmp_path / "e.json").read_text())
    assert ours["triplet_accuracy"] == first["triplet_accuracy"]
    other = run("evaluate", "--weights", trained, "--data", folder, "--quiet")
    assert one.out.startswith(other.out), "and then where it was written"
    assert run("evaluate", "--run", trained, "--quiet", "--split", "valid").out != other.out
    refused(run("evaluate", "--run", trained, "--quiet", "--worst", 3), "--worst")
    checked = run("data", "check", folder, "--quiet")
    assert "train: 240 triplets" in checked.out
    assert "All 48 photos can be read." in checked.out
    refused(run("data", "check", folder, "--attributes", "heel"), "--attributes")


def test_released_triplets_go_without_the_classification(
    shoes: tuple[Path, Path, Said], tmp_path: Path
) -> None:
    words = ("--data", shoes[0], "--backbone", "lab", *SMALL, "--triplets", 32, "--released")
    assert run("train", *words, "--run", tmp_path).code == 0
    described = json.loads((tmp_path / "config.json").read_text())["model_config"]
    assert described["unowned_mask"]
    assert not described["classification"]


def test_triplets_with_labels_beside_them_give_map_too(
    shoes: tuple[Path, Path, Said], tmp_path: Path
) -> None:
    folder = prepared(tmp_path / "data", "Zappos50k")
    triplet_lists(folder)
    said = run("evaluate", "--weights", shoes[1], "--data", folder, "--quiet", "--worst", 2)
    assert said.code == 0, said.err
    assert said.out.index("triplets right %") < said.out.index("micro (all queries)")


def test_ties_as_the_released_scripts_break_them(
    trained: tuple[Path, Said], shop: Path, tmp_path: Path
) -> None:
    """A network without weights scores everything alike; then only the order of the rows counts."""
    model = agman.load(trained[0] / "best.safetensors")
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    model.save(tmp_path / "flat.safetensors")
    words = ("evaluate", "--weights", tmp_path / "flat.safetensors", "--data", shop, "--quiet")
    found = {}
    for ties in ("fair", "order"):
        assert run(*words, "--ties", ties, "--json", tmp_path / "report.json").code == 0
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["ties"] == ties
        found[ties] = report["per_attribute"]["place"]
    data = datasets.split_by_image(datasets.read_csv(shop), fractions=commands.SHARES)
    queries, gallery = (part.of("place").value for part in (data.test.queries, data.test.gallery))
    fair, order = [], []
    for value in queries:
        ranks = np.flatnonzero(gallery == value) + 1
        fair.append(len(ranks) / len(gallery))
        order.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    assert found["fair"] == pytest.approx(100 * np.mean(fair))
    assert found["order"] == pytest.approx(100 * np.mean(order))
    assert abs(found["fair"] - found["order"]) > 1


def test_two_processes_train_what_one_trains(shop: Path, tmp_path: Path) -> None:
    options = ("--model", "csn", "--freeze", "--recipe", "triplet", "--triplets", 32)
    words = ["train", "--data", shop, *SMALL, *options]
    one = run(*words, "--run", tmp_path / "one")
    assert one.code == 0, one.err
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launch, "-m", "--", "agman.cli", *words, "--run", tmp_path / "two"]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Training on cpu by 2 processes") == 1, "one of them speaks"
    assert done.stdout.count("macro (attributes)") == 1
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [row["map_micro"] for row in logs[1]] == pytest.approx(
        [row["map_micro"] for row in logs[0]], abs=1e-3
    )
    ours, theirs = (agman.load(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        path.name for path in (tmp_path / "one").iterdir()
    }


# --- going on -------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_to_the_same_bits(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "--data", shop, *SMALL, "--epochs", 3]
    assert run(*words, "--run", tmp_path / "straight").code == 0
    keep = RunFolder.keep

    def keep_and_stop(*args: object) -> None:
        keep(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "keep", keep_and_stop)
        said = run(*words, "--run", tmp_path / "broken")
    assert said.code == 130
    assert said.err.strip() == "agman: stopped; run the same command again to go on."
    assert len((tmp_path / "broken" / "log.jsonl").read_text().splitlines()) == 1
    assert run(*words, "--run", tmp_path / "broken").code == 0
    ours, straight = [
        agman.load(tmp_path / name / "best.safetensors") for name in ("broken", "straight")
    ]
    assert fingerprint(ours) == fingerprint(straight)
    assert [row["loss"] for row in ours.provenance["history"]] == [
        row["loss"] for row in straight.provenance["history"]
    ]


def test_interrupted_while_packing_nothing_stays(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "pack", stop)
    assert run("train", "--data", shop, "--run", tmp_path / "run", *SMALL).code == 130
    assert not (tmp_path / "run").exists()


def test_a_finished_run_shows_its_test_again(shop: Path, trained: tuple[Path, Said]) -> None:
    weights = (trained[0] / "best.safetensors").read_bytes()
    said = run("train", "--data", shop, "--run", trained[0], *SMALL, "--epochs", 4)
    assert said.out == trained[1].out
    assert (trained[0] / "best.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (("--size", 40), "size"),
        (("--seed", 1), "seed"),
        (("--attributes", "color"), "attributes"),
        (("--epochs", 5), "train_config"),
        (("--model", "csn"), "model"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(
    shop: Path, trained: tuple[Path, Said], changed: tuple[object, ...], what: str
) -> None:
    before = {path: path.read_bytes() for path in trained[0].rglob("*") if path.is_file()}
    said = run("train", "--data", shop, "--run", trained[0], *SMALL, "--epochs", 4, *changed)
    assert said.code == 2
    assert what in said.err
    assert {path: path.read_bytes() for path in before} == before


def test_a_changed_catalogue_is_another_run(trained: tuple[Path, Said], tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    shop.write_text(shop.read_text().replace("000.png,red", "000.png,blue"))
    said = run("train", "--data", shop, "--run", trained[0], *SMALL, "--epochs", 4)
    assert said.code == 2
    assert "other data" in said.err


def test_photos_of_another_run_are_not_mixed_in(trained: tuple[Path, Said], tmp_path: Path) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    other = tiny.data().train.images
    datasets.pack(other, 32, tmp_path / "run" / "images.npz", progress=False)
    said = run("evaluate", "--run", tmp_path / "run", "--quiet")
    refused(said, "images.npz does not hold the photo '0", "train again in another folder")


@pytest.mark.parametrize(
    "kept", [{"size": 32, "seed": 0}, {"kind": "asen", "size": 32, "seed": 0}, ["kind", "size"]]
)
def test_what_a_run_knows_of_its_data_is_not_made_up(
    trained: tuple[Path, Said], tmp_path: Path, kept: object
) -> None:
    shutil.copy(trained[0] / "best.safetensors", tmp_path)
    refused(run("evaluate", "--run", tmp_path), "holds no run", "data.json is missing")
    (tmp_path / "data.json").write_text(json.dumps(kept))
    refused(run("evaluate", "--run", tmp_path), "data.json was changed by hand")


# --- bad input ------------------------------------------------------------------------------------


def refused(said: Said, *parts: str) -> None:
    """Exit code 2 and one line that says what and where."""
    assert said.code == 2, said
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("agman: ")
    assert said.err.rstrip()[-1] in ".?"
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err


def damage(shop: Path, what: str) -> None:
    """One fault in a good catalogue."""
    photo = shop.parent / "images" / "005.png"
    if what == "missing":
        photo.unlink()
    elif what == "cut short":
        photo.write_bytes(photo.read_bytes()[:300])
    elif what == "no image":
        photo.write_text("<html>not found</html>")
    elif what == "empty":
        photo.write_bytes(b"")
    elif what == "few cells":
        shop.write_text(shop.read_text().replace("005.png,blue,right", "005.png,blue"))
    elif what == "not UTF-8":
        shop.write_bytes(shop.read_bytes().replace(b"blue", b"bl\xfc"))
    elif what == "one line":
        shop.write_text("file,color\n")
    elif what == "few photos":
        shop.write_text("\n".join(shop.read_text().splitlines()[:5]))
    elif what == "one value":
        shop.write_text("\n".join(["file,color", *(f"{i:03}.png,red" for i in range(30))]))
    elif what == "serial":
        lines = shop.read_text().splitlines()
        more = [f"{line},{i}" for i, line in enumerate(lines[1:])]
        shop.write_text("\n".join([f"{lines[0]},id", *more]))


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("missing", ("shop.csv, line 7", "005.png", "--images FOLDER")),
        ("cut short", ("005.png", "cut short")),
        ("no image", ("005.png", "not an image")),
        ("empty", ("005.png", "empty")),
        ("few cells", ("shop.csv, line 7", "2 cells")),
        ("not UTF-8", ("shop.csv, line 4", "UTF-8")),
        ("one line", ("shop.csv", "at least one line")),
        ("few photos", ("shop.csv", "too few")),
        ("serial", ("shop.csv", "'id'", '--attributes "color", "place"')),
    ],
)
def test_a_bad_catalogue_is_refused(what: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop", 30)
    damage(shop, what)
    folder = tmp_path / "runs" / "one"
    refused(run("train", "--data", shop, "--run", folder, *SMALL), *parts)
    assert not folder.exists(), "nothing half-written"


def test_a_catalogue_with_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop", 30)
    damage(shop, "one value")
    said = run("data", "check", shop, "--quiet")
    assert "color cannot be learned" in said.out
    triplets = ("--recipe", "triplet", "--triplets", 32)
    refused(run("train", "--data", shop, "--run", tmp_path / "r", *SMALL, *triplets), "triplet")


BAD_OPTIONS: list[tuple[list[object], str]] = [
    (["--attributes", "colour"], "did you mean 'color'"),
    (["--images", "nowhere"], "nowhere"),
    (["--model", "agmann"], "no model 'agmann'"),
    (["--backbone", "resnet19"], "no backbone 'resnet19'"),
    (["--backbone", "timm/nothing_like_it"], "nothing_like_it"),
    (["--preset", "product"], "no preset 'product'"),
    (["--recipe", "pairs"], "recipe must be one of"),
    (["--recipe", "all_pairs", "--released"], "all_pairs"),
    (["--size", 4], "too small"),
    (["--size", 0], "--size"),
    (["--size", 10**6], "--size"),
    (["--size", "big"], "--size"),
    (["--epochs", 0], "epochs must be at least 1"),
    (["--epochs", "many"], "--epochs"),
    (["--batch-size", -3], "batch_size must be at least 1"),
    (["--learning-rate", 0], "learning_rate must be above 0"),
    (["--learning-rate", "nan"], "learning_rate must be above 0"),
    (["--seed", -1], "--seed"),
    (["--device", "toaster"], "--device toaster"),
    (["--weights", "imagenet", "--backbone", "lab"], "no ImageNet weights"),
    (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    (["--colour"], "--help"),
]


@pytest.mark.parametrize(("options", "part"), BAD_OPTIONS, ids=lambda value: str(value)[:40])
def test_a_bad_option_is_refused(
    shop: Path, tmp_path: Path, options: list[object], part: str
) -> None:
    folder = tmp_path / "run"
    refused(run("train", "--data", shop, "--run", folder, *SMALL, *options), part)
    assert not folder.exists()


def test_a_folder_that_was_there_before_a_refusal_stays(tmp_path: Path) -> None:
    shop, folder = make_shop(tmp_path / "shop", 30), tmp_path / "run"
    damage(shop, "no image")
    (folder / "notes").mkdir(parents=True)
    refused(run("train", "--data", shop, "--run", folder, *SMALL), "005.png")
    assert (folder / "notes").is_dir()


def test_the_lab_has_photos_and_columns_of_its_own(tmp_path: Path) -> None:
    refused(run("train", "--data", "lab", "--run", tmp_path, "--images", tmp_path), "--images")
    refused(run("data", "check", "lab"), "use `agman data lab`")


@pytest.mark.parametrize("data", ["nowhere.csv", "lab2", "."])
def test_data_that_is_none_is_refused(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run("train", "--data", data, "--run", "run", *SMALL), data)
    refused(run("data", "check", data), data)
    assert list(tmp_path.iterdir()) == []


class _Foreign:
    """What unpickling a stranger's file could do."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, ("pickle-was-run",)


def test_a_checkpoint_with_foreign_pickles_is_refused(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"w": torch.zeros(1)}, "args": _Foreign()}, "evil.pth.tar")
    Path("evil.safetensors").write_bytes(pickle.dumps(_Foreign()))
    for name in ("evil.pth.tar", "evil.safetensors"):
        refused(run("evaluate", "--weights", name, "--data", shop), name)
        refused(run("train", "--data", shop, "--run", "run", *SMALL, "--weights", name), name)
    assert not Path("pickle-was-run").exists()
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("file", "line", "part"),
    [
        ("query_test.txt", "9999 0 0", "line 1"),
        ("candidate_valid.txt", "0 7 0", "line 1"),
        ("label_train.txt", "0 0 99", "line 1"),
        ("label_train.txt", "0 zero 1", "line 1"),
    ],
)
def test_a_bad_index_file_is_refused(tmp_path: Path, file: str, line: str, part: str) -> None:
    folder = asen_folder(tmp_path / "asen")
    path = folder / "tiny" / file
    path.write_text("\n".join([line, *path.read_text().splitlines()[1:]]))
    refused(run("data", "check", folder, "--quiet"), file, part)
    refused(run("train", "--data", folder, "--run", tmp_path / "run", *SMALL), file, part)
    assert not (tmp_path / "run").exists()


def test_an_asen_folder_takes_no_columns(tmp_path: Path) -> None:
    folder = asen_folder(tmp_path / "asen")
    refused(run("data", "check", folder, "--attributes", "color"), "--attributes")


def test_unknown_attribute_value_and_file_are_refused(
    index: Path, trained: tuple[Path, Said], shop: Path, tmp_path: Path
) -> None:
    photo = shop.parent / "images" / "000.png"
    ask = ("search", "--index", index, "--weights", trained[0], "--photo", photo)
    refused(run(*ask, "--attribute", "colour"), "did you mean color")
    refused(run(*ask, "--attribute", 9), "ids run from 0 to 1")
    refused(run(*ask, "--attribute", "color", "-k", 0), "-k")
    refused(run(*ask, "--attribute", "color", "--png", tmp_path / "a.png"), "--photos")
    refused(run(*ask[:-1], tmp_path / "none.jpg", "--attribute", "color"), "none.jpg")
    other = make_shop(tmp_path / "other", 30)
    other.write_text(other.read_text().replace("blue", "violet"))
    refused(run("evaluate", "--weights", trained[0], "--data", other), "line 4", "violet")
    assert not (tmp_path / "a.png").exists()


def test_a_missing_or_damaged_index_is_refused(
    index: Path, trained: tuple[Path, Said], shop: Path, tmp_path: Path
) -> None:
    ask = ("--weights", trained[0], "--photo", shop.parent / "images/000.png", "--attribute", 0)
    refused(run("search", "--index", tmp_path / "none", *ask), "agman embed")
    (tmp_path / "cut").write_bytes(index.read_bytes()[:-50])
    refused(run("search", "--index", tmp_path / "cut", *ask), "cut")
    refused(run("search", "--index", trained[0] / "best.safetensors", *ask), "not an index")


def test_an_index_of_another_model_is_refused(index: Path, shop: Path, tmp_path: Path) -> None:
    agman.create_model("csn", n_attributes=2, backbone="lab").save(tmp_path / "other.safetensors")
    ask = ("--photo", shop.parent / "images/000.png", "--attribute", 0)
    said = run("search", "--index", index, "--weights", tmp_path / "other.safetensors", *ask)
    refused(said, "made with other weights")


def test_what_to_evaluate_must_be_clear(
    trained: tuple[Path, Said], shop: Path, tmp_path: Path
) -> None:
    refused(run("evaluate"), "--run")
    refused(run("evaluate", "--run", trained[0], "--data", shop), "--run")
    refused(run("evaluate", "--weights", trained[0]), "--data")
    refused(run("evaluate", "--run", tmp_path / "none"), "none")
    refused(run("evaluate", "--run", tmp_path), "best.safetensors")
    refused(run("evaluate", "--weights", "lab/nothing", "--data", shop), "lab/nothing")
    refused(run("evaluate", "--weights", trained[0], "--data", "nowhere"), "nowhere")


def test_a_part_that_is_not_there_cannot_be_measured(
    trained: tuple[Path, Said], shoes: tuple[Path, Path, Said], tmp_path: Path
) -> None:
    labelled = asen_folder(tmp_path / "asen") / "tiny"
    shutil.copytree(shoes[0], tmp_path / "shoes")
    for file in (*labelled.glob("*_valid.txt"), *tmp_path.glob("shoes/tripletlists/*_val.txt")):
        file.unlink()
    for model, data in ((trained[0], labelled), (shoes[1], tmp_path / "shoes")):
        words = ("evaluate", "--weights", model, "--data", data, "--quiet")
        assert run(*words).code == 0
        refused(run(*words, "--split", "valid"), "valid part; name another")


@pytest.mark.usefixtures("small_lab")
def test_a_model_is_not_evaluated_on_other_attributes(trained: tuple[Path, Said]) -> None:
    refused(run("evaluate", "--weights", trained[0], "--data", "lab"), "color", "skirt_length")


def test_an_output_that_cannot_be_written_is_refused(
    trained: tuple[Path, Said], shop: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    refused(run("evaluate", "--run", trained[0], "--json", out, "--quiet"), "file")
    photos = shop.parent / "images"
    words = ("embed", "--weights", trained[0], "--photos", photos, "--quiet")
    refused(run(*words, "--out", out), "file")
    refused(run("train", "--data", shop, "--run", out, *SMALL), "file")
    refused(run("embed", "--weights", trained[0], "--photos", out, "--out", out), "no such folder")


def test_no_network_gives_one_sentence(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    options = ("--backbone", "resnet18", "--weights", "imagenet")
    said = run("train", "--data", shop, "--run", tmp_path / "run", *SMALL, *options)
    refused(said, "resnet18", "--backbone lab")


# --- the program ----------------------------------------------------------------------------------


def test_help_is_there_and_light() -> None:
    """No torch, so that help appears at once."""
    code = (
        "import sys, agman.cli; codes = [agman.cli.main([c, '--help'][c == '':]) for c in "
        "('', 'train', 'evaluate', 'embed', 'index', 'search', 'export', 'data', 'reproduce', "
        "'models', 'doctor')]; "
        "print(codes, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{[0] * 11} False False"


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options, those of subcommands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)
        elif action.option_strings:
            yield action


def test_every_option_says_its_default_or_must_be_given() -> None:
    says_otherwise = {"--help", "--run", "--weights", "--data", "--photos", "--quiet"}
    options = list(options_of(cli._parser()))
    assert len(options) > 40
    for option in options:
        excused = option.required or says_otherwise & set(option.option_strings)
        assert excused or "(default: " in (option.help or ""), option


def test_the_program_in_its_own_process(tmp_path: Path) -> None:
    assert python_m("--help").returncode == 0
    typo = python_m("trian")
    assert (typo.returncode, typo.stdout) == (2, "")
    assert typo.stderr.startswith("agman: argument COMMAND: invalid choice: 'trian'")
    missing = python_m("train", "--data", tmp_path / "no.csv", "--run", tmp_path / "run")
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_impatient_reader_of_the_output_is_no_error(shop: Path) -> None:
    """As in `agman data check shop.csv | head -1`."""
    command = [sys.executable, "-u", "-m", "agman.cli", "data", "check", str(shop), "--quiet"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_models_lists_all_with_their_size() -> None:
    lines = run("models").out.splitlines()
    listed = {line.split()[0]: float(line.split()[1]) for line in lines[1:6]}
    assert list(listed) == agman.list_models()
    assert listed["agman"] == pytest.approx(26.42, abs=0.01)
    assert listed["asenet_v2"] == pytest.approx(10.91, abs=0.01)


def test_doctor_tells_what_a_bug_report_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGMAN_CACHE", str(tmp_path / "cache"))
    said = run("doctor")
    assert said.code == 0, said.err
    for part in (torch.__version__.split("+")[0], "threads", "not drawn yet", "GB free"):
        assert part in said.out
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "lab-x.npz").write_bytes(b"0" * 2_000_000)
    assert "1 parts drawn" in run("doctor").out
    assert "(2 MB)" in run("doctor").out


@pytest.mark.usefixtures("small_lab")
def test_data_counts_the_lab() -> None:
    said = run("data", "lab", "--size", 32, "--quiet")
    assert said.code == 0, said.err
    assert "sleeve_length: " in said.out
    assert "train: 40 photos" in said.out


def test_data_check_counts_and_opens_a_catalogue(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop", 30)
    said = run("data", "check", shop, "--quiet")
    assert said.code == 0, said.err
    assert "color: blue 10, green 10, red 10" in said.out
    assert "All 30 photos can be read." in said.out
    damage(shop, "no image")
    refused(run("data", "check", shop, "--quiet"), "005.png")
    assert run("data", "check", shop, "--quiet", "--labels-only").code == 0


def test_data_check_says_where_no_photo_has_a_like(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop", 30)
    shop.write_text("file,color,place\n000.png,red,left\n001.png,blue,left\n")
    out = run("data", "check", shop, "--quiet").out
    assert "note: color cannot be learned, no two photos share a value" in out
    assert "note: place cannot be learned, its photos do not differ in it" in out


def test_an_authors_checkpoint_is_converted(
    trained: tuple[Path, Said], shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by the ending; the conversion itself is tested in test_reference.py."""
    monkeypatch.setattr(
        "agman.checkpoint.load_reference", lambda _: agman.load(trained[0] / "best.safetensors")
    )
    said = run("evaluate", "--weights", tmp_path / "model.pth.tar", "--data", shop, "--quiet")
    assert said.out == run("evaluate", "--run", trained[0], "--quiet").out
