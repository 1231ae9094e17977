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
    attention_mass,
    attribute_means,
    average_place,
    average_precision,
    average_precisions,
    bootstrap_interval,
    central_map,
    expected_random_ap,
    hit_rate_at_k,
    macro_mean,
    map_at_r,
    mean_average_precision,
    micro_mean,
    paired_difference,
    pointing_hit,
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
        ([1.0, 2.0], [False, False], "^no item is relevant, .*; leave it out$"),
        ([], [], "no item is relevant"),
        ([1.0, math.nan, math.inf], [True] * 3, r"scores hold NaN .* 2 of 3 places \(first at 1\)"),
        ([1.0, -math.inf], [True, True], r"scores hold NaN .* 1 of 2 places \(first at 1\)"),
        ([[1.0]], [True], r"scores must be a vector of numbers, not .* of shape \(1, 1\)"),
        ([1j], [True], "scores must be a vector of numbers, not torch.complex128"),
        (["a"], [True], "scores must be a tensor or an array of numbers"),
        ([1.0, 2.0], [True], r"one entry for each of the 2 scores, not shape \(1,\)"),
        ([1.0, 2.0], [[True, True]], r"not shape \(1, 2\)"),
        ([1.0, 2.0], [0, 2], "^relevant must be booleans, or .*; pass values == query_value$"),
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
    assert max(sizes) == 72 * 500
    assert len(sizes) == 3 * 5


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
        message = (
            "^no query has a relevant item .* that queries and gallery use the same value ids$"
        )
        with pytest.raises(InputError, match=message):
            micro_mean(ap)
        with pytest.raises(InputError, match="no query has a relevant item"):
            macro_mean(ap, attributes)
    with pytest.raises(InputError, match=r"attributes must have shape \(1,\)"):
        attribute_means([0.5], [1, 2])
    with pytest.raises(InputError, match=r"must be a vector of numbers, not .* \(1, 1\)"):
        micro_mean([[0.5]])
    with pytest.raises(InputError, match="must be a vector of numbers"):
        micro_mean([0.5j])
    with pytest.raises(InputError, match=r"^average precisions must be a tensor or an array"):
        micro_mean("photo")


# --- intervals ------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.05, 0.5, 0.95, 0.99, 0.9999])
def test_t_quantile_is_scipys(confidence):
    stats = pytest.importorskip("scipy.stats")
    for degrees in (*range(1, 201), 3600):
        expected = stats.t.ppf((1 + confidence) / 2, degrees)
        assert metrics._t_quantile(confidence, degrees) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n_values", [2, 3, 5, 30])
def test_t_interval_is_scipys(n_values):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n_values).normal(3, 2, n_values)
    expected = stats.t.interval(0.9, n_values - 1, loc=values.mean(), scale=stats.sem(values))
    mean, low, high = t_interval(values, 0.9)
    assert mean == pytest.approx(values.mean(), rel=1e-15)
    assert (low, high) == pytest.approx(expected, rel=1e-9)


def test_t_interval_of_three_seeds():
    mean, low, high = t_interval(torch.tensor([60.0, 61.0, 62.0], dtype=torch.float64))
    assert mean == (low + high) / 2 == 61
    assert (high - low) / 2 == pytest.approx(4.302652729911275 / math.sqrt(3))  # t table, 2 degrees
    assert t_interval([5.0, 5.0]) == (5.0, 5.0, 5.0)


@pytest.mark.parametrize("n_values", [2, 3, 5])
def test_t_interval_covers_as_often_as_it_says(n_values):
    """Of 5,000 intervals the share that holds the mean is 0.95 give or take 4 standard errors."""
    trials = 5000
    values = np.random.default_rng(n_values).normal(10, 3, (trials, n_values))
    low, high = np.array([t_interval(row)[1:] for row in values]).T
    covered = ((low <= 10) & (high >= 10)).mean()
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / trials))


seeds = st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=8)


@settings(max_examples=60)
@given(seeds, st.floats(-50, 50))
def test_paired_difference_is_the_interval_of_the_differences(pairs, effect):
    a, b = np.array(pairs).T
    assert paired_difference(a, b) == t_interval(a - b)
    assert paired_difference(a, b, 0.5) == t_interval(a - b, 0.5)
    mean, low, high = paired_difference(b, a)
    assert (-mean, -high, -low) == pytest.approx(paired_difference(a, b), abs=1e-12)
    shifted = paired_difference(a + effect, a)  # what all pairs share falls out
    assert shifted == pytest.approx((effect,) * 3, abs=1e-9)
    wide, narrow = paired_difference(a, b, 0.99), paired_difference(a, b, 0.5)
    assert wide[1] <= narrow[1] <= mean * -1 <= narrow[2] <= wide[2]


