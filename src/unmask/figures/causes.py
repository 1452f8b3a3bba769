"""What the planted factors truly do to the models' answers, and what would be estimated without a renderer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.figures import style
from unmask.figures.inside import looks
from unmask.figures.source import Picture, Source
from unmask.internals.catalogue import ordered

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("causes", "causal_model")
LABELS = {"effect_logit": "effect on the predicted class's logit", "changed_prediction": "share of predictions changed"}
SHOWN = tuple(LABELS)
COLUMNS = 3  # domains that fit side by side


def pictures(source: Source) -> Iterator[Picture]:
    """Effects by factor and encoder, and estimated against true effects; a run of many domains has several of each."""
    effects, model = (source.tables[name] for name in NEEDS)
    kinds = (
        ("causes", effects[effects["status"] == "ok"], "what each planted factor truly does to the answers", draw),
        ("causal_model", model[model["difference"].notna()], "estimated against true effects on the logits", compare),
    )
    for name, table, caption, how in kinds:
        domains = [domain for domain in source.config["domains"] if domain in set(table["domain"])]
        parts = [domains[start : start + COLUMNS] for start in range(0, len(domains), COLUMNS)]
        for part, shown in enumerate(parts, 1):
            yield Picture(
                name + (f".{part}" if len(parts) > 1 else ""),
                f"{', '.join(shown)}: {caption}, by factor and encoder",
                partial(how, table, shown, looks(source), source.confidence),
            )


def draw(rows: pd.DataFrame, domains: list[str], encoders: dict[str, dict[str, Any]], confidence: float) -> Figure:
    """`rows` have domain, encoder, factor, quantity, value, low, high; a column per domain, a row per quantity."""
    from matplotlib.figure import Figure

    factors = {domain: ordered(rows.loc[rows["domain"] == domain, "factor"]) for domain in domains}
    most = max(map(len, factors.values()))
    spread = 0.075 * len(encoders) + 0.1  # inches that a factor takes
    figure = Figure(figsize=(_width(domains), 1.3 + len(SHOWN) * (0.4 + most * spread)), layout="constrained")
    grid = figure.subplots(len(SHOWN), len(domains), sharex="row", squeeze=False)
    for row, quantity in enumerate(SHOWN):
        for column, domain in enumerate(domains):
            own = rows[(rows["domain"] == domain) & (rows["quantity"] == quantity)]
            _effects(grid[row, column], own, factors[domain], encoders)
            grid[row, column].set_xlabel(LABELS[quantity])
    for column, domain in enumerate(domains):
        grid[0, column].set_title(domain, loc="left")
    style.legend(figure, _handles(encoders))
    style.headline(
        figure, f"True effects: the image with one factor changed and all else the same, mean with {confidence:.0%} bar"
    )
    return figure


def _effects(axes: Axes, rows: pd.DataFrame, factors: list[str], encoders: dict[str, dict[str, Any]]) -> None:
    axes.axvline(0, color="#BBBBBB", linewidth=0.6)
    for place, (encoder, look) in enumerate(encoders.items()):
        own = rows[rows["encoder"] == encoder].set_index("factor")
        shift = 0.7 * ((place + 0.5) / len(encoders) - 0.5)
        for line, factor in enumerate(factors):
            if factor in own.index:
                value, low, high = own.loc[factor, ["value", "low", "high"]]
                axes.plot([low, high], [line + shift] * 2, color=look["color"], linewidth=0.9)
                axes.plot([value], [line + shift], **{**look, "linestyle": ""})
    axes.set_yticks(range(len(factors)), [style.readable(factor, 18) for factor in factors])
    axes.set_ylim(len(factors) - 0.5, -0.5)
    axes.grid(axis="x", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)


def compare(rows: pd.DataFrame, domains: list[str], encoders: dict[str, dict[str, Any]], confidence: float) -> Figure:
    """`rows` have domain, encoder, factor, and true and estimated effects with their bounds; a column per domain."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_width(domains), 2.9), layout="constrained")
    grid = figure.subplots(1, len(domains), squeeze=False)[0]
    for axes, domain in zip(grid, domains, strict=True):
        own = rows[rows["domain"] == domain]
        ends = own[["true", "estimated"]].min().min(), own[["true", "estimated"]].max().max()
        axes.plot(ends, ends, color="#BBBBBB", linewidth=0.8)
        for encoder, look in encoders.items():
            some = own[own["encoder"] == encoder]
            axes.hlines(some["estimated"], some["true_low"], some["true_high"], color=look["color"], linewidth=0.4)
            axes.vlines(some["true"], some["estimated_low"], some["estimated_high"], color=look["color"], linewidth=0.4)
            axes.plot(some["true"], some["estimated"], **{**look, "linestyle": ""})
        axes.set_title(domain, loc="left")
        axes.set_xlabel("true effect (logit)")
    grid[0].set_ylabel("estimated effect (logit)")
    style.legend(figure, _handles(encoders))
    style.headline(
        figure,
        "Effects of factors on the classes' logits: estimated by regression on which factors an image has, against "
        f"the truth by rendering again; {confidence:.0%} bars; on the line both agree",
    )
    return figure


def _width(domains: list[str]) -> float:
    return style.PAGE if len(domains) > 1 else style.COLUMN


def _handles(encoders: dict[str, dict[str, Any]]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], label=style.readable(encoder), **{**look, "linestyle": ""}) for encoder, look in encoders.items()
    ]
