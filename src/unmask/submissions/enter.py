"""The submissions that a config names: checked before anything runs, and entered beside the run's own scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unmask.config import Config
from unmask.errors import UserError
from unmask.files import sha256
from unmask.layout import Layout
from unmask.submissions import card, task
from unmask.submissions.checks import problems
from unmask.submissions.scores import entered
from unmask.tables.read import read_scores

if TYPE_CHECKING:
    import pandas as pd


def settings(config: Config) -> list[list[str]]:
    """What the tables depend on: each table of scores and its card, by content."""
    return [[sha256(path), sha256(card.beside(path))] for path in config["submissions"]]


def check(config: Config) -> None:
    """Hold them to all that is known before a run; raises `UserError` for the first problem."""
    for path in config["submissions"]:
        _sound(path, problems(path, task.of_config(config))[2])


def enter(config: Config, own: pd.DataFrame) -> pd.DataFrame:
    """The scores of a run's own explainers, and those of the submissions after them.

    Raises `UserError` for a submission that does not fit the run.
    """
    import pandas as pd

    if not config["submissions"]:
        return own
    asked, parts = task.of_run(config, own), [own]
    for path in config["submissions"]:
        about, table, found = problems(path, asked)
        _sound(path, found)
        parts.append(entered(table, about, asked))
    return pd.concat(parts, ignore_index=True)


def own_scores(config: Config) -> pd.DataFrame | None:
    """The scores of the run's own explainers; None where the run has not scored all of them."""
    layout = Layout(config.results)
    paths = (layout.scores(model) / f"{group}.parquet" for model in config.models for group in config.groups)
    return read_scores(config, layout) if all(path.is_file() for path in paths) else None


def _sound(path: str | Path, found: list[str]) -> None:
    if found:
        raise UserError(f"submissions: {found[0]}{card.more(path, found)}")
