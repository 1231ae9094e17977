"""The description of one outfit, and how to draw one at random.

An outfit is plain data: names and floats.
Two outfits that differ in one field differ in one thing on the picture, which is what
``dataclasses.replace`` is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np

from agman.attributes import FASHIONAI
from agman.datasets.wardrobe.geometry import PATTERNS, rgb
from agman.errors import InputError

T = TypeVar("T")
INVISIBLE = "Invisible"
CATEGORIES = ("shirt", "sweater", "top", "dress", "skirt", "trousers", "coat", "blazer")
_NECK_PARTS = ("collar_design", "neckline_design", "neck_design")
_HEMS = ("skirt_length", "pant_length")
WITHOUT_HEMS = ("torso", "upper")  # framings that end above any hem worth a label

# How often a category is drawn for the attribute pictures: rarer values need more pictures.
_SHARES = (0.13, 0.15, 0.19, 0.20, 0.05, 0.06, 0.18, 0.04)
# The attributes a category can carry, and so the categories to choose from when one is asked for.
_CARRIES: dict[str, tuple[str, ...]] = {
    "shirt": ("collar_design", "sleeve_length", *_HEMS),
    "sweater": ("neck_design", "sleeve_length", *_HEMS),
    "top": ("neckline_design", "sleeve_length", *_HEMS),
    "dress": (*_NECK_PARTS, "sleeve_length", "skirt_length"),
    "skirt": ("skirt_length",),
    "trousers": ("pant_length",),
    "coat": ("lapel_design", "sleeve_length", "coat_length"),
    "blazer": ("lapel_design", "sleeve_length", *_HEMS),
}
_DRESS_NECK_SHARES = (0.25, 0.4, 0.35)

# Several ways to hide each attribute, so that no single trick gives "Invisible" away.
_WAYS: dict[str, tuple[str, ...]] = {
    "skirt_length": ("crop", "table", "luggage", "hedge"),
    "pant_length": ("crop", "table", "luggage", "hedge"),
    "coat_length": ("crop", "table", "sofa", "hedge"),
    "sleeve_length": ("shawl", "crop", "board", "behind"),
    "collar_design": ("scarf", "hair", "turned", "crop", "bouquet"),
    "lapel_design": ("scarf", "turned", "crop", "bouquet"),
    "neckline_design": ("scarf", "hair", "turned", "crop", "bouquet"),
    "neck_design": ("scarf", "hair", "turned", "crop", "bouquet"),
}
_LONG_SLEEVES = ("3/4", "Wrist", "Long", "Extra Long")
_COVERED_NECKLINES = ("Straight", "V", "Square", "Round", "Sweetheart")
_BARE_SHOULDERS = ("Strapless", "Off Shoulder", "One Shoulder")


@dataclass(frozen=True)
class Nuisance:
    """How much of everything that is not a value changes from picture to picture.

    1 is the strength the shipped lab uses, 0 switches a nuisance off; this is the one place to
    make the lab easier or harder.
    """

    color: float = 1.0
    texture: float = 1.0
    cut: float = 1.0  # widths and shapes of garments, lengths within a value's tolerance
    pose: float = 1.0
    framing: float = 1.0  # scale and shift of the person in the picture
    background: float = 1.0
    occlusion: float = 1.0  # accessories and things in front that do not hide a value
    light: float = 1.0
    blur: float = 1.0
    noise: float = 1.0


@dataclass(frozen=True)
class Outfit:
    """One picture before it is drawn.

    The eight attributes hold a value name of FashionAI, or ``None`` when nothing worn has the
    attribute (or the picture does not claim it).
    Fields from -1 to 1 are deviations from the usual; fields from 0 to 1 choose or fade.
    """

    category: str
    skirt_length: str | None = None
    sleeve_length: str | None = None
    coat_length: str | None = None
    pant_length: str | None = None
    collar_design: str | None = None
    lapel_design: str | None = None
    neckline_design: str | None = None
    neck_design: str | None = None
    hide: float = 0.5  # 0..1, chooses the way in which an Invisible attribute is hidden
    beneath: float = 0.5  # 0..1, chooses what is drawn underneath

    # cut
    sleeve_ease: float = 0.0  # -1..1, length within the value's tolerance
    hem_ease: float = 0.0
    neck_ease: float = 0.0
    looseness: float = 0.0
    flare: float = 0.0
    sleeve_cut: str = "straight"
    skirt_cut: str = "a-line"
    pant_cut: str = "straight"
    tucked: float = 0.0  # 0..1, above one half the top goes into the waistband
    coat_open: float = 0.0  # 0..1, gap below the closing point
    trim: float = 0.0  # 0..1, above 0.6 collar, cuffs and belt have the accent color
    detail: float = 0.0  # 0..1, chooses buttons, belt, pockets

    # fabrics
    top_color: str = "#c8553d"
    top_accent: str = "#f2e9dc"
    top_pattern: str = "plain"
    bottom_color: str = "#34506b"
    bottom_accent: str = "#dfe6ec"
    bottom_pattern: str = "plain"
    coat_color: str = "#8a6d4f"
    coat_accent: str = "#3b2f2a"
    coat_pattern: str = "plain"
    pitch: float = 0.025  # of patterns, in heights of the person
    angle: float = 0.0  # of patterns, radians

    # person
    skin: str = "#d9a47f"
    hair: str = "#3a2a22"
    hair_style: str = "bob"
    build: float = 0.0  # -1 slim .. 1 broad
    head_turn: float = 0.0
    left_raise: float = 14.0  # degrees of the upper arm from hanging down, outwards
    left_bend: float = 4.0  # degrees of the forearm, likewise
    right_raise: float = 14.0
    right_bend: float = 4.0
    stance: float = 0.0
    lean: float = 0.0  # degrees
    mirrored: float = 0.0  # above one half the picture is mirrored
    shoe_color: str = "#2d2a32"

    # scene
    framing: str = "full"
    zoom: float = 0.0  # -1 small .. 1 fills the frame
    shift_x: float = 0.0
    shift_y: float = 0.0
    room: str = "wall"
    wall_color: str = "#e9e2d6"
    floor_color: str = "#c9b8a0"
    prop_color: str = "#7fa08a"
    prop_place: float = 0.0  # -1..1
    accessory: str = "none"
    light: float = 0.0  # -1 dark .. 1 bright
    warmth: float = 0.0
    light_side: float = 1.0  # -1..1, where the light comes from and how strongly
    blur: float = 0.0  # 0..1
    noise: float = 0.0  # 0..1
    grain_seed: int = 0

    def labels(self) -> dict[str, str]:
        """The labelled attributes and their values, in schema order."""
        named = ((name, getattr(self, name)) for name in FASHIONAI.names)
        return {name: value for name, value in named if value is not None}

    def hidden(self) -> dict[str, str]:
        """The way in which each Invisible attribute is hidden."""
        return {
            name: _choose(_possible_ways(self, name), self.hide)
            for name, value in self.labels().items()
            if value == INVISIBLE
        }

    def drawn(self, attribute: str) -> str | None:
        """The value that is really drawn: for an Invisible attribute, the one underneath."""
        value = getattr(self, attribute)
        if value != INVISIBLE:
            return value
        if attribute == "neckline_design":
            return _choose(_COVERED_NECKLINES, self.beneath)
        if attribute == "sleeve_length" and self.hidden()[attribute] != "shawl":
            return _choose(_LONG_SLEEVES, self.beneath)
        return _choose(_visible_values(attribute), self.beneath)

    @property
    def coat_or_blazer(self) -> bool:
        """Whether an open-fronted garment is worn over the top."""
        return self.category in ("coat", "blazer")

    @property
    def is_bottom(self) -> bool:
        """Whether the picture is about a skirt or trousers; the top is then a plain camisole."""
        return self.category in ("skirt", "trousers")


def _choose(options: tuple[T, ...], share: float) -> T:
    return options[min(int(share * len(options)), len(options) - 1)]


def _visible_values(attribute: str) -> tuple[str, ...]:
    return FASHIONAI.values[FASHIONAI.attribute(attribute)][1:]


def _possible_ways(outfit: Outfit, attribute: str) -> tuple[str, ...]:
    """The ways to hide an attribute that leave the outfit's other values visible."""
    ways = list(_WAYS[attribute])
    if attribute == "sleeve_length":
        if outfit.framing not in WITHOUT_HEMS or outfit.lapel_design is not None:
            ways.remove("crop")
        if outfit.lapel_design is not None or outfit.neckline_design == "Deep V":
            ways.remove("board")
        wide = (*_BARE_SHOULDERS, "Plus Size Shawl", "Puritan", "Straight")
        if any(value in wide for value in outfit.labels().values()):
            ways.remove("shawl")
    elif attribute in (*_NECK_PARTS, "lapel_design"):
        short = ("Sleeveless", "Cup", "Short", "Elbow")
        hems = (outfit.skirt_length, outfit.coat_length, outfit.pant_length, outfit.sleeve_length)
        if outfit.sleeve_length in short or INVISIBLE in hems:
            ways.remove("crop")
    return tuple(ways)


