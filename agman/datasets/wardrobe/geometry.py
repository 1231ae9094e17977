"""Curves, ribbons, colors and the canvas: the few drawing tools that everything else uses.

Body coordinates: x to the right from the body's middle, y downwards from the top of the head,
in units of the person's height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

OVERSAMPLING = 3
_SHADE_GRID = 3  # shading is drawn this many times coarser than the canvas, so that it is soft

Color = tuple[int, int, int]
Points = np.ndarray  # (N, 2) float64, body coordinates unless said otherwise


@cache
def _spline(points: int, steps: int = 6) -> np.ndarray:
    """The matrix that turns control points into a smooth line through them."""
    t = np.linspace(0.0, 1.0, steps, endpoint=False)
    basis = 0.5 * np.array(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    )
    padded = np.zeros((points + 2, points))  # the ends are continued straight
    padded[1:-1] = np.eye(points)
    padded[0, :2], padded[-1, -2:] = (2, -1), (-1, 2)
    matrix = np.zeros((steps * (points - 1) + 1, points))
    for k in range(points - 1):
        matrix[k * steps : (k + 1) * steps] = basis.T @ padded[k : k + 4]
    matrix[-1, -1] = 1.0
    return matrix


def path(*points: Sequence[float]) -> Points:
    """Straight lines through the points."""
    return np.array(points, dtype=np.float64)


def curve(*points: Sequence[float]) -> Points:
    """A smooth line through all the points (Catmull-Rom spline)."""
    return _spline(len(points)) @ np.array(points, dtype=np.float64)


def mirrored(points: Points) -> Points:
    """The same line on the other side of the body, in reverse order."""
    return points[::-1] * (-1.0, 1.0)


def both_sides(right: Points) -> Points:
    """A closed outline from its right half, listed from the upper middle to the lower middle."""
    return np.concatenate([right, mirrored(right)])


def ellipse(x: float, y: float, rx: float, ry: float, steps: int = 20) -> Points:
    """An ellipse as a polygon."""
    angle = np.linspace(0.0, 2 * np.pi, steps, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def ribbon(spine: Points, half_widths: np.ndarray) -> Points:
    """The outline of a band of varying width along a line."""
    tangent = np.empty_like(spine)
    tangent[1:-1] = spine[2:] - spine[:-2]
    tangent[0], tangent[-1] = spine[1] - spine[0], spine[-1] - spine[-2]
    length = np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-9)
    offset = tangent[:, ::-1] * (-1.0, 1.0) * (np.asarray(half_widths) / length)[:, None]
    return np.concatenate([spine + offset, (spine - offset)[::-1]])


@cache
def rgb(color: str) -> Color:
    """``"#rrggbb"`` as three integers."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def mix(a: Color, b: Color, share: float) -> Color:
    """``a`` with a ``share`` of ``b``."""
    rest = 1.0 - share
    return (
        int(a[0] * rest + b[0] * share + 0.5),
        int(a[1] * rest + b[1] * share + 0.5),
        int(a[2] * rest + b[2] * share + 0.5),
    )


def darker(color: Color, share: float = 0.25) -> Color:
    """The color in shadow: towards a cool dark, as an illustrator would."""
    return mix(color, (28, 22, 48), share)


def lighter(color: Color, share: float = 0.25) -> Color:
    """The color in light: towards a warm white."""
    return mix(color, (255, 250, 240), share)


def contrast(color: Color, share: float = 0.3) -> Color:
    """A tone that is seen on ``color``: darker on light, lighter on dark."""
    return darker(color, share) if sum(color) > 270 else lighter(color, share)


@dataclass(frozen=True)
class View:
    """Where the body lands on the canvas: a rotation, a scale (pixels per height), an offset."""

    scale: float
    lean: float  # radians
    mirror: bool
    center_x: float  # canvas pixels of the body point (0, pivot)
    center_y: float
    pivot: float
    _matrix: np.ndarray = field(init=False, repr=False, compare=False)
    _offset: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        c, s = np.cos(self.lean) * self.scale, np.sin(self.lean) * self.scale
        sign = -1.0 if self.mirror else 1.0
        matrix = np.array([[sign * c, s], [-sign * s, c]])
        offset = np.array([self.center_x, self.center_y]) - (0.0, self.pivot) @ matrix
        object.__setattr__(self, "_matrix", matrix)
        object.__setattr__(self, "_offset", offset)

    def to_pixels(self, points: Points) -> Points:
        """Body coordinates -> canvas pixels, (N, 2) -> (N, 2)."""
        return points @ self._matrix + self._offset


