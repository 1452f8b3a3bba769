"""Critical-difference diagrams (Demsar 2006): average ranks, with bars over explainers that no test tells apart."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, of, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NEEDS = ("critical_difference",)
ROW, LEVEL = 0.135, 0.065  # inches: a line of names, a bar
TICKS, GAP = 0.38, 0.1  # inches: over the axis without the title, from the axis to the bars and from these to the names
BEYOND = 0.03  # inches that a bar reaches over its ends


def pictures(source: Source) -> Iterator[Picture]:
    """All categories together over all domains and per domain; then each category over all domains."""
    table = source.tables["critical_difference"]
    wanted = [(domain, "all", suffix) for domain, suffix in source.scopes()]
    wanted += [(None, category, f".{category}") for category in dict.fromkeys(table["category"]) if category != "all"]
    for domain, category, suffix in wanted:
        rows = of(table[table["category"] == category], domain)
        if rows["average_rank"].notna().sum() > 1:
            name = f"{title(domain)}, {'all categories' if category == 'all' else category}"
            yield Picture(
                f"critical{suffix}",
                f"{name}: average ranks; a bar joins explainers that signed-rank tests do not tell apart",
                partial(draw, rows, name, source.confidence),
            )


def bars(ranked: pd.DataFrame) -> list[tuple[float, float, int]]:
    """The bars as (first average rank, last, level): a level holds bars that do not touch, level 0 is at the axis."""
    spans: dict[str, list[float]] = {}
    for row in ranked.itertuples():
        for clique in str(row.cliques).split() if isinstance(row.cliques, str) else []:
            spans.setdefault(clique, []).append(row.average_rank)
    least = 0.03 * (ranked["average_rank"].max() - ranked["average_rank"].min())
    ends: list[float] = []
    found = []
    for first, last in sorted((min(places), max(places)) for places in spans.values()):
        level = next((i for i, end in enumerate(ends) if first > end + least), len(ends))
        ends[level : level + 1] = [last]
        found.append((first, last, level))
    return found


def draw(rows: pd.DataFrame, name: str, confidence: float) -> Figure:
    """`rows` of one scope and category: explainer, family, is_control, average_rank (NaN = not compared), cliques, n.

    The better half is named at the left, the other at the right, so that no two lines cross.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ranked = rows[rows["average_rank"].notna()].sort_values(["average_rank", "explainer"])
    left = -(-len(ranked) // 2)
    joined = bars(ranked)
    top = GAP + LEVEL * max((level + 1 for *_, level in joined), default=0) + GAP  # of the names, below the axis
    heading = _title(rows, name, confidence)
    above = TICKS + 0.13 * len(style.lines(heading, style.PAGE))
    height = above + top + ROW * (left + 0.5) + 0.3
    figure = Figure(figsize=(style.PAGE, height))
    words = [style.readable(explainer) for explainer in ranked["explainer"]]
    margin = style.inches(words, 6.5) + 0.5  # a name with its rank
    width = style.PAGE - 2 * margin - 0.3
    # In inches, x from the axis' left end and y downwards from the axis: bars and lines have the sizes that they have.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-margin - 0.15, style.PAGE - margin - 0.15), ylim=(height - above, -above))
    axes.axis("off")
    low, high = ranked["average_rank"].min(), ranked["average_rank"].max()
    ticks = MaxNLocator(8, integer=True, min_n_ticks=2).tick_values(low, high)
    ticks[0] = max(ticks[0], 1)  # no rank is 0
    scale = partial(_scale, ticks[0], ticks[-1], width)
    axes.plot([0, width], [0, 0], color="#000000", linewidth=0.8)
    for tick in ticks:
        axes.plot([scale(tick)] * 2, [-0.06, 0], color="#000000", linewidth=0.8)
        axes.text(scale(tick), -0.1, f"{tick:g}", ha="center", va="bottom", fontsize=6.5)
    for first, last, level in joined:
        y = GAP + LEVEL * level
        ends = [scale(first) - BEYOND, scale(last) + BEYOND]
        axes.plot(ends, [y, y], color="#000000", linewidth=2, solid_capstyle="butt", zorder=3)
    for i, (row, word) in enumerate(zip(ranked.itertuples(), words, strict=True)):
        here = i < left
        # Half a line between the sides: the lines of neighbours in the middle would look like one.
        x, y = scale(row.average_rank), top + ROW * (i + 0.5 if here else len(ranked) - i)
        end = -0.12 if here else width + 0.12
        look = style.family_look(row.family)
        dashes = (0, (3, 2)) if row.is_control else "-"
        axes.plot([x, x, end], [0, y, y], color=look["color"], linewidth=0.7, linestyle=dashes, zorder=2)
        axes.plot(end, y, **look, zorder=3)
        axes.text(
            end + (-0.07 if here else 0.07),
            y,
            f"{word}  {row.average_rank:.1f}" if here else f"{row.average_rank:.1f}  {word}",
            ha="right" if here else "left",
            va="center",
            fontsize=6.5,
            color="#666666" if row.is_control else "#000000",
            style="italic" if row.is_control else "normal",
        )
    handles = style.family_handles(ranked["family"])
    style.legend(figure, handles, "lower center")
    style.headline(figure, heading)
    return figure


def _scale(low: float, high: float, width: float, value: float) -> float:
    """A rank's place along the axis, in inches."""
    return (value - low) / (high - low) * width


def _title(rows: pd.DataFrame, name: str, confidence: float) -> str:
    parts = [
        f"{name}: average rank (1 = best) over {rows['n'].iloc[0]} images.",
        f"Bars: not told apart by signed-rank tests at {confidence:.0%}, Holm-corrected.",
    ]
    out = rows.loc[rows["average_rank"].isna(), "explainer"]
    if len(out):
        parts.append(f"Not scored everywhere, left out: {', '.join(map(style.readable, out))}.")
    return " ".join(parts)
