"""Self-checks of the exercises in "Better than the paper"; see `agman.course.exercises`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from agman.course.exercises import Exercise, report
from agman.course.results import time_to_reach

__all__ = ["check_kept", "check_rate_left", "check_time_to_reach"]

Box = tuple[int, int, int, int]
Numbers = tuple[float, ...]


def check_time_to_reach(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(seconds, quality, target)`, when a run first has a quality.

    Args:
        function: takes two lists of numbers and a number, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _TIME, hint)


def check_rate_left(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(epoch, step, decay)`, the share of the first learning rate that is left.

    Args:
        function: takes two whole numbers and a number, returns a number.
        hint: 1 to 3 for more and more help.
    """
    report(function, _RATE, hint)


def check_kept(function: Callable[..., Any], hint: int = 0) -> None:
    """Check `function(region, crop)`, the share of a region that a crop keeps.

    Args:
        function: takes two boxes (x0, y0, x1, y1), returns a number from 0 to 1.
        hint: 1 to 3 for more and more help.
    """
    report(function, _KEPT, hint)


def _reached(quality: Numbers, target: float) -> list[int]:
    return [i for i, value in enumerate(quality) if value >= target]


def _first_epoch(seconds: Numbers, quality: Numbers, target: float) -> float:
    reached = _reached(quality, target)
    return seconds[reached[0]] if reached else float("nan")


def _epoch_before(seconds: Numbers, quality: Numbers, target: float) -> float:
    reached = _reached(quality, target)
    return seconds[max(reached[0] - 1, 0)] if reached else float("nan")


def _halfway(seconds: Numbers, quality: Numbers, target: float) -> float:
    after, before = (f(seconds, quality, target) for f in (_first_epoch, _epoch_before))
    return (before + after) / 2


def _last_crossing(seconds: Numbers, quality: Numbers, target: float) -> float:
    below = [i for i, value in enumerate(quality) if value < target]
    if not below or below[-1] == len(quality) - 1:
        return time_to_reach(seconds, quality, target)
    start = below[-1]
    return time_to_reach(seconds[start:], quality[start:], target)


def _interpolated(seconds: Numbers, quality: Numbers, target: float) -> float:
    """What np.interp gives, which expects rising qualities and never says "not reached"."""
    return float(np.interp(target, quality, seconds))


def _zero_at_start(seconds: Numbers, quality: Numbers, target: float) -> float:
    return time_to_reach((0.0, *seconds), (0.0, *quality), target)


_TIME = Exercise(
    right=time_to_reach,
    cases=(
        ((10.0, 20.0, 40.0), (5.0, 15.0, 25.0), 20.0),
        ((10.0, 30.0, 40.0, 50.0, 70.0), (10.0, 20.0, 14.0, 18.0, 26.0), 19.0),
        ((10.0, 20.0), (30.0, 35.0), 22.0),
        ((10.0, 20.0), (30.0, 35.0), 40.0),
    ),
    mistakes=(
        (
            "you gave the end of the first epoch that is good enough; the straight line reaches "
            "the target earlier.",
            _first_epoch,
        ),
        (
            "you gave the end of the last epoch that is not good enough; the straight line "
            "reaches the target later.",
            _epoch_before,
        ),
        (
            "you took the middle of the epoch; go along the line as far as the target asks.",
            _halfway,
        ),
        (
            "the run reaches the target, falls below it and reaches it again; the first time "
            "counts.",
            _last_crossing,
        ),
        (
            "np.interp expects qualities that only rise, and gives the last time where the "
            "target is never reached; look for the crossing yourself, and give NaN.",
            _interpolated,
        ),
        (
            "you drew a line from a quality of zero at the start, which nobody measured; if the "
            "first epoch is good enough, its end is all that is known.",
            _zero_at_start,
        ),
    ),
    hints=(
        "Look for the first measurement that is at least the target.",
        "Between it and the one before, the share of the way is (target - before) / (after - "
        "before).",
        "Two special cases: the first measurement is good enough (its time), and none is (NaN).",
    ),
)

