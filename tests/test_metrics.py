"""Metrics against slow, obvious versions, scikit-learn, SciPy and a real split's known figures."""

import csv
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agman import metrics
from agman.errors import InputError
from agman.metrics import (
    attribute_means,
    average_precision,
    average_precisions,
    bootstrap_interval,
    expected_random_ap,
    hit_rate_at_k,
    macro_mean,
    map_at_r,
    mean_average_precision,
    micro_mean,
    precision_at_k,
    recall_at_k,
    t_interval,
    triplet_accuracy,
)

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def slow_ap(scores, relevant):
    """The definition, word for word."""
    total = 0.0
    chosen = [i for i, wanted in enumerate(relevant) if wanted]
    for i in chosen:
        at_least = [j for j, score in enumerate(scores) if score >= scores[i]]
        total += sum(1 for j in at_least if relevant[j]) / len(at_least)
    return total / len(chosen)


def slow_order_ap(scores, relevant):
    """What the released scripts do, with Python's sort, which keeps the order of equal scores."""
    hits, total = 0, 0.0
    ranking = sorted(range(len(scores)), key=lambda j: -scores[j])
    for rank, j in enumerate(ranking, start=1):
        if relevant[j]:
            hits += 1
            total += hits / rank
    return total / hits


# Few different numbers, so that ties are the rule; negatives and both zeros included.
few = st.sampled_from([-2.5, -1.0, -0.0, 0.0, 0.25, 0.5, 3.0])
many = st.floats(-1e6, 1e6, width=32)
rankings = st.lists(st.tuples(few | many, st.booleans()), min_size=1, max_size=60)


def unzip(ranking):
    scores, relevant = zip(*ranking, strict=True)
    assume(any(relevant))
    return torch.tensor(scores), torch.tensor(relevant)


