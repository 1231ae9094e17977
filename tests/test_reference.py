"""The authors' networks, computed by ours from the same weights."""

import json
from zlib import crc32

import numpy as np
import pytest
import torch

import agman
from agman.errors import InputError
from agman.losses import ReleasedWeighting, attribute_classification_loss, triplet_loss

NAMES = {
    "AG_MAN": "agman",
    "ASENet": "asenet",
    "ASENet_V2": "asenet_v2",
    "ConditionalSimNet": "csn",
}
ATTRIBUTES = torch.tensor([0, 3, 7])


def random_state(name):
    return np.random.RandomState(crc32(name.encode()) & 0x7FFFFFFF)


def weight(key, shape):
    """The recipe of the reference outputs: each tensor from a seed made of its key."""
    random, last = random_state(key), key.split(".")[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape)
    if last == "running_var":
        return random.uniform(0.5, 1.5, shape)
    if last == "running_mean":
        return random.normal(0, 0.1, shape)
    if len(shape) <= 1:
        center = float(key.endswith("weight") or last in {"w", "w1", "w2"})
        return random.normal(center, 0.1, shape) * (0.3 if key.endswith("bn3.weight") else 1)
    if "attr_embedding" in key or "masks" in key:
        return random.normal(0.5, 0.7, shape)
    return random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)


def images(name):
    return torch.from_numpy(random_state(name).normal(0, 1, (3, 3, 224, 224))).float()


@pytest.fixture(scope="module")
def shapes(realdata):
    return json.loads((realdata / "reference-outputs/state_shapes.json").read_text())


@pytest.fixture(scope="module")
def expected(realdata):
    return np.load(realdata / "reference-outputs/reference_outputs.npz")


def state_of(shapes, network):
    return {k: torch.from_numpy(weight(k, s)).float() for k, s in shapes[network].items()}


def close(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("network", NAMES)
def test_outputs_agree_with_the_authors_network(network, shapes, expected):
    model = agman.load_reference(state_of(shapes, network))
    assert model.name == NAMES[network]
    anchor, positive, negative = (
        model(images(part), ATTRIBUTES) for part in ("anchor", "positive", "negative")
    )
    close(anchor.embedding, expected[f"{network}.embedding"])
    close((anchor.embedding * positive.embedding).sum(1), expected[f"{network}.sim_positive"])
    close((anchor.embedding * negative.embedding).sum(1), expected[f"{network}.sim_negative"])
    if anchor.attention is not None:
        scale = model.scale if network == "AG_MAN" else 1  # their heat map includes the scalar
        close(scale * anchor.attention, expected[f"{network}.heatmaps"])
    if network == "AG_MAN":
        check_losses(anchor, positive, negative, expected)


def check_losses(anchor, positive, negative, expected):
    close(anchor.logits, expected["AG_MAN.logits"])
    target = torch.nn.functional.one_hot(ATTRIBUTES, 8)
    parts = [attribute_classification_loss(o.logits, target) for o in (anchor, positive, negative)]
    losses = {
        "classification": torch.stack(parts).mean(),
        "triplet": triplet_loss(anchor.embedding, positive.embedding, negative.embedding),
    }
    close(losses["classification"], expected["AG_MAN.loss_cls"])
    close(losses["triplet"], expected["AG_MAN.loss_triplet"])
    close(ReleasedWeighting(*losses)(losses), expected["AG_MAN.loss_total"])


def test_a_missing_and_an_unexpected_key_are_reported(shapes):
    state = state_of(shapes, "ConditionalSimNet")
    state["embeddingnet.surprise.weight"] = state.pop("embeddingnet.embed_fc.bias")
    with pytest.raises(InputError, match="1 keys missing, 1 unexpected"):
        agman.load_reference(state)


def test_another_input_size_is_free(shapes):
    model = agman.load_reference(state_of(shapes, "ASENet_V2"))
    assert model(torch.zeros(1, 3, 96, 64), torch.tensor([2])).attention.shape == (1, 6, 4)


def test_a_checkpoint_file_of_the_training_script(shapes, tmp_path):
    state = {f"module.{k}": v for k, v in state_of(shapes, "ConditionalSimNet").items()}
    file = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 3, "state_dict": state, "best_mAP": np.float64(0.6)}, file)
    assert agman.load_reference(file).n_attributes == 8


def test_a_checkpoint_that_could_run_code_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    file = tmp_path / "trap.pth"
    torch.save({"state_dict": Trap()}, file)
    with pytest.raises(InputError, match="can run code"):
        agman.load_reference(file)
    assert not (tmp_path / "ran").exists()


def test_foreign_tensors_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="not a checkpoint of AG-MAN"):
        agman.load_reference({"fc.weight": torch.zeros(2, 2)})
