"""Counterfactual sets on test images: which patches have to go for another decision, encoder by encoder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.config import ModelId
from unmask.figures import tiles
from unmask.figures.gallery import outline
from unmask.figures.source import Picture, Source
from unmask.files import read_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("counterfactuals",)
KEPT = {"never": "never changed", "larger": "no set found"}
COVER = (0.84, 0.37, 0.0)


def pictures(source: Source) -> Iterator[Picture]:
    """Per domain, of the first pair of seeds."""
    for domain in source.config["domains"]:
        columns = _columns(source, domain)
        if columns:
            yield Picture(
                f"counterfactual_sets_{domain}",
                f"{domain}: on test images, the fewest patches whose removal changes the decision",
                partial(_gallery, source, domain, columns),
            )


def _columns(source: Source, domain: str) -> dict[tuple[str, str], pd.DataFrame]:
    """The images' rows by encoder and removal, without those that have none."""
    config = source.config
    seeds = config.first_seeds
    found = {}
    for removal in config["inside"]["counterfactuals"]["removals"]:
        for encoder in config["encoders"]:
            path = source.layout.inside(ModelId(domain, encoder, *seeds)) / "counterfactuals.parquet"
            table = read_table(path) if path.exists() else None
            if table is not None:
                rows = table[(table["removal"] == removal) & table["outcome"].notna()]
                found[encoder, removal] = rows.set_index("image_id")
    return {column: rows for column, rows in found.items() if len(rows)}


def _gallery(source: Source, domain: str, columns: dict[tuple[str, str], pd.DataFrame]) -> Figure:
    chosen = list(columns)[: tiles.COLUMNS]
    shown = tiles.choose(source.layout, domain, (name for rows in columns.values() for name in rows.index))

    def paint(axes: Axes, row: int, column: int) -> str:
        rows = columns[chosen[column]]
        name = shown.names[row]
        if name not in rows.index:
            return "no result"
        return _tile(axes, shown, row, rows.loc[name], source.config["image"]["patch"])

    return tiles.draw(
        shown,
        [tiles.head(*column) for column in chosen],
        paint,
        f"{domain}: the fewest patches found (covered) whose removal changes the decision; evidence outlined",
    )


def _tile(axes: Axes, shown: tiles.Shown, row: int, found: pd.Series, patch: int) -> str:
    """Draw the image with the set covered; returns what is decided before and after."""
    import numpy as np

    image, decision = shown.images[row], shown.classes[found["decision"]]
    absent = np.zeros((len(image) // patch, len(image) // patch), bool)
    words = KEPT.get(found["outcome"])
    if words is None:
        absent.flat[list(map(int, found["patches"].split()))] = True
        words = f"\N{RIGHTWARDS ARROW} {shown.classes[found['new_class']]}"
    pixels = absent.repeat(patch, 0).repeat(patch, 1)
    axes.imshow(np.where(pixels[..., None], COVER, tiles.grey(image)[..., None]), interpolation="nearest")
    outline(axes, shown.masks[row], "#000000", 0.5)
    return f"{decision}\n{words}"
