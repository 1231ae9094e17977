"""Explorers: small, harmless whatever a file is called, and with the numbers that Python has."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

import agman
from agman.attributes import AttributeSchema, AttributeTable, QueryGallery
from agman.course import explorers
from agman.course.explorers import (
    Explorer,
    attention_explorer,
    embedding_map,
    metric_playground,
    retrieval_explorer,
)
from agman.datasets import PackedImages
from agman.errors import InputError
from agman.evaluation import attend_table, embed_table, evaluate
from agman.loading import TapStore
from agman.metrics import attention_mass
from agman.models import RetrievalModel
from tests import tiny

HOSTILE = '</script><script>alert("1")</script><!-- \'&amp;\u2028 ${x} `'
KINDS = ("agman", "asenet_v2", "asenet", "csn", "triplet")


def model(kind: str = "agman", **options: Any) -> RetrievalModel:
    torch.manual_seed(KINDS.index(kind))
    return agman.create_model(kind, n_attributes=2, backbone="lab", **options).eval()


def hostile(table: AttributeTable) -> AttributeTable:
    """The same rows, with names that would break a page that trusted them."""
    values = tuple(tuple(f"{v}{HOSTILE}" for v in own) for own in table.schema.values)
    schema = AttributeSchema(tuple(f"{n}{HOSTILE}" for n in table.schema.names), values)
    images = table.images
    assert isinstance(images, PackedImages)
    store = PackedImages(images.array, [f"{name}{HOSTILE}" for name in images.names])
    regions = np.tile([4, 2, 20, 16], (len(table), 1))
    regions[::5] = -1
    return AttributeTable(schema, store, table.image, table.attribute, table.value, regions)


def split(table: AttributeTable) -> QueryGallery:
    query = table.image % 3 == 0
    return QueryGallery(table.select(query), table.select(~query))


@pytest.fixture(scope="module")
def table() -> AttributeTable:
    return hostile(tiny.table(30))


@pytest.fixture(scope="module")
def every(table: AttributeTable) -> dict[str, Explorer]:
    both = {"AG-MAN": model(), f"Triplet{HOSTILE}": model("triplet")}
    data = split(table)
    return {
        "playground": metric_playground(),
        "retrieval": retrieval_explorer(both, data.queries, data.gallery, n_queries=4, top=5),
        "attention": attention_explorer(both, table, n_images=3),
        "embedding": embedding_map(both["AG-MAN"], table),
    }


NAMES = ("playground", "retrieval", "attention", "embedding")


def payload(explorer: Explorer) -> Any:
    """The data that the explorer's script starts with."""
    (text,) = re.findall(r'start\("[\w-]+", "[\w ]+", build, (.*)\);\n', explorer.html)
    return json.loads(text)


def unpacked(maps: dict[str, Any]) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(maps["values"]), np.uint8)
    return values.reshape(-1, maps["height"], maps["width"])


# --- one piece of HTML ------------------------------------------------------------------------