def test_bad_pairs_are_refused():
    with pytest.raises(InputError, match=r"there are 2 and 3; give one of each for every seed"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="needs at least 2 values, there are 1"):
        paired_difference([1.0], [2.0])
    with pytest.raises(InputError, match="one of the 2 is nan"):
        paired_difference([1.0, 2.0], [1.0, math.nan])


def test_bootstrap_interval_is_repeatable_and_covers():
    values = np.random.default_rng(0).exponential(2.0, 400)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(torch.from_numpy(values), 0.95, 2000, 0)
    assert (low, high) != bootstrap_interval(values, seed=1)
    standard_error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.3 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.3 * standard_error)
    narrow = bootstrap_interval(values, confidence=0.5)
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
        interval([])
    with pytest.raises(InputError, match="needs finite values, but one of the 2 is inf; mend"):
        interval([1.0, math.inf])
    with pytest.raises(InputError, match="must be a vector of numbers"):
        interval([[1.0, 2.0]])
    for confidence in (0, 1, -0.5, 95, math.nan):
        with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
            interval([1.0, 2.0], confidence)


def test_interval_limits():
    with pytest.raises(InputError, match="needs at least 2 values, there are 1"):
        t_interval([1.0])
    with pytest.raises(InputError, match="one of the 3 is nan"):  # a failed run must not go unseen
        t_interval([1.0, 2.0, math.nan])
    with pytest.raises(InputError, match="needs at least 1 values, there are 0"):
        bootstrap_interval([math.nan])
    with pytest.raises(InputError, match="n must be a whole number"):
        bootstrap_interval([1.0], n=0)


# --- where attention maps lie ---------------------------------------------------------------

HIDDEN = (-1, -1, -1, -1)


def slow_mass(weights, region, size):
    """By samples: each cell is size x size of them and each pixel height x width, both exactly."""
    height, width = weights.shape
    fine = np.kron(weights, np.ones((size, size)))  # (height * size, width * size)
    x0, y0, x1, y1 = (max(edge, 0) for edge in region)
    inside = fine[y0 * height : y1 * height, x0 * width : x1 * width]
    return inside.sum() / fine.sum()


def slow_hit(weights, region, size):
    height, width = weights.shape
    cells = [(i, j) for i in range(height) for j in range(width)]
    best = [cell for cell in cells if weights[cell] == weights.max()]
    x0, y0, x1, y1 = region
    hits = [
        y0 <= (2 * i + 1) * size / (2 * height) < y1 and x0 <= (2 * j + 1) * size / (2 * width) < x1
        for i, j in best
    ]
    return sum(hits) / len(best)


@st.composite
def spans(draw, size):
    """Start and end of a region on one axis: some of it inside, the rest perhaps beyond."""
    start = draw(st.integers(-2, size - 1))
    return start, draw(st.integers(max(start, 0) + 1, size + 2))


