"""The attention modules, each small enough to read at a glance.

Throughout, B is the batch, K the number of attributes asked of each image, C channels, H and W
the size of the feature map (any size), E the length of an attribute's code.
An attribute never enters the backbone; it enters here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agman.errors import InputError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation function of that name.

    Raises:
        InputError: the name is none of silu, tanh, relu.
    """
    if name not in ACTIVATIONS:
        raise InputError(
            f"There is no activation {name!r}; choose one of {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]


def softmax_over_positions(scores: Tensor) -> Tensor:
    """Attention maps that sum to one over the positions of each map.

    Args:
        scores: (..., H, W).

    Returns:
        (..., H, W), each map non-negative with sum 1.

    >>> softmax_over_positions(torch.zeros(1, 2, 2)).tolist()
    [[[0.25, 0.25], [0.25, 0.25]]]
    """
    return scores.flatten(-2).softmax(dim=-1).view(scores.shape)


def pool(features: Tensor, weights: Tensor) -> Tensor:
    """Sum the features over positions, weighted by each attribute's map.

    Args:
        features: (B, C, H, W).
        weights: (B, K, H, W).

    Returns:
        (B, K, C).
    """
    return torch.einsum("bchw,bkhw->bkc", features, weights)


class AttributeSpatialAttention(nn.Module):
    """Where to look for an attribute: a scaled dot product of positions with the attribute.

    ASENet_V2 projects the features first (`project=True`) and uses tanh for the attribute;
    AG-MAN scores the features themselves and uses SiLU.

    Args:
        channels: channels C of the features.
        code_dim: length E of an attribute's code.
        dim: length of the vectors that are compared; equals `channels` without a projection.
        activation_name: of the transformed attribute code.
        project: whether a 1x1 convolution brings the features from C to `dim` first.

    Source: the released code of AG-MAN and of ASENet_V2.
    """

    def __init__(
        self,
        channels: int,
        code_dim: int,
        dim: int,
        *,
        activation_name: str = "silu",
        project: bool = False,
    ) -> None:
        super().__init__()
        if not project and dim != channels:
            raise InputError(
                f"Without a projection the features' {channels} channels are compared with a "
                f"code of length {dim}; make them equal or set project=True."
            )
        self.project = nn.Conv2d(channels, dim, 1) if project else nn.Identity()
        self.norm = nn.BatchNorm2d(dim)
        self.transform = nn.Linear(code_dim, dim)
        self.activation = activation(activation_name)

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """Maps (B, K, H, W) that sum to one, from features (B, C, H, W) and codes (B, K, E)."""
        keys = torch.tanh(self.norm(self.project(features)))  # (B, dim, H, W)
        queries = self.activation(self.transform(codes))  # (B, K, dim)
        scores = torch.einsum("bdhw,bkd->bkhw", keys, queries) / math.sqrt(keys.shape[1])
        return softmax_over_positions(scores)


class AdditiveSpatialAttention(nn.Module):
    """ASENet's first spatial attention: a learned score of each attended position.

    Args:
        channels: channels C of the features.
        code_dim: length E of an attribute's code (one-hot in ASENet).
        dim: length of the vectors that are multiplied.

    Source: the released code of ASEN (AAAI 2020).
    """

    def __init__(self, channels: int, code_dim: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, dim, 1)
        self.transform = nn.Linear(code_dim, dim, bias=False)
        self.score = nn.Conv2d(dim, 1, 1)

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """Maps (B, K, H, W) that sum to one, from features (B, C, H, W) and codes (B, K, E)."""
        keys = torch.tanh(self.project(features))  # (B, dim, H, W)
        queries = torch.tanh(self.transform(codes)) * self.score.weight.flatten()  # (B, K, dim)
        scores = torch.einsum("bdhw,bkd->bkhw", keys, queries)
        scores = scores if self.score.bias is None else scores + self.score.bias
        return softmax_over_positions(torch.tanh(scores))


class SpatialGate(nn.Module):
    """The plain spatial gate of CBAM: it sees mean and maximum over channels, not the attribute.

    Args:
        kernel_size: of the one convolution, odd.

    Source: Woo et al., CBAM, ECCV 2018, as AG-MAN's released code uses it.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """Gates (B, K, H, W) between 0 and 1 for features (B, C, H, W) weighted by (B, K, H, W).

        The weighted features themselves, K times the memory, are never made: a weight is one
        number per position, so mean and maximum over channels follow from those of the features.
        """
        mean = features.mean(dim=1, keepdim=True) * weights  # (B, K, H, W)
        low, high = features.amin(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)
        maximum = torch.maximum(low * weights, high * weights)  # a negative weight swaps the two
        pair = torch.stack([mean, maximum], dim=2).flatten(0, 1)  # (B * K, 2, H, W)
        return torch.sigmoid(self.conv(pair)).view(weights.shape)


class AttributeChannelAttention(nn.Module):
    """Which channels speak about an attribute: a gate from the pooled features and the code.

    Args:
        channels: length C of the pooled features.
        code_dim: length E of an attribute's code.
        code_out: length of the transformed code that joins the features.
        hidden: width of the layer between.
        activation_name: of the transformed attribute code.
        bias: whether the code's transform has a bias (ASENet's, on one-hot codes, has none).

    Source: the released code of AG-MAN, ASENet and ASENet_V2, which share it.
    """

    def __init__(
        self,
        channels: int,
        code_dim: int,
        code_out: int,
        hidden: int,
        *,
        activation_name: str = "silu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.transform = nn.Linear(code_dim, code_out, bias=bias)
        self.activation = activation(activation_name)
        self.squeeze = nn.Linear(channels + code_out, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, pooled: Tensor, codes: Tensor) -> Tensor:
        """Gates (B, K, C) between 0 and 1, from pooled (B, K, C) and codes (B, K, E)."""
        joined = torch.cat([pooled, self.activation(self.transform(codes))], dim=-1)
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(joined))))


class AttributeMask(nn.Module):
    """CSN's learned mask: each attribute weighs the dimensions of the embedding.

    Each attribute starts by owning a block of dimensions (1, elsewhere 0.1), and may learn
    otherwise; negative weights are cut to zero.

    Args:
        n_attributes: number of masks.
        dim: length of the embedding.
        unowned: leave the last `dim % n_attributes` dimensions to nobody, as the released code
            does; by default they go to the first attributes, one each.

    Source: Veit et al., Conditional Similarity Networks, CVPR 2017; initial values as released.
    """

    def __init__(self, n_attributes: int, dim: int, *, unowned: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((n_attributes, dim), 0.1))
        block, left = divmod(dim, n_attributes)
        end = 0
        with torch.no_grad():
            for attribute in range(n_attributes):
                start, end = end, end + block + (attribute < left and not unowned)
                self.weight[attribute, start:end] = 1.0

    def forward(self, vectors: Tensor, attributes: Tensor) -> Tensor:
        """Masked vectors (B, K, D), from vectors (B, K or 1, D) and attribute ids (B, K)."""
        return torch.relu(F.embedding(attributes, self.weight)) * vectors
