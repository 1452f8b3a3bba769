"""Ranks of all explainers under all metrics, as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.figures import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


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
    for label, name in zip(axes.get_yticklabels(), ranks.index, strict=True):
        label.set(color="#666666" if name in controls else "#000000", style="italic" if name in controls else "normal")
    axes.set_xticks(
        range(columns),
        [style.readable(name) for name in ranks.columns],
        rotation=40,
        ha="right",
        rotation_mode="anchor",
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02, ticks=[1, rows] if rows > 1 else [1])
    bar.ax.set_yticklabels(["best", "last"][: min(rows, 2)])
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)
    figure.suptitle(title, x=0.005, ha="left", fontsize=7.5)
    return figure