@st.composite
def looks(draw):
    """Maps with few different numbers, so that maxima are tied, with regions and the size."""
    size, n = draw(st.integers(1, 20)), draw(st.integers(1, 4))
    shape = (n, draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    maps = np.random.default_rng(draw(st.integers(0, 10**6))).integers(0, 4, shape).astype(float)
    maps[:, 0, 0] += (maps == 0).all(axis=(1, 2))
    regions = []
    for _ in range(n):
        (x0, x1), (y0, y1) = draw(spans(size)), draw(spans(size))
        regions.append(draw(st.sampled_from([(x0, y0, x1, y1)] * 5 + [HIDDEN])))
    return maps / maps.sum(axis=(1, 2), keepdims=True), np.array(regions), size


@settings(max_examples=150)
@given(looks())
def test_mass_and_hits_are_those_of_samples(look):
    maps, regions, size = look
    mass, hits = attention_mass(maps, regions, size), pointing_hit(maps, regions, size)
    assert mass.dtype == hits.dtype == torch.float64
    for i, region in enumerate(regions):
        if tuple(region) == HIDDEN:
            assert mass[i].isnan()
            assert hits[i].isnan()
            continue
        assert 0 <= mass[i] <= 1
        assert mass[i] == pytest.approx(slow_mass(maps[i], region, size), abs=1e-12)
        assert hits[i] == pytest.approx(slow_hit(maps[i], region, size), abs=1e-12)


@settings(max_examples=80)
@given(looks(), st.integers(0, 3), st.floats(0.001, 3), st.floats(1e-6, 1e6))
def test_a_larger_region_holds_no_less_and_scale_does_not_matter(look, side, more, scale):
    maps, regions, size = look
    seen = (regions != -1).any(axis=1)
    assume(seen.any())
    maps, regions = maps[seen], regions[seen].astype(float)
    larger = regions.copy()
    larger[:, side] += more if side >= 2 else -more
    for measure in (attention_mass, pointing_hit):
        assert (measure(maps, larger, size) >= measure(maps, regions, size)).all()
        scaled = measure(maps, regions * 8, size * 8)  # finer pixels of the same image
        assert scaled.tolist() == pytest.approx(measure(maps, regions, size).tolist(), abs=1e-12)
    mass = attention_mass(maps * scale, regions, size)
    assert mass.tolist() == pytest.approx(attention_mass(maps, regions, size).tolist(), abs=1e-12)


@given(looks(), st.floats(0.01, 0.99))
def test_a_cut_image_shares_the_mass_and_the_whole_has_all(look, cut):
    maps, _, size = look
    whole = torch.tensor([[0, 0, size, size]] * len(maps))
    assert (attention_mass(maps, whole, size) == 1).all()
    assert (pointing_hit(maps, whole, size) == 1).all()
    left = torch.tensor([[0, 0, cut * size, size]] * len(maps))
    right = torch.tensor([[cut * size, 0, size, size]] * len(maps))
    for measure in (attention_mass, pointing_hit):
        total = measure(maps, left, size) + measure(maps, right, size)
        assert total.tolist() == pytest.approx([1.0] * len(maps), abs=1e-12)


@given(looks())
def test_a_uniform_map_has_the_share_of_the_area(look):
    maps, regions, size = look
    x0, y0, x1, y1 = regions.clip(0, size).T
    area = np.where((regions == -1).all(axis=1), math.nan, (x1 - x0) * (y1 - y0) / size**2)
    mass = attention_mass(np.ones_like(maps), regions, size)
    assert mass.tolist() == pytest.approx(area.tolist(), abs=1e-12, nan_ok=True)


@given(looks())
def test_mirrored_images_have_the_same_mass(look):
    maps, regions, size = look
    x0, y0, x1, y1 = regions.T
    mirrored = np.where(regions == HIDDEN, regions, np.stack([size - x1, y0, size - x0, y1], 1))
    assume(((regions == -1).all(1) == (regions == -1).any(1)).all())
    got = attention_mass(maps[:, :, ::-1].copy(), mirrored, size)
    expected = attention_mass(maps, regions, size)
    assert got.tolist() == pytest.approx(expected.tolist(), abs=1e-12, nan_ok=True)


def test_looking_by_hand():
    maps = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
    region = torch.tensor([[25, 50, 100, 100]])  # half of cell (1, 0) and all of cell (1, 1)
    assert float(attention_mass(maps, region, 100)) == pytest.approx(0.15 + 0.4)
    assert pointing_hit(maps, region, 100).tolist() == [1.0]
    assert pointing_hit(maps, torch.tensor([[0, 0, 75, 75]]), 100).tolist() == [0.0]  # ends there
    assert pointing_hit(maps, torch.tensor([[75, 75, 76, 76]]), 100).tolist() == [1.0]
    tied = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]])
    assert pointing_hit(tied, torch.tensor([[0, 0, 30, 10]]), 60).tolist() == [0.0]
    assert pointing_hit(tied, torch.tensor([[0, 0, 60, 16]]), 60).tolist() == [0.5]
    assert attention_mass(torch.zeros(0, 2, 2), torch.zeros(0, 4), 9).shape == (0,)


def test_the_central_map_is_a_gaussian():
    got = central_map((3, 5), spread=0.3)
    expected = np.empty((3, 5))
    for i in range(3):
        for j in range(5):
            y, x = (i + 0.5) / 3 - 0.5, (j + 0.5) / 5 - 0.5
            expected[i, j] = math.exp(-(x * x + y * y) / (2 * 0.3**2))
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-12)
    np.testing.assert_allclose(central_map((4, 4), 1e6), np.full((4, 4), 1 / 16), rtol=1e-9)
    assert float(central_map((7, 7), 0.01)[3, 3]) == pytest.approx(1)
    for shape in ((12, 12), (7, 7), (3, 10)):
        even = central_map(shape)
        assert torch.equal(even, even.flip(0))
        assert torch.equal(even, even.flip(1))
    assert (central_map((12, 12)) == central_map((12, 12)).max()).sum() == 4
    assert torch.equal(central_map((3, 5)), central_map((3, 5), 0.25))


