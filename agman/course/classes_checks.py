"""Self-checks of the exercises in "Classes that ignore values"; see `agman.course.exercises`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agman.course.exercises import Exercise, report
from agman.losses import LearnedWeighting

__all__ = ["check_class_loss", "check_lowest_loss", "check_settled_weight"]


def check_class_loss(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(logits, targets)`, the loss of the classification branch.

    Args:
        function: takes (B, A) logits and (B, A) targets of 0 and 1, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _CLASS_LOSS, hint)


def check_lowest_loss(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(counts)`, the lowest loss that one answer per image can reach.

    Args:
        function: takes (N, A), how often each image was drawn for each attribute, returns a
            number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _LOWEST, hint)


def check_settled_weight(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(loss)`, the weight at which `LearnedWeighting` comes to rest.

    Args:
        function: takes a number of at least 0, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _SETTLED, hint)


# --- the loss of the branch -----------------------------------------------------------------------


def _batch(n_images: int, n_attributes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits, and targets with one 1 or several in a row."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n_images, n_attributes, generator=random, dtype=torch.float64)
    targets = (torch.rand(n_images, n_attributes, generator=random) < 0.4).double()
    targets[range(n_images), torch.arange(n_images) % n_attributes] = 1
    return logits, targets


_CLASS_LOSS = Exercise(
    right=lambda x, t: F.binary_cross_entropy_with_logits(x, t),
    cases=(_batch(3, 4, seed=0), _batch(5, 3, seed=1), (torch.zeros(2, 2), torch.eye(2))),
    mistakes=(
        (
            "that is softmax cross-entropy, in which the attributes compete; here each has a "
            "sigmoid of its own.",
            lambda x, t: -(t * x.log_softmax(1)).sum(1).mean(),
        ),
        (
            "you took the sigmoid twice; the logits need it once.",
            lambda x, t: F.binary_cross_entropy_with_logits(x.sigmoid(), t),
        ),
        (
            "the attributes with target 0 cost nothing in your loss; add (1 - t) log(1 - p).",
            lambda x, t: -(t * F.logsigmoid(x)).mean(),
        ),
        (
            "you averaged over the targets that are 1 only; average over all B * A.",
            lambda x, t: -(t * F.logsigmoid(x)).sum() / t.sum(),
        ),
        (
            "you summed over the attributes; take the mean over images and attributes.",
            lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum") / len(x),
        ),
        (
            "that is the sum over the batch; take the mean over images and attributes.",
            lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum"),
        ),
        (
            "the sign is wrong; logarithms of probabilities are negative and the loss is not.",
            lambda x, t: -F.binary_cross_entropy_with_logits(x, t),
        ),
        (
            "targets 0 and 1 are exchanged.",
            lambda x, t: F.binary_cross_entropy_with_logits(x, 1 - t),
        ),
    ),
    hints=(
        "Make each logit a probability p with a sigmoid.",
        "A target of 1 costs -log p, a target of 0 costs -log(1 - p).",
        "The mean over all B * A numbers is the answer.",
    ),
)

# --- the lowest loss ------------------------------------------------------------------------------


def _lowest(counts: Tensor) -> Tensor:
    drawn = counts.sum(1)
    entropy = _entropies(counts).mean(1)
    return (entropy * drawn).sum() / drawn.sum()


def _shares(counts: Tensor) -> Tensor:
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


def _entropies(counts: Tensor) -> Tensor:
    p = _shares(counts.double())
    return torch.special.entr(p) + torch.special.entr(1 - p)


def _undefined_at_zero(counts: Tensor) -> Tensor:
    p = _shares(counts.double())
    return -(p * p.log() + (1 - p) * (1 - p).log()).mean()


def _one_sided(counts: Tensor) -> Tensor:
    drawn = counts.sum(1)
    return (torch.special.entr(_shares(counts.double())).mean(1) * drawn).sum() / drawn.sum()


def _most_frequent(counts: Tensor) -> Tensor:
    """The share of draws that the likeliest attribute of each image misses."""
    return 1 - counts.amax(1).sum() / counts.sum()


_LOWEST = Exercise(
    right=_lowest,
    cases=(
        (torch.tensor([[6, 2, 0], [0, 0, 3], [1, 1, 2]]),),
        (torch.tensor([[5, 5], [10, 0], [0, 0], [1, 2]]),),
        (torch.tensor([[4, 0, 0, 0], [0, 7, 0, 0]]),),
    ),
    mistakes=(
        (
            "0 * log(0) is NaN in PyTorch, and it stands for 0 here; torch.special.entr(p) is "
            "-p log p with that rule.",
            _undefined_at_zero,
        ),
        (
            "you took the mean over images; an image that is drawn often weighs more.",
            lambda c: _entropies(c)[c.sum(1) > 0].mean(),
        ),
        (
            "you took the mean over all rows, those of images that were never drawn as well; "
            "weigh each row by its draws.",
            lambda c: _entropies(c).mean(),
        ),
        (
            "that is the loss of one answer for all images; give each image its own.",
            lambda c: _lowest(c.sum(0, keepdim=True)),
        ),
        (
            "the attributes that were not drawn cost something too; add (1 - p) log(1 - p).",
            _one_sided,
        ),
        (
            "that is the entropy of one choice among the attributes, which belongs to softmax; "
            "here each attribute has a loss of its own, and the mean is taken.",
            lambda c: _one_sided(c) * c.shape[1],
        ),
        (
            "you summed over the attributes; take their mean.",
            lambda c: _lowest(c) * c.shape[1],
        ),
        (
            "your logarithm has base 2; the loss uses the natural one.",
            lambda c: _lowest(c) / torch.tensor(2.0).log(),
        ),
        (
            "that is the share of draws that the most frequent attribute misses; the loss "
            "rewards a probability, not a guess.",
            _most_frequent,
        ),
        (
            "the sign is wrong; the loss is at least 0.",
            lambda c: -_lowest(c),
        ),
    ),
    hints=(
        "The best answer for an image is, for each attribute, the share p of its draws.",
        "That answer costs -p log p - (1 - p) log(1 - p) in each attribute; torch.special.entr "
        "helps with p = 0.",
        "Take the mean over attributes for each image, and then the mean over images, each "
        "weighed by its number of draws.",
    ),
)

# --- where a learned weight settles ---------------------------------------------------------------


def _variance(loss: float, smallest: float = LearnedWeighting.SMALLEST) -> float:
    """Where L / (2 v) + log(1 + v) is lowest: 2 v^2 = L (1 + v)."""
    return max(smallest, (loss + (loss**2 + 8 * loss) ** 0.5) / 4)


_SETTLED = Exercise(
    right=lambda loss: 1 / (2 * _variance(loss)),
    cases=((1.0,), (0.25,), (0.04,), (0.0,), (6.0,)),
    mistakes=(
        (
            "that is v; the weight of the loss is 1 / (2 v).",
            _variance,
        ),
        (
            "that is 1 / v; the weight of the loss is 1 / (2 v).",
            lambda loss: 1 / _variance(loss),
        ),
        (
            "v cannot go below 0.05, so the weight ends at 10.",
            lambda loss: 1 / (2 * _variance(loss, 1e-6)) if loss else float("inf"),
        ),
        (
            "that is where log(v) in place of log(1 + v) would settle.",
            lambda loss: 1 / (2 * max(0.05, loss)),
        ),
        (
            "that is the total at rest; return the weight of the loss.",
            lambda loss: (
                loss / (2 * _variance(loss)) + float(torch.log1p(torch.tensor(_variance(loss))))
            ),
        ),
        (
            "you solved v^2 = L (1 + v); the factor 2 of the first term is missing.",
            lambda loss: 1 / (2 * max(0.05, (loss + (loss**2 + 4 * loss) ** 0.5) / 2)),
        ),
    ),
    hints=(
        "Set the derivative of L / (2 v) + log(1 + v) by v to zero.",
        "That gives 2 v^2 = L (1 + v), whose positive root is v = (L + sqrt(L^2 + 8 L)) / 4.",
        "v is at least 0.05; return 1 / (2 v).",
    ),
)
