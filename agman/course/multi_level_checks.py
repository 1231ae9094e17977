"""Self-checks of the exercises in "Multi-level features"; see `agman.course.exercises`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from agman.course.exercises import Exercise, report

__all__ = ["check_folded", "check_pixels_seen", "check_price"]


def check_pixels_seen(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(layers, position)`, the first and the last pixel that a position sees.

    Args:
        function: takes a list of (kernel, stride, padding) and a position, returns two numbers.
        hint: 1 to 3 for more and more help.
    """
    report(lambda layers, position: function([*layers], position), _PIXELS_SEEN, hint)


def check_price(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(channels, dim, side)`, parameters and multiply-adds of a join.

    Args:
        function: takes a list of channels, the width of the head and the side of the map,
            returns two numbers.
        hint: 1 to 3 for more and more help.
    """
    report(lambda channels, dim, side: function([*channels], dim, side), _PRICE, hint)


def check_folded(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(projection, reduction)`, join and reduction as one matrix.

    Args:
        function: takes (C, C2) and (D, 2 C), returns (D, C + C2).
        hint: 1 to 3 for more and more help.
    """
    report(function, _FOLDED, hint)


# --- which pixels ---------------------------------------------------------------------------------

Layer = tuple[int, int, int]  # kernel, stride, padding


def _pixels_seen(layers: Sequence[Layer], position: int) -> tuple[int, int]:
    first = last = position
    for kernel, stride, padding in reversed(layers):
        first = first * stride - padding
        last = last * stride - padding + kernel - 1
    return first, last


def _clipped(layers: Sequence[Layer], position: int) -> tuple[int, int]:
    first, last = _pixels_seen(layers, position)
    return max(first, 0), max(last, 0)


def _whole_kernel(layers: Sequence[Layer], position: int) -> tuple[int, int]:
    """The kernel added to the last pixel, instead of what it sees beyond the first."""
    return _pixels_seen([(k + 1, s, p) for k, s, p in layers], position)


_PIXELS_SEEN = Exercise(
    right=_pixels_seen,
    cases=(
        ([(3, 2, 1)], 0),
        ([(3, 2, 1), (3, 1, 1)], 6),
        ([(7, 2, 3), (3, 2, 1), (3, 1, 1)], 2),
        ([(5, 1, 2), (2, 2, 0)], 3),
    ),
    mistakes=(
        (
            "you went through the layers from the image on; a position is led back to the image, "
            "so the last layer comes first.",
            lambda layers, position: _pixels_seen(layers[::-1], position),
        ),
        (
            "the padding is missing; it moves both ends to the left.",
            lambda layers, position: _pixels_seen([(k, s, 0) for k, s, _ in layers], position),
        ),
        (
            "you added the padding; it moves both ends to the left, so subtract it.",
            lambda layers, position: _pixels_seen([(k, s, -p) for k, s, p in layers], position),
        ),
        (
            "the stride is missing; position i of a layer starts at i times its stride.",
            lambda layers, position: _pixels_seen([(k, 1, p) for k, _, p in layers], position),
        ),
        (
            "you cut pixels left of the image off; leave them negative.",
            _clipped,
        ),
        (
            "the kernel is one pixel too wide; a kernel of 3 reaches 2 pixels beyond its first.",
            _whole_kernel,
        ),
        (
            "both ends are the first pixel; the last one lies kernel - 1 further in each layer.",
            lambda layers, position: (_pixels_seen(layers, position)[0],) * 2,
        ),
        (
            "that is how many pixels are seen; return the first and the last.",
            lambda layers, position: 1 + _pixels_seen(layers, position)[1]
            - _pixels_seen(layers, position)[0],
        ),
        (
            "the two are the wrong way round; return the first, then the last.",
            lambda layers, position: _pixels_seen(layers, position)[::-1],
        ),
    ),
    hints=(
        "Start with first = last = position and go through reversed(layers).",
        "One layer leads position i back to i * stride - padding, the first that it reads.",
        "It reads kernel positions, so the last is at last * stride - padding + kernel - 1.",
    ),
)  # fmt: skip


# --- what a join costs ----------------------------------------------------------------------------


def _price(
    channels: Sequence[int],
    dim: int,
    side: int,
    *,
    biases: bool = True,
    doubled: bool | None = None,
    project: bool = True,
    reduce: bool = True,
    growing: bool = False,
) -> tuple[int, int]:
    """Parameters and multiply-adds.

    Args:
        channels: of the tapped levels, the top's last.
        dim: width of the head.
        side: positions along the top's map.
        biases: count them.
        doubled: the reduction reads 2 C channels; None where there is a lower level.
        project: count the projections.
        reduce: count the reduction.
        growing: projections at the map of their own level, before it is pooled.
    """
    *lower, top = channels
    twice = bool(lower) if doubled is None else doubled
    weights = [c * top for c in lower] if project else []
    sides = [side * 2 ** (len(lower) - i) if growing else side for i in range(len(weights))]
    n_biases = top * len(weights)
    if reduce:
        weights.append((2 * top if twice else top) * dim)
        sides.append(side)
        n_biases += dim
    operations = sum(w * s * s for w, s in zip(weights, sides, strict=True))
    return sum(weights) + n_biases * biases, operations


_PRICE = Exercise(
    right=_price,
    cases=(
        ([512, 1024], 512, 14),
        ([16, 32, 64], 48, 12),
        ([64], 32, 12),
    ),
    mistakes=(
        (
            "the biases are missing; each convolution has one number for each channel it makes.",
            lambda c, d, s: _price(c, d, s, biases=False),
        ),
        (
            "the reduction reads 2 C channels where levels are joined.",
            lambda c, d, s: _price(c, d, s, doubled=False),
        ),
        (
            "with a single level there is nothing to join, and the reduction reads C channels.",
            lambda c, d, s: _price(c, d, s, doubled=True),
        ),
        (
            "that is the join alone; add the reduction that follows it.",
            lambda c, d, s: _price(c, d, s, reduce=False),
        ),
        (
            "that is the reduction alone; add the projections of the lower levels.",
            lambda c, d, s: _price(c, d, s, project=False),
        ),
        (
            "you projected on the map of the lower level; it is pooled to the top's map first.",
            lambda c, d, s: _price(c, d, s, growing=True),
        ),
        (
            "you counted a multiply-add as two operations; count it once.",
            lambda c, d, s: (_price(c, d, s)[0], 2 * _price(c, d, s)[1]),
        ),
        (
            "you counted multiply-adds for the biases, which are only added; take the weights "
            "times the number of positions.",
            lambda c, d, s: (_price(c, d, s)[0], _price(c, d, s)[0] * s * s),
        ),
        (
            "you multiplied by the side of the map; a map has side * side positions.",
            lambda c, d, s: (_price(c, d, s)[0], _price(c, d, s)[1] // s),
        ),
        (
            "that is for one position; the multiply-adds are those of all side * side positions.",
            lambda c, d, s: (_price(c, d, s)[0], _price(c, d, s)[1] // (s * s)),
        ),
    ),
    hints=(
        "A 1 x 1 convolution from a to b channels has a * b weights and b biases.",
        "Each lower level has a projection from its channels to the top's; the reduction goes "
        "from 2 * top channels, or from top if there is no lower level, to dim.",
        "Multiply-adds are the weights, without the biases, times side ** 2.",
    ),
)


# --- join and reduction as one matrix -------------------------------------------------------------


def _folded(projection: Tensor, reduction: Tensor) -> Tensor:
    first, second = reduction.chunk(2, dim=1)
    return torch.cat([first + second, second @ projection], dim=1)


def _with_halves(
    projection: Tensor, reduction: Tensor, on_f3: tuple[int, int], on_p: tuple[int, int]
) -> Tensor:
    """Another mixture of the two halves on F3 and on the projection."""
    first, second = reduction.chunk(2, dim=1)
    f3, p = (a * first + b * second for a, b in (on_f3, on_p))
    return torch.cat([f3, p @ projection], dim=1)


def _matrices(c2: int, c: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    projection = torch.randn(c, c2, generator=random, dtype=torch.float64)
    return projection, torch.randn(dim, 2 * c, generator=random, dtype=torch.float64)


_FOLDED = Exercise(
    right=_folded,
    cases=(_matrices(2, 3, 4, seed=0), _matrices(5, 4, 2, seed=1)),
    mistakes=(
        (
            "level 3 meets both halves of the reduction; add them up.",
            lambda p, r: _with_halves(p, r, on_f3=(1, 0), on_p=(0, 1)),
        ),
        (
            "level 3 meets both halves of the reduction, the first one too; add them up.",
            lambda p, r: _with_halves(p, r, on_f3=(0, 1), on_p=(0, 1)),
        ),
        (
            "level 2 comes in with the second half only; the first half never meets it.",
            lambda p, r: _with_halves(p, r, on_f3=(1, 1), on_p=(1, 1)),
        ),
        (
            "level 2 comes in with the second half of the reduction, not with the first.",
            lambda p, r: _with_halves(p, r, on_f3=(1, 1), on_p=(1, 0)),
        ),
        (
            "you subtracted the halves; L is F3 plus P, so they add up.",
            lambda p, r: _with_halves(p, r, on_f3=(1, -1), on_p=(0, 1)),
        ),
        (
            "the two parts are the wrong way round: first what meets F3, then what meets level 2.",
            lambda p, r: _folded(p, r).roll(p.shape[1], dims=1),
        ),
        (
            "that is the matrix on [F3; P]; multiply its second part by the projection as well.",
            lambda p, r: torch.cat([sum(r.chunk(2, dim=1)), r.chunk(2, dim=1)[1]], dim=1),
        ),
        ("the matrix is transposed; it has D rows.", lambda p, r: _folded(p, r).T),
    ),
    hints=(
        "Cut the reduction in two with reduction.chunk(2, dim=1): the first half meets F3, the "
        "second F3 + P.",
        "F3 therefore meets the sum of both halves, and P the second half.",
        "P is projection @ pooled, so the pooled level 2 meets second @ projection.",
    ),
)
