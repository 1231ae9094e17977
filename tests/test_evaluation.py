import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import agman
from agman.attributes import NO_REGION, AttributeSchema, AttributeTable
from agman.backbones import Preprocessing
from agman.datasets import PackedImages, lab
from agman.errors import InputError
from agman.evaluation import (
    attend_table,
    embed_table,
    evaluate,
    evaluate_triplets,
    localize,
    rank,
)
from agman.loading import TapStore, cache_taps, prefetch
from agman.metrics import attention_mass, average_place, average_precision, expected_random_ap
from agman.models import Output
from agman.sampling import Triplets
from tests import tiny


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return agman.create_model("agman", n_attributes=2, backbone="lab").eval()


@torch.no_grad()
def test_each_row_is_embedded_under_its_own_attribute_in_its_own_place(model):
    rows = tiny.table(9).select(np.random.default_rng(0).permutation(18)[:15])
    got = embed_table(model, rows, batch_size=4, progress=False)
    for r in range(len(rows)):
        image = rows.images.load(rows.image[r : r + 1], model.preprocessing.size)
        expected = model(model.preprocessing(image), torch.tensor(rows.attribute[r : r + 1]))
        torch.testing.assert_close(got[r], expected.embedding[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_each_row_is_attended_under_its_own_attribute_in_its_own_place(model):
    rows = tiny.table(9).select(np.random.default_rng(1).permutation(18)[:15])
    got = attend_table(model, rows, batch_size=4, progress=False)
    assert got.shape == (15, 12, 12)
    for r in range(len(rows)):
        image = rows.images.load(rows.image[r : r + 1], model.preprocessing.size)
        expected = model.attend_all(model.preprocessing(image))[0, rows.attribute[r]]
        torch.testing.assert_close(got[r], expected, atol=1e-5, rtol=1e-4)


def test_training_mode_is_left_as_it_was(model):
    model.train()
    embed_table(model, tiny.table(3), progress=False)
    assert model.training
    foreign = AttributeTable(AttributeSchema(("a", "b", "c"), (("x",),) * 3), tiny.table(3).images,
                             [0], [2], [0])  # fmt: skip
    with pytest.raises(InputError, match="ids run from 0 to 1"):
        embed_table(model, foreign, progress=False)
    assert model.training
    model.eval()


def unit(n, seed):
    return F.normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("shared", [True, False])
def test_a_query_meets_only_its_own_attribute_and_never_itself(shared):
    rows = tiny.table(14)
    gallery = rows if shared else dataclasses.replace(rows, images=tiny.table(14).images)
    q, g = unit(len(rows), 1), unit(len(rows), 2)
    report = rank(rows, gallery, q, g)
    for r in range(len(rows)):
        keep = rows.attribute == rows.attribute[r]
        if shared:
            keep &= rows.image != rows.image[r]
        relevant = rows.value[keep] == rows.value[r]
        expected = average_precision(g[torch.tensor(keep)] @ q[r], torch.tensor(relevant))
        assert report.ap[r] == pytest.approx(expected, abs=1e-9)
        chance = expected_random_ap(int(relevant.sum()), int(keep.sum()))
        assert report.chance[r] == pytest.approx(chance)


def test_micro_weighs_queries_and_macro_attributes():
    rows = tiny.table(12)
    some = rows.select((rows.attribute == 0) | (rows.image < 4))
    report = rank(some, rows, unit(len(some), 1), unit(len(rows), 2))
    color, place = (report.ap[some.attribute == a].mean() for a in (0, 1))
    assert report.map_micro == pytest.approx((12 * color + 4 * place) / 16)
    assert report.map_macro == pytest.approx((color + place) / 2)
    assert report.per_attribute == pytest.approx({"color": color, "place": place})


def test_a_query_with_nothing_to_find_is_left_out_and_counted():
    rows = tiny.table(12)
    gallery = rows.select(~((rows.attribute == 0) & (rows.value == 1)))
    report = rank(rows, gallery, unit(len(rows), 1), unit(len(gallery), 2))
    lost = (rows.attribute == 0) & (rows.value == 1)
    assert np.array_equal(np.isnan(report.ap), lost)
    assert report.to_dict()["queries_without_relevant"] == lost.sum()
    assert f"{lost.sum()} queries have nothing relevant" in str(report)
    with pytest.raises(InputError, match="no query finds its value"):
        rank(rows.select(lost), gallery, unit(lost.sum(), 1), unit(len(gallery), 2))


def test_an_attribute_that_the_gallery_lacks_is_left_out_and_counted():
    rows = tiny.table(12)
    report = rank(rows, rows.of(0), unit(24, 1), unit(12, 2))
    assert list(report.per_attribute) == ["color"]
    assert np.isnan(report.ap[rows.attribute == 1]).all()
    assert "12 queries have nothing relevant" in str(report)


def test_without_a_row_there_is_nothing_to_embed(model):
    nothing = tiny.table(3).select([])
    with pytest.raises(InputError, match="there is no row to embed"):
        embed_table(model, nothing, progress=False)


def test_the_report_prints_plots_and_saves(tmp_path):
    rows = tiny.table(12)
    report = rank(rows, rows, unit(24, 1), unit(24, 2))
    report.save(tmp_path / "r.json")
    saved = json.loads((tmp_path / "r.json").read_text())
    assert saved["map_micro"] == pytest.approx(100 * report.map_micro)
    assert [line.split()[0] for line in str(report).splitlines()] == [
        "attribute", "color", "place", "micro", "macro",
    ]  # fmt: skip
    assert report.plot().axes[0].get_xlabel() == "MAP (%)"
    worst = report.worst(3)
    assert [w["ap"] for w in worst] == sorted(report.ap)[:3]
    assert worst[0]["image"] == f"{rows.image[worst[0]['row']]}.png"


def test_tables_of_different_data_sets_are_refused(model):
    rows = tiny.table(4)
    other = AttributeSchema(("x",), (("y",),))
    foreign = agman.AttributeTable(other, rows.images, [0], [0], [0])
    with pytest.raises(InputError, match="both must come from one data set"):
        evaluate(model, rows, foreign)
    small = agman.create_model("csn", n_attributes=1, backbone="lab")
    with pytest.raises(InputError, match="the model only 1"):
        evaluate(small, rows, rows)


@torch.no_grad()
def test_taps_take_the_place_of_images(model):
    rows = tiny.table(6)
    store = cache_taps(model, rows.images, batch_size=4, progress=False)
    assert isinstance(store, TapStore)
    cached = embed_table(model, dataclasses.replace(rows, images=store), progress=False)
    direct = embed_table(model, rows, progress=False)
    torch.testing.assert_close(cached, direct, atol=5e-3, rtol=0)  # taps are kept in half


def test_triplet_accuracy_by_hand(model):
    rows = tiny.table(10)
    random = np.random.default_rng(0)
    triplets = Triplets(random.integers(2, size=30), *random.integers(10, size=(3, 30)))
    got = evaluate_triplets(model, rows.images, triplets, rows.schema, progress=False)
    every = model.embed_all(model.preprocessing(rows.images.load(range(10), 96))).detach()
    right = []
    for a, x, p, n in zip(*triplets, strict=True):
        right.append(float(every[x, a] @ every[p, a] > every[x, a] @ every[n, a] + 1e-7))
    assert got["overall"] == pytest.approx(np.mean(right), abs=0.04)
    expected = np.mean(np.array(right)[triplets.attributes == 1])
    assert got["place"] == pytest.approx(expected, abs=0.08)


def test_prefetch_keeps_order_and_passes_errors_on():
    assert list(prefetch(lambda x: x * x, range(20))) == [x * x for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda x: 1 / x, [1, 0]))


# --- where a model looks --------------------------------------------------------------------


class Looking(torch.nn.Module):
    """A network that attends to what is painted: attribute k to channel k, in 8 x 8 cells."""

    preprocessing = Preprocessing(32, (0.0,) * 3, (1.0,) * 3)

    def __init__(self, n_attributes=2, blind=False):
        super().__init__()
        self.n_attributes, self.blind = n_attributes, blind
        self.anything = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images, attributes):
        channels = F.adaptive_avg_pool2d((images > 0.5).float(), 8)
        maps = torch.stack([c[ids] for c, ids in zip(channels, attributes, strict=True)])
        if self.blind:
            maps = torch.ones_like(maps)
        nothing = (maps == 0).all(dim=(2, 3), keepdim=True)
        maps = torch.where(nothing, 1.0, maps)
        maps = maps / maps.sum(dim=(2, 3), keepdim=True)
        return Output(torch.zeros(*attributes.shape, 2), maps, None)


