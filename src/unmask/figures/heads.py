"""Attention head by head on a test image, and the filters by which the encoders describe a patch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.config import Config, ModelId
from unmask.figures import style
from unmask.figures.inside import PHASES
from unmask.figures.source import Picture, Source
from unmask.files import read_arrays
from unmask.internals.catalogue import SEEN
from unmask.layout import Layout
from unmask.sampling import explained

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("accuracy",)
TILES = 16  # maps of an encoder that fit side by side
TILE, GAP, ABOVE, ROW = 0.43, 0.03, 0.62, 0.06  # inches


def pictures(source: Source) -> Iterator[Picture]:
    """Attention per domain; the filters, before and after fine-tuning on the first domain, once."""
    config = source.config
    for domain in config["domains"]:
        if _arrays(source, domain, "heads_after"):
            yield Picture(
                f"heads_{domain}",
                f"{domain}: what the decision reads of each head's attention, on one test image",
                partial(_heads, source, domain),
            )
    first = next(iter(config["domains"]))
    if _arrays(source, first, "filters_after"):
        yield Picture(
            "filters",
            f"the leading patch filters of every encoder, before fine-tuning and after that on {first}",
            partial(_filters, source, first),
        )


def _arrays(source: Source, domain: str, name: str) -> dict[str, np.ndarray]:
    """An array of the stage by encoder, of the first pair of seeds; an encoder without it is left out."""
    found = {}
    seeds = source.config.first_seeds
    for encoder in source.config["encoders"]:
        path = source.layout.inside(ModelId(domain, encoder, *seeds)) / "pictures.safetensors"
        if path.exists() and name in (arrays := read_arrays(path)):
            found[encoder] = arrays[name]
    return found


def _heads(source: Source, domain: str) -> Figure:
    image, place = _image(source.config, source.layout, domain)
    maps = {encoder: one[place] for encoder, one in _arrays(source, domain, "heads_after").items()}
    return draw_heads(image, maps, domain)


def _image(config: Config, layout: Layout, domain: str) -> tuple[np.ndarray, int]:
    """The first of the images whose attention is kept that shows evidence (of none, the first), and its place."""
    arrays = read_arrays(layout.domain(domain) / "test.safetensors")
    rows = explained(arrays["labels"], SEEN, config["seed"], domain)
    place = next((place for place, row in enumerate(rows) if arrays["masks"][row].any()), 0)
    return arrays["images"][rows[place]], place


def draw_heads(image: np.ndarray, maps: dict[str, np.ndarray], name: str) -> Figure:
    """`image` uint8 [H, W, 3]; `maps` by encoder [blocks, heads, gh, gw], each coloured from 0 to its own maximum."""
    from matplotlib.figure import Figure

    chosen = {encoder: _chosen(one) for encoder, one in maps.items()}
    columns = 1 + max(len(tiles) for tiles in chosen.values())
    margin = 0.12 + style.inches(map(style.readable, maps), 6.5)
    tile = min(TILE, (style.PAGE - margin) / columns - GAP)
    width, height = margin + columns * (tile + GAP), ABOVE + len(maps) * (tile + ROW)
    figure = Figure(figsize=(width, height))
    for row, (encoder, tiles) in enumerate(chosen.items()):
        bottom = height - ABOVE - (row + 1) * (tile + ROW) + ROW
        _label(figure, style.readable(encoder), margin, bottom + tile / 2)
        for column, (label, picture) in enumerate([("image", image), *tiles]):
            axes = figure.add_axes(
                ((margin + column * (tile + GAP)) / width, bottom / height, tile / width, tile / height)
            )
            top = None if column == 0 else float(picture.max())
            axes.imshow(picture, cmap=style.SEQUENTIAL, vmin=0, vmax=top, interpolation="nearest")
            _bare(axes)
            if row == 0:
                axes.set_title(label, fontsize=5.5, pad=2)
    style.headline(
        figure,
        f"{name}: attention read by the decision, block.head after fine-tuning; each map scaled to its own maximum",
    )
    return figure


def _chosen(maps: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """All heads of all blocks, or of evenly spaced blocks the first heads, so that they fit; named `block.head`."""
    import numpy as np

    blocks, heads = maps.shape[:2]
    per_block = min(heads, max(3, TILES // blocks))
    kept = sorted({round(float(place)) for place in np.linspace(0, blocks - 1, min(blocks, TILES // per_block))})
    return [(f"{block + 1}.{head + 1}", maps[block, head]) for block in kept for head in range(per_block)]


def _filters(source: Source, domain: str) -> Figure:
    found = {phase: _arrays(source, domain, f"filters_{phase}") for phase in PHASES}
    rows = {
        f"{style.readable(encoder)}, {phase}": found[phase][encoder]
        for encoder in source.config["encoders"]
        for phase in PHASES
        if encoder in found[phase]
    }
    return draw_filters(rows)


def draw_filters(rows: dict[str, np.ndarray]) -> Figure:
    """Filters [K, p, p, 3] in [-1, 1] by label, the most important first; grey is 0."""
    from matplotlib.figure import Figure

    columns = max(len(filters) for filters in rows.values())
    margin = 0.12 + style.inches(rows, 6.5)
    tile = min(TILE, (style.PAGE - margin) / columns - GAP)
    width, height = margin + columns * (tile + GAP), 0.45 + len(rows) * (tile + ROW)
    figure = Figure(figsize=(width, height))
    for row, (label, filters) in enumerate(rows.items()):
        bottom = height - 0.45 - (row + 1) * (tile + ROW) + ROW
        _label(figure, label, margin, bottom + tile / 2)
        for column, one in enumerate(filters):
            axes = figure.add_axes(
                ((margin + column * (tile + GAP)) / width, bottom / height, tile / width, tile / height)
            )
            axes.imshow((one / 2 + 0.5).clip(0, 1), interpolation="nearest")
            _bare(axes)
    style.headline(
        figure, "patch filters: leading principal components of the first layer, each to its own scale, grey = 0"
    )
    return figure


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _label(figure: Figure, text: str, margin: float, middle: float) -> None:
    """A row's name left of its tiles, which begin at `margin`; inches from the figure's lower left corner."""
    width, height = figure.get_size_inches()
    figure.text((margin - 0.08) / width, middle / height, text, ha="right", va="center", fontsize=6.5)
