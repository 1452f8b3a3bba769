"""What is inside the models layer by layer, before and after fine-tuning: attention, and features."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.figures import style
from unmask.figures.source import Picture, Source, of, title
from unmask.internals.catalogue import QUANTITIES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("inside",)
SHOWN = {
    "inside_attention": (
        "attention",
        ("attention_distance", "attention_entropy", "head_divergence", "mutual_information", "attribution_agreement"),
    ),
    "inside_features": (
        "features",
        ("high_frequency", "effective_rank", "knn_accuracy", "linear_probe_accuracy", "mask_token_distance"),
    ),
}
PHASES = ("before", "after")
WORDS = {"before": "before fine-tuning", "after": "after fine-tuning"}


def pictures(source: Source) -> Iterator[Picture]:
    """Attention and features, over all domains and per domain."""
    table = source.tables["inside"]
    table = table[(table["status"] == "ok") & table["head"].isna() & table["layer"].notna()]
    for name, (what, quantities) in SHOWN.items():
        for domain, suffix in source.scopes():
            rows = of(table, domain)
            shown = [quantity for quantity in quantities if quantity in set(rows["quantity"])]
            if shown:
                rows = rows[rows["quantity"].isin(shown)]
                yield Picture(
                    f"{name}{suffix}",
                    f"{title(domain)}: {what} by layer and encoder, before and after fine-tuning",
                    partial(draw, rows, shown, looks(source), f"{title(domain)}: {what} by layer", source.confidence),
                )


def looks(source: Source) -> dict[str, dict[str, Any]]:
    """Colour and marker of every encoder; those without pretraining are grey and hollow."""
    pretrained = source.config.pretrained
    plain = [name for name in source.config["encoders"] if name not in pretrained]
    found = {}
    for name in source.config["encoders"]:
        if name in pretrained:
            place = pretrained.index(name)
            colour = style.PALETTE[place % len(style.PALETTE)]
            found[name] = {
                "color": colour,
                "marker": style.MARKERS[place % len(style.MARKERS)],
                "markerfacecolor": colour,
            }
        else:
            found[name] = {
                "color": style.CONTROL,
                "marker": style.MARKERS[plain.index(name) % len(style.MARKERS)],
                "markerfacecolor": "#FFFFFF",
                "linestyle": (0, (4, 2)),
            }
    return {name: {**look, "markersize": 3.5, "markeredgewidth": 0.9} for name, look in found.items()}


def draw(
    rows: pd.DataFrame, quantities: list[str], looks: dict[str, dict[str, Any]], name: str, confidence: float
) -> Figure:
    """`rows` have encoder, phase, quantity, layer, value, low, high; a column per quantity, a row per phase."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(style.PAGE, 3.4), layout="constrained")
    grid = figure.subplots(2, len(quantities), sharex=True, sharey="col", squeeze=False)
    for row, phase in enumerate(PHASES):
        for column, quantity in enumerate(quantities):
            own = rows[(rows["phase"] == phase) & (rows["quantity"] == quantity)]
            _panel(grid[row, column], own, looks)
        grid[row, 0].set_ylabel(WORDS[phase])
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    for column, quantity in enumerate(quantities):
        about = QUANTITIES[quantity]
        grid[0, column].set_title(f"{style.name_lines(about.title, 22)}\n({about.unit})", loc="left")
        grid[1, column].set_xlabel("layer")
        grid[1, column].set_xticks(layers[:: max(1, len(layers) // 6)])
        grid[1, column].set_xlim(layers[0] - 0.3, layers[-1] + 0.3)
    handles = [Line2D([], [], label=style.readable(encoder), **look) for encoder, look in looks.items()]
    style.legend(figure, handles)
    zero = "; layer 0 enters the first block" if layers[0] == 0 else ""
    style.headline(figure, f"{name}, mean with {confidence:.0%} band{zero}")
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    for encoder, look in looks.items():
        own = rows[rows["encoder"] == encoder].sort_values("layer")
        layers = own["layer"].astype(float)
        axes.plot(layers, own["value"], **look)
        axes.fill_between(layers, own["low"], own["high"], color=look["color"], alpha=0.15, linewidth=0)
    style.small_panel(axes, rows.empty)
