"""Everything around the person: camera, room, things in front, light and noise."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from agman.datasets.wardrobe.body import UPPER_ARM, Arm, is_turned
from agman.datasets.wardrobe.garments import INVISIBLE, Outfit
from agman.datasets.wardrobe.geometry import (
    OVERSAMPLING,
    Canvas,
    Color,
    Fabric,
    View,
    both_sides,
    contrast,
    curve,
    darker,
    ellipse,
    lighter,
    mirrored,
    path,
    rgb,
)

_FRAMES = {
    "full": (-0.035, 1.015),
    "chin": (0.095, 1.012),
    "upper": (-0.03, 0.61),
    "torso": (0.095, 0.6),
    "lower": (0.37, 1.015),
}
_ROOMIEST = 1.11  # how many times its tight frame a small person gets


def view_of(outfit: Outfit, size: int) -> View:
    """The camera: what must stay visible stays visible, what must be cut off is cut off."""
    top, bottom, cut = _frame(outfit)
    extent = bottom - top
    if cut != "sides":
        extent *= 1.0 + (_ROOMIEST - 1.0) * (0.5 - 0.5 * outfit.zoom)
    slack = extent - (bottom - top)
    above = {"top": 0.0, "bottom": slack, "both": slack / 2}.get(
        cut, slack * (0.5 + 0.5 * outfit.shift_y)
    )
    pixels = size * OVERSAMPLING
    scale = pixels / extent
    room_beside = 0.0 if cut == "sides" else max(0.25 - 0.13 / extent, 0.02)
    middle = (top + bottom) / 2
    return View(
        scale=scale,
        lean=np.deg2rad(0.0 if cut == "sides" else outfit.lean),
        mirror=outfit.mirrored > 0.5,
        center_x=pixels * (0.5 + room_beside * outfit.shift_x),
        center_y=(middle - top + above) * scale,
        pivot=middle,
    )


def _frame(outfit: Outfit) -> tuple[float, float, str]:
    """Top and bottom of the tight frame, and the edge that cuts something off ("" for none)."""
    top, bottom = _FRAMES[outfit.framing]
    cropped = [name for name, way in outfit.hidden().items() if way == "crop"]
    if "sleeve_length" in cropped:
        top = 0.10 if outfit.neck_design is not None else 0.16
        return top, top + 0.205, "sides"
    if "coat_length" in cropped:
        return top, 0.355, "bottom"
    if {"skirt_length", "pant_length"} & set(cropped):
        return min(top, 0.2), 0.515, "bottom"
    if "lapel_design" in cropped:
        return 0.395, max(bottom, 0.95), "top"
    if cropped:
        return 0.29, max(bottom, 0.85), "top"
    return top, bottom, ""


def draw_room(canvas: Canvas, outfit: Outfit) -> None:
    """Wall, floor and a few simple shapes behind the person."""
    wall, floor = rgb(outfit.wall_color), rgb(outfit.floor_color)
    side = canvas.image.width
    _gradient(canvas.image, lighter(wall, 0.2), darker(wall, 0.12))
    horizon = float(np.clip(canvas.view.to_pixels(np.array([[0.0, 0.86]]))[0, 1], side / 2, side))
    canvas.pen.rectangle((0, horizon, side, side), fill=floor)
    paint = _ROOM_PAINTERS.get(outfit.room)
    if paint is not None:
        paint(canvas, outfit, horizon)
    feet = canvas.view.to_pixels(ellipse(0.0, 0.985, 0.15, 0.02))
    canvas.pen.polygon(feet.ravel().tolist(), fill=darker(floor, 0.22))


def _gradient(image: Image.Image, top: Color, bottom: Color) -> None:
    ramp = np.linspace(0.0, 1.0, image.height)[:, None]
    rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    column = Image.fromarray(np.round(rows).astype(np.uint8)[:, None, :])
    image.paste(column.resize(image.size))


def _window(canvas: Canvas, outfit: Outfit, horizon: float) -> None:
    s, prop = canvas.image.width, rgb(outfit.prop_color)
    x = s * (0.5 + 0.42 * outfit.prop_place)
    box = (x - 0.2 * s, 0.06 * s, x + 0.2 * s, 0.06 * s + 0.52 * s)
    canvas.pen.rectangle(box, fill=lighter(prop, 0.75))
    frame = darker(rgb(outfit.wall_color), 0.3)
    canvas.pen.rectangle(box, outline=frame, width=6)
    canvas.pen.line((x, box[1], x, box[3]), fill=frame, width=5)
    canvas.pen.line((box[0], 0.3 * s, box[2], 0.3 * s), fill=frame, width=5)


def _frames(canvas: Canvas, outfit: Outfit, horizon: float) -> None:
    s, prop = canvas.image.width, rgb(outfit.prop_color)
    for k, (x, y, w, h) in enumerate(
        ((0.06, 0.1, 0.2, 0.26), (0.72, 0.06, 0.24, 0.18), (0.78, 0.32, 0.16, 0.22))
    ):
        x += 0.05 * outfit.prop_place
        box = (x * s, y * s, (x + w) * s, (y + h) * s)
        canvas.pen.rectangle(
            box, fill=lighter(prop, 0.25 * k), outline=contrast(prop, 0.5), width=4
        )


def _panels(canvas: Canvas, outfit: Outfit, horizon: float) -> None:
    s = canvas.image.width
    tone = darker(rgb(outfit.wall_color), 0.13)
    width = s * (0.1 + 0.06 * abs(outfit.prop_place))
    for k in range(0, int(s / width) + 1, 2):
        canvas.pen.rectangle((k * width, 0, (k + 1) * width, horizon), fill=tone)
    canvas.pen.rectangle((0, horizon - 8, s, horizon), fill=lighter(tone, 0.4))


def _street(canvas: Canvas, outfit: Outfit, horizon: float) -> None:
    s, prop = canvas.image.width, rgb(outfit.prop_color)
    rng = np.random.default_rng(outfit.grain_seed)
    x = -0.05 * s
    while x < s:
        width, top = s * rng.uniform(0.14, 0.28), s * rng.uniform(0.04, 0.4)
        tone = lighter(prop, float(rng.uniform(0.25, 0.65)))
        canvas.pen.rectangle((x, top, x + width, horizon), fill=tone)
        for wy in np.arange(top + 0.05 * s, horizon - 0.05 * s, 0.1 * s):
            for wx in np.arange(x + 0.03 * s, x + width - 0.05 * s, 0.075 * s):
                canvas.pen.rectangle(
                    (wx, wy, wx + 0.035 * s, wy + 0.05 * s), fill=darker(tone, 0.22)
                )
        x += width


def _garden(canvas: Canvas, outfit: Outfit, horizon: float) -> None:
    s, prop = canvas.image.width, rgb(outfit.prop_color)
    rng = np.random.default_rng(outfit.grain_seed)
    for _ in range(9):
        x, y, r = rng.uniform(0, s), horizon - rng.uniform(0, 0.4) * s, s * rng.uniform(0.06, 0.15)
        tone = lighter(prop, float(rng.uniform(0.1, 0.55)))
        canvas.pen.ellipse((x - r, y - r, x + r, y + r), fill=tone)


def _arch(canvas: Canvas, outfit: Outfit, horizon: float) -> None:
    s, prop = canvas.image.width, lighter(rgb(outfit.prop_color), 0.35)
    x, r = s * (0.5 + 0.2 * outfit.prop_place), 0.34 * s
    canvas.pen.ellipse((x - r, 0.05 * s, x + r, 0.05 * s + 2 * r), fill=prop)
    canvas.pen.rectangle((x - r, 0.05 * s + r, x + r, horizon), fill=prop)


_ROOM_PAINTERS = {
    "window": _window,
    "frames": _frames,
    "panels": _panels,
    "street": _street,
    "garden": _garden,
    "arch": _arch,
}


def draw_behind_arms(canvas: Canvas, outfit: Outfit) -> None:
    """Things that hide a hem; the arms are drawn over them, so that sleeves stay visible."""
    for attribute, way in outfit.hidden().items():
        if way in ("table", "luggage", "hedge", "sofa"):
            _HEM_HIDERS[way](canvas, outfit, 0.335 if attribute == "coat_length" else 0.455)


def _table(canvas: Canvas, outfit: Outfit, top: float) -> None:
    color = rgb(outfit.prop_color)
    half = 0.42 + 0.2 * abs(outfit.prop_place)
    canvas.outlined(
        path(
            (-half + 0.02, top + 0.02),
            (half - 0.02, top + 0.02),
            (half - 0.02, 1.3),
            (0.02 - half, 1.3),
        ),
        darker(color, 0.18),
    )
    for x in np.arange(-half + 0.08, half, 0.11):
        canvas.line(path((x, top + 0.05), (x + 0.01, 1.3)), darker(color, 0.3), 0.006)
    canvas.outlined(
        path((-half, top), (half, top), (half, top + 0.035), (-half, top + 0.035)),
        lighter(color, 0.15),
    )


def _luggage(canvas: Canvas, outfit: Outfit, top: float) -> None:
    color = rgb(outfit.prop_color)
    half = 0.2
    box = curve(
        (-half, top + 0.04),
        (-half + 0.02, top),
        (half - 0.02, top),
        (half, top + 0.04),
        (half, 1.0),
        (-half, 1.0),
        (-half, top + 0.04),
    )
    canvas.line(
        path((-0.06, top), (-0.055, top - 0.035), (0.055, top - 0.035), (0.06, top)),
        darker(color, 0.5),
        0.014,
    )
    canvas.outlined(box, color, 0.45)
    for x in (-0.13, -0.045, 0.045, 0.13):
        canvas.line(path((x, top + 0.03), (x, 0.98)), darker(color, 0.22), 0.008)
    canvas.fill(
        path((-0.09, top + 0.09), (0.02, top + 0.09), (0.02, top + 0.16), (-0.09, top + 0.16)),
        lighter(color, 0.6),
    )
    for x in (-0.15, 0.15):
        canvas.dot(x, 1.0, 0.02, (40, 40, 44))


def _hedge(canvas: Canvas, outfit: Outfit, top: float) -> None:
    rng = np.random.default_rng(outfit.grain_seed)
    green = rgb(outfit.prop_color)
    green = (green[0] // 2 + 20, green[1] // 2 + 70, green[2] // 2 + 20)
    canvas.fill(
        path((-0.8, top + 0.05), (0.8, top + 0.05), (0.8, 1.4), (-0.8, 1.4)), darker(green, 0.25)
    )
    for row, tone in enumerate((0.25, 0.12, 0.0)):
        for x in np.arange(-0.7, 0.71, 0.085):
            dx, dy = rng.uniform(-0.02, 0.02, 2)
            y = top + 0.035 + 0.09 * row + dy
            canvas.fill(ellipse(x + dx, y, 0.065, 0.055, 12), darker(green, tone))
    for _ in range(26):
        x, y = rng.uniform(-0.55, 0.55), rng.uniform(top + 0.03, 1.0)
        canvas.line(path((x, y), (x + 0.02, y - 0.03)), lighter(green, 0.25), 0.009)


def _sofa(canvas: Canvas, outfit: Outfit, top: float) -> None:
    color = rgb(outfit.prop_color)
    half = 0.38 + 0.12 * outfit.prop_place
    back = curve(
        (-half, 1.2),
        (-half, top + 0.08),
        (-half + 0.07, top),
        (0.0, top - 0.006),
        (half - 0.07, top),
        (half, top + 0.08),
        (half, 1.2),
    )
    canvas.fill(
        path((-0.8, top + 0.2), (0.8, top + 0.2), (0.8, 1.4), (-0.8, 1.4)), darker(color, 0.3)
    )
    canvas.outlined(back, color, 0.4)
    canvas.line(
        curve((-half + 0.03, top + 0.06), (0.0, top + 0.045), (half - 0.03, top + 0.06)),
        darker(color, 0.3),
        0.008,
    )
    for x in (-0.16, 0.0, 0.16):
        for y in (top + 0.12, top + 0.22):
            canvas.dot(x, y, 0.009, darker(color, 0.4))


_HEM_HIDERS = {"table": _table, "luggage": _luggage, "hedge": _hedge, "sofa": _sofa}


def draw_over(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    """Things in front of everything: what hides neck parts and sleeves."""
    for attribute, way in outfit.hidden().items():
        if way == "hair":
            _front_hair(canvas, outfit)
        elif way == "scarf":
            _scarf(canvas, outfit, attribute)
        elif way == "bouquet":
            _bouquet(canvas, outfit, attribute)
        elif way == "board":
            _board(canvas, outfit)


def _other_fabric(outfit: Outfit, pattern: str = "plain") -> Fabric:
    return Fabric(
        rgb(outfit.prop_color), rgb(outfit.coat_accent), pattern, outfit.pitch, outfit.angle
    )


def _front_hair(canvas: Canvas, outfit: Outfit) -> None:
    hair = rgb(outfit.hair)
    lock = curve(
        (0.044, 0.03),
        (0.062, 0.09),
        (0.085, 0.17),
        (0.088, 0.26),
        (0.06, 0.315),
        (0.02, 0.305),
        (-0.006, 0.24),
        (-0.004, 0.17),
        (0.012, 0.134),
        (0.036, 0.11),
        (0.043, 0.07),
    )
    for points in (lock, mirrored(lock)):
        canvas.outlined(points, hair, 0.35)
    for x in (0.02, 0.042, 0.064):
        strand = curve((0.048, 0.1), (x, 0.18), (x, 0.29))
        for points in (strand, mirrored(strand)):
            canvas.line(points, contrast(hair, 0.2), 0.004)


def _scarf(canvas: Canvas, outfit: Outfit, attribute: str) -> None:
    fabric = _other_fabric(outfit, outfit.coat_pattern)
    end = 0.43 if attribute == "lapel_design" else 0.36
    if attribute == "lapel_design" or outfit.beneath > 0.5:
        drape = curve(
            (0.0, 0.2), (0.09, 0.2), (0.118, 0.235), (0.095, 0.3), (0.05, end - 0.04), (0.0, end)
        )
    else:
        drape = curve(
            (0.0, 0.2), (0.085, 0.198), (0.108, 0.225), (0.09, 0.27), (0.045, 0.295), (0.0, 0.3)
        )
    folds = [curve((-0.07, y), (0.0, y + 0.035), (0.075, y - 0.005)) for y in (0.215, 0.245)]
    canvas.cloth(both_sides(drape), fabric, folds)
    wrap = curve(
        (0.0, 0.135), (0.045, 0.132), (0.07, 0.16), (0.078, 0.2), (0.05, 0.232), (0.0, 0.242)
    )
    folds = [curve((-0.06, y), (0.0, y + 0.025), (0.062, y - 0.012)) for y in (0.155, 0.18, 0.205)]
    canvas.cloth(both_sides(wrap), fabric, folds)


def _bouquet(canvas: Canvas, outfit: Outfit, attribute: str) -> None:
    rng = np.random.default_rng(outfit.grain_seed)
    deep = attribute == "lapel_design"
    low, half = (0.37, 0.125) if deep else (0.285, 0.1)
    paper = lighter(rgb(outfit.coat_accent), 0.3)
    leaf, petal = (74, 120, 78), rgb(outfit.prop_color)
    canvas.outlined(
        path((-half, 0.24), (half, 0.24), (0.03, low + 0.12), (-0.03, low + 0.12)), paper
    )
    for tone in (darker(leaf, 0.2), leaf):
        for _ in range(16):
            x, y = rng.uniform(-half, half), rng.uniform(0.15, low)
            canvas.fill(ellipse(x, y, 0.034, 0.022, 10), tone)
    canvas.fill(ellipse(0.0, (0.15 + low) / 2, half, (low - 0.12) / 2), leaf)
    for _ in range(20 if deep else 15):
        x, y = rng.uniform(-half, half), rng.uniform(0.14, low)
        tone = lighter(petal, float(rng.uniform(0.0, 0.4)))
        canvas.outlined(ellipse(x, y, 0.025, 0.023, 10), tone, 0.25)
        canvas.dot(x, y, 0.008, darker(tone, 0.3))
    _hand(canvas, outfit, 0.01, low + 0.05)


def _board(canvas: Canvas, outfit: Outfit) -> None:
    color, inner = rgb(outfit.prop_color), rgb(outfit.coat_accent)
    half, top, bottom = 0.205, 0.285, 0.565
    canvas.outlined(path((-half, top), (half, top), (half, bottom), (-half, bottom)), color, 0.45)
    m = 0.022
    canvas.fill(
        path(
            (-half + m, top + m),
            (half - m, top + m),
            (half - m, bottom - m),
            (-half + m, bottom - m),
        ),
        lighter(inner, 0.45),
    )
    canvas.fill(ellipse(0.06 * outfit.prop_place, 0.43, 0.07, 0.06), lighter(color, 0.2))
    canvas.fill(
        curve(
            (-half + m, 0.52),
            (-0.08, 0.46),
            (0.03, 0.5),
            (0.1, 0.47),
            (half - m, 0.52),
            (half - m, bottom - m),
            (-half + m, bottom - m),
        ),
        darker(inner, 0.1),
    )
    for x in (-half, half):
        _hand(canvas, outfit, x, 0.46)


def _hand(canvas: Canvas, outfit: Outfit, x: float, y: float) -> None:
    skin = rgb(outfit.skin)
    canvas.outlined(ellipse(x, y, 0.022, 0.026, 12), skin, 0.3)
    for dy in (-0.01, 0.0, 0.01):
        canvas.line(path((x - 0.012, y + dy), (x + 0.012, y + dy)), darker(skin, 0.2), 0.003)


def draw_shawl(canvas: Canvas, outfit: Outfit) -> None:
    """A long shawl over shoulders and arms, open in front."""
    fabric = _other_fabric(outfit, outfit.coat_pattern)
    wide = 0.165 + 0.01 * outfit.looseness
    half = np.concatenate(
        [
            curve(
                (0.06, 0.192),
                (0.1, 0.2),
                (0.132, 0.24),
                (0.152, 0.34),
                (wide, 0.46),
                (wide + 0.01, 0.6),
            ),
            curve((0.12, 0.615), (0.072, 0.6)),
            curve((0.07, 0.45), (0.075, 0.3), (0.06, 0.192)),
        ]
    )
    folds = [curve((x * 0.85, 0.24), (x, 0.4), (x + 0.004, 0.59)) for x in (0.1, 0.135)]
    canvas.cloth(half, fabric, folds)
    canvas.cloth(mirrored(half), fabric, [mirrored(fold) for fold in folds])
    for sign in (-1, 1):
        for x in np.arange(0.078, wide + 0.01, 0.014):
            canvas.line(path((sign * x, 0.605), (sign * x, 0.63)), fabric.color, 0.005)


def draw_accessory(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    """Something worn or standing beside, which never hides a labelled value."""
    paint = _ACCESSORY_PAINTERS.get(outfit.accessory)
    front_only = outfit.accessory in ("glasses", "necklace")
    if paint is not None and not (front_only and is_turned(outfit)):
        paint(canvas, outfit, both)


def _handbag(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    if INVISIBLE in (outfit.sleeve_length, outfit.coat_length) or outfit.right_bend > 90:
        return
    if outfit.right_bend < -20:  # hand on the hip: the bag hangs from the elbow
        x, y = both[1].at(UPPER_ARM / (UPPER_ARM + 0.155))[0]
        x, y = x + 0.02, y + 0.01
    else:
        x, y = both[1].at(both[1].tip)[0]
    color = rgb(outfit.prop_color)
    canvas.line(
        curve((x - 0.035, y + 0.06), (x, y - 0.012), (x + 0.04, y + 0.06)),
        darker(color, 0.4),
        0.008,
    )
    bag = path(
        (x - 0.05, y + 0.055), (x + 0.06, y + 0.055), (x + 0.068, y + 0.14), (x - 0.055, y + 0.14)
    )
    canvas.outlined(bag, color, 0.45)
    canvas.fill(
        path(
            (x - 0.05, y + 0.055),
            (x + 0.06, y + 0.055),
            (x + 0.04, y + 0.095),
            (x - 0.03, y + 0.095),
        ),
        darker(color, 0.2),
    )
    canvas.dot(x + 0.005, y + 0.095, 0.008, lighter(color, 0.6))


def _crossbody(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    if INVISIBLE in (outfit.coat_length, outfit.skirt_length, outfit.pant_length):
        return
    color = rgb(outfit.prop_color)
    canvas.line(curve((-0.075, 0.208), (-0.01, 0.32), (0.09, 0.455)), darker(color, 0.3), 0.009)
    canvas.outlined(path((0.055, 0.45), (0.125, 0.45), (0.125, 0.505), (0.055, 0.505)), color, 0.45)


def _hat(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    color = rgb(outfit.prop_color)
    crown = curve((-0.05, 0.03), (-0.045, -0.02), (0.0, -0.035), (0.045, -0.02), (0.05, 0.03))
    canvas.outlined(crown, color)
    canvas.outlined(ellipse(0.0, 0.032, 0.083, 0.013), color)
    canvas.line(curve((-0.049, 0.018), (0.0, 0.027), (0.049, 0.018)), darker(color, 0.45), 0.01)


def _glasses(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    turn = 0.008 * outfit.head_turn
    for sign in (-1, 1):
        canvas.fill(ellipse(turn + sign * 0.02, 0.074, 0.016, 0.013, 14), (44, 40, 48))
    canvas.line(path((turn - 0.045, 0.069), (turn + 0.045, 0.069)), (44, 40, 48), 0.004)


def _necklace(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    if outfit.neckline_design in (None, INVISIBLE, "Straight", "Round"):
        return
    canvas.line(curve((-0.032, 0.18), (0.0, 0.222), (0.032, 0.18)), (226, 190, 96), 0.005)
    canvas.dot(0.0, 0.224, 0.006, (240, 214, 140))


def _plant(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    """A plant in a lower corner of the picture, in front of everything but the person."""
    s, side = canvas.image.width, np.sign(outfit.prop_place) or 1.0
    x0, leaf = s * (0.5 + side * 0.5), (66, 112, 74)
    for k, angle in enumerate(np.linspace(-0.9, 0.9, 7)):
        tip = np.array(
            [x0 - side * 0.05 * s + np.sin(angle) * 0.13 * s, s * (0.78 - 0.1 * np.cos(3 * angle))]
        )
        base = np.array([x0 - side * 0.02 * s, s * 1.0])
        bulge = np.array([0.025 * s, 0.0])
        middle = (tip + base) / 2
        points = np.concatenate([[base], [middle - bulge], [tip], [middle + bulge]])
        canvas.pen.polygon(points.ravel().tolist(), fill=lighter(leaf, 0.06 * k))


def _suitcase(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    x, color = 0.26 * (np.sign(outfit.prop_place) or 1.0), rgb(outfit.prop_color)
    canvas.line(
        path((x - 0.03, 0.73), (x - 0.03, 0.66), (x + 0.03, 0.66), (x + 0.03, 0.73)),
        darker(color, 0.5),
        0.009,
    )
    canvas.outlined(
        path((x - 0.075, 0.73), (x + 0.075, 0.73), (x + 0.075, 0.98), (x - 0.075, 0.98)),
        color,
        0.45,
    )
    for dx in (-0.035, 0.035):
        canvas.line(path((x + dx, 0.75), (x + dx, 0.965)), darker(color, 0.25), 0.008)


def _folder(canvas: Canvas, outfit: Outfit, both: tuple[Arm, Arm]) -> None:
    """A book or a folder in a hanging or raised hand."""
    if INVISIBLE in (outfit.sleeve_length, outfit.coat_length) or outfit.left_bend < -20:
        return
    x, y = both[0].at(both[0].tip)[0]
    y += -0.05 if outfit.left_bend > 90 else 0.02
    color = rgb(outfit.prop_color)
    canvas.outlined(
        path(
            (x - 0.055, y - 0.012),
            (x + 0.03, y - 0.03),
            (x + 0.045, y + 0.07),
            (x - 0.04, y + 0.085),
        ),
        color,
        0.45,
    )


_ACCESSORY_PAINTERS = {
    "handbag": _handbag,
    "crossbody": _crossbody,
    "hat": _hat,
    "glasses": _glasses,
    "necklace": _necklace,
    "plant": _plant,
    "suitcase": _suitcase,
    "folder": _folder,
}


def develop(canvas: Canvas, outfit: Outfit) -> Image.Image:
    """From canvas to photograph: downsample, blur, light, color cast, sensor noise."""
    image = canvas.finished()
    if outfit.blur > 0.25:
        image = image.filter(
            ImageFilter.GaussianBlur(0.6 * (outfit.blur - 0.25) * canvas.size / 96)
        )
    pixels = np.asarray(image, dtype=np.float32)
    ramp = np.linspace(-0.5, 0.5, canvas.size, dtype=np.float32)
    light = (
        1.0 + 0.17 * outfit.light + 0.22 * outfit.light_side * ramp[None, :] - 0.08 * ramp[:, None]
    )
    cast = np.array([1.0 + 0.07 * outfit.warmth, 1.0, 1.0 - 0.09 * outfit.warmth], dtype=np.float32)
    pixels = pixels * light[:, :, None] * cast
    if outfit.noise > 0:
        rng = np.random.default_rng(outfit.grain_seed)
        grain = rng.standard_normal(pixels.shape, dtype=np.float32)
        pixels += (4.5 * outfit.noise) * grain
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
