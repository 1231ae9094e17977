"""The lab wardrobe: drawn people in drawn clothes, every value of FashionAI's schema known."""

from agman.datasets.wardrobe.drawing import DRAWING_VERSION, draw
from agman.datasets.wardrobe.garments import CATEGORIES, Nuisance, Outfit, random_outfit

__all__ = ["CATEGORIES", "DRAWING_VERSION", "Nuisance", "Outfit", "draw", "random_outfit"]
