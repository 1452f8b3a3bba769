"""What sparse linear surrogates say of single decisions: their largest coefficients on the patches of test images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.config import ModelId
from unmask.figures import style, tiles
from unmask.figures.gallery import outline
from unmask.figures.source import Picture, Source
from unmask.files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("surrogates",)
Said = dict[str, dict[str, Any]]  # by image


def pictures(source: Source) -> Iterator[Picture]:
    """Per domain, of the first pair of seeds."""
    for domain in source.config["domains"]:
        columns = _columns(source, domain)
        if columns:
            yield Picture(
                f"surrogate_maps_{domain}",
                f"{domain}: largest coefficients of the sparse linear surrogates that are fit, on test images",
                partial(_gallery, source, domain, columns),
            )


def _columns(source: Source, domain: str) -> dict[tuple[str, str], Said]:
    """What the linear surrogates say by encoder and removal, without those that there are none of."""
    config = source.config
    seeds = config.first_seeds
    found = {}
    for removal in config["inside"]["surrogates"]["removals"]:
        for encoder in config["encoders"]:
            path = source.layout.inside(ModelId(domain, encoder, *seeds)) / "surrogates.json"
            contents = read_json(path)["surrogates"] if path.exists() else []
            found[encoder, removal] = {
                one["image_id"]: one
                for one in contents
                if one.get("removal") == removal and one["surrogate"] == "linear"
            }
    return {column: own for column, own in found.items() if own}


def _gallery(source: Source, domain: str, columns: dict[tuple[str, str], Said]) -> Figure:
    chosen = list(columns)[: tiles.COLUMNS]
    shown = tiles.choose(source.layout, domain, (name for own in columns.values() for name in own))

    def paint(axes: Axes, row: int, column: int) -> str:
        return _tile(axes, shown, row, columns[chosen[column]].get(shown.names[row]), source.config["image"]["patch"])

    return tiles.draw(
        shown,
        [tiles.head(*column) for column in chosen],
        paint,
        f"{domain}: largest coefficients of sparse linear surrogates, red for the class, blue against it, each to its"
        " own scale; of one that is unfit, none is shown",
    )


def _tile(axes: Axes, shown: tiles.Shown, row: int, one: dict[str, Any] | None, patch: int) -> str:
    """Draw the coefficients over the image; returns the class and how faithful the surrogate is."""
    import numpy as np

    image = shown.images[row]
    axes.imshow(tiles.grey(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    outline(axes, shown.masks[row], "#000000", 0.5)
    if one is None:
        return "undefined"
    words = f"{shown.classes[one['class']]}\n{'' if one['fit'] else 'unfit, '}R\N{SUPERSCRIPT TWO} {one['r2']:.2f}"
    if one["fit"] and one["coefficients"]:
        side = len(image) // patch
        values = np.full(side * side, np.nan)
        for place, value in one["coefficients"]:
            values[place] = value
        most = np.nanmax(np.abs(values))
        pixels = values.reshape(side, side).repeat(patch, 0).repeat(patch, 1)
        axes.imshow(pixels, cmap=style.SIGNED, vmin=-most, vmax=most, alpha=0.8, interpolation="nearest")
    return words
