"""What the self-checks of assignment 3 look for; `make assignments` records the answers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course.exercises import Exercise


def random(*shape: int, seed: int) -> Tensor:
    """Numbers that are the same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scores(features: Tensor, query: Tensor, divisor: float | None = None) -> Tensor:
    root = math.sqrt(len(query)) if divisor is None else divisor
    return torch.einsum("c,chw->hw", query, torch.tanh(features)) / root


def flat_softmax(values: Tensor) -> Tensor:
    return values.flatten().softmax(dim=0).view(values.shape)


def gate(
    features: Tensor, kernel: Tensor, *, swapped: bool = False, largest: bool = True
) -> Tensor:
    other = features.amax(dim=0) if largest else features.amin(dim=0)
    seen = torch.stack([features.mean(dim=0), other])
    seen = seen.flip(0) if swapped else seen
    return F.conv2d(seen[None], kernel[None], padding=kernel.shape[-1] // 2)[0].sigmoid()


def hidden(vector: Tensor, code: Tensor, first: Tensor, order: int = 1) -> Tensor:
    return F.relu(first @ torch.cat([vector, F.silu(code)][::order]))


def exercises(right: Mapping[str, Callable[..., Any]]) -> dict[str, Exercise]:
    """The checks by function name.

    Args:
        right: the functions of the solution.
    """
    return {
        "attention_map": Exercise(
            right=right["attention_map"],
            cases=(
                (2 * random(9, 3, 4, seed=1), 2 * random(9, seed=2)),
                (2 * random(4, 5, 2, seed=3), 2 * random(4, seed=4)),
            ),
            mistakes=(
                (
                    "every row sums to one; flatten the picture before the softmax.",
                    lambda x, q: scores(x, q).softmax(dim=1),
                ),
                (
                    "every column sums to one; flatten the picture before the softmax.",
                    lambda x, q: scores(x, q).softmax(dim=0),
                ),
                (
                    "the scores are not divided by the square root of the number of channels.",
                    lambda x, q: flat_softmax(scores(x, q, 1.0)),
                ),
                (
                    "the scores are divided by the number of channels; divide by its square root.",
                    lambda x, q: flat_softmax(scores(x, q, len(q))),
                ),
                (
                    "you divided by the root of the number of positions; channels are summed.",
                    lambda x, q: flat_softmax(scores(x, q, math.sqrt(x[0].numel()))),
                ),
                (
                    "the features did not go through tanh.",
                    lambda x, q: flat_softmax(torch.einsum("c,chw->hw", q, x) / math.sqrt(len(q))),
                ),
                (
                    "tanh was taken of the query too; it is for the features.",
                    lambda x, q: flat_softmax(scores(x, q.tanh())),
                ),
                (
                    "these are the scores; a softmax over all positions makes a map of them.",
                    scores,
                ),
                (
                    "that is a sigmoid of each score; in a softmax the positions compete.",
                    lambda x, q: scores(x, q).sigmoid(),
                ),
            ),
            hints=(
                'torch.einsum("c,chw->hw", query, keys) sums over channels at each position.',
                "Divide by the root of C; flatten() makes one line of all positions.",
                "scores.flatten().softmax(dim=0), and .view(scores.shape) puts it back.",
            ),
        ),
        "attended": Exercise(
            right=right["attended"],
            cases=(
                (random(2, 3, 4, 5, seed=5), random(2, 4, 4, 5, seed=6).abs()),
                (random(1, 4, 3, 3, seed=7), random(1, 2, 3, 3, seed=8).abs()),
            ),
            mistakes=(
                (
                    "you took the mean over positions; the weights are the mean already, so sum.",
                    lambda x, a: torch.einsum("bchw,bkhw->bkc", x, a) / x[0, 0].numel(),
                ),
                (
                    "the two last axes are exchanged: first the question, then the channel.",
                    lambda x, a: torch.einsum("bchw,bkhw->bck", x, a),
                ),
                (
                    "the maps were summed over the questions; each question has its own vector.",
                    lambda x, a: torch.einsum("bchw,bkhw->bc", x, a)[:, None].expand(
                        -1, a.shape[1], -1
                    ),
                ),
                (
                    "the photos were summed; each photo keeps its own features.",
                    lambda x, a: torch.einsum("bchw,dkhw->bkc", x, a),
                ),
                (
                    "the weights have no effect; multiply before you sum.",
                    lambda x, a: x.sum(dim=(2, 3))[:, None].expand(-1, a.shape[1], -1),
                ),
                (
                    "one side of the picture is still summed on its own: weigh each position by "
                    "its own weight.",
                    lambda x, a: torch.einsum("bchw,bkhv->bkc", x, a),
                ),
            ),
            hints=(
                "x[:, None] has the shape (B, 1, C, H, W) and a[:, :, None] (B, K, 1, H, W).",
                "Their product is summed over the two last axes.",
                'torch.einsum with the letters "bchw,bkhw->bkc" does both.',
            ),
        ),
        "plain_gate": Exercise(
            right=right["plain_gate"],
            cases=(
                (random(3, 4, 5, seed=9), random(2, 3, 3, seed=10)),
                (random(5, 6, 3, seed=11), random(2, 5, 5, seed=12)),
            ),
            mistakes=(
                (
                    "mean and maximum are the wrong way round: the kernel's first channel is for "
                    "the mean.",
                    lambda x, k: gate(x, k, swapped=True) * x,
                ),
                (
                    "that is the smallest channel in place of the largest.",
                    lambda x, k: gate(x, k, largest=False) * x,
                ),
                ("this is the gate; multiply the features by it.", gate),
                (
                    "there is no sigmoid; a gate lies between 0 and 1.",
                    lambda x, k: gate(x, k).logit() * x,
                ),
                (
                    "the kernel is turned round, as mathematicians convolve; PyTorch's conv2d does "
                    "not turn it.",
                    lambda x, k: gate(x, k.flip(1, 2)) * x,
                ),
                (
                    "the gate was added to the features; multiply.",
                    lambda x, k: gate(x, k) + x,
                ),
                (
                    "the sum over channels was taken in place of the mean.",
                    lambda x, k: gate(x, k * torch.tensor([len(x), 1.0])[:, None, None]) * x,
                ),
            ),
            hints=(
                "torch.stack([...]) of the mean and the maximum over dim=0 is (2, H, W).",
                "F.conv2d wants batches: seen[None] and kernel[None]; pad by half the size.",
                "F.conv2d(seen[None], kernel[None], padding=kernel.shape[-1] // 2)[0].sigmoid()",
            ),
        ),
        "channel_gate": Exercise(
            right=right["channel_gate"],
            cases=(
                (
                    random(3, seed=13),
                    random(3, seed=14),
                    random(4, 6, seed=15),
                    random(3, 4, seed=16),
                ),
                (
                    random(2, seed=17),
                    random(2, seed=18),
                    random(5, 4, seed=19),
                    random(2, 5, seed=20),
                ),
            ),
            mistakes=(
                (
                    "the code comes first in your pair; the vector does: [v ; SiLU(b)].",
                    lambda v, b, one, two: (two @ hidden(v, b, one, -1)).sigmoid() * v,
                ),
                (
                    "the code did not go through SiLU.",
                    lambda v, b, one, two: (two @ F.relu(one @ torch.cat([v, b]))).sigmoid() * v,
                ),
                (
                    "there is no ReLU between the matrices.",
                    lambda v, b, one, two: (two @ (one @ torch.cat([v, F.silu(b)]))).sigmoid() * v,
                ),
                (
                    "this is the gate; multiply the vector by it.",
                    lambda v, b, one, two: (two @ hidden(v, b, one)).sigmoid(),
                ),
                (
                    "there is no sigmoid; a gate lies between 0 and 1.",
                    lambda v, b, one, two: (two @ hidden(v, b, one)) * v,
                ),
                (
                    "that is a softmax over channels; here each channel has its own gate, a "
                    "sigmoid.",
                    lambda v, b, one, two: (two @ hidden(v, b, one)).softmax(0) * v,
                ),
            ),
            hints=(
                "torch.cat puts the vector and the code, after SiLU, one behind the other.",
                "first @ pair has length D; after the ReLU, second brings it to length C.",
                "torch.sigmoid(second @ F.relu(first @ pair)) is the gate.",
            ),
        ),
        "answer": Exercise(
            right=right["answer"],
            cases=(
                (
                    torch.tensor([3.0, -8.0, 5.0, 1.0]),
                    torch.tensor([1.0, 0.5, -2.0, 0.0]),
                ),
                (torch.tensor([2.0, -1.0]), torch.tensor([-1.0, 0.0])),
            ),
            mistakes=(
                (
                    "where the mask leaves nothing you divide zero by zero; guard the division.",
                    lambda v, k: F.relu(k) * v / (F.relu(k) * v).norm(),
                ),
                (
                    "the negative part of the mask is still there.",
                    lambda v, k: F.normalize(k * v, dim=0),
                ),
                ("the answer does not have length one.", lambda v, k: F.relu(k) * v),
                (
                    "ReLU is for the mask, not for the product: the vector keeps its signs.",
                    lambda v, k: F.normalize(F.relu(k * v), dim=0),
                ),
                (
                    "you divided by the vector's own length; divide by that of the masked vector.",
                    lambda v, k: F.relu(k) * v / v.norm(),
                ),
                (
                    "the numbers sum to one; it is the length, the root of the sum of squares, "
                    "that must be one.",
                    lambda v, k: F.normalize(F.relu(k) * v, dim=0, p=1),
                ),
            ),
            hints=(
                "F.relu(mask) * vector comes first.",
                "A length of zero must not divide: look at the argument eps of F.normalize.",
                "F.normalize(masked, dim=0)",
            ),
        ),
    }
