"""How many units of each layer detect what decides and what does not, and which concepts decisions follow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.figures import style
from unmask.figures.inside import PHASES, WORDS, looks
from unmask.figures.source import Picture, Source, of, title
from unmask.internals.known import Concept
from unmask.statistics.tcav import AGAINST, FOR, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("dissection", "tcav")
KINDS = {
    "evidence": "units that detect evidence",
    "distractor": "units that detect distractors",
    "tag": "units that detect the tag",
}
ORDER = ("evidence", "distractor", "tag", "colour", "texture", "folder")


def pictures(source: Source) -> Iterator[Picture]:
    """Detectors over all domains and per domain; TCAV scores per domain."""
    table = source.tables["dissection"]
    table = table[table["concept"].isna() & table["share"].notna()]
    for domain, suffix in source.scopes():
        rows = of(table, domain)
        kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
        if kinds:
            name = f"{title(domain)}: share of a layer's units that detect a known concept"
            yield Picture(
                f"dissection{suffix}",
                f"{name}, before and after fine-tuning",
                partial(draw, rows, kinds, looks(source), name),
            )
    table = source.tables["tcav"]
    for domain in source.config["domains"]:
        rows = table[(table["domain"] == domain) & (table["phase"] == "after") & (table["status"] == "ok")]
        rows = rows[rows["layer"] == rows.groupby("encoder")["layer"].transform("max")]
        if rows["score"].notna().any():
            yield Picture(
                f"tcav_{domain}",
                f"{domain}: which concepts the last layer represents, and which of them decisions follow (TCAV)",
                partial(draw_scores, rows, list(source.config["encoders"]), domain),
            )


def draw(rows: pd.DataFrame, kinds: list[str], looks: dict[str, dict[str, Any]], name: str) -> Figure:
    """`rows` have encoder, phase, layer, kind, share, share_chance; a column per kind, a row per phase."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(max(style.COLUMN, 0.6 + 2.1 * len(kinds)), 3.4), layout="constrained")
    grid = figure.subplots(2, len(kinds), sharex=True, sharey="col", squeeze=False)
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    for row, phase in enumerate(PHASES):
        for column, kind in enumerate(kinds):
            _panel(grid[row, column], rows[(rows["phase"] == phase) & (rows["kind"] == kind)], looks)
        grid[row, 0].set_ylabel(f"{WORDS[phase]}\n(share of units)")
    for column, kind in enumerate(kinds):
        grid[0, column].set_title(KINDS[kind], loc="left")
        grid[1, column].set_xlabel("layer")
        grid[1, column].set_xticks(layers[:: max(1, len(layers) // 6)])
        grid[1, column].set_ylim(bottom=0)
    handles = [Line2D([], [], label=style.readable(encoder), **look) for encoder, look in looks.items()]
    handles.append(Line2D([], [], color="#999999", linewidth=0.8, linestyle=":", label="by chance"))
    style.legend(figure, handles)
    style.headline(figure, f"{name} (IoU above .04); dotted: by chance, the masks laid over other images")
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    for encoder, look in looks.items():
        own = rows[rows["encoder"] == encoder].sort_values("layer")
        layers = own["layer"].astype(float)
        axes.plot(layers, own["share"], **look)
        axes.plot(layers, own["share_chance"], color=look["color"], linewidth=0.8, linestyle=":")
    style.small_panel(axes, rows.empty)


def draw_scores(rows: pd.DataFrame, encoders: list[str], name: str) -> Figure:
    """`rows` have encoder, kind, concept, class, score, verdict and accuracy; a panel per encoder."""
    from matplotlib.figure import Figure

    shown = [encoder for encoder in encoders if encoder in set(rows["encoder"])]
    places = rows.drop_duplicates(["kind", "concept"])
    listed = sorted(zip(places["kind"], places["concept"], strict=True), key=lambda one: ORDER.index(one[0]))
    classes = list(dict.fromkeys(rows["class"].dropna()))
    labels = [style.readable(Concept(*one).words, 22) for one in listed]
    margin, cell = 0.2 + style.inches(labels, 6.5), 0.2
    wide = max(0.9, (style.PAGE - margin) / len(shown) - 0.1)
    wide = min(wide, 0.42 * (len(classes) + 1))
    width = max(style.COLUMN, margin + len(shown) * (wide + 0.1))
    top, bottom = 0.72, 0.12 + style.inches([style.readable(one, 16) for one in classes] + ["accuracy"], 6)
    height = top + cell * len(listed) + bottom
    figure = Figure(figsize=(width, height))
    for column, encoder in enumerate(shown):
        left = margin + column * (wide + 0.1)
        axes = figure.add_axes((left / width, bottom / height, wide / width, cell * len(listed) / height))
        _scores(axes, rows[rows["encoder"] == encoder], listed, classes)
        axes.set_title(style.readable(encoder, 18), loc="left", pad=3)
        axes.set_yticks(range(len(listed)), labels if column == 0 else [])
        axes.set_xticks(
            range(len(classes) + 1),
            ["accuracy", *(style.readable(one, 16) for one in classes)],
            rotation=90,
            fontsize=6,
        )
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    style.headline(
        figure,
        f"{name}, last layer: accuracy with which each concept is told apart, and TCAV scores by class, the share of"
        " its images whose logit rises with the concept; red for, blue against, grey not significant, dash: the concept"
        " is not represented",
    )
    return figure


def _scores(axes: Axes, rows: pd.DataFrame, listed: list[tuple[str, str]], classes: list[str]) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    signed = colormaps[style.SIGNED]
    axes.set(xlim=(-0.5, len(classes) + 0.5), ylim=(len(listed) - 0.5, -0.5))
    for y, (kind, concept) in enumerate(listed):
        own = rows[(rows["kind"] == kind) & (rows["concept"] == concept)]
        if own.empty:
            continue
        axes.text(0, y, _digits(own["accuracy"].iloc[0]), ha="center", va="center", fontsize=5.5)
        for x, name in enumerate(classes, 1):
            cell = own[own["class"] == name]
            if cell.empty:
                text, face = "\N{EN DASH}" if UNKNOWN in set(own["verdict"]) else "", "#FFFFFF"
            else:
                one = cell.iloc[0]
                significant = one["verdict"] in (FOR, AGAINST)
                text, face = _digits(one["score"]), signed(0.15 + 0.7 * one["score"]) if significant else "#EEEEEE"
            axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor=face, linewidth=0))
            axes.text(x, y, text, ha="center", va="center", fontsize=5.5)


def _digits(value: float) -> str:
    """Two digits without the leading zero."""
    return f"{value:.2f}".replace("0.", ".", 1) if value < 1 else f"{value:.1f}"
