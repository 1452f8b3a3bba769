"""Removal curves: what becomes of the predicted class as patches go, the most or the least relevant first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("curves", "by_domain")
BEST = 4  # explainers that are told apart by colour
ACROSS = 4  # removals beside one another
RANDOM = "random"
ORDERS = {"pixel_flipping": "most relevant first", "pixel_flipping_lerf": "least relevant first"}
RANDOM_LOOK = {"color": "#000000", "linestyle": (0, (4, 2)), "linewidth": 1}
ORACLE_LOOK = {"color": "#777777", "linestyle": (0, (1, 1)), "linewidth": 1.2}
CONTROL_LOOK = {"color": "#BBBBBB", "linestyle": "-", "linewidth": 0.7}


def pictures(source: Source) -> Iterator[Picture]:
    """One figure per domain with encoders pooled; more where there are more removals than fit."""
    table = source.tables["curves"]
    table = table[table["encoder"].isna()]
    for domain in source.config["domains"]:
        rows = of(table, domain)
        removals = list(dict.fromkeys(rows.loc[rows["metric"].isin(ORDERS), "removal"]))
        parts = [removals[first : first + ACROSS] for first in range(0, len(removals), ACROSS)]
        for number, part in enumerate(parts, 1):
            some = rows[rows["removal"].isin(part)]
            yield Picture(
                f"curves_{domain}" + (f".{number}" if len(parts) > 1 else ""),
                f"Deletion and insertion: the probability of the predicted class as patches are removed, {domain}",
                partial(draw, some, of(source.tables["by_domain"], domain), source.oracle(), domain, source.confidence),
            )


def best(rows: pd.DataFrame, board: pd.DataFrame) -> list[str]:
    """Explainers, no controls and none whose maps are another's, by the area between their two curves.

    The mean over the removals: below the curve of least relevant first minus below that of most relevant first, which
    is symmetric relevance gain; with one order only, by that one.
    """
    import numpy as np

    others = set(board.loc[board["is_control"].astype(bool) | board["alias_of"].notna(), "explainer"])
    areas: dict[str, dict[str, float]] = {}
    for (removal, metric, explainer), curve in rows[rows["metric"].isin(ORDERS)].groupby(
        ["removal", "metric", "explainer"], sort=False
    ):
        if explainer not in others:
            sign = -1 if metric == "pixel_flipping" else 1
            gain = sign * np.trapezoid(curve["mean"], curve["removed"])
            areas.setdefault(explainer, {})[f"{metric}@{removal}"] = gain
    whole = max(map(len, areas.values()), default=0)
    gains = {name: sum(found.values()) for name, found in areas.items() if len(found) == whole}
    return sorted(gains, key=lambda name: -gains[name])


def draw(rows: pd.DataFrame, board: pd.DataFrame, oracle: str | None, domain: str, confidence: float) -> Figure:
    """A column per removal, a row per order; `rows` are the mean curves of one domain."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    removals = list(dict.fromkeys(rows.loc[rows["metric"].isin(ORDERS), "removal"]))
    orders = {metric: words for metric, words in ORDERS.items() if (rows["metric"] == metric).any()}
    chosen = best(rows, board)[:BEST]
    controls = set(board.loc[board["is_control"].astype(bool), "explainer"])
    looks = {
        name: {"color": colour, "marker": marker, "markersize": 3, "linewidth": 1.2}
        for name, colour, marker in zip(chosen, style.PALETTE, style.MARKERS, strict=False)
    }
    looks |= {name: ORACLE_LOOK if name == oracle else CONTROL_LOOK for name in controls}
    width = min(style.PAGE, max(style.COLUMN, 0.55 + 1.65 * len(removals)))
    figure = Figure(figsize=(width, 1.0 + 1.45 * len(orders)), layout="constrained")
    grid = figure.subplots(len(orders), len(removals), sharex=True, sharey=True, squeeze=False)
    for line, metric in zip(grid, orders, strict=True):
        for axes, removal in zip(line, removals, strict=True):
            _panel(axes, rows[rows["removal"] == removal], metric, looks)
        line[0].set_ylabel(orders[metric])
    for axes, removal in zip(grid[0], removals, strict=True):
        axes.set_title(style.readable(removal))
    for axes in grid[-1]:
        axes.set_xlabel("patches removed")
    grid[0, 0].set_xlim(0, 1)
    shown = rows[rows["explainer"].isin(list(looks)) | rows["explainer"].isna()]
    top = min(1.0, 1.02 * float(shown[["mean", "high"]].max(axis=None)))
    grid[0, 0].set_ylim(0, top)
    grid[0, 0].set_xticks([0, 0.5, 1], ["0", "50 %", "all"])
    figure.supylabel("probability of the predicted class", fontsize=7)
    handles = [Line2D([], [], label=style.readable(name), **looks[name]) for name in chosen]
    if (rows["metric"] == RANDOM).any():
        handles.append(Line2D([], [], label="random order", **RANDOM_LOOK))
    if oracle in controls:
        handles.append(Line2D([], [], label=style.readable(oracle), **ORACLE_LOOK))
    if controls - {oracle}:
        handles.append(Line2D([], [], label="other controls", **CONTROL_LOOK))
    style.legend(figure, handles)
    style.headline(
        figure,
        f"Deletion and insertion, {domain}, encoders pooled: the {len(chosen)} explainers with the largest area "
        "between their two curves. Most relevant first: lower is better. Least relevant first: higher is better; from "
        f"right to left it is insertion. Bands: {confidence:.0%} intervals.",
    )
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, metric: str, looks: dict[str, dict[str, object]]) -> None:
    """The curves of one removal and order, controls below the explainers."""
    curves = dict(iter(rows[rows["metric"] == metric].groupby("explainer", sort=False)))
    marked = [name for name, look in looks.items() if "marker" in look]
    for name, curve in curves.items():
        if name in marked:
            # Marks of curves that lie on one another stand side by side.
            every = max(1, len(curve) // 4)
            first = every * (2 * marked.index(name) + 1) // (2 * len(marked))
            axes.plot(curve["removed"], curve["mean"], **looks[name], markevery=(first, every), zorder=3)
            _shade(axes, curve, str(looks[name]["color"]))
        elif name in looks:
            axes.plot(curve["removed"], curve["mean"], **looks[name], zorder=1)
    chance = rows[rows["metric"] == RANDOM]
    if len(chance):
        axes.plot(chance["removed"], chance["mean"], **RANDOM_LOOK, zorder=4)
        _shade(axes, chance, "#000000")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def _shade(axes: Axes, curve: pd.DataFrame, colour: str) -> None:
    axes.fill_between(curve["removed"], curve["low"], curve["high"], color=colour, alpha=0.12, linewidth=0, zorder=2)
