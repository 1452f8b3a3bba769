"""Means with intervals, explainer by explainer, one panel per metric."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, panels, same_maps, unclear

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("by_domain", "ranking")
UNCLEAR = "\N{DAGGER}"


def pictures(source: Source) -> Iterator[Picture]:
    """Per domain, encoders pooled."""
    for domain in source.config["domains"]:
        board, ranked = source.board(domain), source.ranked(domain)
        if len(ranked):
            yield Picture(
                f"leaderboard_{domain}",
                f"{domain}: means with intervals under one metric of each category, encoders pooled",
                partial(draw, panels(board), ranked, domain, source.confidence),
            )


def draw(panels: list[tuple[str, pd.DataFrame]], ranked: pd.DataFrame, title: str, confidence: float) -> Figure:
    """`panels` holds (label, leaderboard rows of one metric); `ranked` the rows of `ranking`, best first.

    Columns read: explainer, family, is_control, mean, low, high, direction, controls_separated, alias_of. Where there
    is a tie_group its numbers (1 = not shown worse than the best) stand beside the names, and at the right of a panel.
    """
    from matplotlib.figure import Figure

    order = ranked["explainer"].tolist()
    figure = Figure(figsize=(style.PAGE, 0.95 + 0.155 * len(order)), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shown = [(label, rows[rows["explainer"].isin(order)]) for label, rows in panels]
    room = int((style.PAGE - 1.8) / len(shown) / 0.06)  # characters over a panel
    for axes, (label, rows) in zip(grid, shown, strict=True):
        _panel(axes, rows, order)
        flag = f" {UNCLEAR}" if unclear(rows["controls_separated"]) else ""
        axes.set_title(style.name_lines(label, room) + flag, loc="left")
        axes.set_xlabel(textwrap.fill(style.better(rows["direction"].iloc[0]), room))
        axes.locator_params(axis="x", nbins=4 if len(shown) < 5 else 2)
    grid[0].set_yticks(range(len(order)), [style.readable(name) for name in order])
    grid[0].set_ylim(len(order) - 0.5, -0.5)
    known = {name for _, rows in shown for name in rows.loc[rows["is_control"].astype(bool), "explainer"]}
    style.mark_controls(grid[0].get_yticklabels(), order, known)
    grouped = "tie_group" in ranked
    if grouped:
        _groups(grid[0], ranked, order, 0)
        grid[0].tick_params(axis="y", pad=11)
    handles = style.family_handles(family for _, rows in shown for family in rows["family"])
    style.legend(figure, handles)
    parts = [f"{title}: mean and {confidence:.0%} interval, sorted by mean rank."]
    if grouped:
        parts.append("Numbers: tie group by mean rank and, at the right, by metric (1: not shown worse than the best).")
    if any(unclear(rows["controls_separated"]) for _, rows in shown):
        parts.append(f"{UNCLEAR}\N{NO-BREAK SPACE}The metric does not separate the controls here.")
    parts.append(same_maps(panels[0][1]))
    style.headline(figure, " ".join(parts).strip())
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, order: list[str]) -> None:
    scored = rows[rows["mean"].notna()]
    place = {name: row for row, name in enumerate(order)}
    for family, part in scored.groupby("family", sort=False):
        y = part["explainer"].map(place)
        axes.hlines(y, part["low"], part["high"], color=style.family_colour(family), linewidth=1.2)
        axes.plot(part["mean"], y, linestyle="", **style.family_look(family))
    if "tie_group" in scored:
        _groups(axes, scored, order, 1)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _groups(axes: Axes, rows: pd.DataFrame, order: list[str], edge: int) -> None:
    """Write tie groups outside of the left (0) or right (1) edge of a panel, the first in bold."""
    for name, group in rows.dropna(subset="tie_group").set_index("explainer")["tie_group"].items():
        axes.annotate(
            f"{group:g}",
            (edge, order.index(name)),
            (3 if edge else -3, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="left" if edge else "right",
            va="center",
            fontsize=5.5,
            weight="bold" if group == 1 else "normal",
            color="#000000" if group == 1 else "#777777",
        )
