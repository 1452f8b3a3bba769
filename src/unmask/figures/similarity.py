"""How alike layers and encoders are: matrices of linear CKA."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.inside import PHASES, WORDS
from unmask.figures.source import Picture, Source, of, title

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("cka",)
LEFT, RIGHT, GAP, ABOVE = 0.5, 0.55, 0.22, 0.45  # inches
MOST = 8  # rows of a matrix whose values are written into it


def pictures(source: Source) -> Iterator[Picture]:
    """Over all domains and per domain: within every encoder, and between the encoders at their last layers."""
    table = source.tables["cka"]
    for domain, suffix in source.scopes():
        rows = of(table, domain)
        encoders = [name for name in source.config["encoders"] if name in set(rows["encoder_a"])]
        if encoders:
            yield Picture(
                f"cka{suffix}",
                f"{title(domain)}: CKA between the layers of each encoder, and between the encoders' last layers",
                partial(draw, rows, encoders, title(domain)),
            )


def draw(rows: pd.DataFrame, encoders: list[str], name: str) -> Figure:
    """`rows` have encoder, phase and layer of both sides, and value; a row of panels per phase."""
    from matplotlib.figure import Figure

    names = [style.name_lines(one, 12) for one in encoders]
    label = style.inches([line for one in names for line in one.split("\n")], 6) + 0.1  # a name beside a matrix
    several = len(encoders) > 1
    panels = len(encoders) + several
    room = style.PAGE - LEFT - RIGHT - GAP * (panels - 1) - label * several
    side = min(1.3, room / panels)
    width = LEFT + side * panels + GAP * (panels - 1) + label * several + RIGHT
    below = max(0.45, label * several + 0.05)
    height = ABOVE + 2 * side + GAP + below
    figure = Figure(figsize=(width, height))

    def place(row: int, column: int) -> Axes:
        left = LEFT + column * (side + GAP) + (label if column == len(encoders) else 0)
        bottom = below + (1 - row) * (side + GAP)
        return figure.add_axes((left / width, bottom / height, side / width, side / height))

    image = None
    for row, phase in enumerate(PHASES):
        here = rows[(rows["phase_a"] == phase) & (rows["phase_b"] == phase)]
        for column, encoder in enumerate(encoders):
            own = here[(here["encoder_a"] == encoder) & (here["encoder_b"] == encoder)]
            matrix = own.pivot(index="layer_a", columns="layer_b", values="value")
            axes = place(row, column)
            image = _show(axes, matrix.to_numpy(), [str(int(layer)) for layer in matrix.index])
            if row == 0:
                axes.set_title(style.readable(encoder, 20), loc="left")
            else:
                axes.set_xlabel("layer")
            if column == 0:
                axes.set_ylabel(f"{WORDS[phase]}\nlayer")
        if several:
            axes = place(row, len(encoders))
            _show(axes, between(here, encoders), names)
            axes.tick_params(axis="x", rotation=90)
            if row == 0:
                axes.set_title("last layers", loc="left")
                axes.set_xticks([])
    bar = figure.add_axes(((width - RIGHT + 0.1) / width, below / height, 0.08 / width, (2 * side + GAP) / height))
    figure.colorbar(image, cax=bar, label="linear CKA")
    style.headline(figure, f"{name}: likeness of layers, and of the encoders' last layers")
    return figure


def between(rows: pd.DataFrame, encoders: list[str]) -> np.ndarray:
    """CKA of the last layers of every two encoders, NaN where there is none."""
    import numpy as np

    matrix = np.full((len(encoders), len(encoders)), np.nan)
    for (one, other), part in rows.groupby(["encoder_a", "encoder_b"]):
        last = part[(part["layer_a"] == part["layer_a"].max()) & (part["layer_b"] == part["layer_b"].max())]
        a, b = encoders.index(one), encoders.index(other)
        matrix[a, b] = matrix[b, a] = last["value"].iloc[0]
    return matrix


def _show(axes: Axes, matrix: np.ndarray, labels: list[str]):
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    step = max(1, len(labels) // MOST)
    axes.set_xticks(range(0, len(labels), step), labels[::step])
    axes.set_yticks(range(0, len(labels), step), labels[::step])
    axes.tick_params(length=0, labelsize=6 if len(labels) <= MOST else 5)
    axes.spines[:].set_visible(False)
    if len(matrix) <= MOST:
        for (row, column), value in _values(matrix):
            text = f"{value:.2f}".removeprefix("0").replace("-", "\N{MINUS SIGN}")
            axes.text(
                column, row, text, ha="center", va="center", fontsize=5, color="#000000" if value > 0.6 else "#FFFFFF"
            )
    return image


def _values(matrix: np.ndarray) -> Iterator[tuple[tuple[int, int], float]]:
    import numpy as np

    return (((row, column), value) for (row, column), value in np.ndenumerate(matrix) if np.isfinite(value))
