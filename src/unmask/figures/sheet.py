"""One image and its maps: a panel per explainer, and below them what there is no map of."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.gallery import Column, overlay, scales

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

SIDE, GAP, TITLE, LINE = 1.38, 0.08, 0.17, 0.13  # inches: of a panel, between two, above one, of a line of text
ACROSS = 5  # panels at most


def draw(image: np.ndarray, columns: list[Column], title: list[str], notes: list[str]) -> Figure:
    """Image uint8 [H, W, 3], then each column's first map over it in grey; `title` above and `notes` below, as lines.

    Colours are the gallery's: signed maps diverge from 0, others rise from their minimum.
    """
    import numpy as np
    from matplotlib.figure import Figure

    panels = len(columns) + 1
    down = -(-panels // ACROSS)
    across = max(3, -(-panels // down))  # the scales below need three
    width, lines = across * (SIDE + GAP) + GAP, [part for note in notes for part in textwrap.wrap(note, across * 28)]
    above, below = 0.1 + 0.15 * len(title), 0.28 + LINE * len(lines)
    height = above + down * (TITLE + SIDE + GAP) + below
    figure = Figure(figsize=(width, height))
    for i, line in enumerate(title):
        size = 9 if i == 0 else 7
        figure.text(GAP / width, 1 - (0.05 + 0.16 * i) / height, line, va="top", ha="left", fontsize=size)
    for i in range(panels):
        row, place = divmod(i, across)
        left, top = GAP + place * (SIDE + GAP), height - above - row * (TITLE + SIDE + GAP) - TITLE
        axes = figure.add_axes((left / width, (top - SIDE) / height, SIDE / width, SIDE / height))
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if i == 0:
            axes.imshow(image, interpolation="nearest")
        else:
            overlay(axes, image, np.zeros(image.shape[:2], bool), columns[i - 1], 0)
        axes.set_title("image" if i == 0 else style.readable(columns[i - 1].name), fontsize=7, pad=2)
    for i, line in enumerate(lines):
        figure.text(GAP / width, (below - 0.02 - LINE * i) / height, line, va="top", ha="left", fontsize=6)
    scales(figure, width, height, GAP / width, columns)
    return figure
