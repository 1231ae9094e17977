"""Explorers: parts of a page that answer the reader's hand, with no kernel and no network.

Each function works everything out in Python and returns one piece of HTML with its own style and
script, the same in Jupyter, in Colab and in the built book.
The scripts of `explorer_assets/` show what was worked out; only the metric playground computes,
because there the reader makes the ranking.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from agman.attributes import AttributeTable
from agman.datasets import PackedImages
from agman.errors import InputError
from agman.evaluation import Report, embed_table, rank
from agman.figures import readable
from agman.loading import TapStore, prepare
from agman.metrics import attention_mass
from agman.models import AGMAN, RetrievalModel
from agman.ranking import top_k

LIMIT = 1_500_000
"""Bytes that an explorer may have."""

ASSETS = Path(__file__).with_name("explorer_assets")
SIDES = (96, 72, 56, 40)
"""Sides of thumbnails in pixels; the first with which an explorer stays below `LIMIT` is taken."""

CHAPTER_RANKING = (True, False, True, True, False, False, True, False, False, False)
"""The ranking that the chapter on metrics works out by hand."""

NEIGHBOURS = 5


@dataclass(frozen=True)
class Explorer:
    """One explorer, shown by a notebook as the last expression of a cell.

    Args:
        title: what stands above it.
        html: the whole of it, ready to be part of any page.
    """

    title: str
    html: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"<{self.title}, {len(self.html.encode()) // 1000} kB>"


def metric_playground() -> Explorer:
    """Ten results to be put in order, marked as relevant and tied, with every number worked out.

    Average precision under both tie rules, MAP@R and recall at k are those of `agman.metrics`.

    >>> metric_playground().title
    'Metric playground'
    """
    data = {"relevant": CHAPTER_RANKING, "k": 5}
    return _explorer("Metric playground", ("ranking.js", "playground.js"), data)


def retrieval_explorer(
    models: Mapping[str, RetrievalModel],
    queries: AttributeTable,
    gallery: AttributeTable,
    *,
    n_queries: int = 12,
    top: int = 10,
    progress: bool = False,
) -> Explorer:
    """Rankings of two models side by side, for a query garment and an attribute to be chosen.

    Args:
        models: name to model; of more than two, any two can be compared.
        queries: their first `n_queries` images can be chosen, under every attribute they have.
        gallery: what is ranked; average precision is over all of it.
        n_queries: number of query images.
        top: results shown.
        progress: show bars while images are embedded.

    Raises:
        InputError: no model, no row, or too many pictures for `LIMIT`; and as
            `agman.evaluation.evaluate`.
    """
    _refuse_nothing(models, queries)
    images = _first_images(queries, n_queries)
    asked = queries.select(np.isin(queries.image, images))
    answers = [_answers(model, asked, gallery, top, progress) for model in models.values()]
    maps = [_attention(model, asked, images) for model in models.values()]
    regions = _regions(asked)
    looks = [_looks(one, regions, len(asked)) for one in maps]
    shown = sorted({result.image for one in answers for row in one.results for result in row})
    place = {image: number for number, image in enumerate(shown)}

    def question(row: int) -> dict[str, Any]:
        return {
            "attribute": int(asked.attribute[row]),
            "value": int(asked.value[row]),
            "region": _corner_and_size(regions, row),
            "relevant": answers[0].n_relevant[row],
            "items": answers[0].n_items[row],
            "chance": _number(answers[0].report.chance[row]),
            "map": row,
            "answers": [
                {
                    "ap": _number(one.report.ap[row]),
                    "looks": says[row],
                    "results": [
                        (place[r.image], r.value, r.similarity, int(r.right))
                        for r in one.results[row]
                    ],
                }
                for one, says in zip(answers, looks, strict=True)
            ],
        }

    schema = queries.schema
    pictures = _pictures(asked, images, _large_side(asked))
    fixed = {
        "models": list(models),
        "attributes": [readable(name) for name in schema.names],
        "values": schema.values,
        "framed": regions is not None,
        "maps": [None if one is None else _packed(one) for one in maps],
        "queries": [
            {
                "picture": picture,
                "rows": [question(int(row)) for row in np.flatnonzero(asked.image == image)],
            }
            for image, picture in zip(images, pictures, strict=True)
        ],
    }

    def data(side: int) -> dict[str, Any]:
        return {**fixed, "pictures": _pictures(gallery, shown, side)}

    return _fitting("Retrieval explorer", ("retrieval.js",), data)


def attention_explorer(
    models: Mapping[str, RetrievalModel], table: AttributeTable, *, n_images: int = 8
) -> Explorer:
    """All attributes of one garment, each under a model's map, with the true region.

    The maps are what a model offers: the attribute-guided map, AG-MAN's plain gate and the
    product that it pools by, and how active each level of the backbone is.

    Args:
        models: name to model.
        table: its first `n_images` images can be chosen; regions are shown where it has them and
            its images are packed.
        n_images: number of images.

    Raises:
        InputError: no model, no row, or too many pictures for `LIMIT`.
    """
    _refuse_nothing(models, table)
    images = _first_images(table, n_images)
    n = len(table.schema)
    rows = {(int(i), int(a)): row for row, (i, a) in enumerate(zip(table.image, table.attribute))}
    grid = [rows.get((int(image), a)) for image in images for a in range(n)]
    regions = _regions(table)
    wanted = None if regions is None else _rows_of(regions, grid)
    even = _inside(torch.ones(len(grid), 1, 1), wanted)

    def garment(number: int, picture: tuple[str, str]) -> dict[str, Any]:
        cells = range(number * n, (number + 1) * n)
        return {
            "picture": picture,
            "asked": [
                {
                    "value": _labels(table, int(images[number]), cell - number * n),
                    "region": _corner_and_size(wanted, cell),
                    "even": even[cell],
                }
                for cell in cells
            ],
        }

    layers = {name: _layers(model, table, images) for name, model in models.items()}

    def data(side: int) -> dict[str, Any]:
        pictures = _pictures(table, images, min(_large_side(table), 2 * side))
        return {
            "attributes": [readable(name) for name in table.schema.names],
            "framed": wanted is not None,
            "garments": [garment(i, picture) for i, picture in enumerate(pictures)],
            "models": [
                {"name": name, "layers": [layer.to_dict(wanted, n) for layer in found]}
                for name, found in layers.items()
            ],
        }

    return _fitting("Attention explorer", ("attention.js",), data)


def embedding_map(
    model: RetrievalModel, table: AttributeTable, *, n_images: int = 200, progress: bool = False
) -> Explorer:
    """Garments in a plane for each attribute, coloured by value; pointing shows the garment.

    The plane is a principal component analysis of the embeddings under the attribute, computed
    here: it keeps distances honest and says how much it leaves out.

    Args:
        model: whose embeddings are shown.
        table: the rows of its first `n_images` images are shown.
        n_images: number of images.
        progress: show a bar while images are embedded.

    Raises:
        InputError: no row, or too many pictures for `LIMIT`.
    """
    _refuse_nothing([model], table)
    images = _first_images(table, n_images)
    rows = table.select(np.isin(table.image, images))
    embeddings = embed_table(model, rows, progress=progress)
    place = {int(image): number for number, image in enumerate(images)}
    attributes = []
    for attribute, name in enumerate(rows.schema.names):
        own = rows.attribute == attribute
        if own.any():
            pictures = [place[int(image)] for image in rows.image[own]]
            found = _plane(
                embeddings[own], rows.value[own], pictures, rows.schema.values[attribute]
            )
            attributes.append({"name": readable(name), **found})

    def data(side: int) -> dict[str, Any]:
        return {"attributes": attributes, "pictures": _pictures(table, images, side)}

    return _fitting("Embedding map", ("embedding.js",), data)


# --- what a model says ------------------------------------------------------------------------


class _Result(NamedTuple):
    """One of the first results of a query."""

    image: int
    value: int
    similarity: float
    right: bool


@dataclass(frozen=True)
class _Answers:
    """What one model finds: average precisions and, of each query row, the first results."""

    report: Report
    results: list[list[_Result]]
    n_relevant: list[int]
    n_items: list[int]


def _answers(
    model: RetrievalModel,
    queries: AttributeTable,
    gallery: AttributeTable,
    top: int,
    progress: bool,
) -> _Answers:
    asked = embed_table(model, queries, progress=progress)
    offered = embed_table(model, gallery, progress=progress)
    same_store = queries.images is gallery.images  # then an image never retrieves itself
    n = len(queries)
    found = _Answers(rank(queries, gallery, asked, offered), [[]] * n, [0] * n, [0] * n)
    for attribute in np.unique(queries.attribute):
        q = np.flatnonzero(queries.attribute == attribute)
        g = np.flatnonzero(gallery.attribute == attribute)
        if not len(g):
            continue
        q_ids, g_ids = (torch.from_numpy(ids) for ids in (queries.image[q], gallery.image[g]))
        others = (q_ids[:, None] != g_ids).numpy() | (not same_store)
        right = (queries.value[q][:, None] == gallery.value[g]) & others
        scores, columns = top_k(
            asked[q],
            offered[g],
            top,
            query_ids=q_ids if same_store else None,
            gallery_ids=g_ids if same_store else None,
        )
        for i, row in enumerate(q.tolist()):
            found.n_relevant[row] = int(right[i].sum())
            found.n_items[row] = int(others[i].sum())
            found.results[row] = [
                _Result(
                    int(gallery.image[g[c]]), int(gallery.value[g[c]]), round(s, 4), right[i, c]
                )
                for s, c in zip(scores[i].tolist(), columns[i].tolist(), strict=True)
                if c >= 0
            ]
    return found


@torch.no_grad()
def _ask(
    model: RetrievalModel, table: AttributeTable, images: np.ndarray
) -> tuple[Tensor | None, Tensor | None, Mapping[int, Tensor]]:
    """Attention (B, A, h, w) and gate of the images, where there are any, and the taps."""
    gates: list[Tensor] = []
    gate = model.gate if isinstance(model, AGMAN) else None
    hook = None
    if gate is not None:
        hook = gate.register_forward_hook(lambda _module, _inputs, out: gates.append(out))
    was_training = model.training
    model.eval()
    try:
        pixels = prepare(model, table.images.load(images, model.preprocessing.size))
        taps = model.backbone(pixels, model.levels)
        attention = model(taps, model.all_attributes(len(images))).attention
    finally:
        model.train(was_training)
        if hook is not None:
            hook.remove()
    n = len(table.schema)
    seen = None if attention is None else attention[:, :n].cpu().double()
    return seen, gates[0][:, :n].cpu().double() if gates else None, taps


def _attention(model: RetrievalModel, table: AttributeTable, images: np.ndarray) -> Tensor | None:
    """The attention map of each row (R, h, w), or None for a model without attention."""
    maps, _, _ = _ask(model, table, images)
    place = {int(image): number for number, image in enumerate(images)}
    return None if maps is None else maps[[place[int(i)] for i in table.image], table.attribute]


@dataclass(frozen=True)
class _Layer:
    """One kind of map: (images, attributes, h, w), or (images, 1, h, w) if all attributes share."""

    name: str
    about: str
    maps: Tensor

    def to_dict(self, regions: Tensor | None, n_attributes: int) -> dict[str, Any]:
        every = self.maps.expand(-1, n_attributes, -1, -1).flatten(0, 1)
        inside = _inside(every, regions)
        return {
            "name": self.name,
            "about": self.about,
            "shared": self.maps.shape[1] < n_attributes,
            "maps": _packed(self.maps.flatten(0, 1)),
            "says": [
                {"place": place, "inside": share}
                for place, share in zip(_places(every), inside, strict=True)
            ],
        }


def _layers(model: RetrievalModel, table: AttributeTable, images: np.ndarray) -> list[_Layer]:
    attention, gate, taps = _ask(model, table, images)
    layers = []
    if attention is not None:
        about = "where the model looks for each attribute; each map has the sum 1."
        layers.append(_Layer("attribute-guided map", about, attention))
    if attention is not None and gate is not None:
        low, high = float(gate.min()), float(gate.max())
        about = (
            "it knows the attribute only through the weighted features, and multiplies the guided "
            f"map; on these garments by numbers from {low:.2f} to {high:.2f}."
        )
        layers.append(_Layer("plain gate", about, gate))
        about = "the guided map times the plain gate: the weights that features are summed with."
        layers.append(_Layer("map times gate", about, attention * gate))
    for level in sorted(taps, reverse=True):
        activity = taps[level].cpu().double().abs().mean(dim=1, keepdim=True)
        about = (
            "how active the backbone is at each place, its features' mean size; the backbone does "
            "not know the attribute, so all maps are the same."
        )
        layers.append(_Layer(f"activity at level {level}", about, activity))
    return layers


# --- where maps lie ---------------------------------------------------------------------------


def _regions(table: AttributeTable) -> Tensor | None:
    """Regions (R, 4) as shares of the image's sides, -1 for none; None where they are unknown."""
    if table.regions is None or not isinstance(table.images, PackedImages):
        return None
    height, width = table.images.array.shape[1:3]
    regions = torch.from_numpy(np.asarray(table.regions)).double()
    hidden = (regions == -1).all(dim=1, keepdim=True)
    sides = torch.tensor([width, height, width, height]).double()
    return (regions / sides).clamp(0, 1).masked_fill(hidden, -1)


