"""Every figure there is: which can be drawn from a run's tables, and drawing them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.config import Config
from unmask.figures import (
    agreement,
    causes,
    counterfactual_sets,
    counterfactuals,
    critical,
    curves,
    dissection,
    effects,
    forest,
    galleries,
    heads,
    image_maps,
    inside,
    ladder,
    losses,
    missingness,
    pareto,
    quality,
    ranks,
    ratio,
    removals,
    similarity,
    style,
    surrogate_maps,
    surrogates,
    units,
)
from unmask.figures.source import Picture, Source
from unmask.files import read_table
from unmask.layout import Layout
from unmask.parallel import each

if TYPE_CHECKING:
    import pandas as pd

# In the order in which they are listed. Each says what tables it NEEDS and yields its `pictures` from a source.
KINDS = (
    forest,
    ranks,
    critical,
    ratio,
    effects,
    curves,
    removals,
    agreement,
    quality,
    ladder,
    pareto,
    missingness,
    causes,
    inside,
    similarity,
    heads,
    image_maps,
    counterfactuals,
    counterfactual_sets,
    surrogates,
    surrogate_maps,
    dissection,
    units,
    losses,
    galleries,
)


def source(config: Config) -> Source:
    """A run with those tables that figures need and that exist."""
    layout = Layout(config.results)
    names = dict.fromkeys(name for kind in KINDS for name in kind.NEEDS)
    paths = {name: layout.leaderboards / f"{name}.csv" for name in names}
    tables = {name: _labelled(read_table(path)) for name, path in paths.items() if path.exists()}
    return Source(config, layout, tables)


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which the names of what was submitted say so, for every figure to show."""
    if "submitted" not in table:
        return table
    marks = table["submitted"].astype(bool)
    return table.assign(explainer=table["explainer"].mask(marks, table["explainer"] + " (submitted)"))


def pictures(source: Source) -> list[Picture]:
    """The figures of a run; a kind whose tables are missing is left out, none is drawn yet."""
    return [one for kind in KINDS if set(kind.NEEDS) <= set(source.tables) for one in kind.pictures(source)]


def draw(chosen: Sequence[Picture], layout: Layout, jobs: int = 1) -> dict[str, Path]:
    """Draw figures as PDF and PNG below the report's folder, in `jobs` processes; returns the PNGs by name."""
    with style.styled():
        # A figure is drawn the same wherever it is.
        paths = each([partial(_draw, one, layout) for one in chosen], jobs)
    return {one.name: path for one, path in zip(chosen, paths, strict=True)}


def _draw(one: Picture, layout: Layout) -> Path:
    return style.save(one.draw(), layout.report / "figures" / one.name)[1]
