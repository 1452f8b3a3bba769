"""Does the mask ratio matter? The difference that pretraining makes to each metric, and its slope in the mask ratio."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, metric_label, of, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("ratio_effects",)
ACROSS = 5  # panels beside one another
LOOKS = {  # by verdict: colour, marker, filled
    "better": (style.PALETTE[0], "^", True),
    "undecided": ("#777777", "o", False),
    "worse": (style.PALETTE[1], "v", True),
}


def pictures(source: Source) -> Iterator[Picture]:
    """Over all domains and per domain, on all images."""
    table = source.tables["ratio_effects"]
    for domain, suffix in source.scopes():
        rows = of(table[table["images"] == "all"], domain)
        if len(rows):
            yield Picture(
                f"effects{suffix}",
                f"{title(domain)}: what pretraining and its mask ratio change under each metric, standardised",
                partial(draw, rows, title(domain), source.confidence),
            )


def standardised(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `place`, `left`, `right`: effect and interval in standard deviations, larger = better."""
    import numpy as np

    sign = np.where(rows["direction"] == "higher", 1.0, -1.0)
    unit = np.where(rows["effect"] == 0, np.nan, rows["estimate"] / rows["effect"])  # a standard deviation
    ends = np.sort(np.stack([rows["low"] * sign / unit, rows["high"] * sign / unit]), axis=0)
    return rows.assign(place=rows["effect"] * sign, left=ends[0], right=ends[1])


def draw(rows: pd.DataFrame, name: str, confidence: float) -> Figure:
    """`rows` of one scope: metric, removal, direction, contrast, encoder, reference, estimate, low, high, effect,
    verdict. A panel per contrast, a row per metric."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = standardised(rows)
    labels = [metric_label(*keys) for keys in zip(rows["metric"], rows["removal"], strict=True)]
    rows, metrics = rows.assign(label=labels), list(dict.fromkeys(labels))
    panels = list(rows.groupby(["contrast", "encoder", "reference"], sort=False, dropna=False))
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(style.PAGE, 0.75 + down * (0.5 + 0.165 * len(metrics))), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, ((contrast, encoder, reference), part) in zip(grid.flat, panels, strict=False):
        _panel(axes, part, metrics)
        words = f"{encoder}: slope\nper .1 of the ratio" if contrast == "slope" else f"{encoder}\nminus {reference}"
        axes.set_title(words.replace("_", " "), loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("better \N{RIGHTWARDS ARROW}")
    grid[0, 0].set_yticks(range(len(metrics)), [style.readable(metric, 40) for metric in metrics])
    grid[0, 0].set_ylim(len(metrics) - 0.5, -0.5)
    grid[0, 0].locator_params(axis="x", nbins=4)
    handles = [Line2D([], [], label=verdict, **_look(verdict)) for verdict in LOOKS]
    style.legend(figure, handles)
    seeds = int(rows["seeds"].max())
    note = " One pair of seeds: they hold for these models only." if seeds == 1 else ""
    text = (
        f"{name}: change of the mean score in standard deviations, {confidence:.0%} intervals; verdicts Holm-corrected."
    )
    style.headline(figure, text + note)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, metrics: list[str]) -> None:
    axes.axvline(0, color="#999999", linewidth=0.6, zorder=0)
    for verdict, part in rows.dropna(subset=["place", "left", "right"]).groupby("verdict", sort=False):
        look, y = _look(str(verdict)), part["label"].map(metrics.index)
        axes.hlines(y, part["left"], part["right"], color=look["color"], linewidth=1.2)
        axes.plot(part["place"], y, **{**look, "linestyle": ""})
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _look(verdict: str) -> dict[str, object]:
    colour, marker, filled = LOOKS[verdict]
    return {
        "color": colour,
        "marker": marker,
        "markersize": 3.8,
        "markerfacecolor": colour if filled else "#FFFFFF",
        "linewidth": 1.2,
    }
