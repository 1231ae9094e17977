"""What the self-checks of assignment 2 look for; `make assignments` records the answers only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course.assignments import asked_about
from agman.course.exercises import Exercise, Named


def random(*shape: int, seed: int) -> Tensor:
    """Numbers that are the same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def losses(a: Tensor, p: Tensor, n: Tensor, margin: float, *, unit: bool = True) -> Tensor:
    if unit:
        a, p, n = (F.normalize(part, dim=1) for part in (a, p, n))
    return margin + (a * n).sum(dim=1) - (a * p).sum(dim=1)


def both(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss and share of easy triplets, from losses before the hinge."""
    return values.clamp(min=0).mean(), (values <= 0).double().mean()


TABLE = [0, 0, 1, 2, 2, 2]
facts = asked_about("draw_triplets")
BATCH = tuple(random(6, 4, seed=seed) * scale for seed, scale in ((1, 2.0), (2, 1.0), (3, 3.0)))
ORDERED = (torch.eye(3), torch.eye(3), -torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, -0.5]]))


def chosen(
    similarity: Tensor,
    positive: Tensor,
    allowed: Tensor,
    margin: float,
    *,
    semi: bool = True,
    behind: bool = True,
    masked: bool = True,
    nearest: bool = True,
    last: bool = False,
    none: int = -1,
) -> Tensor:
    """The rule of part 4, or with one thing changed."""
    answers = []
    for row, plus, free in zip(similarity.tolist(), positive.tolist(), allowed.tolist()):
        usable = [n for n in range(len(row)) if free[n] or not masked]
        ahead = [n for n in usable if row[n] < plus] if behind else usable
        inside = [n for n in ahead if row[n] > plus - margin] if semi else ahead
        pick = max if nearest else min
        if inside or ahead:
            answers.append(pick(inside or ahead, key=row.__getitem__))
        elif usable:
            answers.append((max if last else min)(usable, key=row.__getitem__))
        else:
            answers.append(none)
    return torch.tensor(answers)


SIMILARITY = torch.tensor(
    [
        [0.9, 0.7, 0.5, 0.1, 0.65],
        [0.9, 0.95, 0.2, 0.3, 0.1],
        [0.7, 0.8, 0.9, 0.75, 0.85],
        [0.4, 0.3, 0.2, 0.1, 0.0],
        [0.5, 0.2, 0.75, 0.6, 0.1],
    ]
)
POSITIVE = torch.tensor([0.8, 0.8, 0.6, 0.5, 0.7])
ALLOWED = torch.tensor(
    [[1, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 1]]
).bool()


def apart(f: Tensor, g: Tensor) -> Tensor:
    return f[:, None] - g[None]


def drawn_wrongly(right: Mapping[str, Callable[..., Any]]) -> list[Named]:
    """Mistakes at drawing triplets."""
    draw = right["draw_triplets"]

    def any_other(values: list[int], count: int, seed: int, part: int) -> list[list[int]]:
        """One part of each row is any photo but the anchor."""
        rows = draw(values, count, seed)
        for number, row in enumerate(rows):
            row[part] = (row[0] + 1 + number % (len(values) - 1)) % len(values)
        return rows

    def unseeded(values: list[int], count: int, seed: int) -> list[list[int]]:
        return draw(values, count, torch.seed())

    return [
        (
            "positive and negative are exchanged: anchor, positive, negative is the order.",
            lambda v, c, s: [[a, n, p] for a, p, n in draw(v, c, s)],
        ),
        (
            "an anchor is its own positive; take another photo of its value.",
            lambda v, c, s: [[a, a, n] for a, _, n in draw(v, c, s)],
        ),
        (
            "a positive has another value than its anchor.",
            lambda v, c, s: any_other(v, c, s, 1),
        ),
        (
            "a negative has the value of its anchor.",
            lambda v, c, s: any_other(v, c, s, 2),
        ),
        (
            "the same seed gives other rows; make a generator of your own from it.",
            unseeded,
        ),
        (
            "there are no rows although the table has triplets.",
            lambda v, c, s: [],
        ),
        (
            "one row too few or too many was drawn; there should be `count`.",
            lambda v, c, s: draw(v, c + 1 if c else 0, s)[: c + 1],
        ),
    ]


def exercises(right: Mapping[str, Callable[..., Any]]) -> dict[str, Exercise]:
    """The checks by function name.

    Args:
        right: the functions of the solution.
    """
    return {
        "loss_and_easy": Exercise(
            right=right["loss_and_easy"],
            cases=((*BATCH, 0.3), (*(part[:3] for part in BATCH), 1.0), (*ORDERED, 0.1)),
            mistakes=(
                (
                    "positive and negative are exchanged.",
                    lambda a, p, n, m: both(losses(a, n, p, m)),
                ),
                (
                    "the embeddings are not divided by their lengths.",
                    lambda a, p, n, m: both(losses(a, p, n, m, unit=False)),
                ),
                (
                    "losses below zero were kept; a triplet in order costs nothing.",
                    lambda a, p, n, m: (losses(a, p, n, m).mean(), both(losses(a, p, n, m))[1]),
                ),
                (
                    "the mean was cut off at zero, not each triplet; the hinge comes first.",
                    lambda a, p, n, m: (
                        losses(a, p, n, m).mean().clamp(min=0),
                        both(losses(a, p, n, m))[1],
                    ),
                ),
                (
                    "this is the share of triplets that still cost something; 1 less it is easy.",
                    lambda a, p, n, m: (
                        both(losses(a, p, n, m))[0],
                        1 - both(losses(a, p, n, m))[1],
                    ),
                ),
                (
                    "the margin has the wrong sign: it makes the task harder, so add it.",
                    lambda a, p, n, m: both(losses(a, p, n, -m)),
                ),
                (
                    "the losses were summed; take the mean.",
                    lambda a, p, n, m: (
                        both(losses(a, p, n, m))[0] * len(a),
                        both(losses(a, p, n, m))[1],
                    ),
                ),
            ),
            hints=(
                "F.normalize(x, dim=1) gives each row length one.",
                "(a * p).sum(dim=1) are the similarities with the positives.",
                "(margin + s_negative - s_positive).clamp(min=0); then .mean() and (== 0)'s mean.",
            ),
        ),
        "draw_triplets": Exercise(
            right=facts(right["draw_triplets"]),
            cases=((TABLE, 60, 0), ([1, 1, 1], 4, 0), ([1, 2, 3], 4, 1), ([], 2, 0)),
            mistakes=[(sentence, facts(wrong)) for sentence, wrong in drawn_wrongly(right)],
            hints=(
                "Collect the positions of each value first; only values with two photos have "
                "anchors.",
                "random.Random(seed) is a generator of your own; choice() draws from a list.",
                "Draw the positive from the others of the anchor's value, the negative from all "
                "of another value; nothing has to be tried again.",
            ),
        ),
        "batch_spread": Exercise(
            right=right["batch_spread"],
            cases=((5 * random(6, 3, seed=4),), (torch.tensor([[0.0, 0.0], [3.0, 4.0]]),)),
            mistakes=(
                (
                    "the embeddings are not divided by their lengths.",
                    lambda x: (x - x.mean(0)).square().sum(1).mean(),
                ),
                (
                    "a vector of zeros gives NaN; guard the division.",
                    lambda x: (
                        (
                            (x / x.norm(dim=1, keepdim=True))
                            - (x / x.norm(dim=1, keepdim=True)).mean(0)
                        )
                        .square()
                        .sum(1)
                        .mean()
                    ),
                ),
                (
                    "the mean runs over dimensions too; sum over them.",
                    lambda x: (F.normalize(x) - F.normalize(x).mean(0)).square().mean(),
                ),
                (
                    "these are distances; square them.",
                    lambda x: (F.normalize(x) - F.normalize(x).mean(0)).norm(dim=1).mean(),
                ),
                (
                    "the mean was taken over each row; each dimension has its own mean over the "
                    "batch.",
                    lambda x: (
                        (F.normalize(x) - F.normalize(x).mean(1, keepdim=True))
                        .square()
                        .sum(1)
                        .mean()
                    ),
                ),
                (
                    "you divided by one less than the batch; here it is a plain mean.",
                    lambda x: F.normalize(x).var(dim=0).sum(),
                ),
            ),
            hints=(
                "F.normalize(embeddings, dim=1) leaves vectors of zeros as they are.",
                "unit.mean(dim=0) is the mean vector of the batch.",
                "(unit - unit.mean(dim=0)).square().sum(dim=1).mean()",
            ),
        ),
        "semi_hard": Exercise(
            right=right["semi_hard"],
            cases=((SIMILARITY, POSITIVE, ALLOWED, 0.2), (SIMILARITY, POSITIVE, ALLOWED, 0.9)),
            mistakes=(
                (
                    "candidates of the anchor's own value were chosen; only those allowed count.",
                    lambda s, p, a, m: chosen(s, p, a, m, masked=False),
                ),
                (
                    "that is the hardest negative; it must be less similar than the positive.",
                    lambda s, p, a, m: chosen(s, p, a, m, behind=False, semi=False),
                ),
                (
                    "of the semi-hard ones take the most similar, not the least.",
                    lambda s, p, a, m: chosen(s, p, a, m, nearest=False),
                ),
                (
                    "if all are nearer than the positive, take the least similar of them.",
                    lambda s, p, a, m: chosen(s, p, a, m, last=True),
                ),
                (
                    "where nothing is allowed the answer is -1.",
                    lambda s, p, a, m: chosen(s, p, a, m, none=0),
                ),
                (
                    "these are similarities, not distances: less similar means a smaller number.",
                    lambda s, p, a, m: chosen(-s, -p, a, m),
                ),
            ),
            hints=(
                "Work row by row: first the candidates that are allowed.",
                "Of those the ones below the positive; of those the ones above it less the margin.",
                "max(list, key=row.__getitem__) finds the most similar; min(..., default=-1) ends.",
            ),
        ),
        "masked_distances": Exercise(
            right=right["masked_distances"],
            cases=(
                (random(3, 4, seed=5), random(2, 4, seed=6), random(5, 4, seed=7)),
                (random(2, 3, seed=8), random(2, 3, seed=9), random(2, 3, seed=10)),
            ),
            mistakes=(
                (
                    "the negative part of the masks is still there.",
                    lambda f, g, m: (m[:, None, None] * apart(f, g)).norm(dim=3),
                ),
                (
                    "these are squared distances; take the root.",
                    lambda f, g, m: (m.relu()[:, None, None] * apart(f, g)).square().sum(3),
                ),
                (
                    "the mask was applied to one of the two only.",
                    lambda f, g, m: (
                        m.relu()[:, None, None] * f[None, :, None] - g[None, None]
                    ).norm(dim=3),
                ),
                (
                    "the axes are in another order: first attributes, then some, then others.",
                    lambda f, g, m: (m.relu()[:, None, None] * apart(f, g)).norm(dim=3).mT,
                ),
                (
                    "the mask weighs the squares; it is inside them.",
                    lambda f, g, m: (m.relu()[:, None, None] * apart(f, g).square()).sum(3).sqrt(),
                ),
                (
                    "these are sums of absolute differences; the length is the root of the sum of "
                    "squares.",
                    lambda f, g, m: (m.relu()[:, None, None] * apart(f, g)).abs().sum(3),
                ),
            ),
            hints=(
                "some[:, None] - others[None] has the shape (N, M, D).",
                "masks.relu()[:, None, None] has the shape (A, 1, 1, D).",
                "Their product's norm over the last axis: .norm(dim=3)",
            ),
        ),
    }
