"""Pictures in rows, each row with its label to the left and each picture with a line of text below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.figures import style

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

TILE, GAP, LINE = 0.82, 0.05, 0.1  # inches: the largest side, between two, a line of text
SHARP, EDGE = 256, 2  # pixels: what a tile is enlarged to, at least, and the width of an outline then


@dataclass(frozen=True)
class Tile:
    """A picture, uint8 [H, H, 3], and what stands below."""

    pixels: np.ndarray
    below: str = ""


def draw(rows: Sequence[tuple[str, Sequence[Tile]]], headline: str, above: Sequence[str] = ()) -> Figure:
    """`rows` of labels (of several lines) and tiles, all of one size; `above` are the columns' titles."""
    from matplotlib.figure import Figure

    columns = max(len(tiles) for _, tiles in rows)
    margin = 0.16 + style.inches([line for label, _ in rows for line in label.splitlines()], 6)
    tile = min(TILE, (style.PAGE - margin) / columns - GAP)
    width = max(style.COLUMN, margin + columns * (tile + GAP))
    texts = [max(len(one.below.splitlines()) for one in tiles) for _, tiles in rows]
    lines = [len(label.splitlines()) for label, _ in rows]
    heights = [max(tile + LINE * text, LINE * line) + GAP for text, line in zip(texts, lines, strict=True)]
    top = 0.14 * len(style.lines(headline, width)) + 0.14 + 0.12 * bool(above)
    height = top + sum(heights) + 0.02
    figure = Figure(figsize=(width, height))
    at = height - top
    for column, text in enumerate(above):
        figure.text(
            (margin + column * (tile + GAP) + tile / 2) / width, (at + 0.03) / height, text, ha="center", fontsize=6
        )
    for (label, tiles), tall in zip(rows, heights, strict=True):
        wide = len(tiles) * (tile + GAP) - GAP
        axes = figure.add_axes((margin / width, (at - tile) / height, wide / width, tile / height))
        axes.imshow(_strip(tiles, GAP / tile), aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        figure.text((margin - 0.08) / width, (at - tile / 2) / height, label, ha="right", va="center", fontsize=6)
        for column, one in enumerate(tiles):
            middle = margin + column * (tile + GAP) + tile / 2
            figure.text(middle / width, (at - tile - 0.02) / height, one.below, ha="center", va="top", fontsize=5)
        at -= tall
    style.headline(figure, headline)
    return figure


def _strip(tiles: Sequence[Tile], gap: float) -> np.ndarray:
    """Tiles side by side with white between them, a share `gap` of a tile's width: one picture is fast to draw."""
    import numpy as np

    side = tiles[0].pixels.shape[0]
    white = np.full((side, round(gap * side), 3), 255, np.uint8)
    parts = [part for one in tiles for part in (one.pixels, white)]
    return np.concatenate(parts[:-1], 1)


def sharp(image: np.ndarray) -> np.ndarray:
    """An image uint8 [H, H, 3] enlarged without interpolation to `SHARP` pixels or more a side."""
    times = -(-SHARP // len(image))
    return image.repeat(times, 0).repeat(times, 1)


def lit(image: np.ndarray, light: np.ndarray, outlined: np.ndarray) -> np.ndarray:
    """An image uint8 [H, H, 3], dark where `light` float [gh, gw] is 0, as it is where it is 1; a mask bool [H, H]
    outlined in white."""
    import numpy as np

    made = sharp(image)
    side, times = len(made), len(made) // len(image)
    rows, columns = (np.arange(side) * count // side for count in light.shape)
    shade = 0.2 + 0.8 * light[rows][:, columns]
    made = np.round(made * shade[..., None]).astype(np.uint8)
    mask = outlined.repeat(times, 0).repeat(times, 1)
    inner = np.pad(mask, EDGE)
    for axis in (0, 1):
        inner = inner & np.roll(inner, EDGE, axis) & np.roll(inner, -EDGE, axis)
    made[mask & ~inner[EDGE:-EDGE, EDGE:-EDGE]] = 255
    return made
