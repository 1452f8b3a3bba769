"""The control ladder: where controls and explainers stand between the random control (0) and the oracle (1)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from unmask.figures import style
from unmask.figures.source import Picture, Source, metric_label, unclear

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("by_domain", "chance")
ACROSS = 3  # panels beside one another
LEAST, MOST = -0.75, 1.75  # what lies farther out stands at the edge as an arrow
_METRIC = ["metric", "removal", "variant"]
_LOOKS = list(zip((*style.PALETTE, "#000000"), (*style.MARKERS, "X"), strict=True))


def pictures(source: Source) -> Iterator[Picture]:
    """One figure, a panel per domain, where there is a random control."""
    null, oracle, chance = source.null(), source.oracle(), source.tables["chance"]
    board, chance = source.tables["by_domain"], chance[chance["scope"] == "domain"]
    panels = [
        (domain, ladder(rows, chance[chance["domain"] == domain]))
        for domain, rows in board.groupby("domain", sort=False)
    ]
    if null is not None and panels:
        others = [name for name in source.controls() if name not in (null, oracle)]
        yield Picture(
            "controls",
            f"Under each metric, where the controls and the explainers stand between {null} (0) and the oracle (1)",
            partial(draw, panels, others, null, oracle),
        )


def ladder(board: pd.DataFrame, chance: pd.DataFrame) -> pd.DataFrame:
    """A domain's rescaled scores, and whose is 1.

    Columns: label, explainer, is_control, place (NaN where nothing is rescaled), scale (who is the ceiling), separated
    (the leaderboard's flag).
    """
    rungs = board[[*_METRIC, "explainer", "is_control", "rescaled", "controls_separated"]].merge(
        chance[[*_METRIC, "ceiling_by"]], on=_METRIC, how="left"
    )
    return rungs.assign(
        label=[metric_label(*keys) for keys in zip(*(rungs[name] for name in _METRIC), strict=True)],
        is_control=rungs["is_control"].astype(bool),
    ).rename(columns={"rescaled": "place", "ceiling_by": "scale", "controls_separated": "separated"})


def draw(panels: list[tuple[str, pd.DataFrame]], others: list[str], null: str, oracle: str | None) -> Figure:
    """`panels` holds (domain, its `ladder`); `others` the controls that are neither end of the scale."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    metrics = list(dict.fromkeys(label for _, rungs in panels for label in rungs["label"]))
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(style.PAGE, 0.75 + down * (0.42 + 0.2 * len(metrics))), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    looks = {
        name: {"color": colour, "marker": marker, "markerfacecolor": "none", "markersize": 4, "linestyle": ""}
        for name, (colour, marker) in zip(others, _LOOKS, strict=False)
    }
    notes: set[str] = set()
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (domain, rungs) in zip(grid.flat, panels, strict=False):
        notes |= _panel(axes, rungs, metrics, looks, oracle)
        axes.set_title(domain, loc="left")
    grid[0, 0].set_yticks(range(len(metrics)), [style.readable(name, 40) for name in metrics])
    grid[0, 0].set_ylim(len(metrics) - 0.5, -0.5)
    grid[0, 0].set_xlim(LEAST - 0.1, MOST + 0.1)
    grid[0, 0].set_xticks([0, 1], ["random", "oracle"])
    handles = [Line2D([], [], label=style.readable(name), **look) for name, look in looks.items()]
    handles.append(Line2D([], [], label="explainers: range, median", color="#BBBBBB", linewidth=4, alpha=0.7))
    style.legend(figure, handles)
    title = f"Controls and explainers between {style.readable(null)} (0) and the oracle (1), encoders pooled."
    style.headline(figure, " ".join([title, *sorted(notes)]))
    return figure


def _panel(
    axes: Axes, rungs: pd.DataFrame, metrics: list[str], looks: dict[str, dict[str, object]], oracle: str | None
) -> set[str]:
    """Draw a domain's ladder; returns the notes that its marks need."""
    notes = set()
    for x in (0, 1):
        axes.axvline(x, color="#999999", linewidth=0.6, zorder=0)
    for y, metric in enumerate(metrics):
        rows = rungs[rungs["label"] == metric]
        if rows.empty:
            continue
        if unclear(rows["separated"]) or rows["place"].isna().all():
            axes.text(0.5, y, "does not separate the controls", ha="center", va="center", fontsize=5.5, color="#666666")
            continue
        if rows["scale"].iloc[0] != oracle:
            axes.text(1.02, y - 0.3, "\N{DOUBLE DAGGER}", ha="left", va="center", fontsize=5.5)
            notes.add("\N{DOUBLE DAGGER} the oracle has no score above chance: 1 is the best score.")
        real = rows.loc[~rows["is_control"], "place"].dropna()
        if len(real):
            low, middle, high = real.quantile([0, 0.5, 1]).clip(LEAST, MOST)
            axes.plot([low, high], [y, y], color="#BBBBBB", linewidth=4, alpha=0.7, solid_capstyle="butt", zorder=1)
            axes.plot([middle, middle], [y - 0.22, y + 0.22], color="#666666", linewidth=1, zorder=1)
        for row in rows[rows["is_control"] & rows["place"].notna()].itertuples():
            if row.explainer in looks:
                look = dict(looks[row.explainer])
                if not LEAST <= row.place <= MOST:
                    look["marker"] = "<" if row.place < 0 else ">"
                axes.plot(min(max(row.place, LEAST), MOST), y, **look, zorder=3, clip_on=False)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    return notes
