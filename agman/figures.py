"""Figures of the book: colour-blind-safe and readable on a phone.

Every function takes plain arrays and returns a closed matplotlib figure, which a notebook shows
once as the last expression of a cell; caption and alt text are the cell's metadata.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from agman.errors import InputError
from agman.metrics import t_interval

# Okabe and Ito's palette, which people with any common colour blindness can tell apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RIGHT, WRONG, QUERY = "#009E73", "#D55E00", "#000000"
PHONE = 4.5  # inches; shown 360 pixels wide, type of 9 points stays readable


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
                axes[r, c].set_title(column_titles[c], fontsize=10, parse_math=False)
        if r < len(row_titles):
            _row_title(axes[r, 0], row_titles[r])
    return closed(figure)


def _row_title(ax: Any, title: str) -> None:
    # A value may be called "$10 to $20", which is no mathematics.
    style: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 10}
    ax.set_ylabel(title, parse_math=False, **style)


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
        _row_title(axes[r, 0], titles[r])
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
        ax.set_title(titles[k], fontsize=10, parse_math=False)
        if regions is not None and regions[k][0] >= 0:
            _box(ax, regions[k])
    return closed(figure)


def under_map(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture under its attention map, for `image_grid` and `rankings`.

    Args:
        image: (H, W, 3) uint8.
        heat: (h, w), any scale; stretched to its own maximum, as in `attention_maps`.

    Returns:
        (H, W, 3) uint8.
    """
    bright = Image.fromarray((heat / max(float(heat.max()), 1e-12)).astype(np.float32))
    bright = bright.resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    color = 255 * colormaps["magma"](np.asarray(bright))[:, :, :3]
    return np.round(0.65 * color + 0.35 * image).astype(np.uint8)


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
    size = (PHONE, 0.35 * len(names) * len(results) + 1.6)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
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
    ax.set_yticks(rows, [readable(name) for name in names], parse_math=False)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    _plain(figure, ax, "MAP (%)")
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
    figure, ax = plt.subplots(figsize=(PHONE, 3.8), layout="constrained")
    for name, values in series.items():
        ax.plot(x, values, label=name)
    ax.grid(axis="y", alpha=0.3)
    _plain(figure, ax, xlabel, ylabel)
    return closed(figure)


def ranking_profile(relevant: Sequence[bool], average: float) -> Figure:
    """Precision at every rank of one ranking, and the average that AP takes of it.

    Relevant ranks have a solid bar and their precision above it, the others an open one.

    Args:
        relevant: whether each rank holds a relevant item, best first.
        average: the average precision, in 0..1.
    """
    flags = np.asarray(relevant, dtype=bool)
    ranks = np.arange(1, len(flags) + 1)
    precision = flags.cumsum() / ranks
    figure, ax = plt.subplots(figsize=(PHONE, 3.6), layout="constrained")
    for kind, color, label in ((flags, RIGHT, "relevant"), (~flags, "white", "not relevant")):
        ax.bar(ranks[kind], precision[kind], 0.75, color=color, edgecolor="black", label=label)
    for rank in ranks[flags]:
        ax.annotate(f"{precision[rank - 1]:.2f}", (rank, precision[rank - 1]), ha="center",
                    xytext=(0, 3), textcoords="offset points", fontsize=9)  # fmt: skip
    ax.axhline(average, color="black", linestyle="--", label=f"AP = {average:.3f}")
    ax.set(xticks=ranks, ylim=(0, 1.1), yticks=[0, 0.25, 0.5, 0.75, 1])
    _plain(figure, ax, "rank", "precision up to this rank")
    return closed(figure)