def painted(n_images=20, size=32, seed=0):
    """Every image has a region of whole cells for each attribute, painted in its channel."""
    random = np.random.default_rng(seed)
    cell = size // 8
    array = np.zeros((n_images, size, size, 3), np.uint8)
    regions = np.full((n_images, 2, 4), -1)
    for i in range(n_images):
        for k in range(2):
            if random.random() < 0.2:
                continue
            x0, y0 = random.integers(0, 7, size=2)
            x1, y1 = random.integers((x0 + 1, y0 + 1), 9)
            regions[i, k] = cell * np.array([x0, y0, x1, y1])
            array[i, cell * y0 : cell * y1, cell * x0 : cell * x1, k] = 255
    images = PackedImages(array, [f"{i}.png" for i in range(n_images)])
    n = np.arange(n_images)
    attribute = np.tile([0, 1], n_images)
    rows = AttributeTable(
        tiny.SCHEMA, images, np.repeat(n, 2), attribute, 0 * attribute, regions.reshape(-1, 4),
        "painted",
    )  # fmt: skip
    return rows.select(random.permutation(len(rows)))


def area_shares(table, side):
    x0, y0, x1, y1 = table.regions.T
    return np.where(x0 < 0, np.nan, (x1 - x0) * (y1 - y0) / side**2)