@settings(max_examples=60)
@given(looks(), st.integers(1, 6), st.integers(1, 6))
def test_the_average_place_is_the_mean_of_what_regions_cover(look, height, width):
    _, regions, size = look
    seen = regions[(regions != -1).any(axis=1)]
    assume(len(seen))
    expected = np.zeros((height, width))
    for region in seen:
        for i in range(height):
            for j in range(width):
                one = np.zeros((height, width))
                one[i, j] = 1
                expected[i, j] += slow_mass(one, region, size) / len(seen)
    place = average_place(regions, (height, width), size)
    np.testing.assert_allclose(place, expected / expected.sum(), atol=1e-12)
    # Its brightest cell is the one place whose mass is best for these regions.
    every_cell = torch.eye(height * width, dtype=torch.float64).view(-1, height, width)
    means = [
        attention_mass(cell.expand(len(seen), -1, -1), seen, size).mean() for cell in every_cell
    ]
    assert float(means[int(place.argmax())]) == pytest.approx(float(max(means)))


@pytest.mark.parametrize(
    ("maps", "regions", "size", "message"),
    [
        (np.ones((2, 3)), [HIDDEN] * 2, 9, r"maps must be numbers of shape .* \(2, 3\)"),
        ("photo", [HIDDEN], 9, "^maps must be a tensor or an array of numbers"),
        (np.ones((1, 2, 2)), "photo", 9, "^regions must be a tensor or an array of numbers"),
        (np.ones((1, 2, 2)) * 1j, [HIDDEN], 9, "maps must be numbers .* not torch.complex128"),
        (np.ones((1, 2, 2)), np.array([HIDDEN]) * 1j, 9, "numbers .* not torch.complex128"),
        (np.ones((1, 0, 2)), [HIDDEN], 9, "maps must be numbers of shape"),
        (np.zeros((1, 2, 2)), [HIDDEN], 9, "1 of 1 maps hold .* zeros only, first row 0"),
        (-np.eye(2)[None], [HIDDEN], 9, "hold a negative number"),
        (np.full((1, 2, 2), math.nan), [HIDDEN], 9, "NaN or infinity"),
        (np.full((1, 2, 2), math.inf), [HIDDEN], 9, "NaN or infinity"),
        (np.ones((2, 2, 2)), [HIDDEN], 9, "there are 2 maps and 1 regions"),
        (np.ones((1, 2, 2)), [(0, 0, 1)], 9, r"regions must be numbers of shape \(rows, 4\)"),
        (np.ones((1, 2, 2)), [(3, 0, 3, 5)], 9, "1 of 1 regions have no area .* first row 0 with"),
        (np.ones((1, 2, 2)), [(5, 0, 3, 5)], 9, "write x0, y0, x1, y1, or -1 four times"),
        (np.ones((1, 2, 2)), [(9, 0, 12, 5)], 9, "no area in an image of 9 pixels"),
        (np.ones((1, 2, 2)), [(-1, -1, -1, 5)], 9, "no area"),
        (np.ones((1, 2, 2)), [(0, 0, math.nan, 5)], 9, "no area"),
        (np.ones((1, 2, 2)), [(-5, 0, -2, 5)], 9, "no area"),
        (np.ones((1, 2, 2)), [(0, -5, 5, -2)], 9, "no area"),
        (np.ones((1, 2, 2)), [(0, 3, 5, 3)], 9, "no area"),
        (np.ones((1, 2, 2)), (0, 0, 5, 5), 9, r"regions must be numbers .* of shape \(4,\)"),
        (np.eye(3)[:, None] * (3, 0, 0), [HIDDEN] * 3, 9, "2 of 3 maps hold .* first row 1"),
        (np.ones((2, 1, 1)) * [[[1]], [[-1]]], [HIDDEN] * 2, 9, "1 of 2 maps hold .* first row 1"),
        (np.ones((1, 2, 2)), [(0, 0, 5, 5)], 0, "size must be the positive side"),
        (np.ones((1, 2, 2)), [(0, 0, 5, 5)], math.inf, "size must be the positive side"),
    ],
)
def test_bad_maps_and_regions_are_refused(maps, regions, size, message):
    for measure in (attention_mass, pointing_hit):
        with pytest.raises(InputError, match=message):
            measure(maps, regions if isinstance(regions, str) else np.array(regions), size)


def test_bad_baselines_are_refused():
    for spread in (0, -1, math.inf, math.nan):
        with pytest.raises(InputError, match="spread must be a positive number"):
            central_map((3, 3), spread)
    with pytest.raises(
        InputError, match=r"^there is no region to average; give rows .* attribute$"
    ):
        average_place(np.array([HIDDEN]), (3, 3), 9)
    for side, shape in (("height", (0, 3)), ("width", (3, 0))):
        with pytest.raises(InputError, match=f"^{side} must be a whole number"):
            central_map(shape)
        with pytest.raises(InputError, match=f"^{side} must be a whole number"):
            average_place(np.array([[0, 0, 1, 1]]), shape, 9)
