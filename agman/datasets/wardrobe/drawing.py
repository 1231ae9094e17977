"""Dress the person: every garment, every value, and the true region of every value.

A silhouette is a function of the height on the body and is only cut at the hem, so that a change
of length changes nothing above the shorter of the two hems.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from agman.datasets.wardrobe.body import (
    ARMPIT,
    CROTCH,
    WAIST,
    Arm,
    arm_width,
    arms,
    draw_arm,
    draw_hair_behind,
    draw_head,
    draw_legs,
    draw_torso,
    is_turned,
    leg_spine,
    leg_width,
    side,
    side_line,
)
from agman.datasets.wardrobe.fabrics import fabric_of, trim_of, upper_fabric
from agman.datasets.wardrobe.garments import INVISIBLE, Outfit
from agman.datasets.wardrobe.geometry import (
    Canvas,
    Color,
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
from agman.datasets.wardrobe.necks import NECK_REGIONS, closing_of, draw_neck_part
from agman.datasets.wardrobe.scene import (
    develop,
    draw_accessory,
    draw_behind_arms,
    draw_over,
    draw_room,
    draw_shawl,
    view_of,
)

DRAWING_VERSION = 3  # bump whenever any pixel changes: old caches are then made anew

# Heights of the hem of each value, and how far it may move within the value.
HEMS = {
    "skirt_length": {"Short": 0.592, "Knee": 0.708, "Midi": 0.815, "Ankle": 0.91, "Floor": 0.985},
    "coat_length": {"High Waist": 0.372, "Regular": 0.462, "Long": 0.545, "Micro": 0.63,
                    "Knee": 0.72, "Midi": 0.825, "Ankle & Floor": 0.945},
    "pant_length": {"Short": 0.56, "Mid": 0.675, "3/4": 0.78, "Cropped": 0.875, "Full": 0.965},
}  # fmt: skip
_HEM_TOLERANCE = {"skirt_length": 0.036, "coat_length": 0.008, "pant_length": 0.034}
# Where sleeves end along the arm: 0 the shoulder joint, 1 the wrist.
SLEEVES = {"Sleeveless": 0.0, "Cup": 0.13, "Short": 0.32, "Elbow": 0.51, "3/4": 0.69,
           "Wrist": 0.86, "Long": 1.01, "Extra Long": 1.2}  # fmt: skip
_SLEEVE_TOLERANCE = 0.02
_NO_REGION = (-1, -1, -1, -1)


def draw(
    outfit: Outfit, size: int = 96
) -> tuple[Image.Image, dict[str, tuple[int, int, int, int]]]:
    """Draw an outfit.

    Args:
        outfit: what to draw.
        size: side of the square picture in pixels.

    Returns:
        The RGB picture, and for each labelled attribute the box (x0, y0, x1, y1) in pixels, x1 and
        y1 exclusive, in which its value is decided; (-1, -1, -1, -1) for Invisible.
    """
    view = view_of(outfit, size)
    canvas = Canvas(size, view, -1.0 if outfit.light_side > 0 else 1.0)
    both = arms(outfit)
    draw_room(canvas, outfit)
    if outfit.accessory in ("suitcase", "plant"):
        draw_accessory(canvas, outfit, both)
    _draw_person(canvas, outfit, both)
    if outfit.accessory not in ("suitcase", "plant"):
        draw_accessory(canvas, outfit, both)
    draw_over(canvas, outfit, both)
    boxes = {name: _box(canvas, outfit, name, both) for name in outfit.labels()}
    return develop(canvas, outfit), boxes


def _draw_person(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    """Body and clothes, from back to front."""
    hidden = outfit.hidden()
    if not is_turned(outfit):
        draw_hair_behind(canvas, outfit)
    if hidden.get("sleeve_length") == "behind":
        _draw_arms(canvas, outfit, _hands_behind(both))
    draw_torso(canvas, outfit)
    draw_legs(canvas, outfit)
    _draw_top_and_bottom(canvas, outfit)
    if outfit.coat_or_blazer:
        _draw_coat(canvas, outfit)
    draw_behind_arms(canvas, outfit)
    if hidden.get("sleeve_length") != "behind":
        _draw_arms(canvas, outfit, both)
    if not is_turned(outfit):
        draw_neck_part(canvas, outfit)
    if hidden.get("sleeve_length") == "shawl":
        draw_shawl(canvas, outfit)
    draw_head(canvas, outfit)


def _hands_behind(both: tuple[Arm, Arm]) -> tuple[Arm, Arm]:
    """Elbows out, hands behind the back."""
    shoulder = both[1].at(0.0)[0]
    spine = curve(tuple(shoulder), (shoulder[0] + 0.035, 0.29), (shoulder[0] + 0.045, 0.362),
                  (shoulder[0] + 0.012, 0.405), (0.05, 0.44), (0.0, 0.46))  # fmt: skip
    steps = np.hypot(*np.diff(spine, axis=0).T)
    t = np.concatenate([[0.0], np.cumsum(steps)])
    right = Arm(spine, t / t[-1] * 1.2)
    return Arm(spine * (-1.0, 1.0), right.t), right


# ------------------------------------------------------------------------------ top, bottom


def _draw_top_and_bottom(canvas: Canvas, outfit: Outfit) -> None:
    skirt, pants = outfit.drawn("skirt_length"), outfit.drawn("pant_length")
    if outfit.category == "dress":
        _draw_skirt(canvas, outfit, fabric_of(outfit, "top"), skirt or "Knee")
        _draw_bodice(canvas, outfit, WAIST + 0.006)
        belt = trim_of(outfit) if outfit.detail > 0.5 else darker(rgb(outfit.top_color), 0.2)
        _draw_band(canvas, outfit, WAIST - 0.008, WAIST + 0.009, belt, 0.006)
        return
    tucked = outfit.tucked > 0.5 or outfit.is_bottom or skirt is not None
    if not tucked:
        _draw_bottom(canvas, outfit, skirt, pants)
    _draw_bodice(canvas, outfit, 0.42 if tucked else 0.47 + 0.01 * outfit.hem_ease)
    if tucked:
        _draw_bottom(canvas, outfit, skirt, pants)


def _draw_bottom(canvas: Canvas, outfit: Outfit, skirt: str | None, pants: str | None) -> None:
    if skirt is not None:
        _draw_skirt(canvas, outfit, fabric_of(outfit, "bottom"), skirt)
        _draw_band(
            canvas, outfit, WAIST, WAIST + 0.02, darker(rgb(outfit.bottom_color), 0.25), 0.007
        )
    else:
        under_coat = "Short" if outfit.detail < 0.4 else "Full"
        _draw_trousers(canvas, outfit, pants or under_coat)


def _draw_band(
    canvas: Canvas, outfit: Outfit, top: float, bottom: float, color: Color, extra: float
) -> None:
    """A belt or a waistband."""
    half = path(*((float(side(y, outfit.build)) + extra, y) for y in (top, bottom)))
    canvas.outlined(both_sides(half), color, 0.35)


def _draw_bodice(canvas: Canvas, outfit: Outfit, hem: float) -> None:
    """The body of a top, down to ``hem``, with its neckline cut out."""
    fabric = fabric_of(outfit, "top")
    if outfit.is_bottom:
        fabric = upper_fabric(outfit)
    loose = 0.006 + 0.004 * outfit.looseness
    if outfit.category == "dress":
        loose = 0.004
    right, opening, left = _neck_opening(outfit)
    sides = side_line(ARMPIT - 0.005, hem, outfit.build, loose)
    outline = np.concatenate([opening, right, sides, mirrored(sides), left])
    folds = [curve((x, 0.3), (x * 0.8, 0.36), (x * 0.9, min(hem, 0.45))) for x in (-0.055, 0.06)]
    canvas.cloth(outline, fabric, folds)
    edge = darker(fabric.color, 0.35)
    canvas.line(opening, edge, 0.006)
    if outfit.is_bottom:
        _draw_straps(canvas, fabric)
    if outfit.category == "sweater":
        _draw_ribbing(canvas, outfit, hem, fabric)
    elif outfit.category == "shirt" and not is_turned(outfit):
        _draw_placket(canvas, fabric, 0.21, hem)
    elif outfit.category == "dress" and outfit.collar_design is not None and not is_turned(outfit):
        _draw_placket(canvas, fabric, 0.21, WAIST)


def _draw_straps(canvas: Canvas, fabric: Fabric) -> None:
    """Thin straps of the plain camisole worn with the skirts and trousers on show."""
    for sign in (-1, 1):
        canvas.line(path((sign * 0.056, 0.262), (sign * 0.052, 0.2)), fabric.color, 0.009)


def _draw_ribbing(canvas: Canvas, outfit: Outfit, hem: float, fabric: Fabric) -> None:
    top = hem - 0.026
    half = float(side(hem, outfit.build)) + 0.004
    for x in np.arange(-half + 0.008, half - 0.004, 0.0115):
        canvas.line(path((x, top), (x, hem)), darker(fabric.color, 0.3), 0.003)
    canvas.line(path((-half, top), (half, top)), darker(fabric.color, 0.35), 0.004)


def _draw_placket(canvas: Canvas, fabric: Fabric, top: float, bottom: float) -> None:
    """The buttoned front of a shirt."""
    color = lighter(fabric.color, 0.1)
    canvas.fill(path((-0.01, top), (0.01, top), (0.01, bottom), (-0.01, bottom)), color)
    for x in (-0.01, 0.01):
        canvas.line(path((x, top), (x, bottom)), darker(fabric.color, 0.3), 0.003)
    for y in np.arange(top + 0.05, bottom - 0.01, 0.042):
        canvas.dot(0.0, float(y), 0.0055, contrast(color, 0.55))


def _neck_opening(outfit: Outfit) -> tuple[Points, Points, Points]:
    """Right shoulder, neckline from left to right, and left shoulder of a top.

    The shoulders run from the neckline to the armhole on the right and back on the left.
    """
    b = 1 + 0.07 * outfit.build
    shoulder = curve(
        (0.07, 0.199), (0.092 * b, 0.208), (0.088 * b, 0.24), (0.09 * b, ARMPIT - 0.005)
    )
    value = outfit.drawn("neckline_design")
    if outfit.is_bottom:
        value = "Strapless"
    elif is_turned(outfit) or outfit.coat_or_blazer or value is None:
        value = "Round" if outfit.neckline_design == INVISIBLE else "High"
    deep = 0.008 * outfit.neck_ease
    if value == "Strapless":
        edge = curve((-0.091 * b, 0.266 + deep), (-0.045, 0.258 + deep), (0.0, 0.262 + deep),
                     (0.045, 0.258 + deep), (0.091 * b, 0.266 + deep))  # fmt: skip
        return edge[-1:], edge, edge[:1]
    if value == "Off Shoulder":
        edge = curve((-0.118 * b, 0.245), (-0.06, 0.25 + deep), (0.0, 0.256 + deep),
                     (0.06, 0.25 + deep), (0.118 * b, 0.245))  # fmt: skip
        drop = path((0.121 * b, 0.262), (0.092 * b, 0.276))
        return drop, edge, mirrored(drop)
    if value == "One Shoulder":
        edge = curve(
            (-0.058, 0.192), (-0.012, 0.222 + deep), (0.045, 0.249 + deep), (0.09 * b, 0.272)
        )
        return edge[-1:], edge, mirrored(shoulder)
    edge = _symmetric_opening(value, deep)
    return shoulder, np.concatenate([mirrored(edge), edge]), mirrored(shoulder)


def _symmetric_opening(value: str, deep: float) -> Points:
    """The right half of a neckline, from its lowest middle point up to the shoulder."""
    if value == "V":
        return path((0.0, 0.283 + deep), (0.052, 0.192))
    if value == "Deep V":
        return curve((0.0, 0.358 + deep), (0.036, 0.27), (0.06, 0.194))
    if value == "Square":
        return path((0.0, 0.262 + deep), (0.059, 0.262 + deep), (0.063, 0.195))
    if value == "Round":
        return curve((0.0, 0.246 + deep), (0.032, 0.237 + deep), (0.052, 0.212), (0.057, 0.193))
    if value == "Straight":
        return curve((0.0, 0.213 + deep / 3), (0.06, 0.211 + deep / 3), (0.089, 0.207))
    if value == "Sweetheart":
        dip, lobe = (0.0, 0.31 + deep), (0.037, 0.243 + deep)
        heart = curve(dip, (0.007, 0.272 + deep), lobe, (0.066, 0.262 + deep))
        return np.concatenate([heart, path((0.074, 0.24), (0.071, 0.197))])
    return curve((0.0, 0.207), (0.03, 0.203), (0.043, 0.187))  # "High": under a collar


def _skirt_half_width(y: np.ndarray, outfit: Outfit) -> np.ndarray:
    """Half width of a skirt at height ``y``, whatever its length."""
    slope = {"pencil": 0.03, "a-line": 0.17, "flared": 0.29, "pleated": 0.22}[outfit.skirt_cut]
    slope *= 1.0 + 0.25 * outfit.flare
    below = np.maximum(y - 0.44, 0.0)
    return side(np.minimum(y, 0.465), outfit.build) + 0.006 + slope * below / (1 + 1.1 * below)


def _draw_skirt(canvas: Canvas, outfit: Outfit, fabric: Fabric, value: str) -> None:
    hem = _hem(outfit, "skirt_length", value)
    y = np.linspace(WAIST, hem, 12)
    right = np.stack([_skirt_half_width(y, outfit), y], axis=1)
    width = right[-1, 0]
    waves = 1 if outfit.skirt_cut in ("pencil", "a-line") else 5
    x = np.linspace(width, -width, 4 * waves + 1)
    wave = (
        0.006 * np.cos(np.pi * waves * (x / width + 1))
        if waves > 1
        else 0.008 * (1 - (x / width) ** 2)
    )
    bottom = np.stack([x, hem + wave * (1 if hem < 0.97 else 0.3)], axis=1)
    outline = np.concatenate([right, bottom, mirrored(right)])
    count = {"pencil": 2, "a-line": 3, "flared": 5, "pleated": 8}[outfit.skirt_cut]
    folds = [curve((0.5 * f * 0.1, 0.42), (f * _skirt_half_width(np.array(0.52), outfit), 0.52),
                   (f * _skirt_half_width(np.array(hem), outfit), hem))
             for f in np.linspace(-0.75, 0.75, count)]  # fmt: skip
    canvas.cloth(outline, fabric, folds)
    seam = bottom - (0.0, 0.016)
    canvas.line(seam[1:-1] * (0.985, 1.0), darker(fabric.color, 0.25), 0.003)
    if outfit.skirt_cut == "pleated":
        for fold in folds:
            canvas.line(fold, darker(fabric.color, 0.25), 0.003)


def _hem(outfit: Outfit, attribute: str, value: str) -> float:
    ease = outfit.hem_ease * _HEM_TOLERANCE[attribute]
    return HEMS[attribute][value] + (
        ease if value not in ("Floor", "Ankle & Floor", "Full") else ease / 2
    )


def _draw_trousers(canvas: Canvas, outfit: Outfit, value: str) -> None:
    hem = _hem(outfit, "pant_length", value)
    fabric = fabric_of(outfit, "bottom")
    spine = leg_spine(outfit)
    y = np.linspace(0.475, hem, 16)
    x = np.interp(y, spine[:, 1], spine[:, 0])
    slope = {"slim": 0.0, "straight": 0.022, "wide": 0.062}[outfit.pant_cut] * (
        1 + 0.3 * outfit.flare
    )
    half = (
        np.maximum(leg_width(y, outfit.build), 0.024)
        + 0.007
        + slope * np.clip((y - 0.5) / 0.45, 0, 1)
    )
    inner = np.maximum(x - half, 0.002)
    waist = side_line(WAIST, 0.475, outfit.build, 0.006)
    outer = np.stack([np.maximum(x + half, 0), y], axis=1)
    inside = np.stack([np.where(y < CROTCH + 0.012, 0.0, inner), y], axis=1)
    right = np.concatenate([path((0.0, WAIST)), waist, outer, inside[::-1]])
    crease = [np.stack([x[3:], y[3:]], axis=1)]
    for leg, fold in ((mirrored(right), mirrored(crease[0])), (right, crease[0])):
        canvas.cloth(leg, fabric, [fold])
    for sign in (-1.0, 1.0):
        cuff = path((x[-1] - half[-1], hem - 0.018), (x[-1] + half[-1], hem - 0.018)) * (sign, 1.0)
        canvas.line(cuff, darker(fabric.color, 0.3), 0.004)
        canvas.line(curve((0.04, WAIST + 0.025), (0.055, 0.42), (0.09, 0.435)) * (sign, 1.0),
                    darker(fabric.color, 0.3), 0.003)  # fmt: skip
    canvas.line(path((0.0, WAIST), (0.0, CROTCH)), darker(fabric.color, 0.3), 0.003)
    _draw_band(canvas, outfit, WAIST, WAIST + 0.02, darker(fabric.color, 0.25), 0.007)


# ---------------------------------------------------------------------------------- sleeves


def _draw_arms(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    bare_side = outfit.drawn("neckline_design") == "One Shoulder" and not outfit.coat_or_blazer
    for k, arm in enumerate(both):
        draw_arm(canvas, outfit, arm)
        if not (bare_side and k == 1):
            _draw_sleeve(canvas, outfit, arm)


def _sleeve_end(outfit: Outfit) -> float:
    value = outfit.drawn("sleeve_length")
    if value in (None, "Sleeveless"):
        return 0.0
    return SLEEVES[value] + _SLEEVE_TOLERANCE * outfit.sleeve_ease * (0.4 if value == "Cup" else 1)


def _sleeve_width(t: np.ndarray, outfit: Outfit) -> np.ndarray:
    """Half width of a sleeve along the arm, whatever its length."""
    base = np.maximum(arm_width(np.minimum(t, 0.9), outfit.build), 0.018)
    room = {"slim": 0.004, "straight": 0.008, "bell": 0.006, "puff": 0.008}[outfit.sleeve_cut]
    if outfit.coat_or_blazer:
        room += 0.005
    extra = np.full_like(t, room + 0.003 * outfit.looseness)
    if outfit.sleeve_cut == "bell":
        extra = extra + 0.018 * np.clip(t - 0.35, 0, 0.8)
    if outfit.sleeve_cut == "puff":
        extra = extra + 0.013 * np.sin(np.pi * np.clip(t / 0.3, 0, 1))
    return base + extra


def _draw_sleeve(canvas: Canvas, outfit: Outfit, arm: Arm) -> None:
    end = min(_sleeve_end(outfit), arm.tip)
    if end <= 0:
        return
    fabric = upper_fabric(outfit)
    neckline = None if outfit.coat_or_blazer else outfit.drawn("neckline_design")
    bare = neckline in ("Off Shoulder", "Strapless")
    start = {"Off Shoulder": 0.11, "Strapless": 0.22}.get(neckline or "", 0.0)
    spine, t = arm.part(start, max(end, start + 0.03))
    width = _sleeve_width(t, outfit)
    if outfit.drawn("sleeve_length") == "Cup":
        width = width + 0.012 * np.clip(t / 0.12, 0, 1)
    outline = ribbon(spine, width)
    if not bare:
        x, y = spine[0]
        sign = 1.0 if x > 0 else -1.0
        inner = path(
            (x - sign * 0.02, y - 0.021),
            (x - sign * 0.004, y - 0.025),
            (x + sign * 0.018, y - 0.016),
        )
        outline = np.concatenate([inner if sign < 0 else inner[::-1], outline])
    folds = []
    if end > 0.55:
        bend = arm.at(0.52)[0]
        folds = [curve((bend[0] - 0.016, bend[1] - 0.006), (bend[0] + 0.012, bend[1] + 0.006))]
    canvas.cloth(outline, fabric, folds)
    _draw_cuff(canvas, outfit, arm, end, fabric)


def _draw_cuff(canvas: Canvas, outfit: Outfit, arm: Arm, end: float, fabric: Fabric) -> None:
    """The seam at the end of a sleeve, a band for shirts and sweaters."""
    deep = 0.045 if outfit.category in ("shirt", "sweater") and end > 0.2 else 0.022
    band, t = arm.part(end - deep, end)
    color = trim_of(outfit) if deep > 0.03 else fabric.color
    if outfit.trim > 0.6 or deep > 0.03:
        canvas.outlined(ribbon(band, _sleeve_width(t, outfit) + 0.001), color, 0.35)
    else:
        edge = ribbon(band[:1].repeat(2, 0) + (band[-1:] - band[:1]) * ((0.0,), (0.01,)),
                      _sleeve_width(t[:2], outfit) - 0.003)  # fmt: skip
        canvas.line(edge[[0, -1]], darker(fabric.color, 0.3), 0.003)


# ------------------------------------------------------------------------------------ coats


def _coat_half_width(y: np.ndarray, outfit: Outfit) -> np.ndarray:
    """Half width of a coat at height ``y``, whatever its length."""
    loose = 0.016 + 0.004 * outfit.looseness
    shape = side(np.clip(y, 0.27, 0.465), outfit.build) + loose
    if not _belted(outfit) and outfit.category == "coat":
        shape = np.maximum(shape, 0.098 + 0.006 * outfit.looseness)
    return shape + (0.12 + 0.07 * outfit.flare) * np.maximum(y - 0.44, 0.0)


def _belted(outfit: Outfit) -> bool:
    return outfit.category == "coat" and outfit.detail > 0.62


def _draw_coat(canvas: Canvas, outfit: Outfit) -> None:
    fabric = fabric_of(outfit, "coat")
    value = outfit.drawn("coat_length")
    hem = _hem(outfit, "coat_length", value) if value else 0.485 + 0.008 * outfit.hem_ease
    b = 1 + 0.07 * outfit.build
    y = np.linspace(ARMPIT, hem, 14)
    sides = np.stack([_coat_half_width(y, outfit), y], axis=1)
    shoulder = curve(
        (0.036, 0.181), (0.075, 0.197), (0.103 * b, 0.209), (0.108 * b, 0.235), tuple(sides[0])
    )
    half = np.concatenate([shoulder, sides, path((0.0, hem + 0.006))])
    folds = [
        curve((s * 0.06, 0.4), (s * 0.075, 0.5), (s * 0.09, hem)) for s in (-1, 1) if hem > 0.5
    ]
    canvas.cloth(np.concatenate([path((0.0, 0.2)), both_sides(half)]), fabric, folds)
    rim = np.stack(
        [np.linspace(-1, 1, 7) * (sides[-1, 0] - 0.004), np.full(7, hem - 0.014)], axis=1
    )
    canvas.line(rim, darker(fabric.color, 0.3), 0.003)
    if is_turned(outfit):
        canvas.line(path((0.0, 0.26), (0.0, hem)), darker(fabric.color, 0.35), 0.004)
    else:
        _draw_front(canvas, outfit, fabric, hem)
    if _belted(outfit) and hem > WAIST + 0.03:
        _draw_belt(canvas, outfit)


def _draw_front(canvas: Canvas, outfit: Outfit, fabric: Fabric, hem: float) -> None:
    """The opening with what is worn inside, the closing edge, buttons and pockets."""
    close = closing_of(outfit)
    ink = darker(fabric.color, 0.42)
    canvas.cloth(
        path((-0.05, 0.188), (0.0, 0.2), (0.05, 0.188), (0.0, close)), fabric_of(outfit, "top")
    )
    neck = curve((-0.04, 0.18), (-0.028, 0.205), (0.0, 0.228), (0.028, 0.205), (0.04, 0.18))
    canvas.fill(neck, rgb(outfit.skin))
    canvas.line(neck, darker(rgb(outfit.top_color), 0.35), 0.005)
    gap = 0.035 * max(outfit.coat_open - 0.5, 0.0) * 2
    if gap > 0.006 and hem > close + 0.05 and not _belted(outfit):
        start = close + 0.05
        inside = path(
            (0.0, start),
            (gap * (hem - start) / 0.3, hem + 0.007),
            (-gap * (hem - start) / 0.3, hem + 0.007),
        )
        canvas.fill(inside, darker(fabric.color, 0.62))
    else:
        canvas.line(path((0.0, close), (0.012, close + 0.03), (0.012, hem)), ink, 0.004)
    button = contrast(fabric.color, 0.6)
    rows = np.arange(close + 0.022, min(hem - 0.012, 0.52), 0.05)
    if outfit.category == "blazer":
        rows = rows[:1]
    for y in rows:
        for x in (-0.024, 0.03) if outfit.category == "coat" and outfit.detail < 0.35 else (0.0,):
            canvas.dot(x, float(y), 0.0075, button)
    _draw_pockets(canvas, outfit, ink, hem)


def _draw_pockets(canvas: Canvas, outfit: Outfit, ink: Color, hem: float) -> None:
    for sign in (-1.0, 1.0):
        if outfit.category == "blazer":
            flap = path((0.035, 0.415), (0.08, 0.41), (0.082, 0.428), (0.036, 0.433)) * (sign, 1.0)
            canvas.line(np.concatenate([flap, flap[:1]]), ink, 0.004)
        elif hem > 0.5:
            canvas.line(path((0.05, 0.435), (0.074, 0.485)) * (sign, 1.0), ink, 0.006)
    if outfit.category == "blazer":
        canvas.line(path((0.048, 0.295), (0.078, 0.289)), lighter(rgb(outfit.top_color), 0.2), 0.01)


def _draw_belt(canvas: Canvas, outfit: Outfit) -> None:
    color = trim_of(outfit) if outfit.trim > 0.6 else darker(rgb(outfit.coat_color), 0.22)
    half = float(_coat_half_width(np.array(WAIST + 0.01), outfit))
    canvas.outlined(
        path((-half, WAIST), (half, WAIST), (half, WAIST + 0.024), (-half, WAIST + 0.024)),
        color,
        0.4,
    )
    canvas.outlined(
        path(
            (-0.016, WAIST - 0.004),
            (0.016, WAIST - 0.004),
            (0.016, WAIST + 0.028),
            (-0.016, WAIST + 0.028),
        ),
        lighter(color, 0.35),
        0.5,
    )


# ---------------------------------------------------------------------------------- regions


def _box(
    canvas: Canvas, outfit: Outfit, attribute: str, both: tuple[Arm, Arm]
) -> tuple[int, int, int, int]:
    """The region of an attribute in pixels of the finished picture, clipped to the frame."""
    value = getattr(outfit, attribute)
    if value == INVISIBLE:
        return _NO_REGION
    if attribute == "sleeve_length":
        points = _sleeve_points(outfit, both)
    elif attribute in HEMS:
        points = _hem_points(outfit, attribute, value)
    else:
        half, top, bottom = NECK_REGIONS[value]
        points = path((-half, top), (half, top), (half, bottom), (-half, bottom))
    pixels = canvas.view.to_pixels(points) * (canvas.size / canvas.image.width)
    low = np.clip(np.floor(pixels.min(0)), 0, canvas.size - 1).astype(int)
    high = np.clip(np.ceil(pixels.max(0)), low + 1, canvas.size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _sleeve_points(outfit: Outfit, both: tuple[Arm, Arm]) -> Points:
    end = min(_sleeve_end(outfit) + 0.08, both[0].tip)
    sleeved = both[:1] if outfit.neckline_design == "One Shoulder" else both
    return np.concatenate([ribbon(*_with_width(arm.part(0.0, end), outfit)) for arm in sleeved])


def _with_width(part: tuple[Points, np.ndarray], outfit: Outfit) -> tuple[Points, np.ndarray]:
    return part[0], _sleeve_width(part[1], outfit) + 0.004


def _hem_points(outfit: Outfit, attribute: str, value: str) -> Points:
    """From mid-thigh, or just above a shorter hem, to just below the hem."""
    hem = _hem(outfit, attribute, value)
    if attribute == "coat_length":
        half, top = float(_coat_half_width(np.array(hem), outfit)), min(hem - 0.08, 0.5)
    elif attribute == "skirt_length":
        half, top = float(_skirt_half_width(np.array(hem), outfit)), min(hem - 0.07, 0.55)
    else:
        spine = leg_spine(outfit)
        half, top = float(np.interp(hem, spine[:, 1], spine[:, 0])) + 0.06, min(hem - 0.06, 0.54)
    bottom = min(hem + 0.03, 1.0)
    return path((-half, top), (half, top), (half, bottom), (-half, bottom))
