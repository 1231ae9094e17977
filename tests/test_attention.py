"""The modules against slow loops that follow the formulas letter by letter."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agman.attention import (
    AdditiveSpatialAttention,
    AttributeChannelAttention,
    AttributeMask,
    AttributeSpatialAttention,
    SpatialGate,
    pool,
)
from agman.errors import InputError

B, K, C, H, W, E = 2, 3, 8, 5, 4, 6


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def features():
    return torch.randn(B, C, H, W)


@torch.no_grad()
@pytest.mark.parametrize(("name", "f"), [("silu", torch.nn.functional.silu), ("tanh", torch.tanh)])
def test_spatial_attention_is_a_scaled_dot_product_per_position(name, f):
    module = AttributeSpatialAttention(C, E, 7, activation_name=name, project=True).eval()
    x, codes = features(), torch.randn(B, K, E)
    got = module(x, codes)
    keys = torch.tanh(module.norm(module.project(x)))
    for b in range(B):
        for k in range(K):
            query = f(module.transform(codes[b, k]))
            scores = [[keys[b, :, i, j] @ query / math.sqrt(7) for j in range(W)] for i in range(H)]
            expected = torch.tensor(scores).flatten().softmax(0).view(H, W)
            torch.testing.assert_close(got[b, k], expected)


def test_without_projection_widths_must_agree():
    with pytest.raises(InputError, match="8 channels are compared with a code of length 7"):
        AttributeSpatialAttention(C, E, 7)


@torch.no_grad()
def test_additive_attention_scores_the_product():
    module = AdditiveSpatialAttention(C, E, 7)
    x, codes = features(), torch.randn(B, K, E)
    keys = torch.tanh(module.project(x))
    for b in range(B):
        for k in range(K):
            product = keys[b] * torch.tanh(module.transform(codes[b, k]))[:, None, None]
            scores = torch.tanh(module.score(product[None]))[0, 0]
            expected = scores.flatten().softmax(0).view(H, W)
            torch.testing.assert_close(module(x, codes)[b, k], expected)


@torch.no_grad()
def test_pool_is_a_weighted_sum_over_positions():
    x, weights = features(), torch.rand(B, K, H, W)
    expected = (x[:, None] * weights[:, :, None]).sum(dim=(-2, -1))
    torch.testing.assert_close(pool(x, weights), expected)


@torch.no_grad()
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_gate_sees_the_weighted_features(sign):
    gate, x, weights = SpatialGate(), features(), sign * torch.rand(B, K, H, W)
    for k in range(K):
        weighted = x * weights[:, k, None]
        pair = torch.stack([weighted.mean(1), weighted.amax(1)], dim=1)
        expected = torch.sigmoid(gate.conv(pair))[:, 0]
        torch.testing.assert_close(gate(x, weights)[:, k], expected)


@torch.no_grad()
def test_channel_attention_joins_features_and_code():
    module = AttributeChannelAttention(C, E, 5, 4)
    pooled, codes = torch.randn(B, K, C), torch.randn(B, K, E)
    joined = torch.cat([pooled, torch.nn.functional.silu(module.transform(codes))], dim=-1)
    expected = torch.sigmoid(module.excite(torch.relu(module.squeeze(joined))))
    torch.testing.assert_close(module(pooled, codes), expected)


@given(n=st.integers(1, 12), dim=st.integers(1, 40), unowned=st.booleans())
def test_mask_blocks_are_disjoint_and_cover_all_unless_asked_not_to(n, dim, unowned):
    owned = AttributeMask(n, dim, unowned=unowned).weight == 1
    assert owned.sum(0).max() <= 1
    assert int(owned.sum()) == (dim - dim % n if unowned else dim)
    assert set(owned.sum(1).tolist()) <= {dim // n, dim // n + 1}


@torch.no_grad()
def test_a_negative_mask_is_cut_to_zero():
    mask = AttributeMask(2, 4)
    mask.weight[1] = torch.tensor([-1.0, 0.5, 2.0, 0.0])
    got = mask(torch.ones(1, 1, 4), torch.tensor([[1, 0]]))
    torch.testing.assert_close(got[0, 0], torch.tensor([0.0, 0.5, 2.0, 0.0]))


def test_maps_of_any_size_sum_to_one():
    module = AttributeSpatialAttention(C, E, C).eval()
    for shape in ((1, 1), (3, 9), (14, 14)):
        maps = module(torch.randn(B, C, *shape), torch.randn(B, K, E))
        assert maps.shape == (B, K, *shape)
        torch.testing.assert_close(maps.sum(dim=(-2, -1)), torch.ones(B, K))
