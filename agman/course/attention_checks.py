"""Self-checks of the exercises in "Attribute-guided attention"; see `agman.course.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from agman.course.exercises import Exercise, report

__all__ = ["check_gate_input", "check_maps", "check_spread"]


def check_maps(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(keys, queries)`, the maps of K attributes for B photos.

    Args:
        function: takes (B, C, H, W) and (B, K, C), returns (B, K, H, W).
        hint: 1 to 3 for more and more help.
    """
    report(function, _MAPS, hint)


def check_gate_input(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(features, weights)`, what the plain gate looks at.

    Args:
        function: takes (B, C, H, W) and (B, K, H, W), returns (B, K, 2, H, W).
        hint: 1 to 3 for more and more help.
    """
    report(function, _GATE_INPUT, hint)


def check_spread(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(map_)`, the number of positions that a map is spread over.

    Args:
        function: takes (H, W) numbers of at least zero with sum one, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _SPREAD, hint)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the maps of several attributes ---------------------------------------------------------------


def _scores(keys: Tensor, queries: Tensor, divisor: float) -> Tensor:
    return torch.einsum("bchw,bkc->bkhw", keys, queries) / divisor


def _maps(
    keys: Tensor, queries: Tensor, axes: Sequence[int] = (2, 3), divisor: float | None = None
) -> Tensor:
    """Maps that sum to one over some axes of (B, K, H, W)."""
    root = math.sqrt(keys.shape[1])
    weights = _scores(keys, queries, root if divisor is None else divisor).exp()
    return weights / weights.sum(dim=tuple(axes), keepdim=True)


_MAPS = Exercise(
    right=_maps,
    cases=(
        (_random(2, 9, 3, 4, seed=0).tanh(), 2 * _random(2, 3, 9, seed=1)),
        (_random(3, 4, 5, 2, seed=2).tanh(), 2 * _random(3, 2, 4, seed=3)),
    ),
    mistakes=(
        (
            "every row of a map sums to one; flatten the two last axes before the softmax.",
            lambda k, q: _maps(k, q, axes=(3,)),
        ),
        (
            "every column of a map sums to one; flatten the two last axes before the softmax.",
            lambda k, q: _maps(k, q, axes=(2,)),
        ),
        (
            "at each position the attributes sum to one, so an answer depends on what else is "
            "asked; the softmax runs over positions.",
            lambda k, q: _maps(k, q, axes=(1,)),
        ),
        (
            "at each position the photos sum to one, so an answer depends on the rest of the "
            "batch; the softmax runs over positions.",
            lambda k, q: _maps(k, q, axes=(0,)),
        ),
        (
            "all attributes of a photo share a single one; each map has a sum of its own.",
            lambda k, q: _maps(k, q, axes=(1, 2, 3)),
        ),
        (
            "the scores are not divided by the square root of the number of channels.",
            lambda k, q: _maps(k, q, divisor=1.0),
        ),
        (
            "you divided the scores by the number of channels; divide by its square root.",
            lambda k, q: _maps(k, q, divisor=k.shape[1]),
        ),
        (
            "you divided by the root of the number of positions; channels are what is summed.",
            lambda k, q: _maps(k, q, divisor=math.sqrt(k.shape[2] * k.shape[3])),
        ),
        (
            "these are the scores; a softmax over the positions makes maps of them.",
            lambda k, q: _scores(k, q, math.sqrt(k.shape[1])),
        ),
        (
            "that is a sigmoid of each score; a softmax makes the positions compete.",
            lambda k, q: _scores(k, q, math.sqrt(k.shape[1])).sigmoid(),
        ),
    ),
    hints=(
        'torch.einsum("bchw,bkc->bkhw", keys, queries) compares every position with every query.',
        "Divide by the root of C, then flatten(2): each map is one line of H * W scores.",
        "scores.flatten(2).softmax(dim=2).view(scores.shape)",
    ),
)


# --- what the plain gate looks at -----------------------------------------------------------------


