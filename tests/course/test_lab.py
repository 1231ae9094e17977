"""The weights that come with the package: how they are trained and shipped, at a small size."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import agman
from agman.backbones import create_backbone
from agman.course import lab
from agman.datasets import lab_categories
from agman.embedding import fingerprint
from agman.errors import InputError
from agman.sampling import generator
from agman.storage import read_tensors, write_json


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few images, one epoch, and no file of the package or the book touched."""
    few = functools.partial(lab_categories, n_valid=4, n_test=40, cache=tmp_path, progress=False)
    monkeypatch.setattr(lab, "lab_categories", lambda n_train: few(n_train=96))
    monkeypatch.setattr(lab, "train_objects", functools.partial(lab.train_objects, epochs=1))
    for name in ("SHIPPED", "RESULTS"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(lab, name, tmp_path / name)


@pytest.mark.usefixtures("small")
def test_the_backbone_is_trained_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.main(["objects"])
    weights, recorded = tmp_path / "SHIPPED/objects.safetensors", tmp_path / "RESULTS/objects.json"
    result = json.loads(recorded.read_text())
    assert (result["epochs"], result["seed"]) == (1, 0)
    assert {"commit", "versions", "machine"} <= set(result["provenance"])
    assert f"objects: {result['accuracy']:.1f} % of 8 kinds named" in capsys.readouterr().out
    tensors, about = read_tensors(weights)
    assert (about["accuracy"], about["licence"]) == (result["accuracy"], "MIT")
    start = create_backbone("lab", 4, weights)
    torch.manual_seed(0)
    assert not torch.equal(start.stem[0].weight, lab.lab_network().stem[0].weight)
    lab.main(["objects"])
    again, _ = read_tensors(weights)
    assert all(torch.equal(again[name], tensors[name]) for name in tensors), "to the same bits"


def test_images_are_varied_in_place_and_colour_and_nothing_else() -> None:
    color = torch.tensor([0.1, 0.5, 0.9])
    plain = color[None, :, None, None].expand(64, 3, 16, 16)
    varied = lab.varied(plain, generator(0, 1))
    torch.testing.assert_close(varied, varied[:, :, :1, :1].expand_as(varied))
    orders = varied[:, :, 0, 0]
    torch.testing.assert_close(orders.sort(dim=1).values, color.expand(64, 3))
    assert len(np.unique(orders.argsort(dim=1).numpy(), axis=0)) == 6, "every order of the colours"
    left = torch.zeros(64, 3, 16, 16)
    left[..., :4] = 1.0
    bright = lab.varied(left, generator(0, 2)).mean(dim=(1, 2))  # (N, columns)
    mirrored = (bright[:, 8:].sum(dim=1) > bright[:, :8].sum(dim=1)).float().mean()
    assert 0.3 < mirrored < 0.7
    assert torch.equal(lab.varied(left, generator(0, 2)), lab.varied(left, generator(0, 2)))


def test_the_first_seed_is_shipped_with_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(lab, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)  # `make lab` is run where the repository is
    model = agman.create_model("csn", n_attributes=8, backbone="lab")
    model.save(tmp_path / "runs/lab/csn-0/best.safetensors")
    row = {"variant": "CSN", "map_micro": 1.5, "provenance": {"commit": "abc"}}
    runs = [{**row, "seed": 1, "map_micro": 9.5}, {**row, "seed": 0, "history": [{"epoch": 1}]}]
    write_json(tmp_path / "book/results/lab.json", {"experiment": "lab", "runs": runs})
    lab.main(["ship", "csn"])
    shipped = agman.load(tmp_path / "shipped" / "csn.safetensors")
    assert fingerprint(shipped) == fingerprint(model)
    assert shipped.provenance["test"] == {**row, "seed": 0}
    assert shipped.provenance["licence"] == "MIT"


def test_what_was_not_recorded_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run `agman reproduce lab_triplets`"):
        lab.main(["ship", "agman"])
    assert list(tmp_path.iterdir()) == []
