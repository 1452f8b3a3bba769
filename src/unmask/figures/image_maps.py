"""Maps of the test images by the models' features, coloured by class, and by domain before fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.inside import PHASES, WORDS
from unmask.figures.source import Picture, Source
from unmask.files import read_json
from unmask.internals.planar import METHODS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("image_maps",)
SIDE, GAP, LEFT, ABOVE, BELOW = 1.3, 0.16, 0.62, 0.52, 0.35  # inches


def pictures(source: Source) -> Iterator[Picture]:
    """Per domain by class; over all domains by domain, of the encoders before fine-tuning."""
    table = source.tables["image_maps"]
    for domain in source.config["domains"]:
        rows = table[(table["scope"] == "domain") & (table["domain"] == domain)]
        if len(rows):
            card = source.layout.domain(domain) / "card.json"
            classes = read_json(card)["classes"] if card.exists() else []
            names = {i: classes[i] if i < len(classes) else str(i) for i in sorted(rows["label"].unique())}
            groups = rows.assign(group=rows["label"].map(names))
            yield Picture(
                f"image_maps_{domain}",
                f"{domain}: maps of the test images by the last layer's features, coloured by class",
                partial(draw, groups, list(names.values()), f"{domain}, by class"),
            )
    rows = table[table["scope"] == "all"]
    if len(rows):
        domains = [name for name in source.config["domains"] if name in set(rows["domain"])]
        yield Picture(
            "image_maps",
            "all domains: maps of the test images by the encoders' features before fine-tuning, coloured by domain",
            partial(draw, rows.assign(group=rows["domain"]), domains, "all domains, by domain"),
        )


def draw(rows: pd.DataFrame, groups: list[str], name: str) -> Figure:
    """`rows` have encoder, phase, method, trustworthiness, x, y and `group`; a column per encoder."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    encoders = list(dict.fromkeys(rows["encoder"]))
    kinds = [(phase, method) for phase in PHASES for method in METHODS if phase in set(rows["phase"])]
    side = min(SIDE, (style.PAGE - LEFT) / len(encoders) - GAP)
    width = max(style.COLUMN, LEFT + len(encoders) * (side + GAP))
    height = ABOVE + len(kinds) * (side + GAP) + BELOW
    figure = Figure(figsize=(width, height))
    colours = dict(zip(groups, (*style.PALETTE, *_more(len(groups))), strict=False))
    looks = {
        group: {"color": colours[group], "marker": style.MARKERS[place % len(style.MARKERS)]}
        for place, group in enumerate(groups)
    }
    for row, (phase, method) in enumerate(kinds):
        for column, encoder in enumerate(encoders):
            left = LEFT + column * (side + GAP)
            bottom = height - ABOVE - (row + 1) * (side + GAP) + GAP
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            own = rows[(rows["phase"] == phase) & (rows["method"] == method) & (rows["encoder"] == encoder)]
            _panel(axes, own, looks)
            if row == 0:
                axes.set_title(style.readable(encoder, 22), loc="left", pad=3)
            if column == 0:
                axes.set_ylabel(f"{method}\n{WORDS[phase]}")
    handles = [
        Line2D([], [], linestyle="", markersize=3.5, label=style.readable(group), **look)
        for group, look in looks.items()
    ]
    style.legend(figure, handles, "lower center")
    style.headline(figure, f"{name}: test images by the last layer's features; in the corner the map's trustworthiness")
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, looks: dict[str, dict[str, str]]) -> None:
    for group, look in looks.items():
        own = rows[rows["group"] == group]
        axes.scatter(own["x"], own["y"], s=4, c=look["color"], marker=look["marker"], linewidths=0, alpha=0.8)
    if len(rows):
        text = f"{rows['trustworthiness'].iloc[0]:.2f}".removeprefix("0")
        axes.text(0.98, 0.98, text, ha="right", va="top", fontsize=5.5, color="#444444", transform=axes.transAxes)
    axes.margins(0.08)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.5)


def _more(count: int) -> list[str]:
    """Colours beyond the palette, for domains of many classes: nobody tells these apart by colour alone."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    extra = max(0, count - len(style.PALETTE))
    return [to_hex(colormaps["viridis"]((place + 0.5) / extra)) for place in range(extra)]
