"""Every experiment from its data to its table, stopped, shared, changed and continued."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import agman
from agman import cli, datasets, experiments
from agman.attributes import RetrievalData
from agman.datasets import CSNTriplets, PackedImages
from agman.errors import InputError
from agman.experiments import EXPERIMENTS, Variant, paired, planned, reproduce, settings, table
from agman.models import RELEASED_QUIRKS
from agman.training import PRESETS, RunFolder
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"epochs": 1, "triplets_per_epoch": 32, "batch_size": 16, "size": 32, "weights": None}
TINY = ["--backbone", "lab", "--weights", "none", "--size", 32, "--epochs", 1, "--triplets", 32]
TIMES = {"seconds", "train_seconds", "wall_seconds", "date"}
COMMITS = {"commit", "ended_at_commit"}  # somebody may commit meanwhile


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So that processes of this test and of its children compute the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def said(*words: object) -> tuple[int, str, str]:
    """Exit code, output and errors of one command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def quick(tmp_path: Path, experiment: str = "lab", data=None, **options) -> dict:
    """Some quick runs of an experiment in this process, CSN with one seed if nothing is said."""
    options = {"variants": ["CSN"], "seeds": (0,), "changes": QUICK, "progress": False} | options
    options = {"results": tmp_path / "results.json", "runs": tmp_path / "runs"} | options
    return reproduce(experiment, data or tiny.data(), **options)


def untimed(node):
    """Without everything that differs from one call to the next."""
    if isinstance(node, dict):
        return {key: untimed(value) for key, value in node.items() if key not in TIMES | COMMITS}
    return [untimed(value) for value in node] if isinstance(node, list) else node


# --- every experiment from its data to its table --------------------------------------------------


def prepared(folder: Path, name: str) -> Path:
    """The tiny squares as a prepared folder: ASEN's lists and packed images."""
    data = dataclasses.replace(tiny.data(), name=name)
    datasets.write_asen(data, folder)
    store = data.train.images
    for split in ("train", "valid", "test"):
        names = (folder / name / f"filenames_{split}.txt").read_text().split()
        array = np.stack([store.array[store.names.index(n)] for n in names])
        PackedImages(array, names).save(folder / name / f"{split}_32.npz")
    return folder / name


def triplet_lists(folder: Path) -> None:
    """CSN's files for the images of the tiny squares, triplets by colour and by place."""
    rows = tiny.table()
    (folder / "tripletlists").mkdir(parents=True)
    (folder / "filenames.json").write_text("\n".join(rows.images.names) + "\n")
    rows.images.save(folder / "images_32.npz")
    random = np.random.default_rng(0)
    for a, condition in enumerate(("class", "closure", "gender", "heel")):
        value = rows.of(a % 2).value
        for part, n in (("train", 60), ("val", 20), ("test", 40)):
            lines = []
            while len(lines) < n:
                anchor, far, close = random.choice(len(value), 3, replace=False)
                if value[anchor] == value[close] != value[far]:
                    lines.append(f"{anchor} {far} {close}\n")
            path = folder / "tripletlists" / f"{condition}_tripletlist_{part}.txt"
            path.write_text("".join(lines))


@pytest.mark.parametrize("name", ["fashionai", "deepfashion", "products"])
def test_labelled_photos_from_the_folder_to_the_table(name: str, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "data", experiments.DATA[name])
    words = ["reproduce", name, "--data", folder, *TINY, "--runs", tmp_path / "runs", "--quiet"]
    some = [] if name == "fashionai" else ["--variants", "agman", "Backbone alone"]
    code, out, err = said(*words, *some, "--seeds", 0, "--out", tmp_path / "new" / "out.json")
    assert code == 0, err
    results = json.loads((tmp_path / "new" / "out.json").read_text())
    wanted = [v.name for v in EXPERIMENTS[name] if not some or v.model == "agman" or not v.config]
    assert [run["variant"] for run in results["runs"]] == wanted
    run = results["runs"][-1]
    assert set(run["per_attribute"]) == {"color", "place"}
    low, high = run["map_micro_interval"]
    assert low < run["map_micro"] < high
    assert run["history"][0]["seconds"] > 0
    assert run["history"][0]["map_micro"] > 1, "in percent"
    assert run["changes"]["size"] == 32
    assert run["data"]["images"]["train"] == 24
    assert run["provenance"]["versions"]["torch"]
    assert "not the published protocol" in out
    published = [row["method"] for row in experiments.published(name)]
    assert all(f"published: {method}" in out for method in published)
    assert ("RPF" in published) == (name != "products")