def whole(*shape, seed=0, top=3):
    """Small whole numbers: exact products with many ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-top, top + 1, shape, generator=generator)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


# --- one ranking ----------------------------------------------------------------------------


def test_average_precision_by_hand():
    scores = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    relevant = torch.tensor([1, 0, 1, 0, 0, 1, 0, 0, 0, 0])
    assert average_precision(scores, relevant) == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    tied = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert average_precision(tied, [True, False, True, False]) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert average_precision(tied, [True, False, True, False], ties="order") == pytest.approx(
        (1 + 2 / 3) / 2
    )


@settings(max_examples=300, deadline=None)
@given(rankings)
def test_average_precision_is_its_definition_and_scikit_learns(ranking):
    scores, relevant = unzip(ranking)
    ap = average_precision(scores, relevant)
    assert ap == pytest.approx(slow_ap(scores.tolist(), relevant.tolist()), abs=1e-12)
    theirs = sklearn_metrics.average_precision_score(relevant.numpy(), scores.numpy())
    assert ap == pytest.approx(theirs, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(rankings)
def test_order_rule_is_the_released_loop(ranking):
    scores, relevant = unzip(ranking)
    expected = slow_order_ap(scores.tolist(), relevant.tolist())
    assert average_precision(scores, relevant, ties="order") == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(rankings, st.randoms(use_true_random=False))
def test_fair_ap_ignores_the_order_of_the_gallery_and_any_increasing_map(ranking, random):
    scores, relevant = unzip(ranking)
    ap = average_precision(scores, relevant)
    order = list(range(len(scores)))
    random.shuffle(order)
    assert average_precision(scores[order], relevant[order]) == ap
    ranks = scores.unique(return_inverse=True)[1]  # 0, 1, ... in increasing order
    assert average_precision(ranks, relevant) == ap
    assert average_precision(ranks.double().exp(), relevant) == ap
    assert average_precision(ranks * 3 - 1000, relevant) == ap


@given(st.lists(st.booleans(), min_size=1, max_size=50), few)
def test_equal_scores_get_the_prevalence(relevant, score):
    assume(any(relevant))
    ap = average_precision(torch.full((len(relevant),), score), torch.tensor(relevant))
    assert ap == pytest.approx(sum(relevant) / len(relevant), abs=1e-15)


def test_average_precision_takes_arrays_and_half_precision():
    scores = np.array([3.0, 2.0, 1.0], dtype=np.float16)[::-1]
    assert average_precision(scores, np.array([0, 0, 1])) == 1.0
    assert average_precision(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), [1.0, 0.0]) == 0.5
    assert isinstance(average_precision([2, 1], [True, False]), float)
    big = torch.tensor([2**53 - 1, 2**53])  # equal in float32, not as integers
    assert average_precision(big, [True, False]) == 0.5
    assert average_precision(big, [False, True]) == 1.0
    original = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
    average_precision(original, [True, False, False])
    assert original.tolist() == [1.0, 3.0, 2.0]


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([1.0, 2.0], [False, False], "no item is relevant"),
        ([], [], "no item is relevant"),
        ([1.0, math.nan, math.inf], [True] * 3, r"scores hold NaN .* 2 of 3 places \(first at 1\)"),
        ([1.0, -math.inf], [True, True], r"scores hold NaN .* 1 of 2 places \(first at 1\)"),
        ([[1.0]], [True], r"scores must be a vector of numbers, not .* of shape \(1, 1\)"),
        ([1j], [True], "scores must be a vector of numbers, not torch.complex128"),
        (["a"], [True], "scores must be a tensor or an array of numbers"),
        ([1.0, 2.0], [True], r"one entry for each of the 2 scores, not shape \(1,\)"),
        ([1.0, 2.0], [[True, True]], r"not shape \(1, 2\)"),
        ([1.0, 2.0], [0, 2], "booleans, or zeros and ones"),
        ([1.0, 2.0], [0.5, 1.0], "booleans, or zeros and ones"),
        ([1.0, 2.0], [math.nan, 1.0], "booleans, or zeros and ones"),
        ([1.0, 2.0], None, "relevant must be"),
    ],
)
def test_bad_rankings_are_refused(scores, relevant, message):
    with pytest.raises(InputError, match=message):
        average_precision(scores, relevant)


@pytest.mark.parametrize("ties", ["Fair", "", None])
def test_unknown_tie_rules_are_refused(ties):
    with pytest.raises(InputError, match=f"ties must be one of fair, order, not {ties!r}"):
        average_precision([1.0], [True], ties=ties)
    with pytest.raises(InputError, match="ties must be one of fair, order"):
        average_precisions(unit(1, 2), [0], unit(1, 2), [0], ties=ties)


# --- many queries ---------------------------------------------------------------------------


def slow_aps(queries, query_values, gallery, gallery_values, ids=None, ap=slow_ap):
    result = []
    for i, query in enumerate(queries.double()):
        kept = [j for j in range(len(gallery)) if ids is None or ids[0][i] != ids[1][j]]
        scores = [float(query @ gallery[j].double()) for j in kept]
        relevant = [bool(query_values[i] == gallery_values[j]) for j in kept]
        result.append(ap(scores, relevant) if any(relevant) else math.nan)
    return result


@st.composite
def tasks(draw):
    """Whole-number embeddings (exact, many ties), few values, and ids or none."""
    seed = draw(st.integers(0, 10**6))
    n_queries, n_gallery = draw(st.integers(1, 8)), draw(st.integers(1, 30))
    task = (
        whole(n_queries, 2, seed=seed).float(),
        whole(n_queries, seed=seed + 1, top=1),
        whole(n_gallery, 2, seed=seed + 2).float(),
        whole(n_gallery, seed=seed + 3, top=1),
    )
    ids = (whole(n_queries, seed=seed + 4, top=4), whole(n_gallery, seed=seed + 5, top=4))
    return task, draw(st.sampled_from([None, ids]))


def keywords(ids):
    return {} if ids is None else {"query_ids": ids[0], "gallery_ids": ids[1]}


@settings(max_examples=40, deadline=None)
@given(tasks(), st.sampled_from([1, 60, 2**24]))
def test_average_precisions_are_those_of_each_query(drawn, block):
    task, ids = drawn
    for ties, ap in (("fair", slow_ap), ("order", slow_order_ap)):
        expected = slow_aps(*task, ids, ap)
        for many_items in (1, 10**9):  # long rows are counted in another way: both must agree
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("agman.ranking._MANY", many_items)
                aps = average_precisions(*task, **keywords(ids), ties=ties, block=block)
            assert aps.dtype == torch.float64
            assert aps.tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)
        known = [value for value in expected if not math.isnan(value)]
        if known:
            mean = mean_average_precision(*task, **keywords(ids), ties=ties, block=block)
            assert isinstance(mean, float)
            assert mean == pytest.approx(sum(known) / len(known), abs=1e-12)
        else:
            with pytest.raises(InputError, match="no query has a relevant item"):
                mean_average_precision(*task, **keywords(ids), ties=ties, block=block)


@pytest.mark.parametrize("n_gallery", [3000, 9000])
def test_equal_to_scikit_learn_on_real_sized_rows(n_gallery):
    queries, gallery = unit(40, 64), unit(n_gallery, 64, seed=1)
    gallery[::3] = gallery[0]
    query_values, gallery_values = whole(40, seed=2), whole(n_gallery, seed=3)
    aps = average_precisions(queries, query_values, gallery, gallery_values)
    from agman.ranking import similarity

    scores = similarity(queries, gallery).numpy()
    for i, ap in enumerate(aps.tolist()):
        wanted = (gallery_values == query_values[i]).numpy()
        assert ap == pytest.approx(
            sklearn_metrics.average_precision_score(wanted, scores[i]), abs=1e-12
        )
    mean = mean_average_precision(queries, query_values, gallery, gallery_values)
    assert mean == pytest.approx(float(aps.mean()), abs=1e-15)


@pytest.mark.parametrize("ties", ["fair", "order"])
def test_block_size_and_order_of_queries_never_change_a_bit(ties):
    task = [unit(70, 32), whole(70, seed=2), unit(5000, 32, seed=1), whole(5000, seed=3)]
    task[2][::7] = task[2][0]
    ids = {"query_ids": torch.arange(70), "gallery_ids": torch.arange(5000)}
    expected = average_precisions(*task, **ids, ties=ties)
    for block in (5000, 5000 * 7, 5000 * 48):
        assert torch.equal(average_precisions(*task, **ids, ties=ties, block=block), expected)
    order = torch.randperm(70)
    some = average_precisions(
        task[0][order], task[1][order], task[2], task[3].numpy(), ties=ties,
        query_ids=order, gallery_ids=ids["gallery_ids"].numpy(),
    )  # fmt: skip
    assert torch.equal(some, expected[order])
    if ties == "fair":
        order = torch.randperm(5000)
        task[2], task[3] = task[2][order], task[3][order]
        ids["gallery_ids"] = order
        assert torch.equal(average_precisions(*task, **ids), expected)


def test_threads_never_change_a_bit():
    task = unit(70, 32), whole(70, seed=2), unit(5000, 32, seed=1), whole(5000, seed=3)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(average_precisions(*task))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_scores_held_stay_within_the_block(monkeypatch):
    sizes = []
    plain = metrics.score_blocks

    def spy(*args, **kwargs):
        for rows, scores in plain(*args, **kwargs):
            sizes.append(scores.numel())
            yield rows, scores

    monkeypatch.setattr(metrics, "score_blocks", spy)
    task = unit(300, 4), whole(300), unit(500, 4), whole(500)
    average_precisions(*task, block=100 * 500)
    recall_at_k(*task, 3, block=100 * 500)
    map_at_r(*task, block=100 * 500)
    assert max(sizes) == 96 * 500
    assert len(sizes) == 3 * 4


def test_groups_are_shared_by_threads(monkeypatch):
    """Queries of one value share their columns but not one thread."""
    sizes = []
    plain = metrics._precisions

    def spy(scores, columns, ties):
        sizes.append((len(scores), columns.tolist()))
        return plain(scores, columns, ties)

    monkeypatch.setattr(metrics, "_precisions", spy)
    average_precisions(unit(40, 2), [5] * 33 + [2] * 7, unit(4, 2), [5, 2, 5, 1])
    assert sorted(sizes) == [(1, [0, 2]), (7, [1]), (16, [0, 2]), (16, [0, 2])]


def test_a_collapsed_network_gets_the_prevalence():
    one = unit(1, 128)
    values = torch.arange(5000) % 5
    aps = average_precisions(one.expand(10, -1), values[:10], one.expand(5000, -1), values)
    assert aps.tolist() == pytest.approx([0.2] * 10, abs=1e-15)


def test_a_query_without_relevant_items_is_nan_and_left_out():
    queries, gallery = unit(3, 4), unit(6, 4, seed=1)
    values = torch.tensor([0, 0, 0, 1, 1, 1])
    aps = average_precisions(queries, torch.tensor([0, 9, 1]), gallery, values)
    assert aps.isnan().tolist() == [False, True, False]
    kept = mean_average_precision(queries[::2], torch.tensor([0, 1]), gallery, values)
    mean = mean_average_precision(queries, torch.tensor([0, 9, 1]), gallery, values)
    assert mean == kept == pytest.approx(float(aps[::2].mean()))
    assert average_precisions(queries[:0], values[:0], gallery, values).shape == (0,)


def test_bad_tasks_are_refused():
    queries, gallery, values = unit(3, 4), unit(6, 4), torch.arange(6)
    for call in (
        average_precisions,
        mean_average_precision,
        map_at_r,
        lambda *task, **ids: recall_at_k(*task, 1, **ids),
        lambda *task, **ids: hit_rate_at_k(*task, 1, **ids),
        lambda *task, **ids: precision_at_k(*task, 1, **ids),
    ):
        with pytest.raises(InputError, match=r"query_values must have shape \(3,\)"):
            call(queries, values, gallery, values)
        with pytest.raises(InputError, match=r"gallery_values must have shape \(6,\)"):
            call(queries, values[:3], gallery, values[:3])
        with pytest.raises(InputError, match="query_values must be integers"):
            call(queries, [0.5, 1.0, 2.0], gallery, values)
        with pytest.raises(InputError, match=r"gallery embeddings hold NaN.*row 2"):
            call(queries, values[:3], gallery.index_fill(0, torch.tensor(2), math.nan), values)
        with pytest.raises(InputError, match="give both or neither"):
            call(queries, values[:3], gallery, values, query_ids=values[:3])
        with pytest.raises(InputError, match="give both or neither"):
            call(queries, values[:3], gallery, values, gallery_ids=values)
        with pytest.raises(InputError, match=r"query_ids must have shape \(3,\)"):
            call(queries, values[:3], gallery, values, query_ids=values, gallery_ids=values)
        with pytest.raises(InputError, match="block must be"):
            call(queries, values[:3], gallery, values, block=0)
        if call is not average_precisions:
            with pytest.raises(InputError, match="no query has a relevant item"):
                call(queries, values[:3] + 90, gallery, values)
    for call in (recall_at_k, hit_rate_at_k, precision_at_k):
        with pytest.raises(InputError, match="k must be"):
            call(queries, values[:3], gallery, values, 0)


# --- metrics at k ---------------------------------------------------------------------------


def slow_hits(task, ids, k):
    """For every query with relevant items: (hits of the first k places, number relevant)."""
    queries, query_values, gallery, gallery_values = task
    result = []
    for i, query in enumerate(queries):
        kept = [j for j in range(len(gallery)) if ids is None or ids[0][i] != ids[1][j]]
        ranking = sorted(kept, key=lambda j, query=query: -float(query @ gallery[j]))
        hits = [bool(query_values[i] == gallery_values[j]) for j in ranking]
        if any(hits):
            result.append((hits[:k] if k else hits[: sum(hits)], sum(hits)))
    return result


@settings(max_examples=40, deadline=None)
@given(tasks(), st.integers(1, 40), st.sampled_from([1, 60, 2**24]))
def test_metrics_at_k(drawn, k, block):
    task, ids = drawn
    slow = slow_hits(task, ids, k)
    assume(slow)
    arguments = keywords(ids) | {"block": block}
    recall = np.mean([sum(hits) / n for hits, n in slow])
    assert recall_at_k(*task, k, **arguments) == pytest.approx(recall, abs=1e-12)
    hit_rate = np.mean([any(hits) for hits, _ in slow])
    assert hit_rate_at_k(*task, k, **arguments) == pytest.approx(hit_rate, abs=1e-12)
    precision = np.mean([sum(hits) / k for hits, _ in slow])
    assert precision_at_k(*task, k, **arguments) == pytest.approx(precision, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(tasks(), st.sampled_from([1, 60, 2**24]))
def test_map_at_r(drawn, block):
    task, ids = drawn
    slow = slow_hits(task, ids, None)
    assume(slow)
    values = []
    for hits, n in slow:
        assert len(hits) == n
        values.append(sum(sum(hits[: t + 1]) / (t + 1) for t in range(n) if hits[t]) / n)
    result = map_at_r(*task, **keywords(ids), block=block)
    assert result == pytest.approx(np.mean(values), abs=1e-12)


# --- triplets -------------------------------------------------------------------------------


def test_triplet_accuracy_counts_and_ties_are_wrong():
    a = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0], [0.5, 0.9]])
    n = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 7.0], [0.4, 0.9]])
    assert triplet_accuracy(a, p, n) == 2 / 4
    assert triplet_accuracy(a.numpy(), p.half(), n.double()) == 2 / 4
    same = unit(50, 300)
    assert triplet_accuracy(unit(50, 300, seed=1), same, same) == 0.0


def test_triplet_accuracy_of_many_rows():
    a, p, n = (unit(9000, 3, seed=seed) for seed in range(3))
    expected = ((a.double() * p).sum(1) > (a.double() * n).sum(1)).double().mean()
    assert triplet_accuracy(a, p, n) == pytest.approx(float(expected), abs=1e-15)


def test_triplet_accuracy_works_in_float64():
    a = torch.tensor([[1.0, 1.0]])
    assert triplet_accuracy(a, torch.tensor([[1.0, 2e-8]]), torch.tensor([[1.0, 1e-8]])) == 1.0


def test_bad_triplets_are_refused():
    one, two = unit(1, 4), unit(2, 4)
    with pytest.raises(InputError, match="1 anchors, 2 positives and 1 negatives"):
        triplet_accuracy(one, two, one)
    with pytest.raises(InputError, match="1 anchors, 1 positives and 2 negatives"):
        triplet_accuracy(one, one, two)
    with pytest.raises(InputError, match="there are no positive embeddings"):
        triplet_accuracy(one[:0], one[:0], one[:0])
    with pytest.raises(InputError, match=r"negative embeddings hold NaN.*row 1"):
        triplet_accuracy(two, two, torch.tensor([[0.0] * 4, [math.nan] * 4]))
    with pytest.raises(InputError, match=r"anchor embeddings hold NaN.*row 0"):
        triplet_accuracy(one * math.inf, one, one)
    with pytest.raises(InputError, match="positive embeddings must be float16"):
        triplet_accuracy(one, one.long(), one)
    with pytest.raises(InputError, match=r"anchor embeddings have 4 .* and negative embeddings 3"):
        triplet_accuracy(one, one, unit(1, 3))


# --- a random ranking -----------------------------------------------------------------------


@pytest.mark.parametrize("n_items", range(1, 8))
def test_expected_random_ap_is_the_mean_over_all_rankings(n_items):
    from itertools import combinations

    for n_relevant in range(1, n_items + 1):
        aps = []
        for chosen in combinations(range(n_items), n_relevant):
            relevant = [j in chosen for j in range(n_items)]
            aps.append(slow_ap([-j for j in range(n_items)], relevant))
        assert expected_random_ap(n_relevant, n_items) == pytest.approx(np.mean(aps), abs=1e-14)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 5), "n_relevant must be a whole number of at least 1"),
        ((1, 0), "n_items must be a whole number of at least 1"),
        ((6, 5), "n_relevant is 6, more than the 5 items"),
        ((1.5, 5), "n_relevant must be a whole number"),
    ],
)
def test_expected_random_ap_refuses(numbers, message):
    with pytest.raises(InputError, match=message):
        expected_random_ap(*numbers)


FASHIONAI_RANDOM = [17.20, 12.50, 13.35, 17.45, 22.36, 21.62, 11.09, 21.20]  # percent, facts
FASHIONAI_RANDOM_OVERALL = 15.79


@pytest.fixture
def fashionai(realdata):
    """(attribute, value) of the real split's queries and candidates."""
    folder = realdata / "fashionai-split"
    if not folder.is_dir():
        pytest.skip("the FashionAI index files are not here")
    sides = []
    for name in ("query_test.txt", "candidate_test.txt"):
        with open(folder / name, newline="") as file:
            rows = [[int(cell) for cell in row] for row in csv.reader(file, delimiter=" ")]
        sides.append(torch.tensor(rows)[:, 1:])
    return sides


