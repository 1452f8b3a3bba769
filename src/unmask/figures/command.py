"""`unmask figures`: draw figures again from the tables and maps of a run, without computing any."""

from __future__ import annotations

from collections.abc import Sequence

from unmask.config import Config
from unmask.errors import UserError
from unmask.figures import catalogue
from unmask.figures.source import Picture


def run(config: Config, only: Sequence[str] | None = None, names: bool = False) -> None:
    """Draw every figure, or those that `only` names; with `names`, say what there is instead.

    Raises `UserError` where there is nothing to draw from, or no figure of a name.
    """
    source = catalogue.source(config)
    found = catalogue.pictures(source)
    if not found:
        raise UserError(f"{source.layout.leaderboards} holds no tables to draw from; run the stage aggregate first")
    chosen = choose(found, only)
    if names:
        width = max(len(one.name) for one in chosen)
        for one in chosen:
            print(f"{one.name:{width}}  {one.caption}")
        return
    for path in catalogue.draw(chosen, source.layout).values():
        print(path.with_suffix(".pdf"))


def choose(found: list[Picture], only: Sequence[str] | None) -> list[Picture]:
    """Figures by name; a name also stands for all that it begins, up to an underscore or a dot (`pareto`)."""
    if not only:
        return found
    for name in only:
        if not any(_means(name, one.name) for one in found):
            known = ", ".join(one.name for one in found)
            raise UserError(f"there is no figure '{name}' in this run; there are {known}")
    return [one for one in found if any(_means(name, one.name) for name in only)]


def _means(name: str, figure: str) -> bool:
    return figure == name or figure.startswith((f"{name}_", f"{name}."))
