"""Numbers at their limits: half precision, zeros, ones, gradients, threads, and a collapse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import agman
from agman import attention
from agman.attributes import AttributeSchema, AttributeTable, QueryGallery, RetrievalData
from agman.datasets import PackedImages
from agman.index import PhotoIndex
from agman.losses import (
    FixedWeighting,
    LearnedWeighting,
    ReleasedWeighting,
    attribute_classification_loss,
    supervised_contrastive_loss,
    triplet_loss,
)
from agman.metrics import average_precision
from agman.models import RetrievalModel
from agman.training import TrainConfig, train
from tests import tiny

QUICK = TrainConfig(epochs=2, triplets_per_epoch=48, learning_rate=3e-3, schedule="cosine")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


HALVES = (torch.float16, torch.bfloat16)


def model(name: str = "agman", n_attributes: int = 2, **options: Any) -> RetrievalModel:
    torch.manual_seed(0)
    made = agman.create_model(name, n_attributes=n_attributes, backbone="lab", **options)
    made.preprocessing = dataclasses.replace(made.preprocessing, size=32)
    return made


def double(module: nn.Module) -> nn.Module:
    """In float64, and as in use: normalisation with its running numbers."""
    return module.double().eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)


# --- half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
def test_an_index_in_half_precision_finds_nearly_the_same(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    images, network = tiny.table(30).images, model().eval()
    full = PhotoIndex.build(network, images, progress=False)
    PhotoIndex.build(network, images, dtype=dtype, progress=False).save(tmp_path / "i")
    half = PhotoIndex.load(tmp_path / "i", network)
    assert half.embeddings.dtype == dtype
    step = float(torch.finfo(dtype).eps)
    for query in full.embeddings[:5, 0]:
        exact = {hit.number: hit.score for hit in full.search_embedding(query, 0, 30)}
        for hit in half.search_embedding(query, 0, 30):
            assert hit.score == pytest.approx(exact[hit.number], abs=2 * step)


@pytest.mark.parametrize("dtype", HALVES)
def test_average_precision_of_half_precision_is_that_of_its_values(dtype: torch.dtype) -> None:
    scores = normal(20, 50).detach().to(dtype)  # rounding makes ties, which count as ties
    relevant = torch.rand(20, 50, generator=torch.Generator().manual_seed(1)) < 0.3
    for row, wanted in zip(scores, relevant, strict=True):
        assert average_precision(row, wanted) == average_precision(row.float(), wanted)


# --- zeros and ones -------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["triplet", "all_pairs"])
@pytest.mark.parametrize("name", ["agman", "csn"])
def test_a_dead_mask_ranks_by_chance_and_trains_without_nan(name: str, recipe: str) -> None:
    """All weights below zero: every embedding is the zero vector, and no gradient passes."""
    dead = model(name)
    with torch.no_grad():
        dead.mask.weight.fill_(-1.0)  # type: ignore[union-attr, operator]
    test = tiny.data().test
    queries, gallery = test.queries, test.gallery
    shares = []
    for attribute, value in zip(queries.attribute, queries.value, strict=True):
        shares.append((gallery.of(int(attribute)).value == value).mean())
    report = agman.evaluate(dead, queries, gallery, progress=False)
    assert report.map_micro == pytest.approx(np.mean([share for share in shares if share]))
    config = dataclasses.replace(QUICK, recipe=recipe, epochs=1)
    (row,) = train(dead, tiny.data(), config, progress=False)
    assert np.isfinite(row["loss"])
    assert all(bool(torch.isfinite(p).all()) for p in dead.parameters())


def one_of_each() -> RetrievalData:
    """One attribute; two images of one value and one of the other to learn; one query, one hit."""
    schema = AttributeSchema(("color",), (("red", "green"),), "least")
    rows = tiny.table(5).images
    array = rows.array  # type: ignore[attr-defined]
    images = PackedImages(array, [f"{i}.png" for i in range(5)])

    def part(image: list[int], value: list[int]) -> AttributeTable:
        numbers = np.array(image)
        return AttributeTable(schema, images, numbers, np.zeros_like(numbers), np.array(value))

    held_out = QueryGallery(part([3], [0]), part([4], [0]))
    return RetrievalData("least", schema, part([0, 1, 2], [0, 0, 1]), held_out, held_out)


@pytest.mark.parametrize("recipe", ["triplet", "all_pairs"])
@pytest.mark.parametrize("name", agman.list_models())
def test_one_attribute_one_query_one_gallery_image_and_batches_of_one(
    name: str, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(QUICK, recipe=recipe, batch_size=1, triplets_per_epoch=3)
    network = model(name, n_attributes=1)
    history = train(network, one_of_each(), config, progress=False)
    assert [row["map_micro"] for row in history] == [1.0, 1.0]
    assert all(np.isfinite(row["loss"]) for row in history)
    assert "nearly the same" not in capsys.readouterr().err, "one image has no spread"
    index = PhotoIndex.build(network, PackedImages(np.zeros((1, 8, 8, 3), np.uint8), ["a"]),
                             progress=False)  # fmt: skip
    assert [hit.name for hit in index.search(np.zeros((8, 8, 3), np.uint8), 0)] == ["a"]


SIZES = [(1, 1), (1, 7), (6, 1), (5, 3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_attention_takes_maps_of_any_size(size: tuple[int, int], batch: int) -> None:
    features, codes = torch.randn(batch, 6, *size), torch.randn(batch, 2, 4)
    for module in (
        attention.AttributeSpatialAttention(6, 4, 6),
        attention.AttributeSpatialAttention(6, 4, 5, project=True),
        attention.AdditiveSpatialAttention(6, 4, 5),
    ):
        maps = module.eval()(features, codes)
        assert maps.shape == (batch, 2, *size)
        torch.testing.assert_close(maps.sum((2, 3)), torch.ones(batch, 2))
    assert attention.SpatialGate()(features, maps).shape == (batch, 2, *size)


# --- gradients ------------------------------------------------------------------------------------

MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "spatial": (
        lambda: attention.AttributeSpatialAttention(4, 3, 4), ((2, 4, 3, 2), (2, 2, 3)),
    ),
    "spatial, projected": (
        lambda: attention.AttributeSpatialAttention(4, 3, 5, project=True),
        ((2, 4, 3, 2), (2, 2, 3)),
    ),
    "spatial, additive": (
        lambda: attention.AdditiveSpatialAttention(4, 3, 5), ((2, 4, 3, 2), (2, 2, 3)),
    ),
    "gate": (lambda: attention.SpatialGate(3), ((2, 4, 3, 2), (2, 2, 3, 2))),
    "channel": (
        lambda: attention.AttributeChannelAttention(4, 3, 4, 3), ((2, 2, 4), (2, 2, 3)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_gradients_of_attention_are_right(name: str) -> None:
    """By its inputs and by every parameter, against differences, in float64."""
    torch.manual_seed(0)
    make, shapes = MODULES[name]
    module = double(make())
    inputs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    names = [key for key, _ in module.named_parameters()]

    def call(*tensors: Tensor) -> Tensor:
        parameters = dict(zip(names, tensors[len(inputs) :], strict=True))
        out: Tensor = torch.func.functional_call(module, parameters, tensors[: len(inputs)])
        return out

    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    assert torch.autograd.gradcheck(call, (*inputs, *parameters))


def test_gradients_of_the_mask_and_the_pooling_are_right() -> None:
    mask, ids = double(attention.AttributeMask(3, 7)), torch.tensor([[0, 2], [1, 1]])
    assert torch.autograd.gradcheck(lambda v: mask(v, ids), normal(2, 2, 7))
    weights = mask.weight.detach().clone().requires_grad_()

    def by_weight(w: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(mask, {"weight": w}, (vectors, ids))
        return out

    vectors = normal(2, 2, 7).detach()
    assert torch.autograd.gradcheck(by_weight, weights)


def unit(*shape: int, seed: int = 0) -> Tensor:
    vectors = normal(*shape, seed=seed).detach()
    return nn.functional.normalize(vectors, dim=-1).requires_grad_()


def test_gradients_of_the_losses_are_right() -> None:
    three = [unit(5, 4, seed=i) for i in range(3)]
    assert torch.autograd.gradcheck(lambda a, p, n: triplet_loss(a, p, n, 0.7), three)
    values = torch.tensor([[0, 1], [0, -1], [1, 1], [1, 0]])
    assert torch.autograd.gradcheck(
        lambda e: supervised_contrastive_loss(e, values, 0.05), unit(4, 2, 3)
    )
    soft = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda z: attribute_classification_loss(z, soft), normal(4, 2))
    for weighting in (
        FixedWeighting(a=0.5, b=2.0), LearnedWeighting("a", "b"), ReleasedWeighting("a", "b"),
    ):  # fmt: skip
        whole = double(weighting)
        assert torch.autograd.gradcheck(
            lambda a, b, whole=whole: whole({"a": a, "b": b}), [normal().exp(), normal().exp()]
        )


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", agman.list_models())
def test_one_thread_and_two_agree(name: str) -> None:
    """Embeddings to 1e-5; after two epochs of training the losses to 1e-3."""
    found = []
    for n in (1, 2):
        torch.set_num_threads(n)
        network = model(name)
        images = network.preprocessing(tiny.table(20).images.load(range(20), 32))
        with torch.no_grad():
            embeddings = network.eval().embed_all(images)
        history = train(network, tiny.data(), QUICK, progress=False)
        found.append((embeddings, [row["loss"] for row in history]))
    (one, losses), (two, others) = found
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    assert losses == pytest.approx(others, abs=1e-3)


# --- the alarm ------------------------------------------------------------------------------------


def collapsed(network: RetrievalModel) -> RetrievalModel:
    """The same embedding for every image, whatever is learned in a few steps."""
    forward = network.normalize
    direction = torch.ones(network.dim)

    def constant(vectors: Tensor) -> Tensor:
        return forward(vectors * 1e-4 + direction * vectors.detach().norm(dim=-1, keepdim=True))

    network.normalize = constant  # type: ignore[method-assign]
    return network


@pytest.mark.parametrize("recipe", ["triplet", "all_pairs"])
@pytest.mark.parametrize("name", agman.list_models())
def test_a_collapse_is_said_once_and_health_not_at_all(
    name: str, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(QUICK, recipe=recipe)
    train(model(name), tiny.data(), config, progress=False)
    assert capsys.readouterr().err == ""
    train(collapsed(model(name)), tiny.data(), config, progress=False)
    said = capsys.readouterr().err
    assert said.startswith("Warning: all embeddings are nearly the same in epoch 1, step 1 (")
    assert said.count("\n") == 1


def test_a_collapse_while_training_is_noticed_where_it_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, calls = model("csn"), []
    normalize = network.normalize

    def later(vectors: Tensor) -> Tensor:
        calls.append(network.training)
        if sum(calls) > 4:  # three steps an epoch
            vectors = vectors * 0 + 1
        return normalize(vectors)

    monkeypatch.setattr(network, "normalize", later)
    train(network, tiny.data(), QUICK, progress=False)
    assert "in epoch 2, step 2 (spread" in capsys.readouterr().err
