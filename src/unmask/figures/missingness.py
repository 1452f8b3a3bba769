"""How each removal operator leads the models off their data: answers and features against the fraction removed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.figures import style
from unmask.figures.source import Picture, Source, of, title
from unmask.internals.catalogue import MISSINGNESS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NEEDS = ("missingness",)
SHOWN = ("unchanged_prediction", "class_entropy", "prediction_entropy", "feature_distance")
NATIVE = ("mask_token", "token_drop", "inpaint")  # of the model; the others paint pixels
COLUMNS = 5  # encoders that fit side by side


def pictures(source: Source) -> Iterator[Picture]:
    """Over all domains and per domain; a run with many encoders has several."""
    table = source.tables["missingness"]
    table = table[(table["status"] == "ok") & table["fraction"].notna()]
    for domain, suffix in source.scopes():
        rows = of(table, domain)
        encoders = [name for name in source.config["encoders"] if name in set(rows["encoder"])]
        parts = [encoders[start : start + COLUMNS] for start in range(0, len(encoders), COLUMNS)]
        for part, shown in enumerate(parts, 1):
            yield Picture(
                f"missingness{suffix}" + (f".{part}" if len(parts) > 1 else ""),
                f"{title(domain)}: answers and features as random patches are removed, by removal and encoder",
                partial(draw, rows[rows["encoder"].isin(shown)], shown, title(domain), source.confidence),
            )


def draw(rows: pd.DataFrame, encoders: list[str], name: str, confidence: float) -> Figure:
    """`rows` have encoder, removal, quantity, fraction, value, low, high; a column per encoder, a row per quantity."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    looks = removal_looks(sorted(rows["removal"].unique()))
    width = min(style.PAGE, 1.0 + 1.54 * max(2, len(encoders)))
    figure = Figure(figsize=(width, 5.2), layout="constrained")
    grid = figure.subplots(len(SHOWN), len(encoders), sharex=True, sharey="row", squeeze=False)
    for row, quantity in enumerate(SHOWN):
        for column, encoder in enumerate(encoders):
            axes = grid[row, column]
            own = rows[(rows["quantity"] == quantity) & (rows["encoder"] == encoder)]
            for removal, look in looks.items():
                curve = own[own["removal"] == removal].sort_values("fraction")
                axes.plot(curve["fraction"], curve["value"], **look)
                axes.fill_between(
                    curve["fraction"], curve["low"], curve["high"], color=look["color"], alpha=0.12, linewidth=0
                )
            axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.locator_params(axis="y", nbins=4)
        grid[row, 0].set_ylim(0, 1.05 * max(1e-9, rows.loc[rows["quantity"] == quantity, "high"].max()))
        about = MISSINGNESS[quantity]
        grid[row, 0].set_ylabel(f"{style.name_lines(about.title, 14)}\n({about.unit})")
    for column, encoder in enumerate(encoders):
        grid[0, column].set_title(style.readable(encoder), loc="left")
        grid[-1, column].set_xlabel("fraction removed")
        grid[-1, column].set_xlim(0, 1)
    figure.align_ylabels(grid[:, 0])
    style.legend(figure, [Line2D([], [], label=style.readable(removal), **look) for removal, look in looks.items()])
    style.headline(
        figure, f"{name}: random patches removed, mean with {confidence:.0%} band; solid: the model's own removals"
    )
    return figure


def removal_looks(removals: list[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of every removal: the model's own are solid, those that paint pixels dashed."""
    colours, markers = (*style.PALETTE, "#000000"), (*style.MARKERS, "X")
    ordered = [*(name for name in NATIVE if name in removals), *(name for name in removals if name not in NATIVE)]
    return {
        name: {
            "color": colours[place % len(colours)],
            "marker": markers[place % len(markers)],
            "markersize": 3.2,
            "linestyle": "-" if name in NATIVE else (0, (3, 1.5)),
            "linewidth": 1.1,
        }
        for place, name in enumerate(ordered)
    }
