"""Figures of rows and curves: what is drawn is what was given, and a phone can show it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from agman import figures
from agman.errors import InputError
from agman.metrics import paired_difference, t_interval

SEEDS = {
    "Triplet network": [37.9, 38.2, 38.9],
    "CSN": [53.1, 53.0, 54.2],
    "AG-MAN without multi-level features": [60.1, 61.4, 61.0],
    "AG-MAN": [62.5, 63.1, 62.8],
    "AG-MAN, all pairs": [67.9],
}
PAPERS = {"CSN": 53.52, "AG-MAN": 62.88, "RPF": 70.11}


SIZES = np.logspace(1, 4, 7)
LINE = list(zip(SIZES, 0.01 + 1e-5 * SIZES**2, 1e-6 * SIZES**2, strict=True))
HIGHER = [(n, 100 * seconds, 80 * seconds) for n, seconds, _ in LINE[:4]]
PANELS = {
    "evaluation": {"measured": LINE},
    "search": {"measured": LINE},
    "embedding": {"lab network": LINE, "ResNet-50": HIGHER},
}
ENGINES = {
    "exact, this package": [(9.0, 1.0, "")],
    "FAISS, exact (flat)": [(7.0, 1.0, "")],
    "cells (ivf)": [(0.05 * n, 1 - 0.6 / n, f"n_probe={n}") for n in (1, 8, 64)],
    "graph (hnsw)": [(0.01 * n, 1 - 7 / n, f"ef_search={n}") for n in (16, 64, 256)],
}


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.style()
        yield


def every_figure():
    """One of each kind, with long names and all that is optional."""
    reference = ("random ranking", 15.8)
    full = SEEDS["AG-MAN"]
    rows = {
        name: paired_difference(values, full) for name, values in SEEDS.items() if len(values) > 1
    }
    seconds = np.arange(1.0, 50.0) * 17
    curves = {
        name: [
            (seconds + seed, value * (1 - np.exp(-seconds / 200))) for seed, value in enumerate(v)
        ]
        for name, v in SEEDS.items()
    }
    kinds = {
        k: {"skirt_length": 0.1, "neckline_design": 0.5} for k in ("model", "uniform", "x", "y")
    }
    return {
        "intervals": figures.intervals(
            SEEDS, xlabel="MAP over all queries (%)", reference=reference, published=PAPERS
        ),
        "differences": figures.differences(rows, xlabel="MAP minus that of AG-MAN (points)"),
        "quality_over_time": figures.quality_over_time(curves, ylabel="validation MAP (%)"),
        "shares": figures.shares({"mass inside (%)": kinds, "maximum inside (%)": kinds}),
        "growth": figures.growth(PANELS, xlabel="photos"),
        "recall_time": figures.recall_time(ENGINES),
        "map_bars": figures.map_bars(dict.fromkeys(SEEDS, kinds["x"]), kinds["y"]),
        "lines": figures.lines([1, 2, 3], dict.fromkeys(SEEDS, (0, 1, 2)), xlabel="x", ylabel="y"),
        "ranking_profile": figures.ranking_profile([i % 3 == 0 for i in range(10)], 0.5),
        "tie_band": figures.tie_band([2, 16, 256], [0.9] * 3, [0.2] * 3, [0.5] * 3, 0.1),
        "level_gap": figures.level_gap(
            [1, 2, 3], dict.fromkeys(SEEDS, (0, 0.2, 0.4)), ["CSN"], {"colour histogram": 0.3}
        ),
    }


def lines(ax, marker=None, label=None):
    """Drawn lines with data, by their marker or label."""
    return [
        line
        for line in ax.lines
        if len(line.get_xdata())
        and (marker is None or line.get_marker() == marker)
        and (label is None or line.get_label() == label)
    ]


def row_names(ax):
    return [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]


def bars(ax):
    """(low, high) of each drawn interval, from top to bottom."""
    return [tuple(line.get_xdata()) for line in lines(ax) if line.get_linewidth() == 9]


def numbers(ax):
    """Texts at the right, by the row they stand in."""
    return {int(text.get_position()[1]): text.get_text() for text in ax.texts}


def test_a_name_is_no_mathematics():
    price, picture = r"$10 \frac{ to $20", np.zeros((4, 4, 3), np.uint8)
    for figure in (
        figures.image_grid([[picture]], row_titles=[price], column_titles=[price]),
        figures.rankings([picture], [[picture]], [[True]], [price]),
        figures.map_bars({"AG-MAN": {price: 0.5}}, {price: 0.1}),
        figures.attention_maps(picture, np.ones((1, 2, 2)), [price]),
        figures.shares({"mass inside (%)": {"model": {price: 0.5}}}),
    ):
        FigureCanvasAgg(figure).draw()


KINDS = ["intervals", "differences", "quality_over_time", "shares", "growth", "recall_time"]
KINDS += ["map_bars", "lines", "ranking_profile", "tie_band", "level_gap"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_can_show_it(kind):
    figure = every_figure()[kind]
    assert figure.get_size_inches()[0] == 4.5
    FigureCanvasAgg(figure).draw()  # lays everything out
    unseen = {
        tick.label1
        for ax in figure.axes
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim()))
        for tick in axis.get_major_ticks()
        if not min(limits) <= tick.get_loc() <= max(limits)
    }
    texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t not in unseen]
    assert len(texts) > 5
    frame = figure.bbox
    for text in texts:
        assert text.get_fontsize() >= 9, text
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1, text
        assert frame.y0 <= box.y0 <= box.y1 <= frame.y1, text
    for ax in figure.axes:
        for labels in (ax.get_yticklabels(), ax.get_xticklabels()):
            boxes = [t.get_window_extent() for t in labels if t in texts]
            assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]), [
                t.get_text() for t in labels
            ]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_shown_once_on_white_in_safe_colours(kind):
    figure = every_figure()[kind]
    assert plt.get_fignums() == []
    assert to_hex(figure.get_facecolor()) == "#ffffff"
    safe = {color.lower() for color in figures.COLORS}
    for ax in figure.axes:
        for line in lines(ax):
            red, green, blue = (to_hex(line.get_color())[i : i + 2] for i in (1, 3, 5))
            assert to_hex(line.get_color()) in safe or red == green == blue, line
    if kind != "growth":  # its lines are named where they are
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(labels) == len(set(labels)) > 1


def test_intervals_are_t_intervals_in_the_order_given():
    (ax,) = every_figure()["intervals"].axes
    assert row_names(ax) == [*SEEDS, "RPF"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is on top
    several = [values for values in SEEDS.values() if len(values) > 1]
    expected = [t_interval(values) for values in several]
    assert bars(ax) == [(low, high) for _, low, high in expected]
    means = [line for line in lines(ax, "o") if line.get_markersize() == 7]
    assert [float(line.get_xdata()[0]) for line in means] == [mean for mean, _, _ in expected]
    seeds = [line for line in lines(ax, "o") if line.get_markersize() < 5]
    assert [list(line.get_xdata()) for line in seeds] == list(SEEDS.values())
    assert numbers(ax) == {
        **{y: f"{m:.1f} ± {(h - lo) / 2:.1f}" for y, (m, lo, h) in enumerate(expected)},
        4: "67.9",
    }
    papers = {round(float(line.get_ydata()[0])): line.get_xdata()[0] for line in lines(ax, "D")}
    assert papers == {1: 53.52, 3: 62.88, 5: 70.11}
    assert all(line.get_markerfacecolor() == "white" for line in lines(ax, "D"))
    (rule,) = lines(ax, label="random ranking")
    assert list(rule.get_xdata()) == [15.8, 15.8]


def test_intervals_say_only_what_they_show():
    figure = figures.intervals({"a": [1.0]}, xlabel="MAP (%)")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["one seed"]
    figure = figures.intervals({"a": [1.0, 2.0]}, xlabel="MAP (%)", confidence=0.9, digits=2)
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["mean of the seeds", "its 90 % interval", "one seed"]
    assert bars(figure.axes[0]) == [t_interval([1.0, 2.0], 0.9)[1:]]
    assert numbers(figure.axes[0]) == {0: "1.50 ± 3.16"}
    with pytest.raises(InputError, match="finite values"):
        figures.intervals({"a": [1.0, np.nan]}, xlabel="MAP (%)")
    assert plt.get_fignums() == []


def test_differences_tell_sides_of_zero_by_shape_and_colour():
    rows = {"worse": (-2.0, -3.0, -1.0), "same": (0.25, -0.5, 1.0), "better": (1.0, 0.5, 1.5)}
    figure = figures.differences(rows, xlabel="points")
    (ax,) = figure.axes
    assert row_names(ax) == list(rows)
    assert bars(ax) == [row[1:] for row in rows.values()]
    markers = [lines(ax, marker)[0] for marker in ("v", "o", "^")]
    assert [float(m.get_xdata()[0]) for m in markers] == [-2.0, 0.25, 1.0]
    assert [int(m.get_ydata()[0]) for m in markers] == [0, 1, 2]
    assert len({m.get_color() for m in markers}) == 3
    assert markers[1].get_markerfacecolor() == "white"
    assert numbers(ax) == {0: "−2.0 ± 1.0", 1: "+0.2 ± 0.8", 2: "+1.0 ± 0.5"}
    assert 0 in [float(line.get_xdata()[0]) for line in lines(ax) if line.get_linewidth() == 1.2]
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["below zero", "zero is possible", "above zero"]
    touching = figures.differences({"a": (1.0, 0.0, 2.0)}, xlabel="points", digits=3)
    assert touching.legends[0].get_texts()[0].get_text() == "zero is possible"
    assert numbers(touching.axes[0]) == {0: "+1.000 ± 1.000"}


def test_curves_are_means_in_a_band_over_common_times():
    runs = [([10.0, 20.0, 40.0], [0.0, 10.0, 30.0]), ([5.0, 30.0, 35.0], [5.0, 30.0, 40.0])]
    figure = figures.quality_over_time({"a": runs, "b": runs[:1]}, ylabel="MAP (%)")
    (ax,) = figure.axes
    (curve,) = lines(ax, label="a")
    times = [10.0, 20.0, 30.0, 35.0]  # from the later start to the earlier end
    np.testing.assert_allclose(curve.get_xdata(), times)
    first, second = [0.0, 10.0, 20.0, 25.0], [10.0, 20.0, 30.0, 40.0]
    np.testing.assert_allclose(curve.get_ydata(), np.mean([first, second], axis=0))
    edges = ax.collections[0].get_paths()[0].vertices
    for t, low, high in zip(times, first, second, strict=True):
        drawn = edges[np.isclose(edges[:, 0], t), 1]
        assert (drawn.min(), drawn.max()) == (low, high)
    (alone,) = lines(ax, label="b")
    np.testing.assert_allclose(alone.get_ydata(), runs[0][1])
    assert curve.get_marker() != alone.get_marker()
    assert curve.get_color() != alone.get_color()


@pytest.mark.parametrize(("end", "unit", "seconds"), [(170, "seconds", 1), (180, "minutes", 60),
                                                      (10_799, "minutes", 60),
                                                      (10_800, "hours", 3600)])  # fmt: skip
def test_time_has_the_unit_that_suits_it(end, unit, seconds):
    figure = figures.quality_over_time({"a": [([1.0, end], [1.0, 2.0])]}, ylabel="MAP (%)")
    (ax,) = figure.axes
    assert ax.get_xlabel() == f"training time ({unit})"
    assert lines(ax)[0].get_xdata()[-1] == end / seconds


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([([1.0, 1.0], [1.0, 2.0])], "A run of 'a' needs seconds that rise"),
        ([([2.0, 1.0], [1.0, 2.0])], "A run of 'a' needs seconds that rise"),
        ([([1.0, np.nan], [1.0, 2.0])], "A run of 'a' needs seconds that rise"),
        ([([1.0, 2.0], [1.0])], "one quality for each of them"),
        ([([1.0, 2.0], [1.0, 2.0]), ([3.0, 4.0], [1.0, 2.0])], "have no time in common"),
        ([([], [])], "A run of 'a' needs"),
        ([], "'a' has no run"),
    ],
)
def test_runs_that_cannot_be_joined_are_refused(runs, message):
    with pytest.raises(InputError, match=message):
        figures.quality_over_time({"a": runs}, ylabel="MAP (%)")
    assert plt.get_fignums() == []


def test_shares_are_percent_with_the_first_kind_filled():
    kinds = {
        "model": {"skirt_length": 0.25, "neck": 0.5},
        "uniform": {"neck": 0.1, "skirt_length": 1},
    }
    figure = figures.shares({"mass (%)": kinds, "hits (%)": {"model": kinds["uniform"]}})
    mass, hits = figure.axes
    assert row_names(mass) == ["skirt length", "neck"]
    (model,), (uniform,) = lines(mass, label="model"), lines(mass, label="uniform")
    np.testing.assert_allclose(model.get_xdata(), [25, 50])
    np.testing.assert_allclose(uniform.get_xdata(), [100, 10])
    np.testing.assert_allclose(lines(hits, label="model")[0].get_xdata(), [100, 10])
    assert uniform.get_markerfacecolor() == "white"
    assert model.get_markerfacecolor() == model.get_color()
    assert model.get_marker() != uniform.get_marker()


def test_growth_has_a_dashed_limit_below_each_measured_line():
    figure = every_figure()["growth"]
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == list(PANELS)
    for ax, curves in zip(shown, PANELS.values(), strict=True):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert len(ax.lines) == 2 * len(curves)
        for i, points in enumerate(curves.values()):
            solid, dashed = ax.lines[2 * i : 2 * i + 2]
            sizes, seconds, least = zip(*points, strict=True)
            np.testing.assert_allclose(solid.get_xydata(), np.column_stack([sizes, seconds]))
            np.testing.assert_allclose(dashed.get_xydata(), np.column_stack([sizes, least]))
            assert solid.get_color() == dashed.get_color()
            assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    names = [sorted(text.get_text() for text in ax.texts) for ax in shown]
    assert names == [["limit", "measured"], ["limit", "measured"], ["ResNet-50", "lab network"]]
    colors = {line.get_color() for line in shown[-1].lines}
    assert len(colors) == len({line.get_marker() for line in shown[-1].lines[::2]}) == 2


def test_the_names_of_growing_lines_stand_beside_them():
    (ax,) = [ax for ax in every_figure()["growth"].axes if ax.get_title(loc="left") == "embedding"]
    lab, resnet = ax.texts
    assert lab.xy == (LINE[3][0], LINE[3][2])  # below its limit, on the side of the smaller line
    assert resnet.xy == HIGHER[-1][:2]


def test_recall_is_in_percent_over_logarithmic_time():
    (ax,) = every_figure()["recall_time"].axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    for name, points in ENGINES.items():
        (line,) = lines(ax, label=name)
        np.testing.assert_allclose(line.get_xydata(), [(t, 100 * r) for t, r, _ in points])
    assert len({line.get_marker() for line in ax.lines}) == len(ENGINES)
    assert len({line.get_color() for line in ax.lines}) == len(ENGINES)
    settings = [text.get_text() for text in ax.texts]
    assert settings == ["n_probe=1", "n_probe=64", "ef_search=16", "ef_search=256"]


def test_long_names_are_wrapped_between_words():
    name = "without the multi-level features"
    (ax,) = figures.differences({name: (0.0, -1.0, 1.0)}, xlabel="points").axes
    assert ax.get_yticklabels()[0].get_text() == "without the\nmulti-level features"


def test_a_picture_under_its_map_is_brightest_where_the_map_is():
    image = np.full((24, 30, 3), 100, dtype=np.uint8)
    heat = np.zeros((4, 5))
    heat[1, 3] = 7.0
    shown = figures.under_map(image, heat)
    assert shown.shape == image.shape
    assert shown.dtype == np.uint8
    light = shown.sum(axis=2, dtype=int)
    y, x = np.unravel_index(light.argmax(), light.shape)
    assert (y // 6, x // 6) == (1, 3)
    assert (light[18:] == light[-1, -1]).all()
    np.testing.assert_array_equal(shown, figures.under_map(image, 3 * heat))
    assert (figures.under_map(image, 0 * heat) == shown[-1, -1]).all()
