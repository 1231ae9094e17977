"""A right answer to each task, written differently from the solution."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# --- attention ------------------------------------------------------------------------------------


def attention_map(features: Tensor, query: Tensor) -> Tensor:
    channels, height, width = features.shape
    keys = features.tanh().reshape(channels, -1)
    scores = (query / math.sqrt(channels)) @ keys
    weights = (scores - scores.max()).exp()
    return (weights / weights.sum()).reshape(height, width)


def attended(features: Tensor, maps: Tensor) -> Tensor:
    return maps.flatten(2) @ features.flatten(2).transpose(1, 2)


def plain_gate(features: Tensor, kernel: Tensor) -> Tensor:
    _, height, width = features.shape
    edge = kernel.shape[-1] // 2
    seen = torch.nn.functional.pad(
        torch.stack([features.mean(0), features.max(0).values]), [edge] * 4
    )
    gate = torch.zeros(height, width, dtype=features.dtype)
    for i in range(kernel.shape[1]):
        for j in range(kernel.shape[2]):
            window = seen[:, i : i + height, j : j + width]
            gate += (kernel[:, i, j, None, None] * window).sum(0)
    return features / (1 + (-gate).exp())


def channel_gate(vector: Tensor, code: Tensor, first: Tensor, second: Tensor) -> Tensor:
    n = len(vector)
    swish = code / (1 + (-code).exp())
    hidden = (first[:, :n] @ vector + first[:, n:] @ swish).clamp(min=0)
    return vector / (1 + (-(second @ hidden)).exp())


def answer(vector: Tensor, mask: Tensor) -> Any:
    kept = [max(float(m), 0.0) * float(v) for v, m in zip(vector, mask)]
    length = math.sqrt(sum(x * x for x in kept))
    return [x / length if length else 0.0 for x in kept]
