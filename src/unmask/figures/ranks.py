"""Ranks of all explainers under all metrics, as a heat map."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, metric_label, same_maps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


NEEDS = ("overall", "ranking")


def pictures(source: Source) -> Iterator[Picture]:
    """One, over all domains and encoders."""
    order = source.ranked(None)["explainer"].tolist()
    if order:
        yield Picture(
            "ranks",
            "Rank of every explainer under every metric, all models pooled",
            partial(
                draw,
                matrix(source.board(None), order),
                set(source.controls()),
                headline(source.board(None)),
            ),
        )


def headline(board: pd.DataFrame) -> str:
    """What the ranks are, under which removal, and who is not ranked."""
    removals = board["removal"].dropna().unique()
    first = f" Metrics that remove patches: under the first removal, {removals[0]}." if len(removals) > 1 else ""
    return f"Rank by pooled mean (1 = best), sorted by mean rank.{first} {same_maps(board)}".strip()


def matrix(board: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Ranks, explainers x metrics, in the tables' order; a metric that removes patches under its first removal.

    With all removals the columns are too narrow to read; another figure compares the removals.
    """
    board = board[board.groupby("metric")["rank"].transform("count") > 0]  # gates rank nobody
    first = board.groupby("metric", sort=False)["removal"].transform("first")
    board = board[board["removal"].isna() | (board["removal"] == first)]
    labels = [
        metric_label(metric, None, variant) for metric, variant in zip(board["metric"], board["variant"], strict=True)
    ]
    table = board.assign(column=labels).pivot(index="explainer", columns="column", values="rank")
    return table.reindex(index=order, columns=list(dict.fromkeys(labels)))


def draw(ranks: pd.DataFrame, controls: set[str], title: str) -> Figure:
    """`ranks`: a row per explainer, a column per metric, best first; NaN where there is no rank."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows, columns = ranks.shape
    figure = Figure(figsize=(min(style.PAGE, 1.5 + 0.42 * columns), 1.4 + 0.17 * rows), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["viridis_r"].with_extremes(bad="#FFFFFF")
    shown = axes.imshow(ranks.to_numpy(float), cmap=colours, vmin=1, vmax=max(rows, 2), aspect="auto")
    for row in range(rows):
        for column in range(columns):
            value = ranks.iat[row, column]
            text = "\N{EN DASH}" if value != value else f"{value:.3g}"
            dark = value == value and value > 0.45 * rows
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="#FFFFFF" if dark else "#000000")
    axes.set_yticks(range(rows), [style.readable(name) for name in ranks.index])
    style.mark_controls(axes.get_yticklabels(), ranks.index, controls)
    axes.set_xticks(
        range(columns),
        [style.readable(name, 40) for name in ranks.columns],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02, ticks=[1, rows] if rows > 1 else [1])
    bar.ax.set_yticklabels(["best", "last"][: min(rows, 2)])
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)
    style.headline(figure, title)
    return figure