def test_expectation_on_the_fashionai_split(fashionai):
    queries, gallery = fashionai
    items = gallery[:, 0].bincount()
    expected = [
        expected_random_ap(int(((gallery == query).all(dim=1)).sum()), int(items[query[0]]))
        for query in queries
    ]
    ap = torch.tensor(expected, dtype=torch.float64)
    means = attribute_means(ap, queries[:, 0])
    assert list(means) == list(range(8))
    assert [100 * value for value in means.values()] == pytest.approx(FASHIONAI_RANDOM, abs=0.01)
    assert 100 * micro_mean(ap) == pytest.approx(FASHIONAI_RANDOM_OVERALL, abs=0.01)
    assert 100 * macro_mean(ap, queries[:, 0]) == pytest.approx(np.mean(FASHIONAI_RANDOM), abs=0.01)


def test_random_scores_on_the_fashionai_split_reach_the_expectation(fashionai):
    """Random embeddings in many dimensions rank at random."""
    queries, gallery = fashionai
    ap = torch.empty(len(queries), dtype=torch.float64)
    for attribute in range(8):
        mine, theirs = queries[:, 0] == attribute, gallery[:, 0] == attribute
        embeddings = unit(int(mine.sum()), 128, seed=attribute)
        others = unit(int(theirs.sum()), 128, seed=100 + attribute)
        ap[mine] = average_precisions(embeddings, queries[mine, 1], others, gallery[theirs, 1])
    assert not ap.isnan().any()
    assert 100 * micro_mean(ap) == pytest.approx(FASHIONAI_RANDOM_OVERALL, abs=0.05)


