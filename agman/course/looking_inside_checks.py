"""Self-checks of the exercises in "Looking inside"; see `agman.course.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agman.course.exercises import Exercise, report
from agman.metrics import attention_mass

__all__ = ["check_cover", "check_mass", "check_rank_correlation"]


def check_mass(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(map_, region, size)`, the share of a map inside a region.

    Args:
        function: takes (H, W) numbers of any sum, four whole numbers x0, y0, x1, y1 and the side
            of the picture in the same pixels; returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _MASS, hint)


def check_rank_correlation(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(x, y)`, Spearman's rank correlation of numbers without ties.

    Args:
        function: takes two (N,) tensors, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _RANK_CORRELATION, hint)


def check_cover(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(picture, x, y, side)`, a picture with a grey square.

    Args:
        function: takes (3, H, W) whole numbers, the middle of the square and its even side;
            returns (3, H, W).
        hint: 1 to 3 for more and more help.
    """
    report(function, _COVER, hint)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the share inside -----------------------------------------------------------------------------

Region = tuple[int, int, int, int]


def _mass(map_: Tensor, region: Region, size: int) -> float:
    return float(attention_mass(map_[None], torch.tensor([region]), size))


def _in_whole_cells(map_: Tensor, region: Region, size: int, count: Callable[[float], int]) -> Any:
    """Only whole cells: those that `count` finds for each end."""
    height, width = map_.shape
    x0, x1 = (count(x * width / size) for x in region[::2])
    y0, y1 = (count(y * height / size) for y in region[1::2])
    return map_[y0:y1, x0:x1].sum() / map_.sum()


def _touched(map_: Tensor, region: Region, size: int) -> Any:
    """Every cell that the region touches, counted whole."""
    height, width = map_.shape
    x0, y0 = math.floor(region[0] * width / size), math.floor(region[1] * height / size)
    x1, y1 = math.ceil(region[2] * width / size), math.ceil(region[3] * height / size)
    return map_[y0:y1, x0:x1].sum() / map_.sum()


_MASS = Exercise(
    right=_mass,
    cases=(
        (_random(3, 3, seed=0) / 3, (2, 0, 5, 3), 6),
        (_random(4, 6, seed=1), (10, 31, 47, 43), 48),
        (torch.ones(12, 12, dtype=torch.float64), (20, 5, 70, 41), 96),
    ),
    mistakes=(
        (
            "a cell that the region cuts counts with the part of its area inside, and you took "
            "all of it.",
            _touched,
        ),
        (
            "a cell that the region cuts counts with the part of its area inside, and you rounded "
            "the region to whole cells.",
            lambda m, r, s: _in_whole_cells(m, r, s, round),
        ),
        (
            "a cell that the region cuts counts with the part of its area inside, and you cut the "
            "region down to whole cells.",
            lambda m, r, s: _in_whole_cells(m, r, s, math.floor),
        ),
        (
            "x and y are interchanged; a region is x0, y0, x1, y1, and a map has rows first.",
            lambda m, r, s: _mass(m, (r[1], r[0], r[3], r[2]), s),
        ),
        (
            "the map need not sum to one; divide by its sum.",
            lambda m, r, s: _mass(m, r, s) * float(m.sum()),
        ),
        (
            "that is the region's share of the picture, what an even map would get.",
            lambda m, r, s: (r[2] - r[0]) * (r[3] - r[1]) / s**2,
        ),
        (
            "that is the mean inside; the sum inside, divided by the sum of the map, is asked.",
            lambda m, r, s: _mass(m, r, s) * s**2 / ((r[2] - r[0]) * (r[3] - r[1])),
        ),
    ),
    hints=(
        "Enlarge the map to the picture's pixels, so that no cell is cut: repeat each cell.",
        "map_.repeat_interleave(size // H, 0) repeats rows; the same along axis 1 repeats columns.",
        "Then fine[y0:y1, x0:x1].sum() / fine.sum().",
    ),
)


# --- rank correlation -----------------------------------------------------------------------------


def _correlation(x: Tensor, y: Tensor) -> Any:
    return np.corrcoef(x.numpy(), y.numpy())[0, 1]


def _ranks(x: Tensor) -> Tensor:
    return x.argsort().argsort().double()


def _centred(x: Tensor) -> Tensor:
    return x - x.mean()


