"""Collars, lapels and high necks, and where each neck value is decided."""

from __future__ import annotations

import numpy as np

from agman.datasets.wardrobe.fabrics import fabric_of, trim_of, upper_fabric
from agman.datasets.wardrobe.garments import Outfit
from agman.datasets.wardrobe.geometry import (
    Canvas,
    Fabric,
    Points,
    both_sides,
    contrast,
    curve,
    darker,
    lighter,
    mirrored,
    path,
    rgb,
    ribbon,
)

# Half width, top and bottom of the region of each value, in body coordinates.
NECK_REGIONS = {
    "Shirt": (0.072, 0.16, 0.268),
    "Peter Pan": (0.082, 0.165, 0.27),
    "Puritan": (0.118, 0.165, 0.29),
    "Rib": (0.066, 0.165, 0.258),
    "Turtle": (0.06, 0.118, 0.226),
    "Low Turtle": (0.058, 0.16, 0.228),
    "Ruffle Semi-High": (0.084, 0.14, 0.262),
    "Draped": (0.092, 0.185, 0.31),
    "Notched": (0.104, 0.165, 0.355),
    "Collarless": (0.06, 0.17, 0.355),
    "Shawl": (0.064, 0.163, 0.355),
    "Plus Size Shawl": (0.124, 0.155, 0.37),
    "Strapless": (0.105, 0.19, 0.28),
    "Deep V": (0.068, 0.185, 0.37),
    "Straight": (0.1, 0.185, 0.23),
    "V": (0.062, 0.185, 0.295),
    "Square": (0.07, 0.185, 0.275),
    "Off Shoulder": (0.13, 0.195, 0.3),
    "Round": (0.065, 0.185, 0.26),
    "Sweetheart": (0.08, 0.185, 0.322),
    "One Shoulder": (0.1, 0.185, 0.28),
}


def closing_of(outfit: Outfit) -> float:
    """The height at which the front closes, below the lapels."""
    return 0.345 + 0.008 * outfit.neck_ease


def draw_neck_part(canvas: Canvas, outfit: Outfit) -> None:
    """Collar, lapel, neckline trim or high neck: what lies on top of shoulders and neck."""
    if outfit.coat_or_blazer:
        _draw_lapel(canvas, outfit)
    elif outfit.collar_design is not None:
        _COLLARS[outfit.drawn("collar_design")](canvas, outfit)  # type: ignore
    elif outfit.neck_design is not None:
        _NECKS[outfit.drawn("neck_design")](canvas, outfit)  # type: ignore
    elif outfit.drawn("neckline_design") == "Off Shoulder":
        _draw_shoulder_band(canvas, outfit)


def _draw_shoulder_band(canvas: Canvas, outfit: Outfit) -> None:
    """The folded band of an off-shoulder top, around chest and upper arms."""
    b = 1 + 0.07 * outfit.build
    half = np.concatenate(
        [
            curve((0.0, 0.25), (0.06, 0.245), (0.124 * b, 0.236)),
            path((0.128 * b, 0.252), (0.122 * b, 0.282)),
            curve((0.122 * b, 0.282), (0.06, 0.292), (0.0, 0.296)),
        ]
    )
    canvas.cloth(both_sides(half), fabric_of(outfit, "top"))


def _leaves(canvas: Canvas, outfit: Outfit, right: Points) -> None:
    """The two leaves of a collar or lapel, with the shadow they cast."""
    fabric = upper_fabric(outfit)
    pattern = fabric.pattern if outfit.trim < 0.35 else "plain"
    cloth = Fabric(trim_of(outfit), fabric.accent, pattern, fabric.pitch, fabric.angle)
    for points in (mirrored(right), right):
        canvas.fill(points * (1.03, 1.0) + (0.0, 0.008), darker(fabric.color, 0.45))
        canvas.cloth(points, cloth, edge=0.6)


def _shirt_collar(canvas: Canvas, outfit: Outfit) -> None:
    tip = 0.262 + 0.006 * outfit.neck_ease
    _leaves(
        canvas,
        outfit,
        path((0.002, 0.208), (0.044, tip), (0.07, 0.222), (0.05, 0.178), (0.034, 0.163)),
    )


