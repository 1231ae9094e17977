"""A data set small enough for any test: squares whose colour and place can be asked for."""

from __future__ import annotations

import numpy as np

from agman.attributes import AttributeSchema, AttributeTable, QueryGallery, RetrievalData
from agman.datasets import PackedImages

SCHEMA = AttributeSchema(("color", "place"), (("red", "green", "blue"), ("left", "right")), "tiny")
PAINT = np.array([[220, 40, 40], [40, 200, 60], [50, 70, 230]])


def table(n_images: int = 48, size: int = 32, seed: int = 0) -> AttributeTable:
    """Every image has a colour and a place; rows are in the order of the images."""
    random = np.random.default_rng(seed)
    color, place = random.integers(3, size=n_images), random.integers(2, size=n_images)
    array = random.integers(90, 150, size=(n_images, size, size, 3)).astype(np.uint8)
    for i in range(n_images):
        left = random.integers(2, 6) + place[i] * size // 2
        top = random.integers(2, size // 2)
        array[i, top : top + size // 3, left : left + size // 3] = PAINT[color[i]]
    images = PackedImages(array, [f"{i}.png" for i in range(n_images)])
    values = np.stack([color, place], axis=1).reshape(-1)
    return AttributeTable(
        SCHEMA, images, np.repeat(np.arange(n_images), 2), np.tile([0, 1], n_images), values
    )


def data(n_images: int = 48, size: int = 32) -> RetrievalData:
    """Half of the images to train on; the rest, as queries and gallery, to validate and test."""
    rows = table(n_images, size)
    part = rows.image * 4 // n_images
    held_out = QueryGallery(rows.select(part == 2), rows.select(part == 3))
    return RetrievalData("tiny", SCHEMA, rows.select(part < 2), held_out, held_out)