_RATE = Exercise(
    right=lambda epoch, step, decay: decay ** (epoch // step),
    cases=((0, 3, 0.9), (2, 3, 0.9), (3, 3, 0.9), (149, 3, 0.9), (10, 4, 0.5)),
    mistakes=(
        (
            "the rate falls once in `step` epochs, not in every epoch.",
            lambda epoch, step, decay: decay**epoch,
        ),
        (
            "the rate falls in steps, not along a smooth curve; count whole steps.",
            lambda epoch, step, decay: decay ** (epoch / step),
        ),
        (
            "each step multiplies what is left; it does not take away the same amount again.",
            lambda epoch, step, decay: 1 - (1 - decay) * (epoch // step),
        ),
        (
            "you multiplied the decay by the number of steps; take it to that power.",
            lambda epoch, step, decay: decay * (epoch // step),
        ),
        (
            "that is the share that is gone; ask what is left.",
            lambda epoch, step, decay: 1 - decay ** (epoch // step),
        ),
        (
            "that is one step too many: the first `step` epochs, 0 included, have the full rate.",
            lambda epoch, step, decay: decay ** (epoch // step + 1),
        ),
    ),
    hints=(
        "How many steps has the schedule made when the epoch with this number begins?",
        "epoch // step counts them: none in the first `step` epochs.",
        "Every step multiplies by decay, so take decay to that power.",
    ),
)


def _overlap(region: Box, crop: Box) -> tuple[int, int]:
    """Width and height that two boxes share, negative where they lie apart."""
    width = min(region[2], crop[2]) - max(region[0], crop[0])
    return width, min(region[3], crop[3]) - max(region[1], crop[1])


def _product(region: Box, crop: Box) -> int:
    width, height = _overlap(region, crop)
    return width * height


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared(region: Box, crop: Box) -> int:
    width, height = _overlap(region, crop)
    return max(width, 0) * max(height, 0)


_KEPT = Exercise(
    right=lambda region, crop: _shared(region, crop) / _area(region),
    cases=(
        ((10, 20, 30, 60), (0, 0, 96, 50)),
        ((10, 20, 30, 60), (20, 30, 80, 90)),
        ((10, 20, 30, 60), (40, 0, 96, 96)),
        ((10, 20, 30, 60), (50, 70, 90, 96)),
        ((10, 20, 30, 60), (0, 0, 96, 96)),
    ),
    mistakes=(
        (
            "where region and crop lie apart, width or height of the overlap is negative; cut "
            "both at zero before you multiply.",
            lambda region, crop: _product(region, crop) / _area(region),
        ),
        (
            "two negative numbers have a positive product: cut width and height at zero one by "
            "one.",
            lambda region, crop: max(_product(region, crop), 0) / _area(region),
        ),
        (
            "you divided by the area of the crop; the question is how much of the region is left.",
            lambda region, crop: _shared(region, crop) / _area(crop),
        ),
        (
            "that is intersection over union, which asks whether two boxes are alike; divide by "
            "the region.",
            lambda region, crop: (
                _shared(region, crop) / (_area(region) + _area(crop) - _shared(region, crop))
            ),
        ),
        (
            "that is the area in pixels; divide by the area of the region.",
            lambda region, crop: _shared(region, crop),
        ),
        (
            "you looked at the height only; a crop can cut at the sides as well.",
            lambda region, crop: max(_overlap(region, crop)[1], 0) / (region[3] - region[1]),
        ),
        ("that is the share that is lost.", lambda r, c: 1 - _shared(r, c) / _area(r)),
    ),
    hints=(
        "The overlap begins at the larger of the two left edges and ends at the smaller right one.",
        "Its width is max(0, min(x1, X1) - max(x0, X0)); the height likewise.",
        "Divide the overlap's area by the area of the region.",
    ),
)