def _peter_pan_collar(canvas: Canvas, outfit: Outfit) -> None:
    low = 0.262 + 0.005 * outfit.neck_ease
    lobe = curve(
        (0.002, 0.205),
        (0.008, 0.24),
        (0.034, low),
        (0.067, 0.25),
        (0.08, 0.216),
        (0.062, 0.186),
        (0.036, 0.168),
    )
    _leaves(
        canvas, outfit, np.concatenate([lobe, curve((0.036, 0.168), (0.03, 0.192), (0.002, 0.205))])
    )


def _puritan_collar(canvas: Canvas, outfit: Outfit) -> None:
    low = 0.285 + 0.006 * outfit.neck_ease
    bib = path(
        (0.002, 0.206),
        (0.016, low),
        (0.104, low - 0.008),
        (0.116, 0.222),
        (0.075, 0.19),
        (0.036, 0.166),
    )
    _leaves(
        canvas, outfit, np.concatenate([bib, curve((0.036, 0.166), (0.03, 0.192), (0.002, 0.206))])
    )


def _rib_collar(canvas: Canvas, outfit: Outfit) -> None:
    """A ribbed band around the neck, as on a polo shirt or a bomber jacket."""
    low = 0.232 + 0.003 * outfit.neck_ease
    spine = curve(
        (-0.046, 0.166),
        (-0.042, 0.194),
        (-0.026, low - 0.009),
        (0.0, low),
        (0.026, low - 0.009),
        (0.042, 0.194),
        (0.046, 0.166),
    )
    half = np.full(len(spine), 0.019)
    band = ribbon(spine, half)
    color = trim_of(outfit)
    canvas.outlined(band, color, 0.55)
    n = len(spine)
    ink = contrast(color, 0.42)
    for k in range(1, n - 1, 2):
        canvas.line(np.stack([band[k], band[2 * n - 1 - k]]), ink, 0.0055)


def _tube(canvas: Canvas, outfit: Outfit, top: float, wide: float) -> Fabric:
    """A knitted tube around the neck from ``top`` to the shoulders."""
    fabric = fabric_of(outfit, "top")
    half = curve(
        (0.0, top + 0.008),
        (wide - 0.008, top + 0.003),
        (wide, top + 0.012),
        (wide + 0.002, 0.19),
        (wide + 0.016, 0.206),
        (0.03, 0.222),
        (0.0, 0.226),
    )
    canvas.cloth(both_sides(half), fabric, edge=0.5)
    return fabric


def _turtle_neck(canvas: Canvas, outfit: Outfit) -> None:
    top = 0.122 + 0.003 * outfit.neck_ease
    fabric = _tube(canvas, outfit, top, 0.041)
    fold = curve(
        (0.0, top),
        (0.034, top - 0.002),
        (0.046, top + 0.014),
        (0.048, 0.18),
        (0.03, 0.19),
        (0.0, 0.194),
    )
    canvas.cloth(both_sides(fold), fabric, edge=0.55)
    for x in (-0.03, -0.015, 0.0, 0.015, 0.03):
        canvas.line(path((x, top + 0.012), (x, 0.182)), darker(fabric.color, 0.22), 0.003)


def _low_turtle_neck(canvas: Canvas, outfit: Outfit) -> None:
    top = 0.166 + 0.003 * outfit.neck_ease
    fabric = _tube(canvas, outfit, top, 0.038)
    for x in (-0.024, -0.008, 0.008, 0.024):
        canvas.line(path((x, top + 0.012), (x, 0.218)), darker(fabric.color, 0.22), 0.003)


def _ruffle_neck(canvas: Canvas, outfit: Outfit) -> None:
    fabric = _tube(canvas, outfit, 0.165, 0.036)
    for top, bottom, wide, waves in ((0.196, 0.238, 0.082, 11), (0.146, 0.186, 0.06, 9)):
        x = np.linspace(-1, 1, 2 * waves + 1)
        frill = 0.009 * np.where(np.arange(2 * waves + 1) % 2 == 0, -1.0, 1.0)
        droop = 0.018 * (1 - x**2)
        lower = curve(*zip(x * wide, bottom + droop * 0.7 + frill, strict=True))
        upper = curve(*zip(x[::-2] * wide * 0.72, top + droop[::-2] * 0.6 - 0.004, strict=True))
        if top < 0.19:
            upper = curve(
                *zip(
                    x[::-1] * wide * 0.86,
                    top - 0.004 + droop[::-1] * 0.5 + 0.7 * frill[::-1],
                    strict=True,
                )
            )
        canvas.cloth(
            np.concatenate([lower, upper]),
            Fabric(trim_of(outfit), fabric.accent, "plain", 1, 0),
            edge=0.55,
        )
        for k in range(1, 2 * waves, 2):
            end = (x[k] * wide * 0.96, bottom + droop[k] * 0.7 + 0.004)
            canvas.line(
                path((x[k] * wide * 0.7, top + droop[k] * 0.6 + 0.008), end),
                darker(fabric.color, 0.4),
                0.0035,
            )