class Parts(HTMLParser):
    """Tags and comments, as a browser would meet them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.comments: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


@pytest.mark.parametrize("name", NAMES)
def test_no_name_can_leave_the_script(every: dict[str, Explorer], name: str) -> None:
    parts = Parts()
    parts.feed(every[name]._repr_html_())
    assert parts.tags == ["div", "style", "p", "script"]
    assert parts.comments == []
    assert "\u2028" not in every[name].html


def test_names_arrive_as_they_are(every: dict[str, Explorer], table: AttributeTable) -> None:
    data = payload(every["retrieval"])
    assert data["queries"][0]["picture"][1] == f"0.png{HOSTILE}"
    assert data["models"][1] == f"Triplet{HOSTILE}"
    assert data["values"] == [list(values) for values in table.schema.values]
    assert payload(every["embedding"])["attributes"][0]["name"] == f"color{HOSTILE}"


@pytest.mark.parametrize("name", NAMES)
def test_it_asks_nothing_of_any_place(every: dict[str, Explorer], name: str) -> None:
    text = every[name].html.replace('"http://www.w3.org/2000/svg"', "")  # a name, not an address
    assert not re.search(r"https?:|url\(|@import|fetch|XMLHttp|WebSocket|import\(|innerHTML", text)


@pytest.mark.parametrize("name", NAMES)
def test_its_style_stays_within_its_own_element(every: dict[str, Explorer], name: str) -> None:
    text = every[name].html
    (root,) = re.findall(r'<div id="([\w-]+)"', text)
    style = text.split("<style>")[1].split("</style>")[0]
    style = re.sub(r"/\*.*?\*/|@container[^{]*\{", "", style, flags=re.DOTALL)
    selectors = re.findall(r"([^{}]+)\{", style)
    assert len(selectors) > 30
    strangers = [one for rule in selectors for one in rule.split(",") if f"#{root}" not in one]
    assert strangers == []


@pytest.mark.parametrize("name", NAMES)
def test_it_is_below_the_limit_and_says_its_size(every: dict[str, Explorer], name: str) -> None:
    size = len(every[name].html.encode())
    assert size < explorers.LIMIT
    assert f", {size // 1000} kB>" in repr(every[name])


def test_the_same_call_gives_the_same_bytes(table: AttributeTable) -> None:
    one, other = (attention_explorer({"m": model()}, table, n_images=2) for _ in range(2))
    assert one == other
    assert one.html != attention_explorer({"m": model()}, table, n_images=1).html
    assert metric_playground() == metric_playground()


def test_pictures_become_smaller_before_it_gives_up(
    table: AttributeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {}
    for side in explorers.SIDES:
        monkeypatch.setattr(explorers, "SIDES", (side,))
        sides[side] = embedding_map(model(), table)
    sizes = [len(one.html.encode()) for one in sides.values()]
    assert sizes == sorted(sizes, reverse=True)

    monkeypatch.setattr(explorers, "SIDES", tuple(sides))
    monkeypatch.setattr(explorers, "LIMIT", sizes[2])
    assert embedding_map(model(), table) == list(sides.values())[2]
    monkeypatch.setattr(explorers, "LIMIT", sizes[-1] - 1)
    with pytest.raises(InputError, match="fewer images"):
        embedding_map(model(), table)


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("same_store", [True, False])
def test_rankings_are_those_of_the_package(table: AttributeTable, same_store: bool) -> None:
    """All images are queries and gallery, so an image could find itself in a shared store."""
    store = table.images
    assert isinstance(store, PackedImages)
    copy = PackedImages(store.array, store.names)
    gallery = table
    if not same_store:
        gallery = AttributeTable(table.schema, copy, table.image, table.attribute, table.value)
    models = {"one": model(), "two": model("csn")}
    data = payload(retrieval_explorer(models, table, gallery, n_queries=5, top=6))
    names = [name for _, name in data["pictures"]]
    for number, one in enumerate(models.values()):
        ap = evaluate(one, table, gallery, progress=False).ap
        embedding = embed_table(one, table, progress=False)
        for row in range(10):  # five images with two rows each
            asked = data["queries"][row // 2]["rows"][row % 2]
            answer = asked["answers"][number]
            assert answer["ap"] == pytest.approx(ap[row], abs=1e-6)
            own = np.flatnonzero(table.attribute == table.attribute[row])
            if same_store:
                own = own[table.image[own] != table.image[row]]
            score = embedding[own] @ embedding[row]
            for (picture, value, similarity, right), place in zip(
                answer["results"], score.argsort(descending=True, stable=True)[:6].tolist()
            ):
                assert similarity == pytest.approx(float(score[place]), abs=2e-4)
                found = own[[store.names[table.image[r]] == names[picture] for r in own]]
                assert table.value[found].tolist() == [value]
                assert right == (value == table.value[row])
            assert asked["items"] == len(own)
            assert asked["relevant"] == int((table.value[own] == table.value[row]).sum())


def test_a_query_with_nothing_to_find_has_no_average_precision(table: AttributeTable) -> None:
    first = table.select(table.image == 0)
    others = table.select((table.image > 0) & ~np.isin(table.value, first.value))
    ranked = table.select(np.isin(table.image, [0, 1, 2, 3]))
    data = payload(retrieval_explorer({"m": model()}, ranked, others, top=99))
    lonely = data["queries"][0]["rows"]
    assert [row["answers"][0]["ap"] for row in lonely] == [None, None]
    assert [row["chance"] for row in lonely] == [None, None]
    assert all(
        row["relevant"] == 0 < row["items"] for row in lonely if row["answers"][0]["results"]
    )


def test_an_attribute_that_no_image_shows_is_left_out(table: AttributeTable) -> None:
    colors = table.of(0)
    both = payload(embedding_map(model(), table))["attributes"]
    assert payload(embedding_map(model(), colors))["attributes"][0]["name"] == both[0]["name"]
    assert len(payload(embedding_map(model(), colors))["attributes"]) == 1 == len(both) - 1
    asked = payload(retrieval_explorer({"m": model()}, table, colors))["queries"][0]["rows"]
    found = {row["attribute"]: row["answers"][0]["results"] for row in asked}
    assert len(found[0]) > 0
    assert found[1] == []


def test_maps_and_what_is_said_of_them(table: AttributeTable) -> None:
    network = model()
    data = payload(attention_explorer({"m": network}, table, n_images=4))
    layers = {layer["name"]: layer for layer in data["models"][0]["layers"]}
    assert list(layers) == [
        "attribute-guided map",
        "plain gate",
        "map times gate",
        "activity at level 3",
        "activity at level 2",
    ]
    rows = table.select(table.image < 4)  # in the order of the garments, then the attributes
    maps = attend_table(network, rows, progress=False)
    stretched = 255 * maps / maps.amax(dim=(1, 2), keepdim=True)
    guided = unpacked(layers["attribute-guided map"]["maps"])
    assert np.abs(guided - stretched.numpy()).max() <= 0.5 + 1e-3

    inside = attention_mass(maps, torch.as_tensor(rows.regions), 32).tolist()
    for said, share in zip(layers["attribute-guided map"]["says"], inside, strict=True):
        assert said["inside"] == (None if np.isnan(share) else pytest.approx(share, abs=1e-5))
    for garment in data["garments"]:
        for asked in garment["asked"]:
            seen = asked["region"] is not None
            assert asked["region"] in (None, [0.125, 0.0625, 0.5, 0.4375])
            assert asked["even"] == (pytest.approx(0.5 * 0.4375) if seen else None)
    assert len(unpacked(layers["activity at level 2"]["maps"])) == 4, "one for all attributes"
    assert unpacked(layers["activity at level 2"]["maps"]).shape[1] == 24
    assert data["garments"][0]["asked"][1]["value"] == table.schema.values[1][table.value[1]]


def test_the_gate_is_what_the_pooled_map_was_multiplied_by(table: AttributeTable) -> None:
    network = model()
    rows = table.select(table.image < 2)
    guided, gate, pooled = (
        layer.maps for layer in explorers._layers(network, rows, np.array([0, 1]))[:3]
    )
    torch.testing.assert_close(guided * gate, pooled)
    assert 0 < float(gate.min()) <= float(gate.max()) < 1
    pixels = network.preprocessing(rows.images.load([0, 1], 96))
    with torch.no_grad():
        features, _ = network._join(network.backbone(pixels, network.levels))
        weights = network.scale * guided.float()
        expected = network.gate(network.reduce(features), weights)
    torch.testing.assert_close(gate.float(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("cell", "words"), [((0, 0), "top left"), ((2, 2), "middle centre"), ((4, 3), "bottom right")]
)
def test_places_in_words(cell: tuple[int, int], words: str) -> None:
    maps = torch.zeros(1, 5, 5)
    maps[0, cell[0], cell[1]] = 1
    assert explorers._places(maps) == [words]


def test_the_plane_keeps_distances_as_well_as_two_numbers_can(table: AttributeTable) -> None:
    data = payload(embedding_map(model(), table, n_images=20))
    for attribute, shown in enumerate(data["attributes"]):
        rows = table.select((table.image < 20) & (table.attribute == attribute))
        x = embed_table(model(), rows, progress=False).double().numpy()
        x -= x.mean(axis=0)
        strength, axes = np.linalg.eigh(x.T @ x)
        assert shown["explained"] == pytest.approx(strength[-2:].sum() / strength.sum(), abs=1e-4)
        flat = x @ axes[:, -2:]
        points = np.array([point[2:] for point in shown["points"]], float)
        ours, theirs = (
            np.linalg.norm(p[:, None] - p[None], axis=2).ravel() for p in (points, flat)
        )
        assert np.abs(ours - theirs * ours.sum() / theirs.sum()).max() < 3, "of 1000"
        assert points.min() >= 0
        assert points.max() <= 1000
        assert [p[1] for p in shown["points"]] == rows.value.tolist()


def test_shares_of_neighbours_by_the_slow_way(table: AttributeTable) -> None:
    (shown, _) = payload(embedding_map(model(), table, n_images=20))["attributes"]
    rows = table.select((table.image < 20) & (table.attribute == 0))
    spaces = {
        "space": embed_table(model(), rows, progress=False).numpy(),
        "plane": np.array([point[2:] for point in shown["points"]], float),
    }
    for value, said in enumerate(shown["values"]):
        own = np.flatnonzero(rows.value == value)
        assert said["garments"] == len(own)
        assert said["chance"] == pytest.approx((len(own) - 1) / (len(rows) - 1), abs=1e-5)
        for name, points in spaces.items():
            shares = []
            for i in own:
                far = [(np.linalg.norm(points[i] - points[j]), j) for j in range(20) if j != i]
                shares.append(np.mean([rows.value[j] == value for _, j in sorted(far)[:5]]))
            assert said[name] == pytest.approx(np.mean(shares), abs=1e-5)


def test_a_collapsed_network_is_shown_as_one_place(table: AttributeTable) -> None:
    network = model()
    with torch.no_grad():
        network.mask.weight.zero_()
    (shown, _) = payload(embedding_map(network, table))["attributes"]
    assert {tuple(point[2:]) for point in shown["points"]} == {(500, 500)}
    assert shown["explained"] is None


# --- what it is given -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_can_be_explored(kind: str) -> None:
    """Also without regions, and with one image."""
    table = tiny.table(6)
    one = {kind: model(kind)}
    data = split(table)
    attending = kind in ("agman", "asenet_v2", "asenet")
    shown = payload(retrieval_explorer(one, data.queries, data.gallery))
    assert (shown["maps"][0] is not None) == attending
    assert ("no attention" in shown["queries"][0]["rows"][0]["answers"][0]["looks"]) != attending
    layers = payload(attention_explorer(one, table, n_images=1))["models"][0]["layers"]
    assert (layers[0]["name"] == "attribute-guided map") == attending
    assert layers[-1]["name"].startswith("activity")
    assert payload(embedding_map(one[kind], table, n_images=1))["attributes"][0]["near"] == 0


def test_a_network_without_gate_offers_none(table: AttributeTable) -> None:
    data = payload(attention_explorer({"m": model(spatial_gate=False)}, table))
    names = [layer["name"] for layer in data["models"][0]["layers"]]
    assert names == ["attribute-guided map", "activity at level 3", "activity at level 2"]


def test_models_are_left_as_they_were(table: AttributeTable) -> None:
    network = model().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attention_explorer({"m": network}, table)
    embedding_map(network, table)
    assert network.training
    assert not network.gate._forward_hooks
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


def test_values_of_one_attribute_and_what_is_not_labelled() -> None:
    images = PackedImages(np.zeros((2, 8, 8, 3), np.uint8), ["a", "b"])
    table = AttributeTable(
        tiny.SCHEMA, images, np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([0, 2, 1])
    )
    first, second = payload(attention_explorer({"m": model()}, table))["garments"]
    assert [asked["value"] for asked in first["asked"]] == ["red and blue", "not labelled"]
    assert [asked["value"] for asked in second["asked"]] == ["not labelled", "right"]


def test_mistakes_are_one_sentence(table: AttributeTable) -> None:
    with pytest.raises(InputError, match="no model"):
        attention_explorer({}, table)
    with pytest.raises(InputError, match="no row"):
        embedding_map(model(), table.select([]))
    with pytest.raises(InputError, match="At least 1 image"):
        attention_explorer({"m": model()}, table, n_images=0)
    taps: Any = TapStore({3: torch.zeros(30, 4, 2, 2)}, table.images.names)
    bare = AttributeTable(table.schema, taps, table.image, table.attribute, table.value)
    with pytest.raises(InputError, match="taps"):
        embedding_map(model(), bare)
