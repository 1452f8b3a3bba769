"""How many patches a decision hangs on: by encoder and removal, and against the mask ratio of pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.figures import style
from unmask.figures.inside import looks
from unmask.figures.source import Picture, Source, of, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("counterfactuals",)
TITLES = (
    ("decisions changed by\nso many patches or fewer", "patches removed"),
    ("smallest set found\n", "effective mask ratio"),
    ("patches of the set that\ntouch the evidence", "effective mask ratio"),
)
SIZE, EVIDENCE, CHANCE = "counterfactual_size", "counterfactual_evidence", "evidence_by_chance"


def pictures(source: Source) -> Iterator[Picture]:
    """Over all domains and per domain."""
    table = source.tables["counterfactuals"]
    table = table[table["status"] == "ok"]
    for domain, suffix in source.scopes():
        rows = of(table, domain)
        if len(rows):
            yield Picture(
                f"counterfactuals{suffix}",
                f"{title(domain)}: the fewest patches whose removal changes the decision, by encoder and removal",
                partial(draw, rows, looks(source), title(domain), source.confidence),
            )


def draw(rows: pd.DataFrame, looks: dict[str, dict[str, Any]], name: str, confidence: float) -> Figure:
    """`rows` are those of a scope of `counterfactuals`; a row of panels per removal."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    removals = list(dict.fromkeys(rows["removal"]))
    figure = Figure(figsize=(style.PAGE, 0.75 + 1.75 * len(removals)), layout="constrained")
    grid = figure.subplots(len(removals), 3, sharex="col", squeeze=False)
    for line, removal in zip(grid, removals, strict=True):
        own = rows[rows["removal"] == removal]
        _curves(line[0], own[own["quantity"] == "flipped"], looks)
        _ratios(line[1], own, looks, SIZE)
        _ratios(line[2], own, looks, EVIDENCE, CHANCE)
        line[0].set_ylabel(f"{style.readable(removal)} removal\nshare of images")
        line[1].set_ylabel("patches")
        line[2].set_ylabel("share of the set")
        line[1].set_ylim(0, 1.08 * own.loc[own["quantity"] == SIZE, "high"].max())
        for axes in (line[0], line[2]):
            axes.set_ylim(-0.03, 1.03)
    for column, (above, below) in enumerate(TITLES):
        grid[0, column].set_title(above, loc="left")
        grid[-1, column].set_xlabel(below)
    for axes in grid[:, 1:].flat:
        axes.set_xlim(-0.12, 1)
        axes.set_xticks([-0.05, 0.25, 0.5, 0.75, 1], ["none", "0.25", "0.5", "0.75", "1"])
    handles = [Line2D([], [], label=style.readable(encoder), **look) for encoder, look in looks.items()]
    if rows["quantity"].eq(CHANCE).any():
        handles.append(Line2D([], [], color="#000000", marker="_", linestyle="", label="share of all patches"))
    style.legend(figure, handles)
    style.headline(
        figure,
        f"{name}: sets of patches whose removal changes the decision, mean with {confidence:.0%} interval; an image"
        " without one counts as the largest set searched for",
    )
    return figure


def _curves(axes: Axes, rows: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    for encoder, look in looks.items():
        own = rows[rows["encoder"] == encoder].sort_values("patches")
        patches = own["patches"].astype(float)
        axes.step(patches, own["value"], where="post", **{**look, "marker": ""})
        axes.fill_between(patches, own["low"], own["high"], step="post", color=look["color"], alpha=0.12, linewidth=0)
    axes.set_xlim(left=0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _rule(axes)


def _ratios(
    axes: Axes, rows: pd.DataFrame, looks: dict[str, dict[str, Any]], quantity: str, chance: str | None = None
) -> None:
    """Means against the effective mask ratio; an encoder without one stands left of 0."""
    for encoder, look in looks.items():
        own = rows[(rows["encoder"] == encoder) & (rows["quantity"] == quantity)]
        place = own["mask_ratio"].astype(float).fillna(-0.05)
        axes.vlines(place, own["low"], own["high"], color=look["color"], linewidth=0.9)
        axes.plot(place, own["value"], **{**look, "linestyle": ""})
        if chance:
            level = rows[(rows["encoder"] == encoder) & (rows["quantity"] == chance)]
            place = level["mask_ratio"].astype(float).fillna(-0.05)
            axes.plot(place, level["value"], color="#000000", marker="_", markersize=6, linestyle="")
    _rule(axes)


def _rule(axes: Axes) -> None:
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=4)
