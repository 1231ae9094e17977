"""The losses: rank the positive above the negative, and tell attributes apart.

All are functions of tensors; only the learned weighting holds parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agman.errors import InputError


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2) -> Tensor:
    """Mean over triplets of max(0, margin - s(anchor, positive) + s(anchor, negative)).

    Args:
        anchor: (B, D) unit vectors; s is their dot product, so a cosine.
        positive: (B, D) unit vectors that share the anchor's value.
        negative: (B, D) unit vectors that do not.
        margin: by how much the positive should win.

    Returns:
        A scalar, at least 0.

    >>> one = torch.tensor([[1.0, 0.0]])
    >>> triplet_loss(one, one, -one).item(), triplet_loss(one, one, one).item()
    (0.0, 0.20000000298023224)
    """
    gap = (anchor * positive).sum(-1) - (anchor * negative).sum(-1)
    return F.relu(margin - gap).mean()


def supervised_contrastive_loss(
    embeddings: Tensor, values: Tensor, temperature: float = 0.1
) -> Tensor:
    """All pairs of a batch at once, separately for each attribute.

    For every attribute and every image with a value, each image of the same value is a positive
    and every other labelled image of the attribute stands in the denominator.

    Args:
        embeddings: (B, A, D) unit vectors, one per image and attribute.
        values: (B, A) ids of the values, -1 where unknown.
        temperature: cosines are divided by it.

    Returns:
        A scalar: for each attribute the mean over its images that have a positive; of these the
        mean, each weighed by the root of its number of images, so that an attribute that few
        images have is heard and its noise does not rule; 0 if no image has a positive.

    Source: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020 (loss "out"), applied
    to one attribute at a time.
    """
    by_attribute = embeddings.transpose(0, 1)  # (A, B, D)
    logits = by_attribute @ by_attribute.transpose(1, 2) / temperature  # (A, B, B)
    known = values.T >= 0  # (A, B)
    others = ~torch.eye(len(embeddings), dtype=torch.bool, device=values.device)
    pairs = known[:, :, None] & known[:, None, :] & others
    positives = pairs & (values.T[:, :, None] == values.T[:, None, :])
    lowest = torch.finfo(logits.dtype).min
    log_share = logits - logits.masked_fill(~pairs, lowest).logsumexp(dim=2, keepdim=True)
    n_positives = positives.sum(dim=2)
    per_anchor = -(log_share * positives).sum(dim=2) / n_positives.clamp(min=1)
    n_anchors = (n_positives > 0).sum(dim=1)  # (A,); others contribute 0 to the sum
    per_attribute = per_anchor.sum(dim=1) / n_anchors.clamp(min=1)
    weights = n_anchors.to(per_attribute.dtype).sqrt()
    return (per_attribute * weights).sum() / weights.sum().clamp(min=1)


def attribute_classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of "which attribute is this image here for", value ignored.

    Args:
        logits: (B, A).
        targets: (B, A) of 0 and 1: one-hot for the released scheme, where the class is the
            attribute that was sampled; several ones where an image has several attributes.

    Returns:
        A scalar, the mean over images and attributes.
    """
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


class LearnedWeighting(nn.Module):
    """Weigh several losses by learned uncertainties: sum of L / (2 v) + log(1 + v).

    With v = 0.05 + c^2 every weight lies between 0 and 10, and the sum is at least 0. Without the
    0.05 a hinge loss that reaches zero draws v to zero and its weight to infinity.

    Args:
        names: of the losses; each c starts where v is 1, so each weight at 1/2.

    Source: Liebel and Koerner, Auxiliary Tasks in Multi-task Learning, 2018; the bound is ours.
    """

    SMALLEST = 0.05

    def __init__(self, *names: str) -> None:
        super().__init__()
        start = torch.tensor(1 - self.SMALLEST).sqrt()
        self.scale = nn.ParameterDict({name: nn.Parameter(start.clone()) for name in names})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the named losses, a scalar."""
        _refuse_other_names(losses, self.scale)
        terms = []
        for name, scale in self.scale.items():
            variance = self.SMALLEST + scale.square()
            terms.append(losses[name] / (2 * variance) + torch.log1p(variance))
        return torch.stack(terms).sum()


class ReleasedWeighting(nn.Module):
    """The released code's weighting: sum of 0.5 exp(p) L + p, with every p left at 1.

    The authors' scripts never give the p to the optimizer, so they are buffers here. Optimised
    they would fall without end: the sum grows with p for every L, so it has no lower bound.

    Args:
        names: of the losses.
    """

    p: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("p", torch.ones(len(names)))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the named losses, a scalar."""
        _refuse_other_names(losses, self.names)
        stacked = torch.stack([losses[name] for name in self.names])
        return (0.5 * self.p.exp() * stacked + self.p).sum()


class FixedWeighting(nn.Module):
    """The plain sum of the losses, each times a fixed factor.

    Args:
        weights: factor of each named loss.
    """

    def __init__(self, **weights: float) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the named losses, a scalar."""
        _refuse_other_names(losses, self.weights)
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()


def _refuse_other_names(given: Iterable[str], expected: Iterable[str]) -> None:
    wanted, got = sorted(expected), sorted(given)
    if wanted != got:
        raise InputError(f"This weighting is for the losses {wanted} but got {got}.")
