"""Whether the ranking depends on how absence is realised: an explainer's rank under each removal, as a slope chart."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("overall", "by_domain")
ABOVE, LINE, BELOW = 0.52, 0.135, 0.55  # inches: over the ranks, of a rank, under them
MOVED = 0.1  # of the places: who moves by no more is drawn faintly


def pictures(source: Source) -> Iterator[Picture]:
    """Over all domains and per domain, where a metric was scored under two removals."""
    known = set(source.controls())
    for domain, suffix in source.scopes():
        board = source.board(domain)
        ranks = table(board, source.config["score"]["removals"])
        if ranks.shape[1] > 1 and len(ranks):
            families = board.set_index("explainer")["family"].to_dict()
            yield Picture(
                f"removals{suffix}",
                f"{title(domain)}: rank of every explainer under the metrics that remove patches, by how they remove",
                partial(draw, ranks, families, known, title(domain)),
            )


def table(board: pd.DataFrame, removals: list[str]) -> pd.DataFrame:
    """Ranks, explainers x removals (1 = best), by the mean of the ranks under the metrics that have every removal."""
    import pandas as pd

    rows = board[board["removal"].notna() & board["variant"].isna() & board["rank"].notna()]
    wide = rows.pivot_table(index="explainer", columns=["metric", "removal"], values="rank", aggfunc="mean")
    named = [removal for removal in removals if removal in set(rows["removal"])]
    metrics = [m for m in dict.fromkeys(rows["metric"]) if all((m, removal) in wide for removal in named)]
    wide = wide[[(metric, removal) for metric in metrics for removal in named]].dropna()
    if wide.empty:
        return pd.DataFrame()
    return pd.DataFrame({removal: wide.xs(removal, axis=1, level=1).mean(axis=1).rank() for removal in named})


def draw(ranks: pd.DataFrame, families: dict[str, str], known: set[str], name: str) -> Figure:
    """`ranks`: a row per explainer, a column per removal; `known` are the controls.

    Between two columns stands Kendall's tau-b of the explainers' ranks, without the controls.
    """
    from matplotlib.figure import Figure

    rows, columns = ranks.shape
    margin = style.inches(map(style.readable, ranks.index), 6) + 0.65  # a name, its rank, and the line to it
    width = min(style.PAGE, max(style.COLUMN, 2 * margin + 0.9 * (columns - 1)))
    unit = (width - 2 * margin) / (columns - 1)  # inches from a column to the next
    height = ABOVE + LINE * rows + BELOW
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margin / width, BELOW / height, 1 - 2 * margin / width, LINE * rows / height))
    for explainer, row in ranks.sort_index().iterrows():
        moved = row.max() - row.min() > MOVED * rows
        axes.plot(
            range(columns),
            row,
            **style.family_look(families[explainer]),
            linewidth=1.3 if moved else 0.8,
            alpha=1.0 if moved else 0.45,
            linestyle=(0, (3, 2)) if explainer in known else "-",
            clip_on=False,
        )
    _names(axes, ranks.iloc[:, 0], known, 0, -1 / unit)
    _names(axes, ranks.iloc[:, -1], known, columns - 1, 1 / unit)
    axes.set_xlim(0, columns - 1)
    axes.set_ylim(rows + 0.5, 0.5)
    axes.set_xticks(range(columns), [style.name_lines(removal, 14) for removal in ranks])
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, pad=2)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    for column in range(columns):
        axes.axvline(column, color="#DDDDDD", linewidth=0.6, zorder=0)
    for column, tau in enumerate(taus(ranks.drop(index=[e for e in ranks.index if e in known]))):
        text = f"\N{GREEK SMALL LETTER TAU} = {tau:.2f}".replace("-", "\N{MINUS SIGN}")
        axes.text(column + 0.5, rows + 0.9, text, ha="center", va="top", fontsize=6)
    style.headline(figure, f"{name}: rank by removal; \N{GREEK SMALL LETTER TAU}: Kendall's, without controls")
    style.legend(figure, style.family_handles(families[e] for e in ranks.index), "lower center")
    return figure


def taus(ranks: pd.DataFrame) -> list[float]:
    """Kendall's tau-b between each column and the next; NaN where a column holds one value only."""
    from scipy.stats import kendalltau

    columns = [ranks[removal].to_numpy() for removal in ranks]
    return [float(kendalltau(one, other).statistic) for one, other in pairwise(columns)]


def _names(axes: Axes, ranks: pd.Series, known: set[str], column: int, inch: float) -> None:
    """Names beside an outer column, one per line; tied explainers share a rank, so lines lead to them.

    `inch` is how far an inch outwards is in the axes' units of x.
    """
    side = "right" if inch < 0 else "left"
    order = sorted(ranks.index, key=lambda name: (ranks[name], name))
    for place, name in enumerate(order, 1):
        text, rank = style.readable(name), f"{ranks[name]:.3g}"
        axes.plot(
            [column + 0.06 * inch, column + 0.21 * inch],
            [ranks[name], place],
            color="#BBBBBB",
            linewidth=0.5,
            clip_on=False,
            zorder=1,
        )
        axes.text(
            column + 0.24 * inch,
            place,
            f"{text}  {rank}" if side == "right" else f"{rank}  {text}",
            ha=side,
            va="center",
            fontsize=6,
            color="#666666" if name in known else "#000000",
            style="italic" if name in known else "normal",
        )