@dataclass(frozen=True)
class Fabric:
    """Color and texture of one garment, in canvas terms."""

    color: Color
    accent: Color
    pattern: str
    pitch: float  # of the pattern, in body units
    angle: float  # of the pattern, radians


@dataclass
class Canvas:
    """An oversampled picture with the brushes of this package; all points in body coordinates."""

    size: int  # of the finished picture
    view: View
    shadow_side: float  # -1 shadow on the left of everything, +1 on the right
    image: Image.Image = field(init=False)
    pen: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        side = self.size * OVERSAMPLING
        self.image = Image.new("RGB", (side, side))
        self.pen = ImageDraw.Draw(self.image)

    def _flat(self, points: Points) -> list[float]:
        return self.view.to_pixels(points).ravel().tolist()

    def width(self, body: float) -> int:
        """A line width in body units as whole canvas pixels, at least one."""
        return max(1, round(body * self.view.scale))

    def fill(self, points: Points, color: Color) -> None:
        """A filled polygon."""
        self.pen.polygon(self._flat(points), fill=color)

    def line(self, points: Points, color: Color, width: float = 0.004) -> None:
        """A line of ``width`` body units."""
        self.pen.line(self._flat(points), fill=color, width=self.width(width), joint="curve")

    def outlined(self, points: Points, color: Color, edge: float = 0.3) -> None:
        """A filled polygon with a thin edge in its own darker tone."""
        flat = self._flat(points)
        self.pen.polygon(flat, fill=color)
        self._edge(flat, darker(color, edge))

    def _edge(self, flat: list[float], color: Color) -> None:
        self.pen.line([*flat, *flat[:2]], fill=color, width=self.width(0.0045))

    def dot(self, x: float, y: float, radius: float, color: Color) -> None:
        """A small disc."""
        (px, py) = self.view.to_pixels(np.array([[x, y]]))[0]
        r = max(radius * self.view.scale, 1.0)
        self.pen.ellipse((px - r, py - r, px + r, py + r), fill=color)

    def cloth(
        self, points: Points, fabric: Fabric, folds: list[Points] | None = None, edge: float = 0.32
    ) -> None:
        """A piece of fabric: pattern, soft shadow on one side, folds, and a thin edge."""
        outline = self.view.to_pixels(points)
        side = self.image.width
        low = np.clip(np.floor(outline.min(0)) - 1, 0, side).astype(int)
        high = np.clip(np.ceil(outline.max(0)) + 2, 0, side).astype(int)
        if (high - low < 2).any():
            return
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        ImageDraw.Draw(mask).polygon((outline - low).ravel().tolist(), fill=255)
        piece = self._texture(box, fabric)
        shade = self._shade(box, outline, folds or [])
        piece = ImageChops.multiply(piece, Image.merge("RGB", (shade, shade, shade)))
        self.image.paste(piece, box[:2], mask)
        self._edge(outline.ravel().tolist(), darker(fabric.color, edge))

    def _shade(self, box: tuple[int, ...], outline: Points, folds: list[Points]) -> Image.Image:
        """Soft shadow along one side of an outline, and along each fold; 255 = none."""
        size = (box[2] - box[0], box[3] - box[1])
        small = Image.new("L", (size[0] // _SHADE_GRID + 1, size[1] // _SHADE_GRID + 1), 205)
        pen = ImageDraw.Draw(small)
        sign = -1.0 if self.view.mirror else 1.0
        shift = 0.018 * self.view.scale * self.shadow_side
        for share, tone in ((1.0, 232), (2.0, 255)):
            moved = (outline - box[:2] - (shift * share, 0.0)) / _SHADE_GRID
            pen.polygon(moved.ravel().tolist(), fill=tone)
        for fold in folds:
            points = (self.view.to_pixels(fold) - box[:2]) / _SHADE_GRID
            width = max(1, round(0.012 * self.view.scale / _SHADE_GRID))
            pen.line(points.ravel().tolist(), fill=206, width=width)
            lit = points + (sign * width, 0.0)
            pen.line(lit.ravel().tolist(), fill=255, width=1)
        return small.resize(size, Image.Resampling.BILINEAR)

    def _texture(self, box: tuple[int, ...], fabric: Fabric) -> Image.Image:
        """The fabric's pattern over a box of the canvas."""
        size = (box[2] - box[0], box[3] - box[1])
        piece = Image.new("RGB", size, fabric.color)
        paint = _PATTERNS.get(fabric.pattern)
        if paint is not None:
            origin = self.view.to_pixels(np.array([[0.0, 0.3]]))[0] - box[:2]
            paint(ImageDraw.Draw(piece), size, origin, fabric, fabric.pitch * self.view.scale)
        return piece

    def finished(self) -> Image.Image:
        """The picture at its final size, antialiased."""
        return self.image.reduce(OVERSAMPLING)


def _parallel_lines(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    origin: np.ndarray,
    angle: float,
    pitch: float,
    width: int,
    color: Color,
) -> None:
    """Parallel lines over a whole box, one of them through ``origin``."""
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], list(size)]) - origin
    first, last = np.sort(corners @ across)[[0, -1]]
    reach = float(np.abs(corners @ along).max()) + pitch
    for k in range(int(first // pitch) - 1, int(last // pitch) + 2):
        middle = origin + across * (k * pitch)
        ends = (*(middle - along * reach), *(middle + along * reach))
        pen.line(ends, fill=color, width=width)


def _stripes(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    origin: np.ndarray,
    fabric: Fabric,
    pitch: float,
) -> None:
    pitch = max(pitch, 6.0)
    width = max(2, round(pitch * 0.45))
    _parallel_lines(pen, size, origin, fabric.angle, pitch, width, fabric.accent)


def _checks(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    origin: np.ndarray,
    fabric: Fabric,
    pitch: float,
) -> None:
    pitch = max(pitch * 1.2, 7.0)
    width = max(2, round(pitch * 0.4))
    half = mix(fabric.color, fabric.accent, 0.5)
    _parallel_lines(pen, size, origin, fabric.angle, pitch, width, half)
    _parallel_lines(pen, size, origin, fabric.angle + np.pi / 2, pitch, width, half)
    thin = max(1, width // 3)
    _parallel_lines(pen, size, origin, fabric.angle, pitch, thin, fabric.accent)


def _dots(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    origin: np.ndarray,
    fabric: Fabric,
    pitch: float,
) -> None:
    pitch = max(pitch * 1.3, 7.0)
    radius = pitch * 0.24
    for row in range(int(size[1] // pitch) + 2):
        y = row * pitch + origin[1] % pitch - pitch
        for column in range(int(size[0] // pitch) + 3):
            x = (column + 0.5 * (row % 2)) * pitch + origin[0] % pitch - pitch
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fabric.accent)


def _knit(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    origin: np.ndarray,
    fabric: Fabric,
    pitch: float,
) -> None:
    pitch = max(pitch * 0.6, 5.0)
    _parallel_lines(pen, size, origin, np.pi / 2, pitch, 1, contrast(fabric.color, 0.16))


def _blocks(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    origin: np.ndarray,
    fabric: Fabric,
    pitch: float,
) -> None:
    pitch = max(pitch * 4.0, 24.0)
    _parallel_lines(pen, size, origin, fabric.angle, pitch, round(pitch / 2), fabric.accent)


def _gradient(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    origin: np.ndarray,
    fabric: Fabric,
    pitch: float,
) -> None:
    for y in range(0, size[1], 3):
        share = float(np.clip((y - origin[1]) / (14.0 * max(pitch, 4.0)) + 0.3, 0.0, 1.0))
        pen.rectangle((0, y, size[0], y + 2), fill=mix(fabric.color, fabric.accent, share))


_PATTERNS = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "knit": _knit,
    "blocks": _blocks,
    "gradient": _gradient,
}
PATTERNS: tuple[str, ...] = ("plain", *_PATTERNS)
