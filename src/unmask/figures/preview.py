"""A look at a domain: a row of training images per class, with the evidence outlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import binary_dilation

from unmask.domains import Split

COLUMNS = 8


def draw(split: Split, classes: list[str], path: Path) -> None:
    """Write a PNG with the first images of each class, one row per class, evidence outlined in black and white."""
    figure = Figure(figsize=(0.95 * COLUMNS + 0.1, 1.14 * len(classes)), dpi=200)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(classes), COLUMNS, squeeze=False)
    figure.subplots_adjust(left=0.006, right=0.994, bottom=0.004, top=1 - 0.17 / len(classes), wspace=0.04, hspace=0.2)
    for label, row in enumerate(grid):
        members = np.flatnonzero(split.labels == label)[:COLUMNS]
        for axes, index in zip(row, members, strict=False):
            axes.imshow(split.images[index], interpolation="nearest")
            mask = split.masks[index]
            if mask.any():
                # One pixel off, or the line would hide thin evidence; the frame closes outlines at the border.
                around = np.pad(binary_dilation(mask), 1).astype(float)
                places = np.arange(-1, len(mask) + 1)
                axes.contour(places, places, around, levels=[0.5], colors="black", linewidths=1.1)
                axes.contour(places, places, around, levels=[0.5], colors="white", linewidths=0.5)
            axes.set_xlim(-0.5, len(mask) - 0.5)
            axes.set_ylim(len(mask) - 0.5, -0.5)
        for axes in row:
            axes.axis("off")
        # Text as it is: a user's class name is no mathematics.
        row[0].set_title(classes[label], loc="left", fontsize=8, pad=2, parse_math=False)
    figure.savefig(path, format="png", metadata={"Software": None})