def _draped_neck(canvas: Canvas, outfit: Outfit) -> None:
    fabric = fabric_of(outfit, "top")
    low = 0.298 + 0.008 * outfit.neck_ease
    skin = curve((-0.052, 0.19), (-0.03, 0.222), (0.0, 0.234), (0.03, 0.222), (0.052, 0.19))
    canvas.fill(skin, rgb(outfit.skin))
    shape = curve((0.05, 0.187), (0.082, 0.2), (0.09, 0.225), (0.058, 0.272), (0.0, low))
    inner = curve((0.0, 0.236), (0.028, 0.224), (0.05, 0.187))
    outline = np.concatenate([shape, mirrored(shape), mirrored(inner), inner])
    canvas.cloth(outline, fabric, [], edge=0.5)
    for depth, wide in ((0.254, 0.058), (0.27, 0.069), (0.286, 0.078)):
        fold = curve(
            (-wide, 0.2),
            (-wide * 0.7, depth - 0.026),
            (0.0, depth),
            (wide * 0.7, depth - 0.026),
            (wide, 0.2),
        )
        canvas.line(fold + (0.0, 0.006), lighter(fabric.color, 0.25), 0.005)
        canvas.line(fold, darker(fabric.color, 0.38), 0.006)


_COLLARS = {
    "Shirt": _shirt_collar,
    "Peter Pan": _peter_pan_collar,
    "Puritan": _puritan_collar,
    "Rib": _rib_collar,
}
_NECKS = {
    "Turtle": _turtle_neck,
    "Low Turtle": _low_turtle_neck,
    "Ruffle Semi-High": _ruffle_neck,
    "Draped": _draped_neck,
}


def _draw_lapel(canvas: Canvas, outfit: Outfit) -> None:
    value, close = outfit.drawn("lapel_design"), closing_of(outfit)
    fabric = fabric_of(outfit, "coat")
    inner = path((0.036, 0.172), (0.0, close))
    if value == "Collarless":
        for edge in (path((0.0, close), (0.045, 0.186)), path((0.0, close), (-0.045, 0.186))):
            canvas.line(edge, darker(fabric.color, 0.4), 0.006)
        return
    if value == "Notched":
        outer = path(
            (0.002, close + 0.006),
            (0.05, 0.308),
            (0.1, 0.272),
            (0.094, 0.262),
            (0.05, 0.248),
            (0.088, 0.24),
            (0.083, 0.214),
            (0.058, 0.181),
            (0.04, 0.168),
        )
    elif value == "Shawl":
        outer = curve(
            (0.0, close + 0.006),
            (0.03, 0.312),
            (0.052, 0.262),
            (0.06, 0.215),
            (0.052, 0.182),
            (0.036, 0.165),
        )
    else:
        outer = curve(
            (0.0, close + 0.02),
            (0.06, 0.335),
            (0.108, 0.285),
            (0.121, 0.235),
            (0.1, 0.192),
            (0.062, 0.168),
            (0.036, 0.158),
        )
    right = np.concatenate([inner, outer])
    _leaves(canvas, outfit, right)
    if value == "Notched":
        for sign in (-1.0, 1.0):
            canvas.line(
                path((0.05, 0.248), (0.022, 0.24)) * (sign, 1.0),
                darker(trim_of(outfit), 0.5),
                0.005,
            )
    elif value == "Plus Size Shawl":
        inside = curve((0.012, 0.32), (0.06, 0.28), (0.08, 0.235), (0.06, 0.2))
        for line in (inside, mirrored(inside)):
            canvas.line(line, darker(trim_of(outfit), 0.2), 0.006)
