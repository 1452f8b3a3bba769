"""Which metrics agree: Kendall's tau between the rankings of explainers under any two metrics."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, metric_label, of, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("agreement",)
WRITTEN = 22  # metrics beyond which a cell is too small for a number
COLOURS = "PuOr"
UPRIGHT = 25  # more columns than this are so narrow that slanted names would lie on one another
SLANT = 0.7  # of a slanted label's width is its height


def pictures(source: Source) -> Iterator[Picture]:
    """Over all domains and per domain, where two metrics or more were compared."""
    for domain, suffix in source.scopes():
        pairs = of(source.tables["agreement"], domain)
        if pairs["tau"].notna().any():
            yield Picture(
                f"agreement{suffix}",
                f"{title(domain)}: Kendall's tau between the rankings of explainers under two metrics; metrics that "
                "rank alike stand together",
                partial(draw, pairs, title(domain), source.confidence),
            )


def matrices(pairs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Taus, and whether their intervals cover 0, metrics x metrics in the order of average linkage on 1 - tau."""
    import pandas as pd

    first = [metric_label(*keys) for keys in zip(pairs["metric_a"], pairs["removal_a"], strict=True)]
    second = [metric_label(*keys) for keys in zip(pairs["metric_b"], pairs["removal_b"], strict=True)]
    names = list(dict.fromkeys([*first, *second]))
    tau = pd.DataFrame(float("nan"), names, names)
    unsure = pd.DataFrame(False, names, names)
    for a, b, row in zip(first, second, pairs.itertuples(), strict=True):
        tau.loc[a, b] = tau.loc[b, a] = row.tau
        unsure.loc[a, b] = unsure.loc[b, a] = bool(row.low <= 0 <= row.high)
    for name in names:
        tau.loc[name, name], unsure.loc[name, name] = 1.0, False
    order = _alike(tau)
    return tau.loc[order, order], unsure.loc[order, order]


def _alike(tau: pd.DataFrame) -> list[str]:
    """The names in the order of a dendrogram's leaves."""
    import numpy as np
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(tau) < 3:
        return list(tau.index)
    distance = 1 - np.nan_to_num(tau.to_numpy(), nan=0.0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return [tau.index[i] for i in leaves_list(tree)]


def draw(pairs: pd.DataFrame, name: str, confidence: float) -> Figure:
    """`pairs`: metric_a, removal_a, metric_b, removal_b, tau, low, high of one scope, each pair at least once."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    tau, unsure = matrices(pairs)
    names = [style.readable(label, 40) for label in tau.index]
    cells = len(names) - 1  # a row for all but the first, a column for all but the last
    written = len(names) <= WRITTEN
    margin = style.inches(names, 6.5) + 0.1
    side = min(0.36, max(1.6, style.PAGE - margin - 0.1) / cells)
    width = max(style.COLUMN, margin + side * cells + 0.1)
    crowded = cells > UPRIGHT
    below = (1 if crowded else SLANT) * margin + 0.08
    height = 0.45 + side * cells + below
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margin / width, below / height, side * cells / width, side * cells / height))
    lower = [
        [tau.iat[row, column] if column < row else float("nan") for column in range(cells)] for row in range(cells + 1)
    ]
    axes.imshow(lower[1:], cmap=COLOURS, vmin=-1, vmax=1, aspect="auto")
    for row in range(cells):
        for column in range(row + 1):
            _cell(axes, column, row, lower[row + 1][column], unsure.iat[row + 1, column], written, side)
    axes.set_yticks(range(cells), names[1:])
    upright = {"rotation": 90} if crowded else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(cells), names[:-1], **upright)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.add_axes((1 - 1.25 / width, 1 - 0.55 / height, 0.9 / width, 0.08 / height))
    figure.colorbar(ScalarMappable(Normalize(-1, 1), COLOURS), cax=bar, orientation="horizontal", ticks=[-1, 0, 1])
    bar.set_xticklabels(["reversed", "unrelated", "same"], fontsize=5.5)
    bar.tick_params(length=0, pad=2)
    bar.spines[:].set_visible(False)
    note = f" In brackets: the {confidence:.0%} interval covers 0." if written and unsure.to_numpy().any() else ""
    style.headline(figure, f"{name}: Kendall's \N{GREEK SMALL LETTER TAU} between metrics.{note}")
    return figure


def _cell(axes: Axes, column: int, row: int, value: float, unsure: bool, written: bool, side: float) -> None:
    if value != value:
        text = "\N{EN DASH}"
    elif not written:
        return
    else:
        text = f"{value:.2f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")
        text = f"({text})" if unsure else text
    colour = "#FFFFFF" if abs(value) > 0.7 else "#000000"
    axes.text(column, row, text, ha="center", va="center", fontsize=min(6, 17 * side), color=colour)
