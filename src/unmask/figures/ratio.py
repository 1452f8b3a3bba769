"""Scores against the effective mask ratio of the encoder's pretraining.

A line joins encoders that differ in a fixed ratio alone. One whose images draw their own ratios stands apart, at their
mean, with a bar over the range.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from unmask.encoders import series
from unmask.figures import style
from unmask.figures.source import Picture, Source, of, panels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from unmask.config import Config

NEEDS = ("mask_ratio", "ranking")
CURVES = 4  # explainers beside the random control: more lines cannot be told apart
STYLES = ("-", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 2, 1, 2, 1, 2)))  # of the series, in config order
ROWS = (("", "score"), ("minus_random", "score minus the\nrandom control's"))


def pictures(source: Source) -> Iterator[Picture]:
    """Per domain with encoders of a mask ratio: the explainers of best mean rank, and the random control."""
    known = source.controls()
    for domain in source.config["domains"]:
        rows = of(source.tables["mask_ratio"], domain)
        shown = [name for name in source.ranked(domain)["explainer"] if name not in known][:CURVES]
        if shown and rows["mask_ratio"].notna().any():
            yield Picture(
                f"mask_ratio_{domain}",
                f"{domain}: scores against the effective mask ratio",
                partial(draw, panels(rows), shown, source.null(), domain, source.confidence, conditions(source.config)),
            )


@dataclass(frozen=True)
class Conditions:
    """Encoders by what they are on the axis: `series` with their encoders, `drawn` ratios with their ranges, `scratch`.

    Encoders pretrained without a mask are in none, and are not shown.
    """

    series: dict[str, list[str]]
    drawn: dict[str, tuple[float, float]]
    scratch: list[str]


def conditions(config: Config) -> Conditions:
    """The encoders of a config."""
    found = Conditions({}, {}, [])
    for name, spec in config["encoders"].items():
        if drawn := config.ratio_range(name):
            found.drawn[name] = drawn
        elif own := series(spec):
            found.series.setdefault(own, []).append(name)
        elif spec["method"] == "scratch":
            found.scratch.append(name)
    return found


def draw(
    panels: list[tuple[str, pd.DataFrame]],
    explainers: list[str],
    control: str | None,
    title: str,
    confidence: float,
    conditions: Conditions,
) -> Figure:
    """`panels` holds (label, mask-ratio rows of one metric); the lower row shows differences to the random control.

    `control` (the random one, or None) is drawn in grey. The columns that are read:
    encoder, explainer, mask_ratio, mean, low, high, minus_random and its _low, _high, direction.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    looks = list(zip(explainers, style.PALETTE, style.MARKERS, strict=False))
    looks += [(control, style.family_colour("control"), "x")] if control else []
    figure = Figure(figsize=(style.PAGE, 3.2), layout="constrained")
    grid = figure.subplots(2, len(panels), sharex=True, squeeze=False)
    room = int((style.PAGE - 0.6) / len(panels) / 0.06)  # characters over a panel
    for column, (label, rows) in enumerate(panels):
        for row, (prefix, ylabel) in enumerate(ROWS):
            names = [prefix, f"{prefix}_low", f"{prefix}_high"] if prefix else ["mean", "low", "high"]
            chosen = [look for look in looks if not prefix or look[0] != control]
            _panel(grid[row, column], rows, chosen, names, conditions)
            if column == 0:
                grid[row, 0].set_ylabel(ylabel)
        arrow = "\N{UPWARDS ARROW} higher" if rows["direction"].iloc[0] == "higher" else "\N{DOWNWARDS ARROW} lower"
        grid[0, column].set_title(
            f"{style.name_lines(label, room)}\n{textwrap.fill(f'({arrow} is better)', room)}", loc="left"
        )
        grid[1, column].axhline(0, color="#777777", linewidth=0.6, zorder=0)
        grid[1, column].set_xlabel("effective\nmask ratio" if len(panels) > 4 else "effective mask ratio")
    grid[0, 0].set_xlim(0, 1)
    figure.align_ylabels(grid[:, 0])
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=3.5, label=style.readable(name))
        for name, colour, marker in looks
    ]
    black = {"color": "#000000", "linewidth": 0.9}
    if conditions.scratch:
        handles.append(Line2D([], [], **black, linestyle=(0, (4, 2)), label="trained from scratch"))
    if len(conditions.series) > 1:
        handles += [
            Line2D([], [], **black, linestyle=line, label=style.readable(name))
            for name, line in zip(conditions.series, cycle(STYLES))
        ]
    if conditions.drawn:
        hollow = {"marker": "o", "markersize": 3.5, "markerfacecolor": "#FFFFFF"}
        handles.append(Line2D([], [], **black, **hollow, label="ratio drawn per image: at the mean, bar = range"))
    style.legend(figure, handles)
    style.headline(figure, f"{title}: mean with {confidence:.0%} band")
    return figure


def _panel(
    axes: Axes, rows: pd.DataFrame, looks: list[tuple[str, str, str]], names: list[str], conditions: Conditions
) -> None:
    for line, (name, colour, marker) in enumerate(looks):
        own = rows[rows["explainer"] == name]
        aside = 0.012 * (line - (len(looks) - 1) / 2)  # a little each, or the intervals would lie on one another
        for encoders, dashes in zip(conditions.series.values(), cycle(STYLES)):
            curve = own[own["encoder"].isin(encoders)].sort_values("mask_ratio")
            x, (mean, low, high) = curve["mask_ratio"] + aside, (curve[column] for column in names)
            axes.plot(x, mean, color=colour, marker=marker, markersize=3.5, linestyle=dashes)
            axes.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)
            axes.vlines(x, low, high, color=colour, linewidth=0.7)
        for encoder, drawn in conditions.drawn.items():
            for _, row in own[own["encoder"] == encoder].iterrows():
                x, (mean, low, high) = row["mask_ratio"] + aside, row[names]
                axes.hlines(mean, *drawn, color=colour, linewidth=0.5)
                axes.vlines(x, low, high, color=colour, linewidth=0.7)
                axes.plot(x, mean, color=colour, marker=marker, markersize=3.5, markerfacecolor="#FFFFFF")
        for value in own.loc[own["encoder"].isin(conditions.scratch), names[0]]:
            axes.axhline(value, color=colour, linestyle=(0, (4, 2)), linewidth=0.9, zorder=1)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=4)
