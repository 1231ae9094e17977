"""Figures of the book: colour-blind-safe and readable on a phone.

Every function takes plain arrays and returns a closed matplotlib figure, which a notebook shows
once as the last expression of a cell; caption and alt text are the cell's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Okabe and Ito's palette, which people with any common colour blindness can tell apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RIGHT, WRONG, QUERY = "#009E73", "#D55E00", "#000000"


def style() -> None:
    """Set matplotlib up for the book: large type, no frame, the palette above."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.size": 12,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=COLORS) + plt.cycler(marker=MARKERS),
            "savefig.facecolor": "white",
        }
    )


def closed(figure: Figure) -> Figure:
    """The figure, no longer held by pyplot, so that a notebook does not show it twice."""
    plt.close(figure)
    return figure


def readable(name: str) -> str:
    """An attribute's name as people write it.

    >>> readable("skirt_length")
    'skirt length'
    """
    return name.replace("_", " ")


def image_grid(
    images: Sequence[Sequence[np.ndarray | None]],
    *,
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    size: float = 1.1,
) -> Figure:
    """Pictures in rows and columns.

    Args:
        images: rows of (H, W, 3) uint8 arrays; None leaves a place empty.
        row_titles: one per row, to its left.
        column_titles: one per column, above.
        size: of one picture in inches.
    """
    n_columns = max(len(row) for row in images)
    figure, axes = _grid(len(images), n_columns, size)
    for r, row in enumerate(images):
        for c in range(n_columns):
            picture = row[c] if c < len(row) else None
            _picture(axes[r, c], picture)
            if r == 0 and c < len(column_titles):
                axes[r, c].set_title(column_titles[c], fontsize=10)
        if r < len(row_titles):
            axes[r, 0].set_ylabel(row_titles[r], rotation=0, ha="right", va="center", fontsize=10)
    return closed(figure)


def rankings(
    queries: Sequence[np.ndarray],
    retrieved: Sequence[Sequence[np.ndarray]],
    relevant: Sequence[Sequence[bool]],
    titles: Sequence[str],
    *,
    size: float = 1.0,
) -> Figure:
    """One ranking a row: the query, then the top of its ranking.

    Right answers have a solid frame and a tick, wrong ones a dashed frame and a cross.

    Args:
        queries: (H, W, 3) uint8 pictures, one per row.
        retrieved: per row the pictures found, best first.
        relevant: per row whether each is right.
        titles: per row what was asked.
        size: of one picture in inches.
    """
    figure, axes = _grid(len(queries), 1 + max(len(row) for row in retrieved), size)
    for r, (query, row, flags) in enumerate(zip(queries, retrieved, relevant, strict=True)):
        _picture(axes[r, 0], query)
        _frame(axes[r, 0], QUERY, "-")
        axes[r, 0].set_ylabel(titles[r], rotation=0, ha="right", va="center", fontsize=10)
        for c, ax in enumerate(axes[r, 1:]):
            _picture(ax, row[c] if c < len(row) else None)
            if c < len(row):
                _frame(ax, RIGHT if flags[c] else WRONG, "-" if flags[c] else (0, (3, 2)))
                ax.set_xlabel("✓" if flags[c] else "✗", fontsize=9, labelpad=1)
    axes[0, 0].set_title("query", fontsize=10)
    for c, ax in enumerate(axes[0, 1:], start=1):
        ax.set_title(str(c), fontsize=10)
    return closed(figure)


def attention_maps(
    image: np.ndarray,
    maps: np.ndarray,
    titles: Sequence[str],
    *,
    regions: np.ndarray | None = None,
    columns: int = 4,
    size: float = 1.6,
) -> Figure:
    """One picture under several attention maps, bright where the network looks.

    Args:
        image: (H, W, 3) uint8.
        maps: (K, h, w), any scale; each is stretched to its own maximum.
        titles: K.
        regions: (K, 4) true region x0, y0, x1, y1 in pixels, -1 for none, drawn dashed.
        columns: pictures in a row.
        size: of one picture in inches.
    """
    rows = -(-len(maps) // columns)
    figure, axes = _grid(rows, min(columns, len(maps)), size)
    for ax in axes.flat[len(maps) :]:
        ax.set_visible(False)
    for k, ax in enumerate(axes.flat[: len(maps)]):
        _picture(ax, image)
        height, width = image.shape[:2]
        heat = maps[k] / max(float(maps[k].max()), 1e-12)
        ax.imshow(
            heat, cmap="magma", alpha=0.65, extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
        )  # fmt: skip
        ax.set_title(titles[k], fontsize=10)
        if regions is not None and regions[k][0] >= 0:
            _box(ax, regions[k])
    return closed(figure)


def map_bars(
    results: Mapping[str, Mapping[str, float]],
    chance: Mapping[str, float] | None = None,
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> Figure:
    """Bars of MAP in percent: a group per attribute, a bar per method, a line for chance.

    Args:
        results: method to attribute to MAP in 0..1.
        chance: attribute to the MAP of a random ranking.
        intervals: method to attribute to (low, high) in 0..1.
    """
    names = list(next(iter(results.values())))
    figure, ax = plt.subplots(figsize=(7, 0.35 * len(names) * len(results) + 1.4))
    height = 0.8 / len(results)
    rows = np.arange(len(names))
    for i, (method, values) in enumerate(results.items()):
        where = rows + (i - (len(results) - 1) / 2) * height
        percent = [100 * values[name] for name in names]
        bars = ax.barh(where, percent, height, label=method, color=COLORS[i % len(COLORS)])
        ax.bar_label(bars, fmt="%.0f", padding=2, fontsize=9)
        if intervals is not None:
            for y, name in zip(where, names, strict=True):
                low, high = intervals[method][name]
                ax.plot([100 * low, 100 * high], [y, y], color="black", lw=1.5, marker="")
    if chance is not None:
        for y, name in zip(rows, names, strict=True):
            ax.plot([100 * chance[name]] * 2, [y - 0.45, y + 0.45], "k:", lw=2, marker="")
        ax.plot([], [], "k:", lw=2, marker="", label="chance")
    ax.set_yticks(rows, [readable(name) for name in names])
    ax.invert_yaxis()
    ax.set(xlabel="MAP (%)", xlim=(0, 100))
    ax.legend(loc="lower right", fontsize=9)
    return closed(figure)


def lines(
    x: Sequence[float] | Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """One line per name, told apart by colour and by marker.

    Args:
        x: positions or labels.
        series: name to one number per position.
        xlabel: what the positions are.
        ylabel: what the numbers are, with their unit.
    """
    figure, ax = plt.subplots(figsize=(7, 4))
    for name, values in series.items():
        ax.plot(x, values, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(axis="y", alpha=0.3)
    ax.legend(fontsize=9)
    return closed(figure)


def _grid(rows: int, columns: int, size: float) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns + 0.6, size * rows * 1.12), squeeze=False
    )
    return figure, axes


def _picture(ax: Axes, picture: np.ndarray | None) -> None:
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if picture is not None:
        ax.imshow(picture, interpolation="lanczos")


def _frame(ax: Axes, color: str, dashes: object) -> None:
    for spine in ax.spines.values():
        spine.set(visible=True, color=color, linewidth=2.5, linestyle=dashes)


def _box(ax: Axes, region: np.ndarray) -> None:
    x0, y0, x1, y1 = region
    for color, dashes in (("black", "-"), ("white", (0, (3, 3)))):
        box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=1.8, ls=dashes)
        ax.add_patch(box)