class _Draws:
    """Random draws that an explicit choice overrides without disturbing the others."""

    def __init__(self, rng: np.random.Generator, fixed: dict[str, Any]) -> None:
        self.rng, self.fixed = rng, fixed

    def one(self, name: str, draw: Callable[[], T]) -> T:
        value = draw()  # also when fixed, so that everything else stays the same
        return self.fixed.get(name, value)

    def among(self, name: str, options: tuple[str, ...], shares: Sequence[float] = ()) -> str:
        return self.one(name, lambda: _pick(self.rng, options, shares))

    def between(self, name: str, low: float, high: float, strength: float = 1.0) -> float:
        middle, spread = (low + high) / 2, (high - low) / 2 * strength
        return self.one(name, lambda: round(middle + spread * (2 * self.rng.random() - 1), 4))


def _pick(rng: np.random.Generator, options: tuple[T, ...], shares: Sequence[float] = ()) -> T:
    """One of the options, by their shares; several times faster than ``rng.choice``."""
    if not shares:
        return _choose(options, rng.random())
    left = rng.random() * sum(shares)
    for option, share in zip(options, shares, strict=True):
        left -= share
        if left < 0:
            return option
    return options[-1]


def random_outfit(
    rng: np.random.Generator, nuisance: Nuisance | None = None, **fixed: Any
) -> Outfit:
    """Draw one outfit; any field can be fixed by name and the rest stays as it would have been.

    Args:
        rng: source of randomness.
        nuisance: strengths; default the shipped ones.
        **fixed: fields of :class:`Outfit`, e.g. ``category="dress", sleeve_length="Short"``.

    Raises:
        InputError: for an unknown field, category or value.

    >>> outfit = random_outfit(np.random.default_rng(0), category="coat", coat_length="Knee")
    >>> outfit.coat_length
    'Knee'
    """
    _check(fixed)
    strength = nuisance or Nuisance()
    draws = _Draws(rng, fixed)
    category = draws.among("category", *_categories(fixed))
    hems_asked = any(fixed.get(name) is not None for name in (*_HEMS, "coat_length"))
    framing = draws.among("framing", *_framings(category, hems_asked))
    values = _values(draws, category, framing)
    return Outfit(
        category=category,
        framing=framing,
        **values,
        **_cut(draws, strength),
        **_fabrics(draws, strength),
        **_person(draws, strength, values),
        **_scene(draws, strength),
    )