def _gate_input(features: Tensor, weights: Tensor) -> Tensor:
    weighted = features[:, None] * weights[:, :, None]  # (B, K, C, H, W)
    return torch.stack([weighted.mean(dim=2), weighted.amax(dim=2)], dim=2)


def _pair(mean: Tensor, maximum: Tensor, weights: Tensor) -> Tensor:
    """Mean and maximum of the features, each weighted afterwards."""
    return torch.stack([mean[:, None] * weights, maximum[:, None] * weights], dim=2)


_GATE_INPUT = Exercise(
    right=_gate_input,
    cases=(
        (_random(2, 5, 3, 4, seed=4), _random(2, 3, 3, 4, seed=5)),
        (_random(1, 3, 2, 2, seed=6), _random(1, 1, 2, 2, seed=7).abs()),
    ),
    mistakes=(
        (
            "the two are the wrong way round: first the mean, then the maximum.",
            lambda f, w: _gate_input(f, w).flip(2),
        ),
        (
            "under a negative weight the smallest channel becomes the largest; weigh the features "
            "first and take the maximum then.",
            lambda f, w: _pair(f.mean(dim=1), f.amax(dim=1), w),
        ),
        (
            "that is the maximum of the absolute values; signs matter here.",
            lambda f, w: torch.stack(
                [_gate_input(f, w)[:, :, 0], (f[:, None] * w[:, :, None]).abs().amax(dim=2)], dim=2
            ),
        ),
        (
            "that is the sum over channels in place of their mean.",
            lambda f, w: _gate_input(f, w) * torch.tensor([f.shape[1], 1.0])[:, None, None],
        ),
        (
            "the weights are missing; the gate looks at the weighted features.",
            lambda f, w: _gate_input(f, torch.ones_like(w)),
        ),
    ),
    hints=(
        "features[:, None] * weights[:, :, None] has the shape (B, K, C, H, W).",
        "Mean and maximum are taken over the channels, the third axis: dim=2 and .amax(dim=2).",
        "torch.stack([weighted.mean(dim=2), weighted.amax(dim=2)], dim=2)",
    ),
)


# --- how many positions ---------------------------------------------------------------------------


def _spread(map_: Tensor) -> Tensor:
    return torch.special.entr(map_).sum().exp()


_SPREAD = Exercise(
    right=_spread,
    cases=(
        (torch.full((3, 4), 1 / 12, dtype=torch.float64),),
        (torch.tensor([[0.5, 0.25], [0.125, 0.125]], dtype=torch.float64),),
        (torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64),),
    ),
    mistakes=(
        (
            "a position without weight gives 0 times log 0, which is NaN in a computer and zero "
            "in a sum; look at torch.special.entr.",
            lambda m: (-(m * m.log()).sum()).exp(),
        ),
        (
            "that is the entropy; its exponential is a number of positions.",
            lambda m: torch.special.entr(m).sum(),
        ),
        (
            "that is the entropy in bits; 2 to its power is a number of positions.",
            lambda m: torch.special.entr(m).sum() / math.log(2),
        ),
        (
            "the logarithm is natural and the power is one of 2; use the same base for both.",
            lambda m: 2 ** torch.special.entr(m).sum(),
        ),
        (
            "the sign is wrong; an even map over n positions must give n, and yours gives 1 / n.",
            lambda m: 1 / _spread(m),
        ),
        (
            "you counted the positions with any weight; one with little weight counts for little.",
            lambda m: (m > 0).sum(),
        ),
        (
            "that is one over the sum of squares, a measure of the same kind; take the "
            "exponential of the entropy.",
            lambda m: 1 / m.square().sum(),
        ),
        (
            "that is one over the largest weight; the other weights matter too.",
            lambda m: 1 / m.max(),
        ),
    ),
    hints=(
        "The entropy of weights p is the sum of -p log p.",
        "torch.special.entr(p) is -p log p, and 0 where p is 0.",
        "torch.special.entr(map_).sum().exp()",
    ),
)