@pytest.mark.parametrize("size", [32, 64])  # 64: the network sees the images at half their size
def test_a_network_that_looks_right_has_all_of_its_mass_inside(size):
    table = painted(size=size)
    found = localize(Looking(), table, batch_size=7, progress=False)
    hidden = table.regions[:, 0] < 0
    np.testing.assert_array_equal(found.seen, ~hidden)
    assert 0 < hidden.sum() < len(table)
    for measured in (found.mass["model"], found.pointing["model"]):
        np.testing.assert_allclose(measured, np.where(hidden, np.nan, 1.0), rtol=1e-6)
    np.testing.assert_allclose(found.mass["uniform"], area_shares(table, size), rtol=1e-6)
    assert found.n_rows == {
        name: int((~hidden & (table.attribute == a)).sum())
        for a, name in enumerate(("color", "place"))
    }


def test_a_network_that_looks_nowhere_has_the_share_of_the_area():
    table = painted()
    found = localize(Looking(blind=True), table, progress=False)
    for kind in ("model", "uniform"):
        np.testing.assert_allclose(found.mass[kind], area_shares(table, 32), rtol=1e-6)
        np.testing.assert_allclose(found.pointing[kind], area_shares(table, 32), rtol=1e-6)


def test_the_average_place_comes_from_the_training_rows_of_the_attribute():
    table, train = painted(), painted(40, size=64, seed=5)
    found = localize(Looking(), table, train, progress=False)
    assert (
        list(found.mass) == list(found.pointing) == ["model", "uniform", "central", "average place"]
    )
    for r in range(len(table)):
        own = train.regions[train.attribute == table.attribute[r]]
        place = average_place(own, (8, 8), 64)[None]
        expected = float(attention_mass(place, table.regions[r : r + 1], 32))
        assert found.mass["average place"][r] == pytest.approx(expected, nan_ok=True)
    means = found.mass_per_attribute["average place"]
    for a, name in enumerate(("color", "place")):
        values = found.mass["average place"][table.attribute == a]
        assert means[name] == pytest.approx(np.mean([v for v in values if not np.isnan(v)]))


