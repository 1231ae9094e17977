"""Evaluate a model: embed, rank, average, report; and measure where it looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from agman.attributes import AttributeSchema, AttributeTable
from agman.datasets.images import ImageStore, PackedImages
from agman.errors import InputError
from agman.loading import prefetch, prepare
from agman.memory import keep_memory
from agman.metrics import (
    attention_mass,
    average_place,
    average_precisions,
    central_map,
    expected_random_ap,
    pointing_hit,
)
from agman.models import Output, RetrievalModel
from agman.sampling import Triplets
from agman.storage import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@torch.no_grad()
def embed_table(
    model: RetrievalModel, table: AttributeTable, *, batch_size: int = 128, progress: bool = True
) -> Tensor:
    """The embedding of each row: of its image, under its attribute.

    Each image passes the backbone once, whatever the number of its attributes. The model is put
    in evaluation mode for the time.

    Args:
        model: any of the package's models, on any device.
        table: R rows.
        batch_size: images in one pass.
        progress: show a bar.

    Returns:
        (R, D) float32 on the CPU, unit length.
    """
    return _each_row(model, table, lambda output: output.embedding, batch_size, progress)


@torch.no_grad()
def attend_table(
    model: RetrievalModel, table: AttributeTable, *, batch_size: int = 128, progress: bool = True
) -> Tensor:
    """The attention map of each row: of its image, under its attribute.

    For AG-MAN this is the attribute-guided map; the plain gate after it is left out. Arguments
    are those of `embed_table`.

    Returns:
        (R, h, w) float32 on the CPU, each map with sum 1.

    Raises:
        InputError: the model has no attention, or the table no row.
    """

    def attention(output: Output) -> Tensor:
        if output.attention is None:
            raise InputError(
                f"{type(model).__name__} has no attention maps; use AG-MAN, ASENet or ASENet_V2."
            )
        return output.attention

    return _each_row(model, table, attention, batch_size, progress)


@keep_memory()
def _each_row(
    model: RetrievalModel,
    table: AttributeTable,
    part: Callable[[Output], Tensor],
    batch_size: int,
    progress: bool,
) -> Tensor:
    """One part of the model's output, each (B, K, ...), for every row of the table: (R, ...)."""
    images, which = np.unique(table.image, return_inverse=True)
    order = np.argsort(which, kind="stable")  # rows of one image lie side by side
    bounds = np.searchsorted(which[order], np.arange(0, len(images) + batch_size, batch_size))
    batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    loaded = prefetch(lambda rows: table.images.load(rows, model.preprocessing.size), batches)
    parts = []
    was_training = model.training
    model.eval()
    try:
        for number, batch in enumerate(
            tqdm(loaded, "images", len(batches), disable=not progress, leave=False)
        ):
            rows = order[bounds[number] : bounds[number + 1]]
            asked, column = np.unique(table.attribute[rows], return_inverse=True)
            ids = torch.from_numpy(asked).expand(len(batches[number]), -1)
            inputs = prepare(model, batch)
            device = next(model.parameters()).device
            found = part(model(inputs, ids.to(device))).float().cpu()  # (B, K, ...)
            parts.append(found[which[rows] - number * batch_size, column])
    finally:
        model.train(was_training)
    if not parts:
        raise InputError(f"{table.source}: there is no row to embed.")
    joined = torch.cat(parts)
    result = torch.empty_like(joined)
    result[torch.from_numpy(order)] = joined
    return result


