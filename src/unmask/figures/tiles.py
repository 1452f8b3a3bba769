"""Test images line by line, with a small picture and a few words per column beside each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.gallery import outline
from unmask.files import read_arrays, read_json, read_table

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from unmask.layout import Layout

ROWS, COLUMNS = 4, 8  # images, and tiles beside each, that fit on a page
MARGIN, WORDS, ABOVE = 0.1, 0.2, 0.75  # inches: left, below a tile, above the first


@dataclass(frozen=True)
class Shown:
    """Test images by name: uint8 [N, H, W, 3], their evidence bool [N, H, W] and true classes; all classes' names."""

    names: list[str]
    images: np.ndarray
    masks: np.ndarray
    labels: list[str]
    classes: list[str]


def choose(layout: Layout, domain: str, names: Iterable[str]) -> Shown:
    """The first of some test images, those that show evidence before the others."""
    import pandas as pd

    arrays = read_arrays(layout.domain(domain) / "test.safetensors")
    ids = read_table(layout.domain(domain) / "test.csv")["image_id"].astype(str)
    place = pd.Series(range(len(ids)), index=ids)
    known = list(dict.fromkeys(names))
    chosen = sorted(known, key=lambda name: not arrays["masks"][place[name]].any())[:ROWS]
    rows = [place[name] for name in chosen]
    classes = read_json(layout.domain(domain) / "card.json")["classes"]
    labels = [classes[label] for label in arrays["labels"][rows]]
    return Shown(chosen, arrays["images"][rows], arrays["masks"][rows], labels, classes)


def draw(shown: Shown, heads: list[str], paint: Callable[[Axes, int, int], str], title: str) -> Figure:
    """`paint(axes, row, column)` draws a tile and returns the words below it; `heads` stand above the columns."""
    from matplotlib.figure import Figure

    cell = min(0.85, (style.PAGE - MARGIN) / (len(heads) + 1))
    width, height = max(4.3, MARGIN + cell * (len(heads) + 1)), ABOVE + (cell + WORDS) * len(shown.images)
    figure = Figure(figsize=(width, height))
    side = cell - 0.05
    for row in range(len(shown.images)):
        bottom = height - ABOVE - row * (cell + WORDS) - side
        for column, head in enumerate(["image and\nclass", *heads]):
            left = MARGIN / 2 + column * cell
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            words = _image(axes, shown, row) if column == 0 else paint(axes, row, column - 1)
            text = "\n".join(style.readable(line, 20) for line in words.split("\n"))
            axes.set_xlabel(text, fontsize=5, labelpad=1.5, linespacing=0.95)
            if row == 0:
                axes.set_title(head, fontsize=5.5, pad=2)
    style.headline(figure, title)
    return figure


def head(encoder: str, removal: str) -> str:
    """A column's head: an encoder under a removal."""
    return f"{style.name_lines(encoder, 14)}\n{style.readable(removal, 14)}"


def grey(image: np.ndarray) -> np.ndarray:
    """An image uint8 [H, W, 3] as light grey, float [H, W] in [0, 1]: what is drawn over it stands out."""
    import numpy as np

    return 0.4 + 0.6 * (image @ np.array([0.299, 0.587, 0.114])) / 255


def _image(axes: Axes, shown: Shown, row: int) -> str:
    axes.imshow(shown.images[row], interpolation="nearest")
    outline(axes, shown.masks[row], "#FFFFFF", 1.6)
    outline(axes, shown.masks[row], "#000000", 0.7)
    return shown.labels[row]
