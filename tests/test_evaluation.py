import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import agman
from agman.attributes import AttributeSchema
from agman.errors import InputError
from agman.evaluation import embed_table, evaluate, evaluate_triplets, rank
from agman.loading import TapStore, cache_taps, prefetch
from agman.metrics import average_precision, expected_random_ap
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


def test_training_mode_is_left_as_it_was(model):
    model.train()
    embed_table(model, tiny.table(3), progress=False)
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
