"""A part of the lab that is small enough to train on in seconds, for experiments on a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agman.attributes import AttributeSchema, AttributeTable, QueryGallery, RetrievalData
from agman.datasets import PackedImages
from agman.loading import cache_taps
from agman.models import RetrievalModel, create_model

LENGTHS = ("skirt_length", "coat_length", "pant_length")


def mini_lab(
    data: RetrievalData,
    names: Sequence[str] = LENGTHS,
    n_train: int = 900,
    n_valid: int = 300,
    n_test: int = 600,
) -> RetrievalData:
    """Some attributes of the lab, on the first images that have one of them.

    In place of the images are the taps of AG-MAN's levels, computed once by the backbone that
    knows objects only; train on them with `freeze_backbone=True`.

    Args:
        data: the lab.
        names: of the attributes to keep, which get the ids 0, 1, ... in this order.
        n_train, n_valid, n_test: images to keep, fewer where there are not as many.

    Raises:
        InputError: the lab has no such attribute.
    """
    ids = [data.schema.attribute(name) for name in names]
    values = tuple(data.schema.values[i] for i in ids)
    schema = AttributeSchema(tuple(names), values, f"{data.schema.name}, {len(ids)} attributes")
    model = create_model("agman", backbone="lab", weights="objects")

    def part(n: int, *tables: AttributeTable) -> list[AttributeTable]:
        return _part(tables, ids, schema, n, model)

    (train,) = part(n_train, data.train)
    valid = QueryGallery(*part(n_valid, data.valid.queries, data.valid.gallery))
    test = QueryGallery(*part(n_test, data.test.queries, data.test.gallery))
    return RetrievalData("mini lab", schema, train, valid, test)


def _part(
    tables: Sequence[AttributeTable],
    ids: Sequence[int],
    schema: AttributeSchema,
    n: int,
    model: RetrievalModel,
) -> list[AttributeTable]:
    """Tables of one split on their first n images with one of the attributes, as taps."""
    asked = [table.select(np.isin(table.attribute, ids)) for table in tables]
    kept = np.unique(np.concatenate([table.image for table in asked]))[:n]
    images = tables[0].images
    pixels = images.load(kept, model.preprocessing.size).permute(0, 2, 3, 1).numpy()
    store = PackedImages(pixels, [images.names[i] for i in kept])
    taps: Any = cache_taps(model, store, progress=False)  # stands in for an image store
    new_id = {old: new for new, old in enumerate(ids)}
    parts = []
    for table in asked:
        rows = table.select(np.isin(table.image, kept))
        attribute = np.array([new_id[a] for a in rows.attribute.tolist()], dtype=np.int64)
        image = np.searchsorted(kept, rows.image)
        parts.append(
            AttributeTable(schema, taps, image, attribute, rows.value, rows.regions, rows.source)
        )
    return parts