def _rows_of(regions: Tensor, rows: Sequence[int | None]) -> Tensor:
    """The regions of some rows, none where there is no row."""
    none = torch.full((4,), -1.0).double()
    return torch.stack([none if row is None else regions[row] for row in rows])


def _corner_and_size(regions: Tensor | None, row: int) -> list[float] | None:
    """A region as left, top, width and height, or None."""
    if regions is None or bool((regions[row] == -1).all()):
        return None
    x0, y0, x1, y1 = regions[row].tolist()
    return [round(number, 4) for number in (x0, y0, x1 - x0, y1 - y0)]


def _inside(maps: Tensor, regions: Tensor | None) -> list[float | None]:
    """The share of each map (R, h, w) inside its region, None without a region."""
    if regions is None:
        return [None] * len(maps)
    return [_number(share) for share in attention_mass(maps, regions, 1.0).tolist()]


def _places(maps: Tensor) -> list[str]:
    """In words, where each map (R, h, w) is brightest."""
    height, width = maps.shape[1:]
    words = []
    for cell in maps.flatten(1).argmax(dim=1).tolist():
        row, column = divmod(cell, width)
        vertical = ("top", "middle", "bottom")[3 * (2 * row + 1) // (2 * height)]
        horizontal = ("left", "centre", "right")[3 * (2 * column + 1) // (2 * width)]
        words.append(f"{vertical} {horizontal}")
    return words


def _looks(maps: Tensor | None, regions: Tensor | None, n_rows: int) -> list[str]:
    """A sentence about each row's map: the text beside the picture."""
    if maps is None:
        return ["It has no attention map: it weighs all places alike."] * n_rows
    sentences = []
    for place, share in zip(_places(maps), _inside(maps, regions), strict=True):
        inside = "" if share is None else f", {round(100 * share)}\u00a0% of it in the true region"
        sentences.append(f"The attention is brightest at the {place}{inside}.")
    return sentences


def _packed(maps: Tensor) -> dict[str, Any]:
    """Maps (M, h, w) as bytes, each from zero to its own maximum."""
    top = maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    values = (255 * maps.clamp(min=0) / top).round().to(torch.uint8).numpy()
    text = base64.b64encode(values.tobytes()).decode()
    return {"height": maps.shape[1], "width": maps.shape[2], "values": text}


# --- the plane --------------------------------------------------------------------------------


def _plane(
    embeddings: Tensor, values: np.ndarray, pictures: Sequence[int], names: Sequence[str]
) -> dict[str, Any]:
    """Points (picture, value, x, y) with x and y in 0..1000, and what the plane leaves out."""
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    flat = torch.zeros(len(centred), 2).double()
    flat[:, : min(2, len(s))] = (u * s)[:, :2]
    flat *= torch.where(flat.gather(0, flat.abs().argmax(0)[None]) < 0, -1.0, 1.0)  # the same sign
    total = float((s**2).sum())
    span = max(float((flat.amax(0) - flat.amin(0)).max()), 1e-12)
    middle = (flat.amax(0) + flat.amin(0)) / 2
    points = (500 + 1000 * (flat - middle) / span).round()
    shares = {
        "space": _same_value(embeddings.double(), values),
        "plane": _same_value(points, values),
    }
    n = len(values)
    described = []
    for value, name in enumerate(names):
        own = values == value
        count = int(own.sum())
        described.append(
            {
                "name": name,
                "garments": count,
                "chance": _number((count - 1) / (n - 1)) if count and n > 1 else None,
                **{k: _number(share[own].mean()) if count else None for k, share in shares.items()},
            }
        )
    return {
        "explained": _number(float((s[:2] ** 2).sum()) / total) if total > 1e-12 else None,
        "near": min(NEIGHBOURS, n - 1),
        "values": described,
        "points": [
            (picture, int(value), x, y)
            for picture, value, (x, y) in zip(pictures, values, points.int().tolist(), strict=True)
        ],
    }


def _same_value(points: Tensor, values: np.ndarray) -> np.ndarray:
    """For each point the share of its nearest others that have its value, NaN if it is alone."""
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distance.fill_diagonal_(torch.inf)
    nearest = distance.argsort(dim=1, stable=True)[:, : min(NEIGHBOURS, len(points) - 1)]
    same = values[nearest.numpy()] == values[:, None]
    return same.mean(axis=1) if same.shape[1] else np.full(len(points), np.nan)


# --- pictures and pages -----------------------------------------------------------------------


def _refuse_nothing(models: Iterable[Any], table: AttributeTable) -> None:
    if not list(models):
        raise InputError("There is no model to explore; give at least one, by name.")
    if not len(table):
        raise InputError(f"{table.source}: there is no row to explore; choose other rows.")
    if isinstance(table.images, TapStore):
        raise InputError(
            f"{table.source}: it holds a network's taps, which nobody can look at; give the table "
            "of the images that they were computed from."
        )


def _first_images(table: AttributeTable, n: int) -> np.ndarray:
    """The first n images of a table, in its order."""
    if n < 1:
        raise InputError(f"At least 1 image is needed, not {n}.")
    return np.array(list(dict.fromkeys(table.image.tolist()))[:n])


def _labels(table: AttributeTable, image: int, attribute: int) -> str:
    """The values of an image, as words."""
    rows = np.flatnonzero((table.image == image) & (table.attribute == attribute))
    values = [table.schema.values[attribute][v] for v in table.value[rows]]
    return " and ".join(values) or "not labelled"


def _large_side(table: AttributeTable) -> int:
    """Side in which a picture is shown large: its own, if it is known and not larger."""
    store = table.images
    return min(160, store.array.shape[1]) if isinstance(store, PackedImages) else 160


def _pictures(
    table: AttributeTable, images: Sequence[int] | np.ndarray, side: int
) -> list[tuple[str, str]]:
    """Each image as a small WebP in a data address, with its name."""
    pixels = table.images.load(np.asarray(images, dtype=np.int64), side)
    pictures = []
    for image, number in zip(pixels, images, strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "WEBP", quality=75)
        address = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
        pictures.append((address, str(table.images.names[int(number)])))
    return pictures


def _number(number: float) -> float | None:
    """A number short enough to be sent, None for NaN."""
    return None if np.isnan(number) else round(float(number), 6)


def _fitting(title: str, scripts: Sequence[str], data: Callable[[int], Any]) -> Explorer:
    """The explorer with the largest thumbnails that keep it below the limit."""
    for side in SIDES:
        explorer = _explorer(title, scripts, data(side))
        if len(explorer.html.encode()) <= LIMIT:
            return explorer
    raise InputError(
        f"The {title.lower()} would be larger than {LIMIT:,} bytes even with pictures of "
        f"{SIDES[-1]} pixels; ask for fewer images."
    )


def _explorer(title: str, scripts: Sequence[str], data: Any) -> Explorer:
    """The page part: an element with its style, and one script with the data in it."""
    text = _inert(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    code = "".join(_asset(name) for name in ("common.js", *scripts))
    mark = hashlib.sha256(f"{title}{code}{text}".encode()).hexdigest()[:10]
    root = f"{title.lower().replace(' ', '-')}-{mark}"
    style = _asset("explorers.css").replace("ROOT", f"#{root}")
    return Explorer(
        title,
        f'<div id="{root}" class="agman-explorer tex2jax_ignore mathjax_ignore">\n'
        f"<style>\n{style}</style>\n"
        f'<p class="wait">{html.escape(title)}: run this cell, or open the page of the book with '
        "JavaScript switched on.</p>\n</div>\n"
        f'<script>\n(() => {{\n"use strict";\n{code}'
        f'start("{root}", "{title}", build, {text});\n}})();\n</script>\n',
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _inert(text: str) -> str:
    """JSON that can neither end the script it stands in nor start a comment there."""
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text.encode("utf-8", "backslashreplace").decode()  # names of files may be half letters