# --- means ----------------------------------------------------------------------------------


def test_micro_and_macro_means():
    ap = torch.tensor([1.0, 0.5, 0.0, math.nan, 0.25, math.nan], dtype=torch.float64)
    attributes = [3, 3, 3, 3, 1, 7]
    assert attribute_means(ap, attributes) == {1: 0.25, 3: 0.5}
    assert list(attribute_means(ap, attributes)) == [1, 3]
    assert micro_mean(ap) == 1.75 / 4
    assert macro_mean(ap, attributes) == 0.375
    assert micro_mean(np.array([1.0, 2.0], dtype=np.float32)) == 1.5
    third = torch.tensor([1 / 3, 1 / 3], dtype=torch.float64)
    assert micro_mean(third) == macro_mean(third, [0, 1]) == 1 / 3  # float64 all the way


def test_means_of_nothing_are_refused():
    for ap in (torch.tensor([]), torch.tensor([math.nan])):
        attributes = torch.zeros(len(ap), dtype=torch.int64)
        assert attribute_means(ap, attributes) == {}
        with pytest.raises(InputError, match="no query has a relevant item"):
            micro_mean(ap)
        with pytest.raises(InputError, match="no query has a relevant item"):
            macro_mean(ap, attributes)
    with pytest.raises(InputError, match=r"attributes must have shape \(1,\)"):
        attribute_means([0.5], [1, 2])
    with pytest.raises(InputError, match=r"must be a vector of numbers, not .* \(1, 1\)"):
        micro_mean([[0.5]])
    with pytest.raises(InputError, match="must be a vector of numbers"):
        micro_mean([0.5j])