def tie_band(
    levels: Sequence[int],
    lucky: Sequence[float],
    unlucky: Sequence[float],
    fair: Sequence[float],
    chance: float,
) -> Figure:
    """MAP between the luckiest and the unluckiest order of ties, and the fair value between.

    Args:
        levels: how many different scores there are, rising.
        lucky: MAP in 0..1 with the relevant items first among equals.
        unlucky: with the relevant items last.
        fair: under the fair rule.
        chance: MAP of a random ranking, drawn dotted.
    """
    figure, ax = plt.subplots(figsize=(PHONE, 4.4), layout="constrained")
    low, high, middle = (100 * np.asarray(values) for values in (unlucky, lucky, fair))
    ax.fill_between(
        levels, low, high, color=COLORS[5], alpha=0.3, label="what order can make of it"
    )
    ax.plot(levels, high, color=COLORS[3], marker="^", label="relevant first among equals")
    ax.plot(levels, low, color=COLORS[0], marker="v", label="relevant last among equals")
    ax.plot(levels, middle, color="black", marker="o", linewidth=2.5, label="fair ties")
    ax.axhline(100 * chance, color="black", linestyle=":", marker="", label="random ranking")
    ax.set_xscale("log", base=2)
    ax.set_xticks(levels, [str(n) for n in levels])
    ax.minorticks_off()
    ax.set_ylim(0, 105)
    _plain(figure, ax, "number of different scores", "MAP (%)")
    return closed(figure)


def level_gap(
    levels: Sequence[int],
    series: Mapping[str, Sequence[float]],
    dashed: Sequence[str] = (),
    constants: Mapping[str, float] | None = None,
) -> Figure:
    """How far retrieval gets from each level of a backbone, on the way from chance to perfect.

    Args:
        levels: numbers of the levels.
        series: name to one share per level; 0 is chance, 1 is perfect.
        dashed: names of the series that are controls.
        constants: name to the share of a control that has no levels, drawn as a dotted line.
    """
    figure, ax = plt.subplots(figsize=(PHONE, 4.4), layout="constrained")
    for name, values in series.items():
        shape = {"linestyle": "--", "linewidth": 1.5} if name in dashed else {"linewidth": 3}
        ax.plot(levels, 100 * np.asarray(values), label=name, **shape)
    for number, (name, value) in enumerate((constants or {}).items()):
        color = COLORS[(len(series) + number) % len(COLORS)]
        ax.axhline(100 * value, color=color, linestyle=":", marker="", linewidth=2, label=name)
    ax.axhline(0, color="grey", linewidth=0.8, marker="")
    ax.set_xticks(list(levels))
    _plain(figure, ax, "level of the backbone", "way from chance to perfect (%)")
    return closed(figure)


def intervals(
    methods: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    reference: tuple[str, float] | None = None,
    published: Mapping[str, float] | None = None,
    confidence: float = 0.95,
    digits: int = 1,
) -> Figure:
    """One row per method: the mean over seeds and its interval, with each seed as a small dot.

    At the right stand the mean and half the width of its interval.

    Args:
        methods: name to one number per seed; a single seed has no interval.
        xlabel: what the numbers are, with their unit.
        reference: label and number of a dashed line, such as chance.
        published: name to the number of a paper, a hollow diamond; what has no seeds has a row
            of its own, after the others.
        confidence: of the intervals, see `agman.metrics.t_interval`.
        digits: decimals of the numbers at the right.
    """
    papers = published or {}
    names = list(dict.fromkeys((*methods, *papers)))
    several = {name: t_interval(v, confidence) for name, v in methods.items() if len(v) > 1}
    figure, (ax,) = _named_rows(names)
    for y, name in enumerate(names):
        seeds = methods.get(name, ())
        if name in several:
            mean, low, high = several[name]
            ax.plot([low, high], [y, y], color=COLORS[5], **_BAR)
            ax.plot(mean, y, color=COLORS[0], **_MEAN)
            _number(ax, y, f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}")
        elif len(seeds):
            _number(ax, y, f"{seeds[0]:.{digits}f}")
        ax.plot(seeds, np.full(len(seeds), y + 0.3 * (len(seeds) > 1)), **_SEED)
        if name in papers:
            ax.plot(papers[name], y - 0.3 * (len(seeds) > 0), **_PAPER)
    if several:
        ax.plot([], [], color=COLORS[0], label="mean of the seeds", **_MEAN)
        ax.plot([], [], color=COLORS[5], label=f"its {100 * confidence:g} % interval", **_BAR)
    if methods:
        ax.plot([], [], label="one seed", **_SEED)
    if papers:
        ax.plot([], [], label="published", **_PAPER)
    if reference is not None:
        ax.axvline(reference[1], label=reference[0], linestyle="--", **_RULE)
    ax.set_xlabel(xlabel, fontsize=10)
    _legend_below(figure, ax)
    return closed(figure)


