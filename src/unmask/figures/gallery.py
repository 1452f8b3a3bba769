"""Heat maps side by side: one row per test image, one column per explainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.figures import style

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 11  # explainers in one gallery: with more, a page would be too narrow to see them


@dataclass(frozen=True)
class Column:
    """An explainer's maps [N, H, W] or [N, gh, gw] of the shown images, or None with the reason there is none."""

    name: str
    signed: bool
    maps: np.ndarray | None
    reason: str = ""
    family: str = ""


def pages(columns: list[Column]) -> list[list[Column]]:
    """Columns in galleries of at most `COLUMNS`; a family stays together where it fits into one."""
    families: dict[str, list[Column]] = {}
    for column in columns:
        families.setdefault(column.family, []).append(column)
    found: list[list[Column]] = [[]]
    for family in families.values():
        size = -(-len(family) // -(-len(family) // COLUMNS))  # as equal as possible
        for part in (family[start : start + size] for start in range(0, len(family), size)):
            if len(found[-1]) + len(part) > COLUMNS:
                found.append([])
            found[-1].extend(part)
    return found


def draw(
    images: np.ndarray, masks: np.ndarray, rows: list[tuple[str, bool]], columns: list[Column], title: str
) -> Figure:
    """Images uint8 [N, H, W, 3], their masks bool [N, H, W] outlined, then each explainer's map over the grey image.

    `rows` gives each image's class name and whether the model was right. Every map is scaled to its own range: signed
    maps symmetrically around 0, others from their minimum; the top 0.5 % of values saturate.
    """
    from matplotlib.figure import Figure

    labels = [
        f"{style.name_lines(style.readable(label, 24), 11)}\n{'correct' if correct else 'wrong'}"
        for label, correct in rows
    ]
    margin = 0.1 + style.inches([line for label in labels for line in label.splitlines()], 6)
    n, cell = len(images), min(0.72, (style.PAGE - margin - 0.02) / (len(columns) + 1))
    wide, height = margin + cell * (len(columns) + 1), 0.78 + cell * n
    width = max(wide + 0.02, 4.3)  # the scales below need this much
    figure = Figure(figsize=(width, height))
    left, bottom, top = margin / width, 0.3 / height, 1 - 0.48 / height
    grid = figure.subplots(
        n,
        len(columns) + 1,
        squeeze=False,
        gridspec_kw={"left": left, "right": wide / width, "bottom": bottom, "top": top, "wspace": 0.05, "hspace": 0.05},
    )
    figure.text(0.02 / width, 1 - 0.04 / height, title, va="top", ha="left", fontsize=7.5)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for row, (image, mask, label, (_, correct)) in enumerate(zip(images, masks, labels, rows, strict=True)):
        axes = grid[row, 0]
        axes.imshow(image, interpolation="nearest")
        outline(axes, mask, "#FFFFFF", 1.6)
        outline(axes, mask, "#000000", 0.7)
        axes.set_ylabel(
            label, rotation=0, ha="right", va="center", fontsize=6, color="#000000" if correct else style.PALETTE[1]
        )
        for axes, column in zip(grid[row, 1:], columns, strict=True):
            overlay(axes, image, mask, column, row)
    grid[0, 0].set_title("image, evidence\noutlined", fontsize=5.5, pad=2)
    for axes, column in zip(grid[0, 1:], columns, strict=True):
        axes.set_title(style.name_lines(column.name, 11), fontsize=5.5, pad=2)
    scales(figure, width, height, left, columns)
    return figure


def overlay(axes: Axes, image: np.ndarray, mask: np.ndarray, column: Column, row: int) -> None:
    """Draw image `row`'s map over the image in grey, its mask bool [H, W] outlined; or the reason there is none."""
    import numpy as np

    grey = image @ np.array([0.299, 0.587, 0.114])
    size = image.shape[:2]
    extent = (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
    axes.imshow(0.5 + 0.5 * grey / 255, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    values = None if column.maps is None else column.maps[row]
    if values is None or values.min() == values.max():
        reason = column.reason if values is None else "empty map"
        axes.text(
            0.5, 0.5, style.name_lines(reason, 10), transform=axes.transAxes, ha="center", va="center", fontsize=5.5
        )
        return
    high = np.quantile(np.abs(values) if column.signed else values, 0.995)
    low = -high if column.signed else values.min()
    axes.imshow(
        values,
        cmap=style.SIGNED if column.signed else style.SEQUENTIAL,
        vmin=low,
        vmax=max(high, low + 1e-12),
        alpha=0.72,
        interpolation="nearest",
        extent=extent,
    )
    outline(axes, mask, "#FFFFFF" if not column.signed else "#000000", 0.4)


def outline(axes: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    """Trace a mask bool [H, W] along the edges of its pixels."""
    import numpy as np

    padded = np.pad(mask, 1)
    points = []  # pairs of ends, with gaps between: one line is much faster to draw than many
    for row, column in np.argwhere(padded[1:, :] != padded[:-1, :]):
        points += [(column - 1.5, row - 0.5), (column - 0.5, row - 0.5), (np.nan, np.nan)]
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        points += [(column - 0.5, row - 1.5), (column - 0.5, row - 0.5), (np.nan, np.nan)]
    x, y = np.array(points or [(np.nan, np.nan)]).T
    axes.plot(x, y, color=colour, linewidth=width, solid_capstyle="projecting", scalex=False, scaley=False)


def scales(figure: Figure, width: float, height: float, left: float, columns: list[Column]) -> None:
    """Unlabelled colour bars at the bottom: every map has its own range."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    words = {True: (style.SIGNED, "signed: against", "for"), False: (style.SEQUENTIAL, "others: little", "much")}
    x = left
    for signed in sorted({column.signed for column in columns}):
        name, before, after = words[signed]
        figure.text(x, 0.14 / height, before, fontsize=6, va="center")
        x += (0.046 * len(before) + 0.06) / width
        axes = figure.add_axes((x, 0.09 / height, 0.7 / width, 0.1 / height))
        bar = figure.colorbar(ScalarMappable(cmap=colormaps[name]), cax=axes, orientation="horizontal", ticks=[])
        bar.outline.set_linewidth(0.4)
        figure.text(x + 0.76 / width, 0.14 / height, after, fontsize=6, va="center")
        x += (0.82 + 0.046 * len(after) + 0.25) / width