def test_a_localization_prints_plots_and_becomes_json():
    table = painted()
    some = table.select((table.attribute == 0) | (table.image < 6))
    found = localize(Looking(blind=True), some, some, progress=False)
    numbers = json.loads(json.dumps(found.to_dict()))
    area, seen = 100 * area_shares(some, 32), some.regions[:, 0] >= 0
    means = {"color": area[seen & (some.attribute == 0)].mean(),
             "place": area[seen & (some.attribute == 1)].mean()}  # fmt: skip
    assert numbers["mass"]["model"]["per_attribute"] == pytest.approx(means)
    assert numbers["mass"]["model"]["micro"] == pytest.approx(area[seen].mean())
    assert numbers["mass"]["model"]["macro"] == pytest.approx(sum(means.values()) / 2)
    assert numbers["rows"] == found.n_rows
    assert numbers["rows_without_region"] == (~seen).sum()

    lines = str(found).splitlines()
    starts = ["mass inside %", "color", "place", "micro (all rows)", "macro (attributes)"]
    assert [line[:18].strip() for line in lines[:5]] == starts
    assert [line[:18].strip() for line in lines[6:11]] == ["maximum inside %", *starts[1:]]
    assert lines[0].split()[3:] == ["rows", "model", "uniform", "central", "average", "place"]
    assert lines[1].split()[1:3] == [str(found.n_rows["color"]), f"{means['color']:.2f}"]
    assert lines[3].split()[3:5] == [str(seen.sum()), f"{area[seen].mean():.2f}"]
    assert lines[-1] == f"{(~seen).sum()} rows show nothing of their attribute and are left out"
    assert len({len(line) for line in lines[:11] if line}) == 1
    labels = [ax.get_xlabel() for ax in found.plot().axes]
    assert labels == ["mass inside (%)", "maximum inside (%)"]


def test_an_attribute_that_no_row_shows_has_no_line():
    table = painted()
    regions = np.where(table.attribute[:, None] == 1, NO_REGION, table.regions)
    hidden = dataclasses.replace(table, regions=regions)
    found = localize(Looking(), hidden, hidden, progress=False)
    assert list(found.n_rows) == list(found.mass_per_attribute["central"]) == ["color"]
    assert "place  " not in str(found).replace("average place", "")
    with pytest.raises(InputError, match="painted: no row shows where place is; give more"):
        localize(Looking(), table, hidden, progress=False)
    other = AttributeSchema(("place", "color"), tiny.SCHEMA.values[::-1])
    with pytest.raises(InputError, match="both must come from one data set"):
        localize(Looking(), table, dataclasses.replace(table, schema=other), progress=False)


def test_localizing_needs_attention_regions_and_a_known_size(model):
    table = painted()
    for name in ("triplet", "csn"):
        plain = agman.create_model(name, n_attributes=2, backbone="lab")
        with pytest.raises(InputError, match="has no attention maps; use AG-MAN"):
            localize(plain, table, progress=False)
        assert plain.training
    for regions in (None, np.full((len(table), 4), -1)):
        with pytest.raises(InputError, match="painted: there are no regions to compare"):
            localize(model, dataclasses.replace(table, regions=regions), progress=False)
    taps = TapStore({3: torch.zeros(20, 1, 1, 1)}, table.images.names)
    with pytest.raises(InputError, match="size is not known; use packed images"):
        localize(model, dataclasses.replace(table, images=taps), progress=False)
    wide = PackedImages(np.zeros((20, 32, 40, 3), np.uint8), table.images.names)
    with pytest.raises(InputError, match="32 x 40 pixels, and a network sees a square of them"):
        localize(model, dataclasses.replace(table, images=wide), progress=False)
    with pytest.raises(InputError, match="the model only 1"):
        localize(Looking(n_attributes=1), table, progress=False)


def test_the_lab_is_localized_as_its_regions_say(tmp_path):
    data = lab(n_train=40, n_valid=1, n_test=10, cache=tmp_path, progress=False, workers=1)
    torch.manual_seed(0)
    untrained = agman.create_model("agman", backbone="lab")
    found = localize(untrained, data.test.gallery, data.train, progress=False)
    np.testing.assert_array_equal(found.seen, data.test.gallery.value != 0)  # 0 is "Invisible"
    np.testing.assert_allclose(found.mass["uniform"], area_shares(data.test.gallery, 96), rtol=1e-9)
    maps = attend_table(untrained, data.test.gallery, progress=False)
    expected = attention_mass(maps, data.test.gallery.regions, 96)
    np.testing.assert_array_equal(found.mass["model"], expected)
