import dataclasses
import itertools

import pytest
import torch

import agman
from agman.backbones import MultiLevelFeatures, create_backbone
from agman.errors import InputError
from agman.losses import attribute_classification_loss
from agman.models import AGMAN

MODELS = agman.list_models()
N = 3


def make(name, backbone="lab", **options):
    torch.manual_seed(0)
    return agman.create_model(name, n_attributes=N, backbone=backbone, **options)


def images(n=4, size=48, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_the_shape_of_an_answer(name):
    model = make(name).eval()
    out = model(images(), torch.tensor([0, 1, 2, 0]))
    assert out.embedding.shape == (4, out.embedding.shape[1])
    torch.testing.assert_close(out.embedding.norm(dim=1), torch.ones(4))
    if out.attention is not None:
        assert out.attention.shape == (4, 6, 6)
        torch.testing.assert_close(out.attention.sum(dim=(1, 2)), torch.ones(4))
    assert (out.logits is not None) == (name == "agman")


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_all_attributes_at_once_equal_one_at_a_time(name):
    model = make(name).eval()
    x = images()
    together, maps = model.embed_all(x), model.attend_all(x)
    for a in range(N):
        alone = model(x, torch.full((4,), a))
        torch.testing.assert_close(together[:, a], alone.embedding)
        if maps is not None:
            torch.testing.assert_close(maps[:, a], alone.attention)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_an_embedding_does_not_depend_on_the_batch_it_is_in(name):
    model = make(name).eval()
    x, ids = images(), torch.tensor([0, 1, 2, 0])
    whole = model(x, ids).embedding
    torch.testing.assert_close(model(x[2:3], ids[2:3]).embedding, whole[2:3])


def quirks():
    yield from ((name, {}) for name in MODELS)
    yield "agman", {"unguarded_norm": True, "unowned_mask": True}
    switches = ("channel_attention", "spatial_gate", "mask", "classification")
    yield from (("agman", {switch: False}) for switch in switches)
    yield from (("agman", {"levels": levels}) for levels in ((3,), (1, 3), (1, 2, 3)))
    yield "agman", {"activation": "tanh"}


@pytest.mark.parametrize(("name", "options"), list(quirks()))
def test_every_parameter_gets_a_gradient(name, options):
    model = make(name, **options)
    out = model(images(6), model.all_attributes(6))
    loss = (out.embedding * torch.randn_like(out.embedding)).sum()
    if out.logits is not None:
        loss = loss + attribute_classification_loss(out.logits, torch.ones(6, N))
    loss.backward()
    dead = [k for k, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert dead == []


def test_the_released_scalar_w2_is_dead_and_only_it():
    model = make("agman", released=True)
    out = model(images(6), model.all_attributes(6))
    (out.embedding * torch.randn_like(out.embedding)).sum().backward()
    assert model.redundant["w2"].grad.abs() < 1e-5
    assert model.redundant["w"].grad.abs() > 1e-5
    assert "redundant" not in dict(make("agman").named_modules()) or make("agman").redundant is None


def test_a_zero_vector_stays_zero_unless_the_released_norm_is_asked_for():
    zero = torch.zeros(1, 1, 4)
    assert make("agman").normalize(zero).abs().sum() == 0
    assert make("agman", released=True).normalize(zero).isnan().all()


def parameters(name, **options):
    with torch.device("meta"):
        model = agman.create_model(name, backbone="resnet50", **options)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [
        ("agman", 4, 26_408_617),
        ("agman", 5, 26_411_690),
        ("agman", 8, 26_420_909),
        ("agman", 9, 26_423_982),
        ("asenet_v2", 4, 10_908_736),
        ("asenet_v2", 8, 10_910_784),
        ("asenet", 4, 11_698_753),
        ("asenet", 8, 11_704_897),
    ],
)
def test_parameter_counts_are_those_of_the_released_networks(name, n, expected):
    assert parameters(name, n_attributes=n, released=True) == expected


def test_the_classification_branch_is_most_of_agman():
    kept = parameters("agman", released=True, classification=False)
    assert kept == 11_439_781


@torch.no_grad()
def test_multi_level_features_are_top_and_top_plus_projected_lower():
    join = MultiLevelFeatures([4, 6])
    low, top = torch.randn(2, 4, 10, 10), torch.randn(2, 6, 5, 5)
    x, local = join([low, top])
    pooled = torch.nn.functional.max_pool2d(low, 3, 2, 1)
    torch.testing.assert_close(local, top + join.project[0](pooled))
    torch.testing.assert_close(x, torch.cat([top, local], dim=1))


@pytest.mark.parametrize(("size", "name"), list(itertools.product((33, 64, 96), MODELS)))
def test_any_input_size(size, name):
    out = make(name).eval()(images(2, size), torch.tensor([0, 2]))
    assert out.embedding.isfinite().all()


def test_a_backbone_gives_the_levels_asked_for_and_no_more():
    backbone = create_backbone("resnet18").eval()
    taps = backbone(images(1, 64), (1, 3))
    assert {k: tuple(v.shape[1:]) for k, v in taps.items()} == {1: (64, 16, 16), 3: (256, 4, 4)}
    assert (backbone.channels, backbone.strides) == ((64, 128, 256, 512), (4, 8, 16, 32))


@pytest.mark.parametrize("name", MODELS)
def test_saved_models_come_back_whole(name, tmp_path):
    model = make(name).eval()
    model.schema = agman.AttributeSchema(("a", "b", "c"), (("x",), ("y",), ("z",)))
    model.preprocessing = dataclasses.replace(model.preprocessing, size=48)
    model.save(tmp_path / "m.safetensors")
    again = agman.load(tmp_path / "m.safetensors")
    assert (again.config, again.schema, again.preprocessing) == (
        model.config,
        model.schema,
        model.preprocessing,
    )
    assert torch.equal(again.embed_all(images()), model.embed_all(images()))


def wrong_calls():
    yield "no attribute", lambda: agman.create_model("agman", n_attributes=0), "at least 1"
    yield "width", lambda: make("csn", dim=0), r"width of a head \(dim\) must be at least 1"
    yield "model", lambda: agman.create_model("agmann"), "no model 'agmann'"
    yield "backbone", lambda: make("csn", backbone="vgg"), "no backbone 'vgg'"
    yield "option", lambda: make("csn", levels=(2, 3)), "no option 'levels'"
    yield "levels", lambda: make("agman", levels=(3, 2)), "rising levels"
    yield "activation", lambda: make("agman", activation="gelu"), "no activation 'gelu'"
    yield "imagenet", lambda: make("csn", weights="imagenet"), "no ImageNet weights"
    yield "weights", lambda: make("csn", weights="absent.safetensors"), "absent.safetensors"
    yield "foreign", lambda: make("csn", weights={"x": torch.ones(1)}), "keys missing"
    yield "shipped", lambda: agman.load("lab/absent"), "No model lab/absent"
    yield "id", lambda: make("csn")(images(1), torch.tensor([3])), "ids run from 0 to 2"
    yield "ids", lambda: make("csn")(images(2), torch.tensor([0.0, 1.0])), "integer ids"
    yield "shape", lambda: make("csn")(images(2), torch.tensor([1])), r"shape \(2,\)"
    yield "small", lambda: make("csn")(images(1, 8), torch.tensor([0])), "too small"
    yield "grey", lambda: make("csn")(torch.zeros(1, 1, 32, 32), torch.tensor([0])), "batch, 3"


@pytest.mark.parametrize(("call", "message"), [c[1:] for c in wrong_calls()], ids=lambda x: None)
def test_wrong_calls_get_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_file_of_other_tensors_is_not_a_model(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no agman model"):
        agman.load(tmp_path / "x.safetensors")


@torch.no_grad()
def test_bfloat16_autocast_stays_close():
    model = make("agman").eval()
    exact = model.embed_all(images())
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.embed_all(images())
    assert ((exact * rough.float()).sum(-1) > 0.99).all()


def test_a_timm_network_serves_as_backbone():
    pytest.importorskip("timm")
    model = make("agman", backbone="timm/tf_efficientnet_lite0").eval()
    assert isinstance(model, AGMAN)
    assert model(images(2, 64), torch.tensor([0, 1])).logits.shape == (2, N)
    with pytest.raises(InputError, match="timm has no network"):
        make("csn", backbone="timm/none_such")
