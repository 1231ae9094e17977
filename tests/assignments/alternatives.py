"""A right answer to each task, written differently from the solution."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from agman import metrics

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


# --- assembly -------------------------------------------------------------------------------------


def join_levels(level2: Tensor, level3: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    height, width = level3.shape[2:]
    padded = torch.nn.functional.pad(level2, (1, 2, 1, 2), value=-math.inf)
    windows = [
        padded[:, :, i : i + 2 * height : 2, j : j + 2 * width : 2]
        for i in range(3)
        for j in range(3)
    ]
    small = torch.stack(windows).max(dim=0).values.movedim(1, 3)  # (B, H, W, C2)
    lower = (small @ weight.T + bias).movedim(3, 1)
    return torch.cat([level3, lower + level3], dim=1)


def position_weights(features: Tensor, keys: Tensor, queries: Tensor, kernel: Tensor) -> Tensor:
    channels, (height, width) = keys.shape[1], keys.shape[2:]
    result = torch.zeros(len(keys), len(queries), height, width, dtype=features.dtype)
    for b in range(len(keys)):
        for k in range(len(queries)):
            scores = (queries[k] @ keys[b].flatten(1)) / math.sqrt(channels)
            where = torch.softmax(scores, 0).view(height, width)
            seen = where * features[b]
            both = torch.stack([seen.sum(0) / channels, seen.max(0).values])[None]
            edge = kernel.shape[-1] // 2
            opened = torch.conv2d(both, kernel[None], padding=edge)[0, 0]
            result[b, k] = where / (1 + torch.exp(-opened))
    return result


def embed(
    features: Tensor, weights: Tensor, codes: Tensor, masks: Tensor, first: Any, second: Any
) -> Tensor:
    rows = []
    for b in range(len(features)):
        for k in range(len(codes)):
            vector = (features[b] * weights[b, k]).sum(dim=(1, 2))
            code = codes[k] / (1 + torch.exp(-codes[k]))
            hidden = (first[0] @ torch.cat([vector, code]) + first[1]).clamp(min=0)
            gate = 1 / (1 + torch.exp(-(second[0] @ hidden + second[1])))
            kept = masks[k].clamp(min=0) * gate * vector
            rows.append(kept / kept.norm() if kept.norm() > 0 else kept)
    return torch.stack(rows).view(len(features), len(codes), -1)


def attribute_targets(attributes: Tensor, n: int) -> Tensor:
    rows = torch.zeros(len(attributes), n)
    for row, attribute in zip(rows, attributes.tolist()):
        row[attribute] = 1
    return rows


def class_loss(logits: Tensor, attributes: Tensor) -> Tensor:
    signs = 2 * attribute_targets(attributes, logits.shape[1]) - 1
    wrong = -logits * torch.cat([signs, signs, signs])
    return (wrong.clamp(min=0) + (1 + (-wrong.abs()).exp()).log()).mean()


def weigh_losses(losses: Tensor, powers: Tensor) -> float:
    return sum(
        0.5 * math.exp(p) * loss + p
        for loss, p in zip(losses.tolist(), powers.tolist(), strict=True)
    )


def next_powers(losses: Tensor, powers: Tensor, rate: float) -> Tensor:
    moving = powers.clone().requires_grad_()
    total = (0.5 * moving.exp() * losses + moving).sum()
    (slope,) = torch.autograd.grad(total, moving)
    return powers - rate * slope


def trainable(names: list[str], frozen: list[str]) -> list[bool]:
    parts = [name.split(".") for name in frozen]
    return [all(name.split(".")[: len(part)] != part for part in parts) for name in names]


# --- research -------------------------------------------------------------------------------------


def t_factor(level: float, degrees: int) -> float:
    """As the notebook gives it, from the package's own intervals."""
    values = torch.arange(degrees + 1.0, dtype=torch.float64)
    mean, low, _ = metrics.t_interval(values, level)
    return (mean - low) / float(values.std() / len(values) ** 0.5)


def paired_interval(a: dict[str, float], b: dict[str, float], level: float) -> Any:
    shared = sorted(set(a) & set(b))
    if not shared:
        return [math.nan, -math.inf, math.inf]
    gains = torch.tensor([a[seed] - b[seed] for seed in shared], dtype=torch.float64)
    if len(shared) == 1:
        return [float(gains), -math.inf, math.inf]
    return metrics.t_interval(gains, level)


def undecided(low: float, high: float) -> bool:
    return math.isnan(low) or math.isnan(high) or low <= 0 <= high


def corrected_level(level: float, rows: int) -> float:
    return (level + rows - 1) / rows