def test_triplets_from_the_folder_to_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "Zappos50k"
    triplet_lists(folder)
    words = ["reproduce", "zappos50k", "--data", folder, *TINY, "--quiet", "--seeds", 0, 1]
    words += ["--runs", tmp_path / "runs", "--variants", "AG-MAN", "ag_man_as_released"]
    code, out, err = said(*words)
    assert code == 0, err
    runs = json.loads((tmp_path / "runs" / "zappos50k.json").read_text())["runs"]
    names = [(run["variant"], run["seed"]) for run in runs]
    assert names == [(name, s) for name in ("AG-MAN as released", "AG-MAN") for s in (0, 1)]
    for run in runs:
        accuracies = run["triplet_accuracy_per_attribute"]
        assert list(accuracies) == ["class", "closure", "gender", "heel"]
        assert run["triplet_accuracy"] == pytest.approx(np.mean(list(accuracies.values())))
        assert run["history"][0]["triplet_accuracy"] == pytest.approx(
            json.loads((tmp_path / "runs/Zappos50k" / log_of(run)).read_text())["triplet_accuracy"]
            * 100
        )
        assert "map_micro" not in run
        assert ("classification" in run["history"][0]) == (run["variant"] == "AG-MAN")
    assert "triplet accuracy in %" in out
    assert "MAP in %" not in out
    assert "published: AG-MAN 93.32" in out


def log_of(run: dict) -> str:
    return f"{run['variant'].lower().replace('-', '_').replace(' ', '_')}-{run['seed']}/log.jsonl"