# --- intervals ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n_values", [2, 3, 4, 5, 6, 11, 30, 3601])
def test_t_interval_is_scipys(n_values, level):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n_values).normal(3, 2, n_values)
    expected = stats.t.interval(level, n_values - 1, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values, level) == pytest.approx(expected, rel=1e-9)
    with_gaps = np.insert(values, 1, math.nan)
    assert t_interval(with_gaps, level) == t_interval(values, level)


def test_t_interval_of_three_seeds():
    low, high = t_interval(torch.tensor([60.0, 61.0, 62.0], dtype=torch.float64))
    assert (low + high) / 2 == pytest.approx(61)
    assert (high - low) / 2 == pytest.approx(4.302652729911275 / math.sqrt(3))  # t table, 2 degrees
    assert t_interval([5.0, 5.0]) == (5.0, 5.0)


def test_bootstrap_interval_is_repeatable_and_covers():
    values = np.random.default_rng(0).exponential(2.0, 400)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(torch.from_numpy(values), 0.95, 2000, 0)
    assert (low, high) != bootstrap_interval(values, seed=1)
    standard_error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.3 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.3 * standard_error)
    narrow = bootstrap_interval(values, level=0.5)
    assert low < narrow[0] < values.mean() < narrow[1] < high
    assert bootstrap_interval(np.insert(values, 0, math.nan)) == (low, high)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)


def test_bootstrap_interval_is_a_quantile_of_means():
    generator = np.random.default_rng(5)
    means = [np.array([0.0, 1.0, 5.0])[generator.integers(3, size=3)].mean() for _ in range(7)]
    expected = tuple(np.quantile(means, [0.1, 0.9]))
    assert bootstrap_interval([0.0, 1.0, 5.0], 0.8, n=7, seed=5) == pytest.approx(expected)


@pytest.mark.parametrize("interval", [bootstrap_interval, t_interval])
def test_bad_intervals_are_refused(interval):
    with pytest.raises(InputError, match=r"needs at least [12] values, there are 0"):
        interval([math.nan])
    with pytest.raises(InputError, match="needs finite values"):
        interval([1.0, math.inf])
    for level in (0, 1, -0.5, 95, math.nan):
        with pytest.raises(InputError, match="level must lie between 0 and 1"):
            interval([1.0, 2.0], level)


def test_interval_limits():
    with pytest.raises(InputError, match="needs at least 2 values, there are 1"):
        t_interval([1.0])
    with pytest.raises(InputError, match="n must be a whole number"):
        bootstrap_interval([1.0], n=0)
