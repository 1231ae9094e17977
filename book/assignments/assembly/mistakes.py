"""What the self-checks of assignment 4 look for; `make assignments` records the answers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course.exercises import Exercise

Layer = tuple[Tensor, Tensor]


def random(*shape: int, seed: int) -> Tensor:
    """Numbers that are the same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)


def projected(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]


def joined(top: Tensor, lower: Tensor) -> Tensor:
    return torch.cat([top, top + lower], dim=1)


def scores(keys: Tensor, queries: Tensor) -> Tensor:
    return torch.einsum("bchw,kc->bkhw", keys, queries) / math.sqrt(queries.shape[1])


def maps(values: Tensor) -> Tensor:
    return values.flatten(2).softmax(dim=2).view_as(values)


def gates(features: Tensor, weights: Tensor, kernel: Tensor, *, swapped: bool = False) -> Tensor:
    """Gates (B, K, H, W) from features under weights."""
    seen = weights[:, :, None] * features[:, None]
    pair = torch.stack([seen.mean(dim=2), seen.amax(dim=2)], dim=2)
    pair = (pair.flip(2) if swapped else pair).flatten(0, 1)
    size = kernel.shape[-1]
    return F.conv2d(pair, kernel[None], padding=size // 2).sigmoid().view_as(weights)


def pooled(features: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bchw,bkhw->bkc", features, weights)


def channel(v: Tensor, codes: Tensor, one: Layer, two: Layer, order: int = 1) -> Tensor:
    """What comes before the sigmoid of the channel gate, from codes that are activated already."""
    pair = [v, codes.expand(len(v), -1, -1)][::order]
    return F.linear(F.relu(F.linear(torch.cat(pair, dim=2), *one)), *two)


def unit(x: Tensor, dim: Any = 2) -> Tensor:
    return F.normalize(x, dim=dim)


def embedded(x: Tensor, w: Tensor, e: Tensor, m: Tensor, one: Layer, two: Layer) -> Tensor:
    """Before it gets length one."""
    v = pooled(x, w)
    return F.relu(m) * channel(v, F.silu(e), one, two).sigmoid() * v


def targets(attributes: Tensor, n: int) -> Tensor:
    return F.one_hot(attributes, n).double()


def bce(logits: Tensor, wanted: Tensor, reduction: str = "mean") -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction=reduction)


def tripled(attributes: Tensor, logits: Tensor) -> Tensor:
    return targets(attributes, logits.shape[1]).repeat(3, 1)


def below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


NAMES = [
    "scale",
    "backbone.stem.weight",
    "backbone.levels.1.weight",
    "backbone.levels.10.weight",
    "backbones.weight",
    "join.backbone.weight",
    "codes.weight",
]


def exercises(right: Mapping[str, Callable[..., Any]]) -> dict[str, Exercise]:
    """The checks by function name.

    Args:
        right: the functions of the solution.
    """
    return {
        "join_levels": Exercise(
            right=right["join_levels"],
            cases=(
                (
                    random(2, 3, 4, 6, seed=1),
                    random(2, 2, 2, 3, seed=2),
                    random(2, 3, seed=3),
                    random(2, seed=4),
                ),
                (
                    random(1, 2, 5, 3, seed=5),
                    random(1, 3, 3, 2, seed=6),
                    random(3, 2, seed=7),
                    random(3, seed=8),
                ),
            ),
            mistakes=(
                (
                    "the halves are the wrong way round: level 3 itself comes first.",
                    lambda a, b, w, c: torch.cat([b + projected(halved(a), w, c), b], dim=1),
                ),
                (
                    "level 3 is missing in the second half; add P to it.",
                    lambda a, b, w, c: torch.cat([b, projected(halved(a), w, c)], dim=1),
                ),
                (
                    "that is the second half only; put level 3 before it.",
                    lambda a, b, w, c: b + projected(halved(a), w, c),
                ),
                (
                    "the bias is missing.",
                    lambda a, b, w, c: joined(b, projected(halved(a), w, 0 * c)),
                ),
                (
                    "you took the mean of each window; the pool takes the largest.",
                    lambda a, b, w, c: joined(
                        b, projected(F.avg_pool2d(a, 3, 2, 1, count_include_pad=False), w, c)
                    ),
                ),
                (
                    "your windows are 2 x 2 and do not overlap; they are 3 x 3 with padding 1.",
                    lambda a, b, w, c: joined(
                        b, projected(F.max_pool2d(a, 2, ceil_mode=True), w, c)
                    ),
                ),
                (
                    "every second position was taken; take the largest of each window.",
                    lambda a, b, w, c: joined(b, projected(a[:, :, ::2, ::2], w, c)),
                ),
                (
                    "the convolution came before the pool; the largest of sums is another number.",
                    lambda a, b, w, c: joined(b, halved(projected(a, w, c))),
                ),
                (
                    "there is a ReLU too many; the join has no activation.",
                    lambda a, b, w, c: joined(b, F.relu(projected(halved(a), w, c))),
                ),
            ),
            hints=(
                "F.max_pool2d takes kernel_size, stride and padding.",
                'torch.einsum("oc,bchw->bohw", weight, small) is the convolution; add the bias.',
                "torch.cat([level3, level3 + lower], dim=1), with bias[:, None, None] in lower.",
            ),
        ),
        "position_weights": Exercise(
            right=right["position_weights"],
            cases=(
                (
                    random(2, 3, 2, 3, seed=11),
                    random(2, 3, 2, 3, seed=12).tanh(),
                    3 * random(2, 3, seed=13),
                    4 * random(2, 3, 3, seed=14),
                ),
                (
                    random(1, 2, 3, 2, seed=15),
                    random(1, 2, 3, 2, seed=16).tanh(),
                    3 * random(3, 2, seed=17),
                    4 * random(2, 1, 1, seed=18),
                ),
            ),
            mistakes=(
                (
                    "that is the map A alone; multiply it by the gate.",
                    lambda x, u, q, k: maps(scores(u, q)),
                ),
                (
                    "that is the gate alone; multiply it by the map A.",
                    lambda x, u, q, k: gates(x, maps(scores(u, q)), k),
                ),
                (
                    "the gate looked at the features themselves; it looks at A times the features.",
                    lambda x, u, q, k: (
                        maps(scores(u, q)) * gates(x, torch.ones_like(scores(u, q)), k)
                    ),
                ),
                (
                    "the gate looked at the keys under the map; it looks at the features.",
                    lambda x, u, q, k: maps(scores(u, q)) * gates(u, maps(scores(u, q)), k),
                ),
                (
                    "tanh was taken of the keys once more; they have been through it.",
                    lambda x, u, q, k: (
                        maps(scores(u.tanh(), q)) * gates(x, maps(scores(u.tanh(), q)), k)
                    ),
                ),
                (
                    "the scores come from the features; they come from the keys.",
                    lambda x, u, q, k: maps(scores(x, q)) * gates(x, maps(scores(x, q)), k),
                ),
                (
                    "the softmax lets the questions compete; it runs over the positions of a map.",
                    lambda x, u, q, k: (
                        scores(u, q).softmax(dim=1) * gates(x, scores(u, q).softmax(dim=1), k)
                    ),
                ),
                (
                    "each row of a map sums to one; flatten the positions before the softmax.",
                    lambda x, u, q, k: (
                        scores(u, q).softmax(dim=3) * gates(x, scores(u, q).softmax(dim=3), k)
                    ),
                ),
                (
                    "the scores are not divided by the square root of the number of channels.",
                    lambda x, u, q, k: (
                        maps(scores(u, q) * q.shape[1] ** 0.5)
                        * gates(x, maps(scores(u, q) * q.shape[1] ** 0.5), k)
                    ),
                ),
                (
                    "mean and maximum are the wrong way round: the kernel's first channel is for "
                    "the mean.",
                    lambda x, u, q, k: (
                        maps(scores(u, q)) * gates(x, maps(scores(u, q)), k, swapped=True)
                    ),
                ),
                (
                    "there is no sigmoid; a gate lies between 0 and 1.",
                    lambda x, u, q, k: maps(scores(u, q)) * gates(x, maps(scores(u, q)), k).logit(),
                ),
            ),
            hints=(
                "The map of part 1 of assignment 3, for b and k at once: einsum with "
                '"bchw,kc->bkhw", then flatten(2) before the softmax.',
                "A[:, :, None] * features[:, None] is (B, K, C, H, W); mean and amax over dim=2 "
                "are what the gate sees.",
                "torch.stack([mean, maximum], dim=2).flatten(0, 1) is a batch of B K pictures with "
                "two channels for F.conv2d; view_as(A) puts the gates back.",
            ),
        ),
        "embed": Exercise(
            right=right["embed"],
            cases=(
                (
                    random(2, 3, 2, 2, seed=21),
                    random(2, 2, 2, 2, seed=22).abs(),
                    random(2, 3, seed=23),
                    random(2, 3, seed=24) + torch.tensor([0.0, 1.0, 1.0]),
                    (random(4, 6, seed=25), random(4, seed=26)),
                    (random(3, 4, seed=27), random(3, seed=28)),
                ),
                (
                    random(1, 2, 1, 3, seed=29),
                    random(1, 2, 1, 3, seed=30).abs(),
                    random(2, 2, seed=31),
                    torch.tensor([[1.0, 0.5], [-1.0, 0.0]], dtype=torch.float64),
                    (random(3, 4, seed=32), random(3, seed=33)),
                    (random(2, 3, seed=34), random(2, seed=35)),
                ),
            ),
            mistakes=(
                (
                    "the embeddings do not have length one.",
                    embedded,
                ),
                (
                    "where the mask leaves nothing you divide zero by zero; guard the division.",
                    lambda *given: embedded(*given) / embedded(*given).norm(dim=2, keepdim=True),
                ),
                (
                    "all questions of a photo share one length; each embedding has length one.",
                    lambda *given: unit(embedded(*given), dim=(1, 2)),
                ),
                (
                    "the negative part of the masks is still there.",
                    lambda x, w, e, m, one, two: unit(
                        m * channel(pooled(x, w), F.silu(e), one, two).sigmoid() * pooled(x, w)
                    ),
                ),
                (
                    "the mask came before the channel gate, which should see v as it is.",
                    lambda x, w, e, m, one, two: unit(
                        channel(F.relu(m) * pooled(x, w), F.silu(e), one, two).sigmoid()
                        * F.relu(m)
                        * pooled(x, w)
                    ),
                ),
                (
                    "the gate took the place of v; multiply the two.",
                    lambda x, w, e, m, one, two: unit(
                        F.relu(m) * channel(pooled(x, w), F.silu(e), one, two).sigmoid()
                    ),
                ),
                (
                    "the code comes first in your pair; v does: [v ; SiLU(e)].",
                    lambda x, w, e, m, one, two: unit(
                        F.relu(m)
                        * channel(pooled(x, w), F.silu(e), one, two, -1).sigmoid()
                        * pooled(x, w)
                    ),
                ),
                (
                    "the codes did not go through SiLU.",
                    lambda x, w, e, m, one, two: unit(
                        F.relu(m) * channel(pooled(x, w), e, one, two).sigmoid() * pooled(x, w)
                    ),
                ),
                (
                    "the two layers have biases; add them.",
                    lambda x, w, e, m, one, two: unit(
                        F.relu(m)
                        * channel(
                            pooled(x, w), F.silu(e), (one[0], 0 * one[1]), (two[0], 0 * two[1])
                        ).sigmoid()
                        * pooled(x, w)
                    ),
                ),
                (
                    "v is the mean over positions; the weights say all, so sum.",
                    lambda x, w, e, m, one, two: unit(
                        embedded(x, w / x[0, 0].numel(), e, m, one, two)
                    ),
                ),
            ),
            hints=(
                'torch.einsum("bchw,bkhw->bkc", features, weights) is v; the codes are the same '
                "for every photo.",
                "F.silu(codes).expand(B, -1, -1) can be put behind v along the last axis; "
                "F.linear(x, *first) is a layer with its bias.",
                "F.normalize(..., dim=2) of relu(masks) * sigmoid(second layer) * v guards the "
                "division too.",
            ),
        ),
        "attribute_targets": Exercise(
            right=right["attribute_targets"],
            cases=((torch.tensor([1, 0, 1, 3]), 5), (torch.tensor([0, 2]), 3)),
            mistakes=(
                (
                    "rows and columns are exchanged: one row for each photo.",
                    lambda a, n: targets(a, n).T,
                ),
                (
                    "your ids begin with 1; the first attribute is number 0.",
                    lambda a, n: targets((a - 1) % n, n),
                ),
                (
                    "zeros and ones are exchanged: the asked attribute has the one.",
                    lambda a, n: 1 - targets(a, n),
                ),
                (
                    "every row marks all attributes of the batch; each photo has its own.",
                    lambda a, n: targets(a, n).amax(dim=0).expand(len(a), -1),
                ),
                (
                    "the number of columns follows from the ids; it has to be n, since an "
                    "attribute may be absent from a batch.",
                    lambda a, n: targets(a, int(a.max()) + 1),
                ),
            ),
            hints=(
                "F.one_hot makes rows of zeros with a single one.",
                "Give it the number of classes too.",
                "F.one_hot(attributes, n).float()",
            ),
        ),
        "class_loss": Exercise(
            right=right["class_loss"],
            cases=(
                (2 * random(6, 4, seed=41), torch.tensor([2, 0])),
                (2 * random(9, 3, seed=42), torch.tensor([1, 0, 2])),
            ),
            mistakes=(
                (
                    "the targets stand photo by photo; the rows are all anchors, then all "
                    "positives, then all negatives, so repeat the whole block.",
                    lambda y, a: bce(y, targets(a, y.shape[1]).repeat_interleave(3, dim=0)),
                ),
                (
                    "that is the cross-entropy of a softmax; here every number is a yes or no of "
                    "its own.",
                    lambda y, a: F.cross_entropy(y, a.repeat(3)),
                ),
                (
                    "you summed over everything; take the mean.",
                    lambda y, a: bce(y, tripled(a, y), "sum"),
                ),
                (
                    "you summed over attributes; the mean runs over photos and attributes.",
                    lambda y, a: bce(y, tripled(a, y)) * y.shape[1],
                ),
                (
                    "you added the losses of anchors, positives and negatives; take their mean.",
                    lambda y, a: bce(y, tripled(a, y)) * 3,
                ),
                (
                    "only the anchors are in it; all three photos of a triplet are.",
                    lambda y, a: bce(y[: len(a)], targets(a, y.shape[1])),
                ),
                (
                    "the sigmoid was taken twice; ...with_logits takes it itself.",
                    lambda y, a: bce(y.sigmoid(), tripled(a, y)),
                ),
                (
                    "the other attributes cost nothing in your loss; each wrong yes does.",
                    lambda y, a: -(F.logsigmoid(y) * tripled(a, y)).mean(),
                ),
                (
                    "the sign is turned: a loss is the negative logarithm.",
                    lambda y, a: -bce(y, tripled(a, y)),
                ),
            ),
            hints=(
                "F.binary_cross_entropy_with_logits takes logits and targets of the same shape.",
                "targets.repeat(3, 1) puts the block of targets three times one below the other.",
                "F.binary_cross_entropy_with_logits(logits, targets.repeat(3, 1))",
            ),
        ),
        "weigh_losses": Exercise(
            right=right["weigh_losses"],
            cases=(
                (torch.tensor([0.2, 1.5]), torch.tensor([1.0, -0.5])),
                (torch.tensor([0.4, 0.1, 0.8]), torch.tensor([0.3, 2.0, -1.0])),
            ),
            mistakes=(
                (
                    "the sign in the exponent is turned; that is the form of Kendall and others, "
                    "and not what was released.",
                    lambda x, p: (0.5 * (-p).exp() * x + p).sum(),
                ),
                (
                    "that is the whole form of Kendall and others; the released one has exp(+p) "
                    "and a whole p.",
                    lambda x, p: (0.5 * (-p).exp() * x + 0.5 * p).sum(),
                ),
                ("the one half is missing.", lambda x, p: (p.exp() * x + p).sum()),
                ("the p itself is missing.", lambda x, p: (0.5 * p.exp() * x).sum()),
                (
                    "the one half belongs to the weight alone, not to p.",
                    lambda x, p: 0.5 * (p.exp() * x + p).sum(),
                ),
                (
                    "you took the mean; the total is a sum.",
                    lambda x, p: (0.5 * p.exp() * x + p).mean(),
                ),
                (
                    "these are the parts; the total is their sum.",
                    lambda x, p: 0.5 * p.exp() * x + p,
                ),
            ),
            hints=(
                "powers.exp() takes the exponential of each power.",
                "Each loss has the weight 0.5 * powers.exp(); its power is added.",
                "Sum weight * loss + power over the losses.",
            ),
        ),
        "next_powers": Exercise(
            right=right["next_powers"],
            cases=(
                (torch.tensor([0.2, 1.5]), torch.tensor([1.0, -0.5]), 0.1),
                (torch.tensor([0.4, 0.0, 0.8]), torch.tensor([0.3, 2.0, -1.0]), 0.3),
            ),
            mistakes=(
                (
                    "that goes uphill; gradient descent takes the gradient away.",
                    lambda x, p, r: p + r * (0.5 * p.exp() * x + 1),
                ),
                (
                    "the derivative of the added p is missing.",
                    lambda x, p, r: p - r * 0.5 * p.exp() * x,
                ),
                (
                    "the learning rate has no effect.",
                    lambda x, p, r: p - (0.5 * p.exp() * x + 1),
                ),
                (
                    "that is the gradient; take a step from the powers.",
                    lambda x, p, r: 0.5 * p.exp() * x + 1,
                ),
                (
                    "that is the step; take it away from the powers.",
                    lambda x, p, r: r * (0.5 * p.exp() * x + 1),
                ),
                (
                    "that is the derivative by the losses; the powers are to learn.",
                    lambda x, p, r: p - r * 0.5 * p.exp(),
                ),
                (
                    "the weight of the loss is missing in the derivative: exp(p) stays in it.",
                    lambda x, p, r: p - r * (0.5 * x + 1),
                ),
                (
                    "the one half is missing in the derivative.",
                    lambda x, p, r: p - r * (p.exp() * x + 1),
                ),
            ),
            hints=(
                "The derivative of exp(p) is exp(p), and that of p is 1.",
                "Or: p = powers.clone().requires_grad_(), the total of p, backward(), p.grad.",
                "The derivative is 0.5 * exp(p) * loss + 1; take rate times it from the powers.",
            ),
        ),
        "trainable": Exercise(
            right=right["trainable"],
            cases=(
                (NAMES, ["backbone"]),
                (NAMES, ["backbone.levels.1", "codes"]),
                (NAMES, []),
            ),
            mistakes=(
                (
                    "True and False are exchanged: True is what trains.",
                    lambda names, frozen: [any(below(n, f) for f in frozen) for n in names],
                ),
                (
                    "a name that only begins with the same letters is frozen too; a part ends "
                    "at a dot.",
                    lambda names, frozen: [not n.startswith(tuple(frozen)) for n in names],
                ),
                (
                    "a frozen name is found in the middle of another; compare from the start.",
                    lambda names, frozen: [not any(f in n for f in frozen) for n in names],
                ),
                (
                    "a part inside of another part of that name is frozen too; compare from the "
                    "start.",
                    lambda names, frozen: [not any(f"{f}." in n for f in frozen) for n in names],
                ),
                (
                    "only the first word of a name is compared; parts deeper down can be frozen "
                    "as well.",
                    lambda names, frozen: [n.split(".")[0] not in frozen for n in names],
                ),
                (
                    "only names that are equal are frozen; freeze what lies below a part too.",
                    lambda names, frozen: [n not in frozen for n in names],
                ),
                (
                    "only the first of the frozen parts counts; all of them do.",
                    lambda names, frozen: [not any(below(n, f) for f in frozen[:1]) for n in names],
                ),
            ),
            hints=(
                "name.startswith(...) compares from the start.",
                "A dot behind the part keeps levels.1 apart from levels.10.",
                'A name trains if no part has (name + ".").startswith(part + ".").',
            ),
        ),
    }