def test_labels_beside_triplets_give_map_too(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "data", "Zappos50k")
    for file in folder.glob("*.npz"):
        file.unlink()  # as prepared: the packed images of the triplets serve the labels too
    triplet_lists(folder)
    words = ["--data", folder, *TINY, "--quiet", "--seeds", 0, "--runs", tmp_path / "runs"]
    code, out, err = said("reproduce", "zappos50k", *words, "--variants", "Backbone alone")
    assert code == 0, err
    (run,) = json.loads((tmp_path / "runs" / "zappos50k.json").read_text())["runs"]
    assert run["triplet_accuracy"] > 50 < run["map_micro"]
    assert out.index("triplet accuracy in %") < out.index("MAP in %")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("lab", "AG-MAN"),
        ("lab_triplets", "CSN, triplets"),
        ("lab_time", "AG-MAN, frozen backbone"),
    ],
)
def test_the_lab_needs_nothing(
    name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = functools.partial(datasets.lab, 40, 15, 20, cache=tmp_path / "cache")
    monkeypatch.setattr(datasets, "lab", lab)
    words = [*TINY, "--quiet", "--seeds", 0, "--runs", tmp_path / "runs", "--variants", variant]
    code, out, err = said("reproduce", name, *words)
    assert code == 0, err
    runs = json.loads((tmp_path / "runs" / f"{name}.json").read_text())["runs"]
    assert [run["variant"] for run in runs] == [variant]
    assert "sleeve_length" in out


def test_data_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    code, _, err = said("reproduce", "fashionai", "--runs", tmp_path)
    assert code == 2
    assert "data/FashionAI" in err
    assert "--data" in err


# --- what is compared -----------------------------------------------------------------------------


def test_times_are_those_of_the_compared_runs() -> None:
    """The same networks and recipes as in the tables, but for what the name says."""
    tables = {v.name: v for name in ("lab", "lab_triplets") for v in EXPERIMENTS[name]}
    frozen = {"freeze_backbone": True, "learning_rate": 5e-3, "temperature": 0.05}
    said = {", bfloat16": {"amp": "bf16"}, ", frozen backbone": frozen}
    for timed in EXPERIMENTS["lab_time"]:
        new = next((label for label in said if label in timed.name), "")
        of_table = tables[timed.name.removesuffix(new)]
        assert timed.options == of_table.options
        assert timed.config == dataclasses.replace(of_table.config, **said.get(new, {}))


def test_released_and_default_differ_in_the_listed_facts_only() -> None:
    for name in ("fashionai", "deepfashion", "zappos50k", "lab_triplets"):
        variants = {v.name.removesuffix(", triplets"): v for v in EXPERIMENTS[name]}
        released, ours = variants["AG-MAN as released"], variants["AG-MAN"]
        dropped = {"classification": False} if name == "zappos50k" else {}
        assert released.options == {**RELEASED_QUIRKS, **dropped}
        assert ours.options == {}
        both = [dataclasses.asdict(v.config) for v in (released, ours)]
        differing = {key for key in both[0] if both[0][key] != both[1][key]}
        assert differing == {"weighting", "target"}
        assert {v.config for v in EXPERIMENTS[name] if v.config} == {released.config, PRESETS[name]}
        start = {(v.backbone, v.weights, v.size) for v in EXPERIMENTS[name]}
        assert len(start) == 1


def test_experiments_on_the_same_data_mean_the_same_by_a_name() -> None:
    """Their runs share folders."""
    for data in set(experiments.DATA.values()):
        named: dict[str, Variant] = {}
        for name in (n for n, d in experiments.DATA.items() if d == data):
            for variant in EXPERIMENTS[name]:
                assert named.setdefault(variant.slug, variant) == variant


def test_every_ablation_changes_one_thing() -> None:
    variants = {v.name: v for v in EXPERIMENTS["lab_ablations"]}
    bases = {"all_pairs": variants.pop("AG-MAN"), "triplet": variants.pop("AG-MAN, triplets")}
    together = variants.pop("without levels, classification, gate and mask")
    assert set(together.options) == {"levels", "classification", "spatial_gate", "mask"}
    for variant in variants.values():
        base, config = bases[variant.config.recipe], dataclasses.asdict(variant.config)
        assert base.options == {}
        changed = {k for k, v in dataclasses.asdict(base.config).items() if config[k] != v}
        assert len(variant.options) + len(changed) == 1, variant.name


def test_the_lab_compares_equal_widths() -> None:
    data = tiny.data()
    names = [name for name in EXPERIMENTS if experiments.DATA[name] == "lab"]
    small = [v for name in names for v in planned(name, changes={"weights": None})]
    outputs = {v.name: experiments._output(experiments._model(v, data, 0)) for v in small}
    widths = {name: output.embedding.shape[-1] for name, output in outputs.items()}
    assert set(widths.values()) == {64}, widths


def test_where_regions_are_known_a_run_says_where_its_model_looks(tmp_path: Path) -> None:
    data = datasets.lab(96, 60, 60, progress=False)
    runs = quick(tmp_path, data=data, variants=["CSN", "AG-MAN"])["runs"]
    assert "attention" not in runs[0], "CSN has no map"
    for share in ("mass", "pointing"):
        found = runs[1]["attention"][share]
        assert set(found) == {"model", "uniform", "central", "average place"}
        assert all(0 <= each["macro"] <= 100 for each in found.values())
        model, chance = found["model"]["micro"], found["uniform"]["micro"]
        assert model != chance, "the model's own map was measured"
    assert sum(runs[1]["attention"]["rows"].values()) > 0


def test_why_the_unowned_mask_is_no_ablation_of_the_lab() -> None:
    """Eight attributes divide 64 dimensions evenly: the same network, number by number."""

    def made(n: int, quirk: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = agman.create_model("agman", n_attributes=n, backbone="lab", unowned_mask=quirk)
        return list(network.state_dict().values())

    def same(n: int) -> bool:
        return all(torch.equal(a, b) for a, b in zip(made(n, True), made(n, False), strict=True))

    assert same(8)
    assert not same(5), "the control"


def test_variants_are_named_by_label_folder_or_model() -> None:
    assert [v.name for v in planned("lab", ["csn", "AG-MAN", "asenet_v2"])] == [
        "CSN", "ASENet_V2", "AG-MAN",
    ]  # fmt: skip
    assert len({v.slug for v in EXPERIMENTS["lab_ablations"]}) == len(EXPERIMENTS["lab_ablations"])
    changed = planned("lab", ["CSN"], {"epochs": 3, "size": 48})
    assert (changed[0].config.epochs, changed[0].size) == (3, 48)
    with pytest.raises(InputError, match=r"no variant 'AGMAN'; choose among .*'AG-MAN'"):
        planned("lab", ["AGMAN"])
    with pytest.raises(InputError, match="no experiment 'labs'"):
        planned("labs")


def test_equal_names_on_the_same_data_are_equal_variants() -> None:
    """They share a run folder."""
    seen: dict[tuple[str, str], Variant] = {}
    for name, variants in EXPERIMENTS.items():
        assert len({variant.slug for variant in variants}) == len(variants)
        for variant in variants:
            assert seen.setdefault((experiments.DATA[name], variant.slug), variant) == variant


def test_the_command_offers_every_experiment() -> None:
    assert cli._EXPERIMENTS == tuple(EXPERIMENTS) == tuple(experiments.DATA)


def test_several_gpus_share_the_work_without_torchrun(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start the command once for each GPU"):
        quick(tmp_path)


# --- going on, sharing, refusing ------------------------------------------------------------------

CHILD = """
import os, signal, sys, torch
torch.set_num_threads(1)
from pathlib import Path
from tests.test_experiments import quick
from agman import experiments
from agman.training import RunFolder
folder, dies = Path(sys.argv[1]), int(sys.argv[2])
keep, run, kept = RunFolder.keep, experiments.run, []
def keep_and_die(*args):
    keep(*args)
    kept.append(1)
    if len(kept) == dies:
        os.kill(os.getpid(), signal.SIGKILL)
def counted(variant, data, seed, **options):
    with open(folder / "made.txt", "a") as file:
        print(variant.name, seed, file=file)
    return run(variant, data, seed, **options)
RunFolder.keep, experiments.run = keep_and_die, counted
quick(folder, variants=["CSN", "triplet"], seeds=(0, 1), changes={CHANGES})
""".replace("{CHANGES}", repr({**QUICK, "epochs": 2}))


def start(folder: Path, dies: int = -1) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(folder), str(dies)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def test_killed_and_shared_work_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Killed inside the third run, then finished by two processes side by side."""
    options = {"variants": ["CSN", "triplet"], "seeds": (0, 1), "changes": {**QUICK, "epochs": 2}}
    whole = quick(tmp_path / "whole", **options)
    cut = tmp_path / "cut"
    assert start(cut, dies=5).wait(timeout=300) == -signal.SIGKILL
    kept = json.loads((cut / "results.json").read_text())["runs"]
    assert [(run["variant"], run["seed"]) for run in kept] == [
        ("Triplet network", 0), ("CSN", 0),
    ], "the runs of the first seed"  # fmt: skip
    folder = cut / "runs" / "lab" / "triplet_network-1"
    assert len((folder / "log.jsonl").read_text().splitlines()) == 1
    (cut / "made.txt").unlink()
    both = [start(cut), start(cut)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    made = sorted((cut / "made.txt").read_text().splitlines())
    assert made == ["CSN 1", "Triplet network 1"], "each run once"
    quick(cut, **options)
    assert untimed(json.loads((cut / "results.json").read_text())) == untimed(whole)
    assert not list(cut.rglob("*.part"))


def test_all_variants_of_one_seed_come_before_the_next_seed(tmp_path: Path, capsys) -> None:
    quick(tmp_path, variants=["Backbone alone", "triplet", "csn"], seeds=(3, 1))
    lines = [line for line in capsys.readouterr().out.splitlines() if ", seed " in line]
    order = [line.split("  ")[1] for line in lines]
    assert order == [
        "Backbone alone, seed 3", "Triplet network, seed 3", "CSN, seed 3",
        "Triplet network, seed 1", "CSN, seed 1",
    ]  # fmt: skip


def test_finished_runs_are_not_made_again(tmp_path: Path, monkeypatch) -> None:
    first = quick(tmp_path)

    def never(*args, **options):
        raise AssertionError("a finished run was made again")

    monkeypatch.setattr(experiments, "run", never)
    assert quick(tmp_path) == first
    (tmp_path / "results.json").unlink()  # the run's own folder still knows
    assert quick(tmp_path) == first
    again = quick(tmp_path, results=tmp_path / "other.json")
    assert again == first


def test_ablations_take_over_the_runs_of_the_lab(tmp_path: Path, monkeypatch) -> None:
    whole = quick(tmp_path, variants=["AG-MAN"])
    monkeypatch.setattr(experiments, "run", lambda *args, **options: 1 / 0)
    file = tmp_path / "ablations.json"
    taken = quick(tmp_path, "lab_ablations", variants=["AG-MAN"], results=file)
    assert taken["runs"] == whole["runs"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"changes": {**QUICK, "epochs": 2}}, r"CSN whose train_config\.epochs is 1, not 2"),
        ({"changes": {**QUICK, "epochs": 2}, "seeds": (1,)}, r"train_config\.epochs is 1, not 2"),
        ({"changes": {**QUICK, "size": 48}}, "CSN whose size is 32, not 48"),
        ({"changes": {**QUICK, "weights": "objects"}}, r"weights is None, not objects\."),
        ({"data": tiny.data(64)}, r"data\.images is"),
        ({"data": tiny.data(64), "variants": ["triplet"]}, r"data\.images is"),
    ],
)
def test_runs_with_other_settings_are_never_mixed(what, message: str, tmp_path: Path) -> None:
    quick(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(InputError, match=message):
        quick(tmp_path, **what)
    assert (tmp_path / "results.json").read_bytes() == before


def test_an_unfinished_run_with_other_settings_is_refused(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "keep", stop)
        with pytest.raises(KeyboardInterrupt):
            quick(tmp_path)
    other = tiny.data()
    other.train.value[0] = (other.train.value[0] + 1) % 3
    with pytest.raises(InputError, match="failed"):
        quick(tmp_path, data=other)
    assert not (tmp_path / "results.json").exists()


def test_a_label_or_a_pixel_of_the_lab_makes_other_data() -> None:
    variant = Variant("x", "csn", None, backbone="lab", weights=None, size=32)

    def checksum(data: RetrievalData) -> str:
        return settings(variant, data, 0)["data"]["checksum"]

    plain = checksum(tiny.data())
    assert checksum(tiny.data()) == plain
    relabelled = tiny.data()
    relabelled.test.gallery.value[0] = 1 - relabelled.test.gallery.value[0] % 2
    assert checksum(relabelled) != plain
    drawn, repainted = (dataclasses.replace(tiny.data(), name="lab") for _ in range(2))
    repainted.train.images.array[0, 0, 0, 0] ^= 255
    assert checksum(drawn) != checksum(repainted)


def test_one_failing_run_does_not_stop_the_others(tmp_path: Path, monkeypatch, capsys) -> None:
    run = experiments.run

    def failing(variant, *args, **options):
        if variant.model == "triplet":
            raise InputError("The loss is no longer a number.")
        return run(variant, *args, **options)

    monkeypatch.setattr(experiments, "run", failing)
    with pytest.raises(InputError, match=r"1 of the runs failed \(Triplet network, seed 0\)"):
        quick(tmp_path, variants=["Triplet network", "CSN"])
    assert "The loss is no longer a number." in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert [run["variant"] for run in results["runs"]] == ["CSN"]


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "lock"
    answers = []

    def ask() -> None:
        with experiments._held(file) as free:
            answers.append(free)

    with experiments._held(file) as first:
        other = threading.Thread(target=ask)
        other.start()
        other.join()
    ask()
    assert (first, answers) == (True, [False, True])
    assert file.read_text().split() == [str(os.getpid())]


def test_what_another_process_is_at_is_left_to_it(tmp_path: Path, capsys) -> None:
    (variant,) = planned("lab", ["CSN"], QUICK)
    with experiments._held(tmp_path / "runs" / "lab" / f"{variant.slug}-0" / "lock"):
        assert quick(tmp_path)["runs"] == []
    assert "CSN, seed 0\n    another process is at it\n" in capsys.readouterr().out
    assert len(quick(tmp_path)["runs"]) == 1


def test_a_run_that_two_processes_recorded_stands_there_once(tmp_path: Path) -> None:
    first = quick(tmp_path)
    again = experiments._recorded(tmp_path / "results.json", "lab", first["runs"][0])
    assert again == first == json.loads((tmp_path / "results.json").read_text())


def test_a_run_that_went_on_with_other_code_names_both(tmp_path: Path, monkeypatch) -> None:
    (variant,) = planned("lab", ["CSN"], QUICK)
    options = {"folder": tmp_path / "one", "progress": False}
    before = experiments.run(variant, tiny.data(), 0, **options)["provenance"]
    assert experiments.run(variant, tiny.data(), 0, **options)["provenance"] == before
    now = {**experiments.provenance(), "commit": "0123456789ab"}
    monkeypatch.setattr(experiments, "provenance", lambda: now)
    after = experiments.run(variant, tiny.data(), 0, **options)["provenance"]
    assert after == {**before, "ended_at_commit": "0123456789ab"}


def test_a_results_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"runs": []}')
    with pytest.raises(InputError, match=r"holds no results of `agman reproduce lab`"):
        quick(tmp_path)
    assert (tmp_path / "results.json").read_text() == '{"runs": []}'


# --- how long it will take ------------------------------------------------------------------------


def test_more_than_a_day_is_asked_about_first(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(experiments, "measured", lambda *args: (3.6, 20_000, 0.036, 100_000))
    with pytest.raises(InputError, match=r"42 hours on cpu: use a GPU.* --yes"):
        quick(tmp_path, seeds=(0, 1))
    out = capsys.readouterr().out
    assert "20,000 steps of 3.600 s, 100,000 images to embed in 36.0 ms each: 21.00 h a run" in out
    assert "in all 42.00 hours (estimated" in out
    assert not list(tmp_path.iterdir())
    quick(tmp_path, seeds=(0, 1), dry_run=True)
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"
    assert len(quick(tmp_path, seeds=(0, 1), yes=True)["runs"]) == 2


def test_the_estimate_counts_what_a_run_does() -> None:
    data = tiny.data()
    all_pairs = dataclasses.replace(PRESETS["lab"], batch_size=8, epochs=5)
    triplets = dataclasses.replace(
        PRESETS["lab_triplets"], triplets_per_epoch=100, batch_size=20, epochs=7
    )
    lists = CSNTriplets(
        datasets.csn.ZAPPOS50K,
        tiny.table().images,
        *(np.random.default_rng(0).integers(4, size=(n, 4)) for n in (60, 20, 40)),
    )
    fewer = dataclasses.replace(triplets, triplets_per_epoch=40)
    for config, on, steps, images in [
        (all_pairs, data, 5 * 3, 6 * 24),  # 24 images to train on, 24 held out
        (triplets, data, 7 * 5, 8 * 24),
        (fewer, lists, 7 * 2, 8 * 4),
        (dataclasses.replace(all_pairs, freeze_backbone=True), data, 5 * 3, 6 * 24),
        (None, data, 0, 24),
    ]:
        variant = Variant("x", "triplet", config, backbone="lab", weights="imagenet", size=32)
        second, n, image, m = experiments.measured(variant, on, "cpu")
        assert (n, m) == (steps, images)
        assert image > 0
        assert (second > 0) == (config is not None)


def test_an_estimate_leaves_out_what_a_run_computes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_within_a_step(*args, **kwargs):
        raise AssertionError("taps were computed while a step was measured")

    monkeypatch.setattr("agman.training.cache_taps", not_within_a_step)
    config = dataclasses.replace(PRESETS["lab"], batch_size=8, freeze_backbone=True)
    variant = Variant("x", "triplet", config, backbone="lab", weights=None, size=32)
    assert experiments.measured(variant, tiny.data(), "cpu")[0] > 0


# --- the table ------------------------------------------------------------------------------------


def results_of(numbers: dict[str, list[float]], **more) -> dict:
    """Results with these MAPs of one variant after the other, one for each seed."""
    runs = [
        {
            "variant": name,
            "seed": seed,
            "map_micro": micro,
            "map_macro": micro + 1,
            "per_attribute": {"color": micro - 5, "place": micro + 7},
            "chance": {"color": 30.0, "place": 50.0},
            "chance_micro": 38.0,
            "changes": {},
            **more,
        }
        for name, values in numbers.items()
        for seed, micro in enumerate(values)
    ]
    return {"experiment": "lab", "runs": runs}


def test_the_table_shows_means_and_t_intervals() -> None:
    values = [61.2, 60.1, 63.4]
    lines = table(results_of({"AG-MAN": values, "CSN": [50.0]})).splitlines()
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert lines[0].split() == ["MAP", "in", "%", "color", "place", "micro", "macro", "seeds"]
    assert lines[1].split() == ["Random", "ranking", "30.00", "50.00", "38.00", "40.00", "-"]
    cells = ["56.57", "68.57", f"61.57 ± {half:.2f}", f"62.57 ± {half:.2f}", "3"]
    assert lines[2] == "AG-MAN".ljust(14) + "  " + "  ".join(cells[:4]) + "      3"
    assert lines[3].split() == ["CSN", "45.00", "57.00", "50.00", "51.00", "1"]
    assert len({len(line) for line in lines[:4]}) == 1, "columns in line"
    assert lines[-1].startswith("± half of the 95 % t interval")


def test_changed_runs_are_marked_with_what_was_changed() -> None:
    plain, changed = results_of({"CSN": [50.0]}), results_of({"AG-MAN": [60.0]})
    changed["runs"][0]["changes"] = {"epochs": 1, "size": 32}
    lines = table({"runs": plain["runs"] + changed["runs"]}).splitlines()
    assert lines[2].startswith("CSN   ")
    assert lines[3].startswith("AG-MAN * ")
    assert lines[-1] == "* not the published protocol but epochs 1, size 32: AG-MAN"


def test_published_figures_stand_below_with_their_source() -> None:
    rows = [
        {"method": "RPF", "metric": "MAP", "overall": 70.114, "source": "its README"},
        {"method": "CSN", "metric": "triplet accuracy", "overall": 89.27, "source": "a note"},
    ]
    text = table(results_of({"CSN": [50.0]}), rows)
    assert "published: RPF 70.11 (its README)" in text
    assert "89.27" not in text, "another metric"


def test_differences_are_paired_by_seed() -> None:
    ours, theirs = [61.2, 60.1, 63.4, 59.0], [58.0, 58.5, 60.9]
    results = results_of({"AG-MAN": ours, "CSN": theirs, "ASENet": [1.0]})
    got = paired(results, "AG-MAN", "CSN")
    difference = np.subtract(ours[:3], theirs)
    low, high = stats.t.interval(0.95, 2, difference.mean(), stats.sem(difference))
    assert got == pytest.approx((difference.mean(), low, high, 3))
    alone = paired(results, "AG-MAN", "ASENet", "map_macro")
    assert (alone.mean, alone.n) == (pytest.approx(60.2), 1)
    assert np.isnan([alone.low, alone.high]).all()
    with pytest.raises(InputError, match="no seed in common"):
        paired(results, "AG-MAN", "nothing")
