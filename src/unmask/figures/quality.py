"""Which metrics can be trusted: reliability, agreement of the images, and meta-consistency, metric by metric."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, of, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("metric_quality",)
NO_REMOVAL = ""
PANELS = {  # column: its head, and where a metric without any merit stands
    "reliability": ("reliability\nof the order", 0.0),
    "alpha": ("agreement\nof images", 0.0),
    "mc": ("meta-\nconsistency", 0.5),
}


def pictures(source: Source) -> Iterator[Picture]:
    """One figure for all domains, one for each; none where nothing could be said of any metric."""
    table = source.tables["metric_quality"]
    table = table[table["scope"] != "model"]
    for domain, suffix in source.scopes():
        rows = of(table, domain)
        if rows[list(PANELS)].notna().any(axis=None):
            yield Picture(
                f"quality{suffix}",
                f"How reliable each metric's order of the explainers is, how far images agree, and whether scores "
                f"stay under noise and fall under disruption, {title(domain)}",
                partial(draw, rows, title(domain), source.confidence),
            )


def draw(rows: pd.DataFrame, name: str, confidence: float) -> Figure:
    """A line per metric, a mark per removal; `rows` are of one scope of `metric_quality`."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    metrics, places, heads = _lines(rows)
    removals = list(dict.fromkeys(rows["removal"].dropna()))
    looks = {
        removal: {"color": colour, "marker": marker, "markersize": 3, "linestyle": ""}
        for removal, colour, marker in zip(removals, cycle(style.PALETTE), cycle(style.MARKERS), strict=False)
    }
    looks[NO_REMOVAL] = {"color": "#333333", "marker": "o", "markersize": 3, "linestyle": ""}
    panels = {column: head for column, head in PANELS.items() if rows[column].notna().any()}
    height = 0.95 + (0.135 + 0.012 * max(0, len(removals) - 2)) * (max(places.values()) + 1)
    figure = Figure(figsize=(style.COLUMN, height), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (column, (head, nothing)) in zip(grid, panels.items(), strict=True):
        _panel(axes, rows, column, places, removals, looks)
        axes.axvline(nothing, color="#888888", linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        axes.set_title(head, fontsize=6.5)
    grid[0].set_yticks([places[metric] for metric in metrics], [style.readable(metric, 26) for metric in metrics])
    grid[0].set_ylim(max(places.values()) + 0.6, -0.6)
    for label, metric in zip(grid[0].get_yticklabels(), metrics, strict=True):
        own = rows[rows["metric"] == metric]
        if own["models"].sum() and own["separated"].sum() < 0.5 * own["models"].sum():
            label.set(color="#888888", style="italic")
    for head, place in heads.items():
        grid[0].text(
            -0.06,
            place,
            head,
            ha="right",
            va="center",
            fontsize=6,
            weight="bold",
            transform=grid[0].get_yaxis_transform(),
        )
    handles = [Line2D([], [], label=removal, **looks[removal]) for removal in removals]
    if rows["removal"].isna().any():
        handles.append(Line2D([], [], label="removes nothing", **looks[NO_REMOVAL]))
    style.legend(figure, handles)
    style.headline(
        figure,
        f"How far metrics can be trusted, {name}. 1 is best; dashed: a metric of no merit. Lines: {confidence:.0%} "
        "intervals. Grey italics: does not tell the controls apart under most models.",
    )
    return figure


def _lines(rows: pd.DataFrame) -> tuple[list[str], dict[str, int], dict[str, int]]:
    """The metrics by category, the line of each, and the lines of the categories' names above them."""
    metrics, places, heads, line = [], {}, {}, 0
    for category, part in rows.groupby("category", sort=False):
        heads[str(category)] = line
        line += 1
        for metric in dict.fromkeys(part["metric"]):
            metrics.append(metric)
            places[metric] = line
            line += 1
    return metrics, places, heads


def _panel(
    axes: Axes,
    rows: pd.DataFrame,
    column: str,
    places: dict[str, int],
    removals: list[str],
    looks: dict[str, dict[str, object]],
) -> None:
    """A column's values, each removal a little lower than the one before."""
    low, high = (f"{column}_low", f"{column}_high") if f"{column}_low" in rows else (None, None)
    for _, row in rows[rows[column].notna()].iterrows():
        removal = row["removal"] if isinstance(row["removal"], str) else NO_REMOVAL
        shift = 0.0
        if removal and len(removals) > 1:
            shift = 0.6 * (removals.index(removal) / (len(removals) - 1) - 0.5)
        y = places[row["metric"]] + shift
        look = looks[removal]
        if low and row[low] == row[low]:
            axes.plot([row[low], row[high]], [y, y], color=look["color"], linewidth=0.7, alpha=0.6, zorder=1)
        axes.plot(row[column], y, **look, zorder=2, clip_on=False)
    axes.set_xlim(-0.25 if column == "alpha" else -0.03, 1.03)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
