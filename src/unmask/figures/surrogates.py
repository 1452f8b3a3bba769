"""How faithful small trees and sparse linear models are to the networks that they stand in for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, of, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("surrogates",)
LOOKS = {"tree": (style.PALETTE[0], "s"), "linear": (style.PALETTE[1], "o")}
WORDS = {"tree": "decision tree", "linear": "sparse linear model"}


def pictures(source: Source) -> Iterator[Picture]:
    """Over all domains and per domain."""
    table = source.tables["surrogates"]
    table = table[table["status"] == "ok"]
    given = source.config["inside"]["surrogates"]
    for domain, suffix in source.scopes():
        rows = of(table, domain)
        if len(rows):
            yield Picture(
                f"surrogates{suffix}",
                f"{title(domain)}: fidelity of decision trees and sparse linear models, by encoder and removal",
                partial(
                    draw,
                    rows,
                    [name for name in source.config["encoders"] if name in set(rows["encoder"])],
                    (given["r2"], given["agreement"]),
                    title(domain),
                    source.confidence,
                ),
            )


def draw(rows: pd.DataFrame, encoders: list[str], least: tuple[float, float], name: str, confidence: float) -> Figure:
    """`rows` are those of a scope of `surrogates`; `least`: below which R2 and agreement a surrogate is unfit."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    patches, concepts = (rows[rows["of"] == what] for what in ("patches", "concepts"))
    removals = list(dict.fromkeys(patches["removal"].dropna()))
    panels = [
        *((f"patches, {style.readable(one)} removal", patches[patches["removal"] == one], "r2") for one in removals),
        *(
            (f"patches, {style.readable(one)} removal", patches[patches["removal"] == one], "agreement")
            for one in removals
        ),
        *([("concepts", concepts, "agreement")] if len(concepts) else []),
    ]
    down = 2 if removals else 1
    across = max(len(removals) + bool(len(concepts)), 1)
    figure = Figure(figsize=(min(style.PAGE, 1.2 + 2.0 * across), 0.9 + 1.75 * down), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    for place, (label, own, quantity) in enumerate(panels):
        row, column = divmod(place, len(removals)) if place < 2 * len(removals) else (0, across - 1)
        axes = grid[row, column]
        axes.set_visible(True)
        _panel(axes, own, encoders, quantity)
        axes.set_title(label, loc="left")
        axes.set_ylabel("R\N{SUPERSCRIPT TWO}, held out" if quantity == "r2" else "agreement, held out")
        if quantity == "r2" or own is concepts:
            axes.axhline(least[quantity != "r2"], color="#000000", linestyle=(0, (1, 2)), linewidth=0.8, zorder=0)
        axes.set_xticks(range(len(encoders)), [style.name_lines(one, 7) for one in encoders])
        axes.tick_params(axis="x", labelbottom=True)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=3.5, label=WORDS[which])
        for which, (colour, marker) in LOOKS.items()
    ]
    handles += [
        Line2D([], [], color="#777777", marker="_", linestyle="", label="always the most frequent answer"),
        Line2D([], [], color="#000000", linestyle=(0, (1, 2)), linewidth=0.8, label="below: unfit"),
    ]
    style.legend(figure, handles)
    style.headline(
        figure,
        f"{name}: how faithful simple models are to the network on what they were not fitted to, mean with"
        f" {confidence:.0%} interval",
    )
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, encoders: list[str], quantity: str) -> None:
    for place, encoder in enumerate(encoders):
        own = rows[rows["encoder"] == encoder]
        for shift, (surrogate, (colour, marker)) in zip((-0.13, 0.13), LOOKS.items(), strict=True):
            one = own[(own["surrogate"] == surrogate) & (own["quantity"] == quantity)]
            at = [place + shift] * len(one)
            axes.vlines(at, one["low"], one["high"], color=colour, linewidth=0.9)
            axes.plot(at, one["value"], color=colour, marker=marker, markersize=3.5, linestyle="")
            if quantity == "agreement":
                habit = own[(own["surrogate"] == surrogate) & (own["quantity"] == "baseline")]
                axes.plot(at, habit["value"], color="#777777", marker="_", markersize=6, linestyle="")
    top = 1.03
    axes.set_ylim(min(-0.03, axes.get_ylim()[0]), top)
    axes.set_xlim(-0.5, len(encoders) - 0.5)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=5)
