"""The mini lab: the same labels as the lab, on fewer images, which are there as taps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import agman
from agman.attributes import AttributeTable, RetrievalData
from agman.course.mini import LENGTHS, mini_lab
from agman.errors import InputError


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory: pytest.TempPathFactory) -> RetrievalData:
    cache = Path(tmp_path_factory.mktemp("lab"))
    return agman.datasets.lab(90, 60, 60, cache=cache, progress=False, workers=1)


@pytest.fixture(scope="module")
def mini(wardrobe: RetrievalData) -> RetrievalData:
    return mini_lab(wardrobe, n_train=40, n_valid=20, n_test=1000)


def rows(table: AttributeTable) -> set[tuple[str, str, str]]:
    """What a table says, without any numbering."""
    schema = table.schema
    return {
        (table.images.names[i], schema.names[a], schema.values[a][v])
        for i, a, v in zip(table.image, table.attribute, table.value, strict=True)
    }


def test_it_keeps_what_the_lab_says_of_the_first_images(
    wardrobe: RetrievalData, mini: RetrievalData
) -> None:
    lengths = {row for row in rows(wardrobe.train) if row[1] in LENGTHS}
    first = sorted({name for name, _, _ in lengths})[:40]
    assert rows(mini.train) == {row for row in lengths if row[0] in first}
    for old, new in (
        (wardrobe.test.queries, mini.test.queries),
        (wardrobe.test.gallery, mini.test.gallery),
    ):
        assert rows(new) == {row for row in rows(old) if row[1] in LENGTHS}
    assert mini.schema.names == LENGTHS
    assert len(mini.train.images) == 40
    assert len(mini.valid.queries.images) == 20


def test_queries_and_gallery_share_their_images_and_have_their_regions(mini: RetrievalData) -> None:
    assert mini.test.queries.images is mini.test.gallery.images
    assert not set(mini.test.queries.image) & set(mini.test.gallery.image)
    assert mini.train.regions is not None
    assert len(mini.train.regions) == len(mini.train)


def test_ids_follow_the_order_that_was_asked_for(wardrobe: RetrievalData) -> None:
    turned = mini_lab(wardrobe, ("pant_length", "skirt_length"), 30, 20, 20)
    assert turned.schema.names == ("pant_length", "skirt_length")
    assert rows(turned.train) <= rows(wardrobe.train)
    assert {name for _, name, _ in rows(turned.train)} == {"pant_length", "skirt_length"}


def test_its_taps_are_those_of_the_pixels(wardrobe: RetrievalData, mini: RetrievalData) -> None:
    model = agman.create_model("agman", n_attributes=3, backbone="lab", weights="objects").eval()
    names = wardrobe.train.images.names
    image = names.index(mini.train.images.names[7])
    pixels = wardrobe.train.images.load(np.array([image]), model.preprocessing.size)
    with torch.no_grad():
        expected = model.backbone(model.preprocessing(pixels), model.levels)
    found = mini.train.images.load(np.array([7]), 96)
    for level in model.levels:
        torch.testing.assert_close(found[level].float(), expected[level], atol=2e-2, rtol=2e-3)


def test_a_model_trains_on_it(mini: RetrievalData) -> None:
    torch.manual_seed(0)
    model = agman.create_model("agman", n_attributes=3, backbone="lab", weights="objects")
    config = agman.TrainConfig(recipe="all_pairs", epochs=1, batch_size=20, freeze_backbone=True)
    (row,) = agman.train(model, mini, config, progress=False)
    assert 0 < row["map_micro"] <= 1


def test_an_unknown_attribute_is_one_sentence(wardrobe: RetrievalData) -> None:
    with pytest.raises(InputError, match="skirt_lenght"):
        mini_lab(wardrobe, ("skirt_lenght",))