def differences(
    rows: Mapping[str, tuple[float, float, float]], *, xlabel: str, digits: int = 1
) -> Figure:
    """One row per difference: the difference and its interval about a line at zero.

    A triangle points up or down where the whole interval lies above or below zero; a circle is
    open where zero is in the interval. At the right stand the difference and half the width of
    its interval.

    Args:
        rows: name to difference, low and high, as `agman.metrics.paired_difference` gives them.
        xlabel: what the numbers are, with their unit.
        digits: decimals of the numbers at the right.
    """
    figure, (ax,) = _named_rows(list(rows))
    looks = {}
    for y, (difference, low, high) in enumerate(rows.values()):
        label, look = _verdict(low, high)
        looks[label] = look
        ax.plot([low, high], [y, y], color=look["color"], alpha=0.45, **_BAR)
        ax.plot(difference, y, **look)
        number = f"{difference:+.{digits}f} ± {(high - low) / 2:.{digits}f}"
        _number(ax, y, number.replace("-", "−"))
    for label, look in looks.items():
        ax.plot([], [], label=label, **look)
    ax.axvline(0, **_RULE)
    ax.margins(x=0.08)
    ax.set_xlabel(xlabel, fontsize=10)
    _legend_below(figure, ax)
    return closed(figure)


def quality_over_time(
    curves: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]], *, ylabel: str
) -> Figure:
    """Quality against time: the mean over seeds, in a band from the worst seed to the best.

    Both are drawn over the times that all seeds have in common; between two measurements of a
    run lies a straight line.

    Args:
        curves: name to one run per seed: rising seconds, and the quality measured at each.
        ylabel: what was measured, with its unit.

    Raises:
        InputError: for seconds that do not rise, or runs without a common time.
    """
    joined = {name: _common_times(name, runs) for name, runs in curves.items()}
    longest = max(times[-1] for times, _ in joined.values())
    figure, ax = plt.subplots(figsize=(PHONE, 3.8), layout="constrained")
    seconds, unit = next(u for u in ((3600, "hours"), (60, "minutes"), (1, "seconds"))
                         if longest >= 3 * u[0] or u[0] == 1)  # fmt: skip
    for number, (name, (times, quality)) in enumerate(joined.items()):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        times = times / seconds
        low, mean, high = quality.min(axis=0), quality.mean(axis=0), quality.max(axis=0)
        ax.fill_between(times, low, high, color=color, alpha=0.25, linewidth=0)
        ax.plot(times, mean, color=color, linewidth=2, marker=marker, markersize=5.5,
                markevery=max(1, len(times) // 8), label=name)  # fmt: skip
    ax.set_xlim(left=0)
    ax.grid(alpha=0.25)
    _plain(figure, ax, f"training time ({unit})", ylabel)
    return closed(figure)


def shares(panels: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """One row per attribute: shares in percent, a marker for each kind, one panel per measure.

    Args:
        panels: what is measured, to kind to attribute to a share in 0..1. The first kind is the
            one that is judged: it is drawn filled, and the others hollow.
    """
    attributes = list(next(iter(next(iter(panels.values())).values())))
    figure, axes = _named_rows([readable(name) for name in attributes], panels=len(panels))
    for ax, (title, kinds) in zip(axes, panels.items(), strict=True):
        for number, (kind, values) in enumerate(kinds.items()):
            look = {**_MEAN, "color": COLORS[number], "marker": MARKERS[number]}
            if number:
                look |= {"markerfacecolor": "white", "markersize": 6.5, "zorder": 3}
            percent = [100 * values[name] for name in attributes]
            ax.plot(percent, range(len(attributes)), label=kind, clip_on=False, **look)
        ax.set_xlabel(title, fontsize=10)
        ax.set_xlim(left=0)
        ax.locator_params(axis="x", nbins=4)
    _legend_below(figure, axes[0])
    return closed(figure)


def growth(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    *,
    xlabel: str,
) -> Figure:
    """Seconds against size, both logarithmic: a panel per work, and dashed what it takes at least.

    Args:
        panels: title to label of a line to its points, from the smallest size to the largest:
            size, seconds, and the least seconds that the machine needs. Of two lines the second
            is the higher one.
        xlabel: what is counted.
    """
    rows = -(-len(panels) // 2)
    figure, grid = plt.subplots(
        rows, 2, figsize=(PHONE, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for ax in grid.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        for number, (label, points) in enumerate(curves.items()):
            sizes, seconds, least = np.asarray(points, dtype=float).T
            look: dict[str, Any] = {"color": COLORS[(0, 3)[number % 2]]}
            ax.loglog(sizes, seconds, **look, marker=MARKERS[number], markersize=4.5, linewidth=2)
            ax.loglog(sizes, least, **look, marker="", linestyle=(0, (4, 2)), linewidth=1.5)
            middle = len(points) // 2
            if len(curves) == 1:
                _beside(ax, label, (sizes[middle], seconds[middle]), "upper left")
                _beside(ax, "limit", (sizes[middle], least[middle]), "lower right")
            elif number:
                _beside(ax, label, (sizes[-1], seconds[-1]), "right")
            else:
                _beside(ax, label, (sizes[middle], least[middle]), "lower right")
        ax.margins(y=0.1)
        ax.set_title(title, fontsize=10, loc="left")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(numticks=5))
            axis.set_minor_locator(NullLocator())
        ax.tick_params(labelsize=9)
        ax.grid(alpha=0.25)
    for ax in grid[:, 0]:
        ax.set_ylabel("seconds", fontsize=10)
    for ax in grid.flat[max(0, len(panels) - 2) : len(panels)]:
        ax.set_xlabel(xlabel, fontsize=10)
    return closed(figure)


def recall_time(engines: Mapping[str, Sequence[tuple[float, float, str]]]) -> Figure:
    """What search engines find of the exact answers, against their time, which is logarithmic.

    Args:
        engines: name to its settings, each as milliseconds a query, recall in 0..1, and what is
            set, which is written at the first and the last of several.
    """
    figure, ax = plt.subplots(figsize=(PHONE, 4.2), layout="constrained")
    for number, (name, points) in enumerate(engines.items()):
        look: dict[str, Any] = {
            "color": COLORS[(2, 4, 0, 3)[number % 4]],
            "marker": MARKERS[number],
        }
        times, found = zip(*((time, 100 * recall) for time, recall, _ in points), strict=True)
        ax.plot(times, found, **look, label=name, linewidth=2, markersize=6.5, clip_on=False)
        if len(points) > 1:
            _beside(ax, points[0][2], (times[0], found[0]), "lower right")
            last = "lower right" if number % 2 else "upper left"  # two lines may end together
            _beside(ax, points[-1][2], (times[-1], found[-1]), last)
    ax.set_xscale("log")
    ax.margins(x=0.12, y=0.12)
    ax.grid(alpha=0.25)
    _plain(figure, ax, "milliseconds a query", "recall at 10 (%)")
    return closed(figure)


# How the parts of a row are drawn, alike in every figure of rows.
_BAR: dict[str, Any] = {"linewidth": 9, "marker": "", "solid_capstyle": "butt", "zorder": 2}
_MEAN: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 7, "zorder": 4}
_SEED: dict[str, Any] = {**_MEAN, "markersize": 3.5, "color": "#707070"}
_PAPER: dict[str, Any] = {**_MEAN, "marker": "D", "color": COLORS[3], "markerfacecolor": "white"}
_RULE: dict[str, Any] = {"color": "black", "linewidth": 1.2, "marker": "", "zorder": 1}


def _verdict(low: float, high: float) -> tuple[str, dict[str, Any]]:
    """What an interval says about zero: label and marker."""
    if low > 0:
        return "above zero", {**_MEAN, "color": RIGHT, "marker": "^"}
    if high < 0:
        return "below zero", {**_MEAN, "color": WRONG, "marker": "v"}
    return "zero is possible", {**_MEAN, "color": "#606060", "markerfacecolor": "white"}


def _common_times(
    name: str, runs: Sequence[tuple[Sequence[float], Sequence[float]]]
) -> tuple[np.ndarray, np.ndarray]:
    """Every measured time that lies in all runs, (T,), and the quality of each run then."""
    if not runs:
        raise InputError(f"{name!r} has no run to draw; leave it out.")
    for seconds, quality in runs:
        if not 0 < len(seconds) == len(quality) or not (np.diff(seconds) > 0).all():
            raise InputError(
                f"A run of {name!r} needs seconds that rise and one quality for each of them."
            )
    measured = np.unique(np.concatenate([seconds for seconds, _ in runs]))
    start, end = max(s[0] for s, _ in runs), min(s[-1] for s, _ in runs)
    times = measured[(measured >= start) & (measured <= end)]
    if not len(times):
        raise InputError(f"The runs of {name!r} have no time in common; draw them one by one.")
    return times, np.stack([np.interp(times, seconds, quality) for seconds, quality in runs])


def _named_rows(names: Sequence[str], panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Panels side by side with a row for each name, the first at the top."""
    figure, grid = plt.subplots(
        1,
        panels,
        figsize=(PHONE, 0.42 * len(names) + 1.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    labels = [textwrap.fill(name, 20, break_on_hyphens=False) for name in names]
    grid[0, 0].set_yticks(range(len(names)), labels, fontsize=10, parse_math=False)
    grid[0, 0].set_ylim(len(names) - 0.4, -0.6)
    for ax in grid[0]:
        ax.grid(axis="x", alpha=0.25)
        ax.tick_params(axis="x", labelsize=10)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    return figure, list(grid[0])


def _number(ax: Axes, y: float, text: str) -> None:
    """Text to the right of a row."""
    ax.text(1.03, y, text, transform=ax.get_yaxis_transform(), va="center_baseline", fontsize=9.5)


def _beside(ax: Axes, text: str, point: tuple[float, float], where: str) -> None:
    """Text beside a point; "upper left" and "lower right" are where a rising line is not."""
    across, up = ("right", "bottom") if where == "upper left" else ("left", "top")
    ax.annotate(
        text,
        point,
        xytext={"upper left": (-7, 2), "lower right": (6, -2), "right": (7, 0)}[where],
        textcoords="offset points",
        ha=across,
        va="center" if where == "right" else up,
        fontsize=9,
        path_effects=[withStroke(linewidth=3, foreground="white")],  # where a line passes behind
        zorder=5,
    )


def _plain(figure: Figure, ax: Axes, xlabel: str, ylabel: str = "") -> None:
    """Names of the axes and the legend, in type that a phone can show."""
    ax.set_xlabel(xlabel, fontsize=10)
    ax.set_ylabel(ylabel, fontsize=10)
    ax.tick_params(labelsize=10)
    _legend_below(figure, ax)


def _legend_below(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    columns = 1 if max(map(len, labels), default=0) > 24 else 2
    labels = [textwrap.fill(label, 50) for label in labels]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False
    )


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
