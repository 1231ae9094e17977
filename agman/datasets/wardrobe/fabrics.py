"""Which fabric each part of an outfit is made of."""

from __future__ import annotations

from agman.datasets.wardrobe.garments import Outfit
from agman.datasets.wardrobe.geometry import Color, Fabric, contrast, lighter, mix, rgb


def fabric_of(outfit: Outfit, part: str) -> Fabric:
    color, accent = rgb(getattr(outfit, f"{part}_color")), rgb(getattr(outfit, f"{part}_accent"))
    if sum(abs(a - b) for a, b in zip(color, accent, strict=True)) < 110:
        accent = contrast(accent, 0.45)  # a pattern must be seen on its ground
    return Fabric(color, accent, getattr(outfit, f"{part}_pattern"), outfit.pitch, outfit.angle)


def upper_fabric(outfit: Outfit) -> Fabric:
    """The fabric of sleeves and neck parts: the coat's if there is one."""
    if outfit.is_bottom:
        return Fabric(
            mix(rgb(outfit.top_color), (240, 240, 240), 0.55), (255, 255, 255), "plain", 1, 0
        )
    return fabric_of(outfit, "coat" if outfit.coat_or_blazer else "top")


def trim_of(outfit: Outfit) -> Color:
    """The color of collars, cuffs and belts."""
    fabric = upper_fabric(outfit)
    return fabric.accent if outfit.trim > 0.6 else lighter(fabric.color, 0.16)
