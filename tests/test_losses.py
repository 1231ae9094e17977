import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from agman.errors import InputError
from agman.losses import (
    FixedWeighting,
    LearnedWeighting,
    ReleasedWeighting,
    attribute_classification_loss,
    supervised_contrastive_loss,
    triplet_loss,
)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@given(seed=st.integers(0, 99), margin=st.floats(0, 1))
def test_triplet_loss_is_torchs_margin_ranking_loss(seed, margin):
    a, p, n = unit(3, 5, 4, seed=seed)
    positive, negative = (a * p).sum(1), (a * n).sum(1)
    expected = F.margin_ranking_loss(positive, negative, torch.ones(5), margin=margin)
    torch.testing.assert_close(triplet_loss(a, p, n, margin), expected.double())


def test_swapping_positive_and_negative_is_seen():
    a, p, n = unit(3, 6, 4)
    assert triplet_loss(a, p, n) != triplet_loss(a, n, p)
    assert triplet_loss(a, a, -a) == 0
    assert triplet_loss(a, a, a) == pytest.approx(0.2)  # the margin, unless told otherwise


def contrastive_by_loops(embeddings, values, temperature):
    means, weights = [], []
    n_images, n_attributes, _ = embeddings.shape
    for a in range(n_attributes):
        terms = []
        for i in range(n_images):
            if values[i, a] < 0:
                continue
            others = [j for j in range(n_images) if j != i and values[j, a] >= 0]
            positives = [j for j in others if values[j, a] == values[i, a]]
            if not positives:
                continue
            s = {j: math.exp(embeddings[i, a] @ embeddings[j, a] / temperature) for j in others}
            terms.append(-sum(math.log(s[j] / sum(s.values())) for j in positives) / len(positives))
        if terms:
            means.append(sum(terms) / len(terms))
            weights.append(math.sqrt(len(terms)))
    return sum(m * w for m, w in zip(means, weights)) / sum(weights) if means else 0.0


@given(seed=st.integers(0, 200))
def test_contrastive_loss_equals_loops(seed):
    values = torch.randint(-1, 3, (7, 3), generator=torch.Generator().manual_seed(seed))
    embeddings = unit(7, 3, 4, seed=seed)
    got = supervised_contrastive_loss(embeddings, values, 0.2)
    assert got.item() == pytest.approx(contrastive_by_loops(embeddings, values, 0.2), rel=1e-12)


def test_contrastive_loss_of_a_single_pair_at_the_usual_temperature():
    embeddings, values = unit(4, 1, 3), torch.tensor([[0], [0], [1], [-1]])
    expected = contrastive_by_loops(embeddings, values, 0.1)
    assert supervised_contrastive_loss(embeddings, values).item() == pytest.approx(expected)


def test_contrastive_loss_stays_on_its_device():
    """The meta device has shapes only: anything made elsewhere would fail on it."""
    embeddings = torch.empty(4, 2, 3, device="meta")
    values = torch.zeros(4, 2, dtype=torch.int64, device="meta")
    assert supervised_contrastive_loss(embeddings, values).device.type == "meta"


def test_contrastive_loss_without_any_positive_is_zero_with_a_gradient_of_zero():
    embeddings = unit(3, 1, 4).requires_grad_()
    loss = supervised_contrastive_loss(embeddings, torch.tensor([[0], [1], [-1]]))
    loss.backward()
    assert loss == 0
    assert embeddings.grad.abs().max() == 0


def test_gradients_are_right():
    values = torch.tensor([[0, 1], [0, -1], [1, 1], [1, 0]])
    embeddings = unit(4, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: supervised_contrastive_loss(e, values), embeddings)
    logits = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: attribute_classification_loss(z, values > 0), logits)


def test_classification_is_a_sigmoid_per_attribute():
    logits, targets = torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 0]])
    p = torch.sigmoid(logits)
    expected = -(p[0, 0].log() + (1 - p[0, 1]).log()) / 2
    torch.testing.assert_close(attribute_classification_loss(logits, targets), expected)


def test_the_learned_weighting_is_its_formula_and_starts_with_weights_of_one_half():
    losses = {"ranking": torch.tensor(0.2), "classification": torch.tensor(0.7)}
    weighting = LearnedWeighting(*losses)
    assert weighting(losses).item() == pytest.approx(0.1 + 0.35 + 2 * math.log(2))
    with torch.no_grad():
        weighting.scale["ranking"].fill_(2)
        weighting.scale["classification"].fill_(-3)
    expected = 0.2 / (2 * 4.05) + math.log(5.05) + 0.7 / (2 * 9.05) + math.log(10.05)
    assert weighting(losses).item() == pytest.approx(expected)


def descend(weighting, losses, steps=3000):
    optimizer = torch.optim.SGD(weighting.parameters(), 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        total = weighting(losses)
        total.backward()
        optimizer.step()
    return total.item()


def test_the_learned_weighting_is_bounded_even_where_a_loss_is_zero():
    losses = {"ranking": torch.tensor(0.0), "classification": torch.tensor(0.7)}
    assert 0 <= descend(LearnedWeighting(*losses), losses) < 10


def test_the_released_weighting_would_fall_without_end_if_it_were_optimised():
    losses = {"ranking": torch.tensor(0.2), "classification": torch.tensor(0.7)}

    def released(p):
        return sum(0.5 * p.exp() * loss + p for loss in losses.values())

    assert released(torch.tensor(-1e6)) < -1e6
    assert ReleasedWeighting(*losses)(losses) == pytest.approx(0.45 * math.e + 2)
    assert not list(ReleasedWeighting(*losses).parameters())


def test_weightings_refuse_other_losses():
    for weighting in (LearnedWeighting("a"), ReleasedWeighting("a"), FixedWeighting(a=1.0)):
        with pytest.raises(InputError, match=r"\['a'\] but got \['b'\]"):
            weighting({"b": torch.tensor(1.0)})
    assert FixedWeighting(a=2.0)({"a": torch.tensor(3.0)}) == 6
