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


# What the modules of the authors' networks are called where ours have other names.
THEIRS = {
    "agman": {
        "codes": "attr_embedding", "spatial.transform": "attr_transform1", "reduce": "conv1",
        "spatial.norm": "img_bn1", "gate.conv": "sa.conv1", "channel.transform": "attr_transform2",
        "channel.squeeze": "fc1", "channel.excite": "fc2", "mask": "masks", "scale": "w1",
        "redundant.w": "w", "redundant.w2": "w2", "join.project.0": "backbonenet.conv1_1",
        "classifier.0": "backbonenet.layer4", "classifier.3": "backbonenet.fc_embed",
    },
    "asenet": {
        "spatial.transform": "mask_fc1", "channel.transform": "mask_fc2",
        "channel.squeeze": "fc1", "channel.excite": "fc2", "spatial.project": "conv1",
        "spatial.score": "conv2", "project": "feature_fc",
    },
    "asenet_v2": {
        "codes": "attr_embedding", "spatial.transform": "attr_transform1",
        "spatial.project": "conv1", "spatial.norm": "img_bn1",
        "channel.transform": "attr_transform2", "channel.squeeze": "fc1", "channel.excite": "fc2",
    },
    "csn": {"mask": "masks", "project": "embed_fc"},
}  # fmt: skip


def in_their_names(model):
    """The weights of one of our models as the authors' training script would have saved them."""
    net = "embeddingnet" if model.name == "csn" else "backbonenet"
    places = {"backbone.stem.0": f"{net}.conv1", "backbone.stem.1": f"{net}.bn1"}
    places |= {f"backbone.levels.{i}": f"{net}.layer{i + 1}" for i in range(3)}
    places |= THEIRS[model.name]
    state = {}
    for key, value in model.state_dict().items():
        ours = next(place for place in places if key == place or key.startswith(f"{place}."))
        state[f"module.embeddingnet.{places[ours]}{key.removeprefix(ours)}"] = value
    if model.name != "agman":  # ImageNet's classifier, which stayed in the backbone
        state[f"module.embeddingnet.{net}.fc.weight"] = torch.zeros(1000, 2048)
        state[f"module.embeddingnet.{net}.fc.bias"] = torch.zeros(1000)
    return state


@torch.no_grad()
@pytest.mark.parametrize("name", THEIRS)
def test_weights_in_the_authors_names_give_the_same_answers(name, tmp_path):
    """Of any number of attributes and width, told from the file alone."""
    torch.manual_seed(0)
    ours = agman.create_model(name, n_attributes=3, dim=24, released=True).eval()
    for parameter in ours.parameters():
        parameter.mul_(1 + 0.1 * torch.rand_like(parameter))  # no two alike
    file = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 3, "state_dict": in_their_names(ours), "best": np.float64(0.6)}, file)
    theirs = agman.load_reference(file)
    assert (theirs.name, theirs.n_attributes, theirs.training) == (name, 3, False)
    picture, asked = torch.rand(2, 3, 64, 64), torch.tensor([0, 2])
    for one, other in zip(ours(picture, asked), theirs(picture, asked)):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_their_names_are_those_of_the_authors_files(shapes):
    for network, name in NAMES.items():
        with torch.device("meta"):
            model = agman.create_model(name, n_attributes=8, released=True)
        keys = {key.removeprefix("module.") for key in in_their_names(model)}
        assert keys == set(shapes[network])


@pytest.mark.parametrize("key", ["fc2.bias", "surprise.weight"])
def test_a_key_without_a_place_names_the_file(key, tmp_path):
    model = agman.create_model("asenet", n_attributes=2, dim=8, released=True)
    state = in_their_names(model)
    full = f"module.embeddingnet.{key}"
    state = {k: v for k, v in state.items() if k != full} | (
        {} if full in state else {full: torch.zeros(2)}
    )
    torch.save(state, tmp_path / "other.pth")
    said = "1 keys missing, 0 unexpected" if key == "fc2.bias" else "0 keys missing, 1 unexpected"
    with pytest.raises(InputError, match=rf"other\.pth.*{said}"):
        agman.load_reference(tmp_path / "other.pth")


def test_foreign_tensors_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="not a checkpoint of AG-MAN"):
        agman.load_reference({"fc.weight": torch.zeros(2, 2)})
