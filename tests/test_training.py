import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import agman
from agman import training
from agman.attributes import ZAPPOS50K
from agman.datasets import CSNTriplets
from agman.errors import InputError
from agman.evaluation import evaluate_triplets
from agman.sampling import Triplets
from agman.training import (
    PRESETS,
    RELEASED,
    Objective,
    RunFolder,
    Steps,
    TrainConfig,
    score,
    train,
)
from tests import tiny

QUICK = TrainConfig(
    epochs=3, triplets_per_epoch=48, batch_size=16, learning_rate=3e-3, schedule="cosine"
)


def model(name="agman", seed=0, size=32, n_attributes=2, **options):
    torch.manual_seed(seed)
    made = agman.create_model(name, n_attributes=n_attributes, backbone="lab", **options)
    made.preprocessing = dataclasses.replace(made.preprocessing, size=size)
    return made


def weights(m):
    return torch.cat([p.detach().flatten() for p in m.parameters()])


def without_time(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


@pytest.mark.parametrize("recipe", ["triplet", "all_pairs"])
@pytest.mark.parametrize("name", agman.list_models())
def test_training_learns_what_is_asked(name, recipe):
    data = tiny.data(160)
    config = dataclasses.replace(QUICK, recipe=recipe, epochs=6, triplets_per_epoch=320)
    trained = model(name)
    history = train(trained, data, config, progress=False)
    report = agman.evaluate(trained, data.test.queries, data.test.gallery, progress=False)
    assert history[-1]["ranking"] < history[0]["ranking"]
    assert report.map_micro > 0.5 + 0.5 * report.chance.mean()


@pytest.mark.parametrize("weighting", ["learned", "fixed", "released"])
@pytest.mark.parametrize("name", agman.list_models())
def test_every_parameter_is_in_the_optimizer_and_moves(name, weighting):
    trained = model(name)
    objective = Objective(trained, dataclasses.replace(QUICK, weighting=weighting))
    before = {k: p.detach().clone() for k, p in objective.named_parameters()}
    config = dataclasses.replace(QUICK, weighting=weighting, epochs=2)
    train(trained, tiny.data(), config, progress=False)
    model_keys = {k for k in before if k.startswith("model.")}
    after = {f"model.{k}": p for k, p in trained.named_parameters()}
    assert model_keys == set(after)
    assert [k for k in model_keys if torch.equal(before[k], after[k])] == []
    learned = set(before) - model_keys
    expected = weighting == "learned" and name == "agman"
    assert bool(learned) == expected


def test_learned_weights_are_trained(tmp_path):
    train(model(), tiny.data(), QUICK, run=tmp_path, progress=False)
    state = torch.load(tmp_path / "last.pt", weights_only=True)["objective"]
    start = (1 - 0.05) ** 0.5
    for name in ("ranking", "classification"):
        assert state[f"weighting.scale.{name}"].item() != pytest.approx(start, abs=1e-6)


def test_a_frozen_backbone_stays_and_its_normalisation_too():
    trained = model()
    before = {k: v.clone() for k, v in trained.backbone.state_dict().items()}
    train(trained, tiny.data(), dataclasses.replace(QUICK, freeze_backbone=True), progress=False)
    assert all(torch.equal(v, before[k]) for k, v in trained.backbone.state_dict().items())
    assert not torch.equal(weights(trained), weights(model()))


def test_a_resumed_run_equals_one_without_interruption(tmp_path):
    whole = model()
    full = train(whole, tiny.data(), QUICK, run=tmp_path / "whole", progress=False)

    class Stop(Exception):
        pass

    def stop_in_second_epoch(*args, **kwargs):
        yield from original(*args, **kwargs)
        raise Stop

    original = Steps._triplets
    calls = []

    def counted(self, epoch, part):
        calls.append(epoch)
        return (
            stop_in_second_epoch(self, epoch, part) if epoch == 1 else original(self, epoch, part)
        )

    Steps._triplets = counted
    try:
        with pytest.raises(Stop):
            train(model(), tiny.data(), QUICK, run=tmp_path / "cut", progress=False)
    finally:
        Steps._triplets = original
    assert len((tmp_path / "cut/log.jsonl").read_text().splitlines()) == 1
    resumed = model(seed=5)  # whatever it starts from, the state on disk counts
    rest = train(resumed, tiny.data(), QUICK, run=tmp_path / "cut", progress=False)
    assert without_time(rest) == without_time(full)
    assert torch.equal(weights(resumed), weights(whole))


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from tests import tiny
from tests.test_training import model, QUICK
from agman.training import train
import dataclasses
config = dataclasses.replace(QUICK, epochs=6)
train(model(), tiny.data(), config, run=sys.argv[1], progress=False)
"""


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    command = [sys.executable, "-c", SCRIPT]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=300)
    for delay in (0.0, 0.1, 0.25):
        process = subprocess.Popen([*command, str(tmp_path / "cut")])
        deadline = time.monotonic() + 120
        lines = 0 if not (tmp_path / "cut/log.jsonl").exists() else -1
        while time.monotonic() < deadline and process.poll() is None:
            log = tmp_path / "cut/log.jsonl"
            if log.exists() and (lines < 0 or len(log.read_text().splitlines()) > lines):
                break
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "cut")], check=True, timeout=300)
    for file in ("best.safetensors", "last.pt"):
        a, b = (_tensors(tmp_path / run / file) for run in ("whole", "cut"))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert not list((tmp_path / "cut").glob("*.part"))


def _tensors(file):
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, weights_only=True)["objective"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", []),
        ("last.pt", {"history": 3}),
        ("last.pt", {"history": [3]}),
        ("last.pt", 3),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, file, content):
    train(model(), tiny.data(), QUICK, run=tmp_path, progress=False)
    if file == "last.pt":
        state = torch.load(tmp_path / file, weights_only=True)
        torch.save({**state, **content} if content != 3 else 3, tmp_path / file)
    else:
        (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=file):
        train(model(), tiny.data(), QUICK, run=tmp_path, progress=False)


def test_the_folder_of_another_run_is_refused(tmp_path):
    train(model(), tiny.data(), QUICK, run=tmp_path, progress=False)
    with pytest.raises(InputError, match="holds a run whose model is agman, not csn"):
        train(model("csn"), tiny.data(), QUICK, run=tmp_path, progress=False)
    other = dataclasses.replace(QUICK, seed=1)
    with pytest.raises(InputError, match="whose train_config is"):
        train(model(), tiny.data(), other, run=tmp_path, progress=False)


def test_a_finished_run_gives_its_best_weights_again(tmp_path):
    first, second = model(), model(seed=3)
    train(first, tiny.data(), QUICK, run=tmp_path, progress=False)
    history = train(second, tiny.data(), QUICK, run=tmp_path, progress=False)
    assert len(history) == 3
    assert torch.equal(weights(first), weights(second))
    loaded = agman.load(tmp_path / "best.safetensors")
    assert torch.equal(weights(first), weights(loaded))
    assert loaded.schema == tiny.SCHEMA
    assert loaded.provenance["train_config"]["epochs"] == 3


def test_the_best_epoch_is_kept_not_the_last(tmp_path):
    trained = model()
    history = train(trained, tiny.data(), QUICK, run=tmp_path, progress=False)
    best = max(row["map_micro"] for row in history)
    valid = tiny.data().valid
    report = agman.evaluate(trained, valid.queries, valid.gallery, progress=False)
    assert report.map_micro == pytest.approx(best, abs=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == history


def listed(n_train=96, n_valid=40):
    """Triplets of the tiny squares: class is their colour, gender their place."""
    rows, random = tiny.table(48), np.random.default_rng(0)

    def draw(n):
        found = []
        while len(found) < n:
            a, (anchor, positive, negative) = random.integers(2), random.integers(48, size=3)
            value = rows.of(int(a)).value
            if anchor != positive and value[anchor] == value[positive] != value[negative]:
                found.append((2 * a, anchor, positive, negative))
        return np.array(found, dtype=np.int64).reshape(-1, 4)

    return CSNTriplets(ZAPPOS50K, rows.images, draw(n_train), draw(n_valid), draw(0))


def test_published_triplets_are_learned_and_choose_the_epoch(tmp_path):
    data, config = listed(), dataclasses.replace(QUICK, epochs=5)
    trained = model(n_attributes=4)
    history = train(trained, data, config, run=tmp_path, progress=False)
    accuracies = [row["triplet_accuracy"] for row in history]
    assert max(accuracies) > 0.75
    assert len(set(accuracies)) > 1
    triplets = Triplets(*data.valid.T)
    kept = evaluate_triplets(trained, data.images, triplets, data.schema, progress=False)
    assert kept["overall"] == max(accuracies)
    assert "map_micro" not in history[0]
    assert agman.load(tmp_path / "best.safetensors").schema == ZAPPOS50K


def test_an_epoch_is_chosen_by_the_score_there_is():
    assert score({"epoch": 3, "map_micro": 0.5, "map_macro": 0.9}) == 0.5
    assert score({"epoch": 3, "triplet_accuracy": 0.7}) == 0.7
    assert score({"epoch": 3, "loss": 0.1}) == 3
    history = train(model(n_attributes=4), listed(n_valid=0), QUICK, progress=False)
    assert [score(row) for row in history] == [1, 2, 3]


def test_an_image_is_labelled_for_what_it_was_compared_on():
    data = listed(n_train=12)
    step = next(Steps.of(data, dataclasses.replace(QUICK, batch_size=12)).draw(0, slice(0, 12)))
    for image, target in zip(step.images, step.targets, strict=True):
        compared = {int(a) for a, *images in data.train if image in images}
        assert set(np.flatnonzero(target)) == compared


def test_listed_triplets_are_all_used_or_others_each_epoch():
    data = listed(n_train=96)
    whole = dataclasses.replace(QUICK, triplets_per_epoch=1000)

    def seen(config, epoch):
        steps = Steps.of(data, config)
        batches = [step.images.reshape(3, -1).T for step in steps.draw(epoch, slice(0, 16))]
        return sorted(map(tuple, np.concatenate(batches).tolist()))

    assert seen(whole, 0) == seen(whole, 1) == sorted(map(tuple, data.train[:, 1:].tolist()))
    fewer = dataclasses.replace(QUICK, triplets_per_epoch=32)
    assert len(seen(fewer, 0)) == 32
    assert seen(fewer, 0) != seen(fewer, 1)
    assert set(seen(fewer, 0)) <= set(seen(whole, 0))


def test_a_frozen_backbone_learns_published_triplets_too():
    config = dataclasses.replace(QUICK, freeze_backbone=True)
    history = train(model("csn", n_attributes=4), listed(), config, progress=False)
    assert history[-1]["ranking"] < history[0]["ranking"]


def test_the_first_epoch_counts_the_time_of_what_is_computed_once(monkeypatch):
    cached = training.cache_taps

    def slowly(*args, **kwargs):
        time.sleep(1)
        return cached(*args, **kwargs)

    monkeypatch.setattr(training, "cache_taps", slowly)
    config = dataclasses.replace(QUICK, freeze_backbone=True, epochs=2)
    seconds = [row["seconds"] for row in train(model(), tiny.data(), config, progress=False)]
    assert seconds[0] > 1
    assert seconds[1] < seconds[0]


def test_triplets_admit_no_other_recipe_and_must_be_there():
    pairs = dataclasses.replace(QUICK, recipe="all_pairs")
    with pytest.raises(InputError, match="recipe is 'all_pairs'"):
        train(model(n_attributes=4), listed(), pairs, progress=False)
    with pytest.raises(InputError, match="there are 0 triplets"):
        train(model(n_attributes=4), listed(n_train=0), QUICK, progress=False)


def test_targets_released_and_repaired():
    table = tiny.table()
    part = slice(0, 16)
    step = next(Steps(table, dataclasses.replace(QUICK, **RELEASED)).draw(0, part))
    assert torch.equal(step.targets.argmax(1), step.attributes)
    assert step.targets.sum(1).max() == 1
    repaired = next(Steps(table, QUICK).draw(0, part))
    assert repaired.targets.all()  # every image here is labelled for both attributes


def test_mirroring_follows_the_seed_and_can_be_switched_off():
    steps = Steps(tiny.table(), QUICK)
    first, again = (next(steps.draw(1, slice(0, 16))).mirrored for _ in range(2))
    assert torch.equal(first, again)
    assert 0 < first.float().mean() < 1
    still = Steps(tiny.table(), dataclasses.replace(QUICK, flip=False))
    assert not next(still.draw(1, slice(0, 16))).mirrored.any()


def test_presets_follow_the_released_recipe():
    config = PRESETS["fashionai"]
    assert (config.epochs, config.batch_size, config.learning_rate, config.margin) == (
        150, 16, 1e-4, 0.2,
    )  # fmt: skip
    assert (config.step_epochs, config.decay, config.triplets_per_epoch) == (3, 0.9, 100_000)
    assert PRESETS["zappos50k"].triplets_per_epoch == 200_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "x"}, "recipe must be one of triplet, all_pairs"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"recipe": "all_pairs", "target": "sampled"}, 'must be "labelled"'),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(QUICK, **change)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_epochs(tmp_path, monkeypatch):
    import agman.training as training

    original, calls = training.triplet_loss, []

    def poisoned(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs) * (float("nan") if len(calls) > 4 else 1)

    monkeypatch.setattr(training, "triplet_loss", poisoned)
    with pytest.raises(InputError, match="no longer a number in epoch 2, step 2"):
        train(model(), tiny.data(), QUICK, run=tmp_path, progress=False)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_bfloat16_trains_too():
    config = dataclasses.replace(QUICK, amp="bf16", clip=1.0)
    history = train(model(), tiny.data(), config, progress=False)
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_damaged_state_is_refused_with_a_remedy(tmp_path):
    train(model(), tiny.data(), QUICK, run=tmp_path, progress=False)
    state = tmp_path / "last.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.pt is not a readable checkpoint"):
        train(model(), tiny.data(), QUICK, run=tmp_path, progress=False)
    with pytest.raises(InputError):
        RunFolder(tmp_path, model("csn"), QUICK)


def changed_by(**settings):
    """How far training with other settings ends from training with `QUICK`."""
    one, other = model(), model()
    train(one, tiny.data(), QUICK, progress=False)
    train(other, tiny.data(), dataclasses.replace(QUICK, **settings), progress=False)
    return float((weights(one) - weights(other)).abs().max())


@pytest.mark.parametrize(
    "settings",
    [{"flip": False}, {"clip": 1e-3}, {"schedule": "constant"}, {"amp": "bf16"}, {"margin": 0.5}],
    ids=str,
)
def test_every_setting_reaches_the_weights(settings):
    assert changed_by(**settings) > 1e-5


def test_the_same_settings_end_at_the_same_bits():
    assert changed_by() == 0