def _check(fixed: dict[str, Any]) -> None:
    known = {f.name for f in fields(Outfit)}
    for name in fixed:
        if name not in known:
            raise InputError(f"an outfit has no field {name!r}; choose one of {sorted(known)}")
    if fixed.get("category", CATEGORIES[0]) not in CATEGORIES:
        raise InputError(f"unknown category {fixed['category']!r}; choose one of {CATEGORIES}")
    for name in set(fixed) & set(FASHIONAI.names):
        if fixed[name] is not None:
            FASHIONAI.value(name, fixed[name])


def _categories(fixed: dict[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The categories that carry every attribute asked for, and their shares."""
    asked = {name for name in FASHIONAI.names if fixed.get(name) is not None}
    fits = [k for k, name in enumerate(CATEGORIES) if asked <= set(_CARRIES[name])]
    if not fits and "category" not in fixed:
        raise InputError(f"no category carries {sorted(asked)} together; ask for fewer attributes")
    fits = fits or list(range(len(CATEGORIES)))
    return tuple(CATEGORIES[k] for k in fits), tuple(_SHARES[k] for k in fits)


def _framings(category: str, hems_asked: bool) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """As in a shop: the picture shows what it is about, and mostly little else."""
    if category in ("skirt", "trousers"):
        return ("lower", "full", "chin"), (0.6, 0.2, 0.2)
    if hems_asked:
        return ("full", "chin"), (0.3, 0.7)
    if category in ("dress", "coat"):
        return ("torso", "upper", "full", "chin"), (0.3, 0.1, 0.1, 0.5)
    return ("torso", "upper", "full", "chin"), (0.55, 0.15, 0.05, 0.25)


def _values(draws: _Draws, category: str, framing: str) -> dict[str, Any]:
    """The values of the attributes this category and framing show; at most one is Invisible."""
    rng = draws.rng
    dress_neck = _pick(rng, _NECK_PARTS, _DRESS_NECK_SHARES)
    bottom = _HEMS[int(rng.random() < 0.58)]
    asked = {name for name in FASHIONAI.names if draws.fixed.get(name) is not None}
    carried = set(_CARRIES[category])
    if category == "dress":
        chosen = next((name for name in _NECK_PARTS if name in asked), dress_neck)
        carried -= set(_NECK_PARTS) - {chosen}
    if framing in WITHOUT_HEMS:
        carried -= {*_HEMS, "coat_length"}
    elif set(_HEMS) <= carried:
        chosen = next((name for name in _HEMS if name in asked), bottom)
        carried -= set(_HEMS) - {chosen}
    names = [name for name in FASHIONAI.names if name in carried]
    drawn = {name: _value(rng, name) for name in FASHIONAI.names}  # all, so that draws align
    again = {name: _pick(rng, _visible_values(name)) for name in FASHIONAI.names}
    unseen = [name for name in names if drawn[name] == INVISIBLE]
    asked_unseen = [name for name in asked if draws.fixed[name] == INVISIBLE]
    keep = rng.permutation(len(names))  # which Invisible stays, if there are several
    unseen.sort(key=lambda name: keep[names.index(name)])
    for name in unseen if asked_unseen else unseen[1:]:
        drawn[name] = again[name]
    values: dict[str, Any] = {name: drawn[name] for name in names}
    values |= {name: value for name, value in draws.fixed.items() if name in FASHIONAI.names}
    if "sleeve_length" not in draws.fixed:
        _suit_sleeves(values, again["sleeve_length"])
    hide, beneath = float(rng.random()), float(rng.random())
    return values | {
        "hide": draws.fixed.get("hide", hide),
        "beneath": draws.fixed.get("beneath", beneath),
    }


def _value(rng: np.random.Generator, attribute: str) -> str:
    """A value, uniform but for Invisible, which loses some draws to the at-most-one rule."""
    values = FASHIONAI.values[FASHIONAI.attribute(attribute)]
    return _pick(rng, values, (1.2, *(1.0 for _ in values[1:])))


def _suit_sleeves(values: dict[str, Any], other: str) -> None:
    """A strapless top has no armhole and so no sleeve label; a low band needs a real sleeve."""
    if values.get("neckline_design") == "Strapless":
        values["sleeve_length"] = None
    elif values.get("neckline_design") == "Off Shoulder":
        if values["sleeve_length"] in ("Sleeveless", "Cup"):
            values["sleeve_length"] = other if other not in ("Sleeveless", "Cup") else "Elbow"


def _cut(draws: _Draws, strength: Nuisance) -> dict[str, Any]:
    k = 0.4 * strength.cut
    cut: dict[str, Any] = {
        name: draws.between(name, -1.0, 1.0, strength.cut if name == "hem_ease" else k)
        for name in ("sleeve_ease", "hem_ease", "neck_ease", "looseness", "flare")
    }
    cut["sleeve_cut"] = draws.among("sleeve_cut", ("straight", "slim", "bell", "puff"))
    cut["skirt_cut"] = draws.among("skirt_cut", ("a-line", "pencil", "flared", "pleated"))
    cut["pant_cut"] = draws.among("pant_cut", ("straight", "slim", "wide"))
    for name in ("tucked", "coat_open", "trim", "detail"):
        cut[name] = draws.between(name, 0.0, 1.0, k)
    return cut


# An illustrator's box of fabric colors, none of them a skin's, and quieter ones for rooms.
_DYES = (
    "#d1495b", "#edc949", "#8f9e5b", "#5a6b3a", "#6a994e", "#2f5d50", "#3d8b8b", "#9cc5c1",
    "#77a6b6", "#30638e", "#1d3557", "#5e60ce", "#9d8ec7", "#6d4c7d", "#a23e8c", "#d9d2f0",
    "#f7f5ee", "#33343f", "#8d99ae", "#c5c9c9",
)  # fmt: skip
_WALLS = (
    "#efe6da", "#e3e8e6", "#dfe3ee", "#f3ddd3", "#e8e4d0", "#d7e3d8", "#d9d0dd", "#c9d3d6",
    "#b9aea2", "#8fa3a8", "#a7a1b8", "#c2a893", "#7d8f86", "#6c7486",
)  # fmt: skip
_FLOORS = ("#c9b8a0", "#a58b6f", "#b7b2ab", "#8f8a8a", "#d8cdbd", "#9aa393", "#7b6a5b")


def _tint(rng: np.random.Generator, colors: tuple[str, ...], strength: float) -> str:
    """One of the colors, slightly varied; the strength fades it into a fixed grey."""
    color = np.array(rgb(colors[int(rng.integers(len(colors)))])) + rng.uniform(-14, 14, 3)
    faded = 150 + min(strength, 1.0) * (color - 150)
    return "#" + "".join(f"{round(c):02x}" for c in np.clip(faded, 0, 255))


def _fabrics(draws: _Draws, strength: Nuisance) -> dict[str, Any]:
    rng = draws.rng
    fabrics: dict[str, Any] = {}
    textured = 0.2 * strength.texture
    shares = [1.0 - textured] + [textured / (len(PATTERNS) - 1)] * (len(PATTERNS) - 1)
    for part in ("top", "bottom", "coat"):
        for role in ("color", "accent"):
            name = f"{part}_{role}"
            fabrics[name] = draws.one(name, lambda: _tint(rng, _DYES, strength.color))
        fabrics[f"{part}_pattern"] = draws.among(f"{part}_pattern", PATTERNS, shares)
    fabrics["pitch"] = draws.between("pitch", 0.018, 0.04, strength.texture)
    fabrics["angle"] = draws.between("angle", -1.6, 1.6, strength.texture)
    return fabrics


_SKINS = ("#f6d7c3", "#eec1a0", "#dba679", "#c68a5e", "#a56b43", "#7d4d30", "#59352a")
_HAIRS = ("#1f1a1c", "#3b2720", "#6b4430", "#a8713f", "#d9b36c", "#8f8a8a", "#a4432f", "#ddd6d0")
_HAIR_STYLES = ("bob", "short", "long", "bun", "ponytail", "curly")


# Middle and spread of the angles of upper arm and forearm: hanging, hand on hip, hand raised.
_ARM_POSES = (
    ((18.0, 10.0), (7.0, 9.0)),
    ((44.0, 5.0), (-52.0, 6.0)),
    ((40.0, 9.0), (158.0, 10.0)),
)


def _arm(rng: np.random.Generator, strength: float, seen: bool) -> tuple[float, float]:
    """Upper arm and forearm angles: hanging, hand on the hip, or hand raised."""
    style = _pick(rng, _ARM_POSES, (0.86, 0.1, 0.04) if seen else (0.0, 0.6, 0.4))
    upper, fore = (
        round(middle + spread * strength * (2 * rng.random() - 1), 2) for middle, spread in style
    )
    return upper, fore


def _person(draws: _Draws, strength: Nuisance, values: dict[str, Any]) -> dict[str, Any]:
    rng = draws.rng
    # A hidden hem needs the hands above whatever hides it, or the sleeves would be hidden too.
    hem_seen = INVISIBLE not in [values.get(n) for n in (*_HEMS, "coat_length")]
    left, right = (_arm(rng, strength.pose, hem_seen) for _ in range(2))
    person: dict[str, Any] = {
        "skin": draws.among("skin", _SKINS),
        "hair": draws.among("hair", _HAIRS),
        "hair_style": draws.among("hair_style", _HAIR_STYLES),
    }
    angles = zip(
        ("left_raise", "left_bend", "right_raise", "right_bend"), left + right, strict=True
    )
    person |= {name: draws.fixed.get(name, angle) for name, angle in angles}
    for name in ("build", "head_turn", "stance"):
        person[name] = draws.between(name, -1.0, 1.0, strength.pose)
    person["lean"] = draws.between("lean", -2.5, 2.5, strength.pose)
    person["mirrored"] = draws.between("mirrored", 0.0, 1.0)
    person["shoe_color"] = draws.one("shoe_color", lambda: _tint(rng, _DYES, strength.color))
    return person


ROOMS = ("wall", "window", "frames", "panels", "street", "garden", "arch")
ACCESSORIES = ("handbag", "crossbody", "hat", "glasses", "necklace", "plant", "suitcase", "folder")


def _scene(draws: _Draws, strength: Nuisance) -> dict[str, Any]:
    rng = draws.rng
    busy = min(0.4 * strength.background, 1.0)
    carried = min(0.2 * strength.occlusion, 1.0)
    scene: dict[str, Any] = {
        name: draws.between(name, -1.0, 1.0, 0.4 * strength.framing)
        for name in ("zoom", "shift_x", "shift_y")
    }
    rooms = [1 - busy] + [busy / (len(ROOMS) - 1)] * (len(ROOMS) - 1)
    scene["room"] = draws.among("room", ROOMS, rooms)
    for name, colors in (("wall_color", _WALLS), ("floor_color", _FLOORS)):
        scene[name] = draws.one(name, partial(_tint, rng, colors, strength.background))
    scene["prop_color"] = draws.one("prop_color", lambda: _tint(rng, _DYES, strength.color))
    scene["prop_place"] = draws.between("prop_place", -1.0, 1.0)
    worn = [1 - carried] + [carried / len(ACCESSORIES)] * len(ACCESSORIES)
    scene["accessory"] = draws.among("accessory", ("none", *ACCESSORIES), worn)
    for name in ("light", "warmth", "light_side"):
        scene[name] = draws.between(name, -1.0, 1.0, 0.4 * strength.light)
    scene["blur"] = draws.one("blur", lambda: round(float(rng.random()) * 0.5 * strength.blur, 4))
    scene["noise"] = draws.one(
        "noise", lambda: round(float(rng.random()) * 0.5 * strength.noise, 4)
    )
    scene["grain_seed"] = draws.one("grain_seed", lambda: int(rng.integers(2**31)))
    return scene