@dataclass(frozen=True)
class Report:
    """Average precision of every query, and the means that papers print.

    Args:
        schema: names of the attributes.
        queries: Q rows.
        ap: (Q,) average precision of each query, NaN where nothing relevant is in the gallery.
        chance: (Q,) what a random ranking would get on average.
        about: whatever should be stored beside the numbers: model, data, seed.
    """

    schema: AttributeSchema
    queries: AttributeTable
    ap: np.ndarray
    chance: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def map_micro(self) -> float:
        """Mean over all queries, in 0..1: what the papers call "overall"."""
        return float(np.nanmean(self.ap))

    @property
    def map_macro(self) -> float:
        """Mean over attributes of their MAP, in 0..1."""
        return float(np.mean(list(self.per_attribute.values())))

    @property
    def per_attribute(self) -> dict[str, float]:
        """MAP of each attribute that has a query with something to find."""
        return self._means(self.ap)

    @property
    def chance_per_attribute(self) -> dict[str, float]:
        """Expected MAP of a random ranking, for the same attributes."""
        return self._means(self.chance)

    def _means(self, numbers: np.ndarray) -> dict[str, float]:
        means = {}
        for attribute, name in enumerate(self.schema.names):
            own = numbers[(self.queries.attribute == attribute) & ~np.isnan(self.ap)]
            if len(own):
                means[name] = float(own.mean())
        return means

    def worst(self, k: int = 10) -> list[dict[str, Any]]:
        """The k queries with the lowest average precision, worst first."""
        order = np.argsort(self.ap, kind="stable")[: min(k, int((~np.isnan(self.ap)).sum()))]
        return [self._describe(int(row)) for row in order]

    def _describe(self, row: int) -> dict[str, Any]:
        attribute, image = int(self.queries.attribute[row]), int(self.queries.image[row])
        return {
            "row": row,
            "image": self.queries.images.names[image],
            "attribute": self.schema.names[attribute],
            "value": self.schema.values[attribute][int(self.queries.value[row])],
            "ap": float(self.ap[row]),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single queries, in percent, ready for JSON."""
        return {
            "map_micro": 100 * self.map_micro,
            "map_macro": 100 * self.map_macro,
            "per_attribute": {k: 100 * v for k, v in self.per_attribute.items()},
            "chance": {k: 100 * v for k, v in self.chance_per_attribute.items()},
            "queries": int((~np.isnan(self.ap)).sum()),
            "queries_without_relevant": int(np.isnan(self.ap).sum()),
            **self.about,
        }

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    def plot(self) -> Figure:
        """Bars of MAP per attribute with the chance level."""
        from agman.figures import map_bars

        return map_bars({"MAP": self.per_attribute}, self.chance_per_attribute)

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.per_attribute, "micro (all queries)"))
        chance = self.chance_per_attribute
        lines = [f"{'attribute':<{width}}  {'MAP %':>6}  {'chance':>6}"]
        for name, value in self.per_attribute.items():
            lines.append(f"{name:<{width}}  {100 * value:6.2f}  {100 * chance[name]:6.2f}")
        micro, macro = (
            100 * float(np.nanmean(self.chance)),
            100 * float(np.mean(list(chance.values()))),
        )
        lines.append(f"{'micro (all queries)':<{width}}  {100 * self.map_micro:6.2f}  {micro:6.2f}")
        lines.append(f"{'macro (attributes)':<{width}}  {100 * self.map_macro:6.2f}  {macro:6.2f}")
        missing = int(np.isnan(self.ap).sum())
        if missing:
            lines.append(f"{missing} queries have nothing relevant in the gallery and are left out")
        return "\n".join(lines)


def evaluate(
    model: RetrievalModel,
    queries: AttributeTable,
    gallery: AttributeTable,
    *,
    ties: str = "fair",
    batch_size: int = 128,
    progress: bool = True,
) -> Report:
    """Rank the gallery for every query, attribute by attribute.

    A query is compared with the gallery rows of its own attribute; relevant are those of its
    value. If both tables share one image store, an image never retrieves itself.

    Args:
        model: any of the package's models.
        queries: Q rows.
        gallery: rows to be ranked.
        ties: "fair" or "order"; see `agman.metrics.average_precision`.
        batch_size: images in one pass of the backbone.
        progress: show bars.

    Raises:
        InputError: the tables disagree about attributes, or no query has anything to find.
    """
    if queries.schema.names != gallery.schema.names:
        raise InputError(
            f"Queries know the attributes {queries.schema.names} and the gallery "
            f"{gallery.schema.names}; both must come from one data set."
        )
    _refuse_small(model, queries)
    embedded = [
        embed_table(model, table, batch_size=batch_size, progress=progress)
        for table in (queries, gallery)
    ]
    return rank(queries, gallery, *embedded, ties=ties)


def _refuse_small(model: RetrievalModel, table: AttributeTable) -> None:
    if len(table.schema) > model.n_attributes:
        raise InputError(
            f"The tables have {len(table.schema)} attributes but the model only "
            f"{model.n_attributes}; evaluate it on the data set it was trained for."
        )


def rank(
    queries: AttributeTable,
    gallery: AttributeTable,
    query_embeddings: Tensor,
    gallery_embeddings: Tensor,
    *,
    ties: str = "fair",
) -> Report:
    """The report of embeddings that are known already, one per row of each table."""
    ap, chance = np.full(len(queries), np.nan), np.full(len(queries), np.nan)
    same_store = queries.images is gallery.images
    for attribute in np.unique(queries.attribute):
        q = np.flatnonzero(queries.attribute == attribute)
        g = np.flatnonzero(gallery.attribute == attribute)
        if not len(g):
            continue
        ap[q] = average_precisions(
            query_embeddings[q],
            torch.from_numpy(queries.value[q]),
            gallery_embeddings[g],
            torch.from_numpy(gallery.value[g]),
            query_ids=torch.from_numpy(queries.image[q]) if same_store else None,
            gallery_ids=torch.from_numpy(gallery.image[g]) if same_store else None,
            ties=ties,
        ).numpy()
        chance[q] = _chance(queries, gallery, q, g, same_store)
    if np.isnan(ap).all():
        raise InputError(
            f"{queries.source}: no query finds its value in the gallery {gallery.source}; check "
            "that both come from one data set."
        )
    return Report(queries.schema, queries, ap, np.where(np.isnan(ap), np.nan, chance))


def _chance(
    queries: AttributeTable, gallery: AttributeTable, q: np.ndarray, g: np.ndarray, same_store: bool
) -> np.ndarray:
    """Expected average precision of a random ranking for each query."""
    relevant = np.bincount(gallery.value[g], minlength=queries.value[q].max() + 1)[queries.value[q]]
    items = np.full(len(q), len(g))
    if same_store:  # an image that is in the gallery does not count for itself
        for number, row in enumerate(q):
            own = gallery.image[g] == queries.image[row]
            items[number] -= own.sum()
            relevant[number] -= (own & (gallery.value[g] == queries.value[row])).sum()
    cases = {(r, n) for r, n in zip(relevant.tolist(), items.tolist(), strict=True) if r}
    known = {case: float(expected_random_ap(*case)) for case in cases}
    return np.array(
        [known.get(case, np.nan) for case in zip(relevant.tolist(), items.tolist(), strict=True)]
    )


def evaluate_triplets(
    model: RetrievalModel,
    images: ImageStore,
    triplets: Triplets,
    schema: AttributeSchema,
    *,
    batch_size: int = 128,
    progress: bool = True,
) -> Mapping[str, float]:
    """Share of triplets whose positive is more similar to the anchor than the negative is.

    Ties count as wrong, as in the papers.

    Returns:
        The accuracy in 0..1 of each attribute, and of all triplets under "overall".
    """
    columns = (triplets.anchors, triplets.positives, triplets.negatives)
    attribute = np.tile(triplets.attributes, 3)
    pairs, place = np.unique(
        np.stack([np.concatenate(columns), attribute]), axis=1, return_inverse=True
    )
    bare = AttributeSchema(schema.names, tuple(("any",) for _ in schema.names), schema.name)
    table = AttributeTable(bare, images, pairs[0], pairs[1], np.zeros_like(pairs[0]))
    embedding = embed_table(model, table, batch_size=batch_size, progress=progress)
    anchor, positive, negative = embedding[place.reshape(3, -1)]
    right = ((anchor * positive).sum(1) > (anchor * negative).sum(1)).numpy()
    accuracy = {
        name: float(right[triplets.attributes == a].mean())
        for a, name in enumerate(schema.names)
        if (triplets.attributes == a).any()
    }
    return {**accuracy, "overall": float(right.mean())}


@dataclass(frozen=True)
class Localization:
    """Where attention lies, against the true regions, and what maps without a network are worth.

    Each kind of map has an entry in `mass` and in `pointing`: "model", "uniform" (nowhere),
    "central" (a Gaussian, see `agman.metrics.central_map`) and, if training rows were given,
    "average place" (the mean region of the attribute in training).

    Args:
        rows: the R rows that were asked.
        mass: for each kind (R,) the share of the map inside the region, NaN without a region.
        pointing: for each kind (R,) whether the map's maximum lies in the region, NaN likewise.
        about: whatever should be stored beside the numbers: model, data, seed.
    """

    rows: AttributeTable
    mass: Mapping[str, np.ndarray]
    pointing: Mapping[str, np.ndarray]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def seen(self) -> np.ndarray:
        """(R,) whether there is a region to look at."""
        return ~np.isnan(self.mass["model"])

    @property
    def n_rows(self) -> dict[str, int]:
        """Number of rows with a region, of each attribute that has any."""
        counts = np.bincount(self.rows.attribute[self.seen], minlength=len(self.rows.schema))
        return {name: int(n) for name, n in zip(self.rows.schema.names, counts, strict=True) if n}

    @property
    def mass_per_attribute(self) -> dict[str, dict[str, float]]:
        """For each kind of map the mean mass of each attribute, in 0..1."""
        return {kind: self._means(values) for kind, values in self.mass.items()}

    @property
    def pointing_per_attribute(self) -> dict[str, dict[str, float]]:
        """For each kind of map the share of hits of each attribute, in 0..1."""
        return {kind: self._means(values) for kind, values in self.pointing.items()}

    def _means(self, values: np.ndarray) -> dict[str, float]:
        return {
            name: float(np.nanmean(values[self.rows.attribute == self.rows.schema.attribute(name)]))
            for name in self.n_rows
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single rows, in percent, ready for JSON.

        "micro" is the mean over all rows with a region, "macro" the mean over attributes.
        """
        return {
            "mass": {kind: self._percent(values) for kind, values in self.mass.items()},
            "pointing": {kind: self._percent(values) for kind, values in self.pointing.items()},
            "rows": self.n_rows,
            "rows_without_region": int((~self.seen).sum()),
            **self.about,
        }

    def _percent(self, values: np.ndarray) -> dict[str, Any]:
        means = self._means(values)
        return {
            "micro": 100 * float(np.nanmean(values)),
            "macro": 100 * float(np.mean(list(means.values()))),
            "per_attribute": {name: 100 * mean for name, mean in means.items()},
        }

    def plot(self) -> Figure:
        """Mass and hits of each attribute, with a marker for each kind of map."""
        from agman.figures import shares

        return shares(
            {
                "mass inside (%)": self.mass_per_attribute,
                "maximum inside (%)": self.pointing_per_attribute,
            }
        )

    def __str__(self) -> str:
        lines = [*self._table("mass inside %", self.mass), ""]
        lines += self._table("maximum inside %", self.pointing)
        missing = int((~self.seen).sum())
        if missing:
            lines.append(f"{missing} rows show nothing of their attribute and are left out")
        return "\n".join(lines)

    def _table(self, title: str, table: Mapping[str, np.ndarray]) -> list[str]:
        micro, macro = "micro (all rows)", "macro (attributes)"
        n_rows = {**self.n_rows, micro: sum(self.n_rows.values()), macro: ""}
        width = max(len(name) for name in (*n_rows, title))
        lines = [f"{title:<{width}}  {'rows':>6}" + "".join(f"  {kind:>7}" for kind in table)]
        percents = {kind: self._percent(values) for kind, values in table.items()}
        columns = {
            kind: {**percent["per_attribute"], micro: percent["micro"], macro: percent["macro"]}
            for kind, percent in percents.items()
        }
        for name, n in n_rows.items():
            numbers = (f"  {means[name]:{max(len(kind), 7)}.2f}" for kind, means in columns.items())
            lines.append(f"{name:<{width}}  {n:>6}" + "".join(numbers))
        return lines


def localize(
    model: RetrievalModel,
    table: AttributeTable,
    train: AttributeTable | None = None,
    *,
    batch_size: int = 128,
    progress: bool = True,
) -> Localization:
    """How much of a model's attention lies where the attribute really is.

    Rows whose value cannot be seen have no region: they are left out of every mean and counted.

    Args:
        model: one of the package's models with attention; see `attend_table` for what is measured.
        table: R rows with regions, of square packed images, such as the lab's.
        train: rows with regions that the "average place" of each attribute is taken from.
        batch_size: images in one pass of the backbone.
        progress: show a bar.

    Raises:
        InputError: a model without attention or with too few attributes, or a table without
            regions or whose images have no known size.
    """
    _refuse_small(model, table)
    regions, side = _regions(table)
    maps = attend_table(model, table, batch_size=batch_size, progress=progress)
    shape = (maps.shape[1], maps.shape[2])
    kinds = {"model": maps, "uniform": torch.ones(shape).expand_as(maps)}
    kinds["central"] = central_map(shape).expand_as(maps)
    if train is not None:
        kinds["average place"] = _average_places(table, train, shape)
    return Localization(
        table,
        {kind: attention_mass(each, regions, side).numpy() for kind, each in kinds.items()},
        {kind: pointing_hit(each, regions, side).numpy() for kind, each in kinds.items()},
    )


def _regions(table: AttributeTable) -> tuple[Tensor, int]:
    """The regions of a table, (R, 4), and the side of its images in the same pixels."""
    if table.regions is None or not (table.regions != -1).any():
        raise InputError(
            f"{table.source}: there are no regions to compare attention with; use rows of the lab "
            "(agman.datasets.lab), which knows where it drew each attribute."
        )
    if not isinstance(table.images, PackedImages):
        raise InputError(
            f"{table.source}: regions are in pixels of images whose size is not known; use packed "
            "images (agman.datasets.PackedImages)."
        )
    height, width = table.images.array.shape[1:3]
    if height != width:
        raise InputError(
            f"{table.source}: the images have {height} x {width} pixels, and a network sees a "
            "square of them; cut the images and their regions to squares first."
        )
    return torch.from_numpy(table.regions), height


def _average_places(table: AttributeTable, train: AttributeTable, shape: tuple[int, int]) -> Tensor:
    """The mean region of each row's attribute in training: (R, h, w)."""
    if table.schema.names != train.schema.names:
        raise InputError(
            f"{train.source} knows the attributes {train.schema.names} and {table.source} "
            f"{table.schema.names}; both must come from one data set."
        )
    regions, side = _regions(train)
    seen = (_regions(table)[0] != -1).any(dim=1).numpy()
    places = torch.ones(len(table.schema), *shape, dtype=torch.float64)
    for attribute in np.unique(table.attribute[seen]):
        own = regions[train.attribute == attribute]
        if not (own != -1).any():
            raise InputError(
                f"{train.source}: no row shows where {table.schema.names[attribute]} is; give "
                "more training rows or none."
            )
        places[attribute] = average_place(own, shape, side)
    return places[table.attribute]
