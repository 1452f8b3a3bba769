"""Means with intervals, explainer by explainer, one panel per metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.figures import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(panels: list[tuple[str, pd.DataFrame]], order: list[str], title: str, confidence: float) -> Figure:
    """`panels` holds (label, leaderboard rows of one metric); `order` the explainers from best to worst.

    Columns read: explainer, family, is_control, mean, low, high, direction, controls_separated.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(style.PAGE, 0.95 + 0.155 * len(order)), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    place = {name: row for row, name in enumerate(order)}
    controls: set[str] = set()
    families: dict[str, None] = {}
    for axes, (label, rows) in zip(grid, panels, strict=True):
        _panel(axes, rows[rows["explainer"].isin(order)], place)
        flag = " \N{DAGGER}" if rows["controls_separated"].iloc[0] is False else ""
        axes.set_title(style.name_lines(label, 24) + flag, loc="left")
        axes.set_xlabel(style.better(rows["direction"].iloc[0]))
        controls.update(rows.loc[rows["is_control"].astype(bool), "explainer"])
        families.update(dict.fromkeys(rows["family"]))
    grid[0].set_yticks(range(len(order)), [style.readable(name) for name in order])
    grid[0].set_ylim(len(order) - 0.5, -0.5)
    for label, name in zip(grid[0].get_yticklabels(), order, strict=True):
        label.set(color="#666666" if name in controls else "#000000", style="italic" if name in controls else "normal")
    handles = [
        Line2D(
            [],
            [],
            marker="s" if f == "control" else "o",
            color=style.family_colour(f),
            label=f,
            markersize=3.5,
            markerfacecolor="white" if f == "control" else style.family_colour(f),
            linewidth=1,
        )
        for f in families
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, handlelength=1.6)
    dagger = (
        " \N{DAGGER} the metric does not separate the controls here."
        if any(axes.get_title(loc="left").endswith("\N{DAGGER}") for axes in grid)
        else ""
    )
    figure.suptitle(
        f"{title}: mean and {confidence:.0%} interval, sorted by mean rank.{dagger}", x=0.005, ha="left", fontsize=7.5
    )
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, place: dict[str, int]) -> None:
    for row in rows.itertuples():
        if row.mean != row.mean:
            continue
        colour, y = style.family_colour(row.family), place[row.explainer]
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.2, solid_capstyle="butt")
        axes.plot(
            row.mean,
            y,
            marker="s" if row.is_control else "o",
            color=colour,
            markersize=3.5,
            markerfacecolor="white" if row.is_control else colour,
            markeredgewidth=0.9,
        )
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
