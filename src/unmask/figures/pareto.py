"""What faithfulness costs: mean rank in faithfulness against forward-pass equivalents per image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from unmask.figures import labels, style
from unmask.figures.source import Picture, Source, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("ranking", "explainers")
BACKWARD = 3  # forward-pass equivalents of a forward and a backward pass together, as in `unmask.passes`
SIZE = (style.PAGE, 4.2)


def pictures(source: Source) -> Iterator[Picture]:
    """Over all domains and per domain, where faithfulness was scored."""
    explainers = source.tables["explainers"].set_index("explainer")
    passes = explainers["forward"] + BACKWARD * explainers["backward"]
    for domain, suffix in source.scopes():
        points = source.ranked(domain, "faithfulness").assign(passes=lambda rows: rows["explainer"].map(passes))
        points = points[points["passes"].notna()].reset_index(drop=True)
        if len(points):
            yield Picture(
                f"pareto{suffix}",
                f"{title(domain)}: faithfulness against compute; nothing both cheaper and more faithful lies outside "
                "the line",
                partial(draw, points, title(domain), source.confidence),
            )


def front(points: pd.DataFrame) -> list[int]:
    """Rows that no explainer beats in one of cost and rank without losing in the other, by rising cost.

    Controls explain nothing and are no alternative.
    """
    best, found = float("inf"), []
    for row in points[~points["is_control"].astype(bool)].sort_values(["passes", "mean_rank"]).itertuples():
        if row.mean_rank < best:
            best = row.mean_rank
            found.append(row.Index)
    return found


def draw(points: pd.DataFrame, name: str, confidence: float) -> Figure:
    """`points`: explainer, family, is_control, mean_rank, low, high, passes, with rows numbered from 0.

    What costs no pass stands at the left of the break.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE)
    axes = figure.add_axes((0.06, 0.155, 0.93, 0.76))
    dear = points["passes"] > 0
    least = points.loc[dear, "passes"].min() if dear.any() else 1.0
    nothing = least / 3  # where "none" stands on the logarithmic axis
    x = points["passes"].where(dear, nothing)
    axes.vlines(x, points["low"], points["high"], color="#DDDDDD", linewidth=0.8, zorder=0)
    for place, row in zip(x, points.itertuples(), strict=True):
        axes.plot(place, row.mean_rank, **style.family_look(row.family), linestyle="", zorder=3)
    edge = front(points)
    axes.plot(x[edge], points.loc[edge, "mean_rank"], color="#000000", linewidth=0.8, drawstyle="steps-post", zorder=1)
    axes.set_xscale("log")
    axes.set_xlim(nothing / 2.2 if (~dear).any() else least / 1.8, x.max() * 2.2)
    spread = max(points["mean_rank"].max() - points["mean_rank"].min(), 1.0)
    axes.set_ylim(points["mean_rank"].max() + 0.07 * spread, points["mean_rank"].min() - 0.07 * spread)
    _ticks(axes, least, nothing if (~dear).any() else None, x.max())
    axes.set_xlabel("forward-pass equivalents per image (a backward pass counts as two forward passes)")
    axes.set_ylabel("mean rank in faithfulness")
    axes.grid(color="#F2F2F2", linewidth=0.6)
    axes.set_axisbelow(True)
    style.headline(figure, f"{name}: faithfulness against compute, with {confidence:.0%} intervals; line: Pareto front")
    handles = style.family_handles(points["family"])
    style.legend(figure, handles, "lower center")
    corners = list(zip(x[edge], points.loc[edge, "mean_rank"], strict=True))
    steps = [part for (a, b), (c, d) in pairwise(corners) for part in ((a, b, c, b), (c, b, c, d))]
    labels.place(
        axes,
        list(zip(x, points["mean_rank"], strict=True)),
        [style.readable(explainer) for explainer in points["explainer"]],
        ["#666666" if control else "#000000" for control in points["is_control"].astype(bool)],
        steps,
        list(zip(x, points["low"], x, points["high"], strict=True)),
    )
    return figure


def _ticks(axes: Axes, least: float, nothing: float | None, most: float) -> None:
    """Powers of ten or, where these are few, of two; and "none" for what costs nothing."""
    import math

    base = 10 if most / least >= 1000 else 4 if most / least > 30 else 2
    first, last = math.floor(math.log(least, base)), math.ceil(math.log(most, base))
    places = [p for p in (float(base) ** k for k in range(first, last + 1)) if least / 1.5 <= p <= most * 1.5]
    names = [f"{place:,.10g}" for place in places]
    if nothing is not None:
        places, names = [nothing, *places], ["none", *names]
        axes.axvline(nothing * 1.7, color="#BBBBBB", linewidth=0.6, linestyle=(0, (1, 2)))
    axes.set_xticks(places, names)
    axes.set_xticks([], minor=True)