def seeds_needed(pilot: list[float], difference: float, level: float) -> int:
    spread = float(torch.tensor(pilot, dtype=torch.float64).std())
    return next(
        n for n in range(2, 10_000) if t_factor(level, n - 1) * spread < difference * math.sqrt(n)
    )


def results_table(runs: dict[str, dict[str, float]], reference: str, level: float) -> Any:
    rows = []
    for name, found in runs.items():
        if name == reference:
            continue
        inside = corrected_level(level, len(runs) - 1)
        interval = paired_interval(found, runs[reference], inside)
        shared = sum(seed in runs[reference] for seed in found)
        rows.append([*interval, shared, float(undecided(*interval[1:]))])
    return rows


# --- ranking --------------------------------------------------------------------------------------


def precision_and_recall(scores: Tensor, relevant: Tensor) -> list[list[float]]:
    pairs = sorted(zip(scores.tolist(), relevant.tolist(), strict=True), reverse=True)
    total, found, precision, recall = sum(relevant.tolist()), 0, [], []
    for rank, (_, hit) in enumerate(pairs, start=1):
        found += hit
        precision.append(found / rank)
        recall.append(found / total if total else math.nan)
    return [precision, recall]


def fair_average_precision(scores: Tensor, relevant: Tensor) -> float:
    total = 0.0
    for score in scores[relevant]:
        above = relevant[scores >= score]
        total += float(above.sum()) / len(above)
    return total / int(relevant.sum()) if relevant.any() else math.nan


def luck(scores: Tensor, relevant: Tensor) -> list[float]:
    found = []
    for push in (-1.0, 1.0):  # far less than any difference of scores
        pushed = scores.double() + push * 1e-9 * relevant
        order = pushed.argsort(descending=True)
        ranked = relevant[order].double()
        total = sum(float(ranked[: t + 1].mean()) for t in range(len(ranked)) if ranked[t])
        found.append(total / float(ranked.sum()))
    return found


def map_of_attributes(ap: Tensor, attributes: Tensor, n_attributes: int) -> list[float]:
    means = []
    for attribute in range(n_attributes):
        kept = [
            value
            for value, asked in zip(ap.tolist(), attributes.tolist(), strict=True)
            if asked == attribute and not math.isnan(value)
        ]
        means.append(sum(kept) / len(kept) if kept else math.nan)
    return means


def search_scores(queries: dict[str, Tensor], gallery: dict[str, Tensor]) -> Tensor:
    found = []
    for q, image, value in zip(*(queries[k] for k in ("embeddings", "images", "values"))):
        cosine = torch.cosine_similarity(gallery["embeddings"], q[None], dim=1)
        others = [i for i in range(len(cosine)) if gallery["images"][i] != image]
        found.append(fair_average_precision(cosine[others], (gallery["values"] == value)[others]))
    return torch.tensor(found, dtype=torch.float64)


# --- triplets -------------------------------------------------------------------------------------


def loss_and_easy(
    anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float
) -> list[float]:
    plus = torch.cosine_similarity(anchors, positives).tolist()
    minus = torch.cosine_similarity(anchors, negatives).tolist()
    losses = [max(0.0, margin + n - p) for p, n in zip(plus, minus, strict=True)]
    return [sum(losses) / len(losses), losses.count(0.0) / len(losses)]


def draw_triplets(values: list[int], count: int, seed: int) -> list[list[int]]:
    every = [
        [a, p, n]
        for a in range(len(values))
        for p in range(len(values))
        for n in range(len(values))
        if a != p and values[a] == values[p] != values[n]
    ]
    random = torch.Generator().manual_seed(seed)
    if not every:
        return []
    return [every[i] for i in torch.randint(len(every), (count,), generator=random).tolist()]


def batch_spread(embeddings: Tensor) -> float:
    lengths = embeddings.norm(dim=1, keepdim=True)
    unit = embeddings / torch.where(lengths == 0, 1, lengths)
    return float(unit.square().sum(1).mean() - unit.mean(0).square().sum())


def semi_hard(similarity: Tensor, positive: Tensor, allowed: Tensor, margin: float) -> Tensor:
    plus = positive[:, None]
    behind = allowed & (similarity < plus)
    semi = behind & (similarity > plus - margin)
    kept = torch.where(semi.any(1, keepdim=True), semi, behind)
    nearest = similarity.masked_fill(~kept, -math.inf).argmax(dim=1)
    farthest = similarity.masked_fill(~allowed, math.inf).argmin(dim=1)
    found = torch.where(behind.any(dim=1), nearest, farthest)
    return torch.where(allowed.any(dim=1), found, -1)


def masked_distances(some: Tensor, others: Tensor, masks: Tensor) -> Tensor:
    return torch.stack(
        [torch.cdist(some * mask.clamp(min=0), others * mask.clamp(min=0)) for mask in masks]
    )