_RANK_CORRELATION = Exercise(
    right=lambda x, y: _correlation(_ranks(x), _ranks(y)),
    cases=(
        (_random(7, seed=2), _random(7, seed=3)),
        (_random(12, seed=4), _random(12, seed=4) ** 3 + 0.3 * _random(12, seed=5)),
        (
            torch.tensor([1.0, 5.0, 2.0, 100.0]).double(),
            torch.tensor([9.0, 3.0, 8.0, 1.0]).double(),
        ),
    ),
    mistakes=(
        ("that is the correlation of the numbers; take that of their ranks.", _correlation),
        (
            "one argsort gives the order of the items, not their ranks; sort that order again.",
            lambda x, y: _correlation(x.argsort().double(), y.argsort().double()),
        ),
        (
            "only one of the two is ranked.",
            lambda x, y: _correlation(_ranks(x), y),
        ),
        (
            "only one of the two is ranked, the second.",
            lambda x, y: _correlation(x, _ranks(y)),
        ),
        (
            "that is the covariance of the ranks; divide by both standard deviations.",
            lambda x, y: (_centred(_ranks(x)) * _centred(_ranks(y))).mean(),
        ),
        (
            "the sign is turned; both must be ranked in the same direction.",
            lambda x, y: -_correlation(_ranks(x), _ranks(y)),
        ),
        (
            "that is its square, which has lost the sign.",
            lambda x, y: _correlation(_ranks(x), _ranks(y)) ** 2,
        ),
    ),
    hints=(
        "The rank of each number is x.argsort().argsort().",
        "Subtract the mean from the ranks of x and from those of y.",
        "(a * b).sum() / (a.norm() * b.norm()), with a and b the centred ranks as floats.",
    ),
)


# --- a grey square --------------------------------------------------------------------------------


def _cover(
    picture: Tensor, x: int, y: int, side: int, *, moved: bool = True, corner: bool = False
) -> Tensor:
    """The covered picture.

    Args:
        picture: (3, H, W).
        x, y: middle of the square.
        side: of the square.
        moved: away from a border that it would cross, and not cut there.
        corner: take x and y as the corner.
    """
    covered = picture.clone()
    height, width = picture.shape[1:]
    left, top = (x, y) if corner else (x - side // 2, y - side // 2)
    right, bottom = left + side, top + side
    if moved:
        left, top = min(max(left, 0), width - side), min(max(top, 0), height - side)
        right, bottom = left + side, top + side
    covered[:, max(top, 0) : bottom, max(left, 0) : right] = 128
    return covered


def _wrapped(picture: Tensor, x: int, y: int, side: int) -> Tensor:
    """Negative indices count from the other end, and the square vanishes."""
    covered = picture.clone()
    left, top = x - side // 2, y - side // 2
    covered[:, top : top + side, left : left + side] = 128
    return covered


_PICTURE = (_random(3, 8, 10, seed=6) * 100).round()

_COVER = Exercise(
    right=_cover,
    cases=(
        (_PICTURE, 5, 3, 4),
        (_PICTURE, 1, 4, 4),
        (_PICTURE, 9, 7, 4),
        (_PICTURE, 4, 0, 6),
    ),
    mistakes=(
        (
            "a square that would cross the border is cut there, or has vanished; move it inside, "
            "so that all squares cover equally much.",
            lambda p, x, y, s: _cover(p, x, y, s, moved=False),
        ),
        (
            "a negative index counts from the other end, and the square has vanished; move it "
            "inside the picture first.",
            _wrapped,
        ),
        (
            "x and y are interchanged; a picture has the axes channel, row y, column x.",
            lambda p, x, y, s: _cover(p.mT, x, y, s).mT,
        ),
        (
            "x and y are taken as the corner of the square; they are its middle.",
            lambda p, x, y, s: _cover(p, x, y, s, corner=True),
        ),
        (
            "the square is covered in one channel only.",
            lambda p, x, y, s: torch.cat([_cover(p, x, y, s)[:1], p[1:]]),
        ),
        (
            "everything but the square is covered.",
            lambda p, x, y, s: torch.where(
                _cover(torch.ones_like(p), x, y, s) == 128, p, torch.tensor(128.0)
            ),
        ),
        ("the picture is as it was.", lambda p, x, y, s: p),
    ),
    hints=(
        "The left edge is x - side // 2, but at least 0 and at most W - side.",
        "left = min(max(x - side // 2, 0), W - side), and the same for the top with y and H.",
        "picture[:, top : top + side, left : left + side] = 128, on a clone.",
    ),
)
