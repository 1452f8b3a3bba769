"""The two files of a submission, as far as a run can fill them in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import __version__
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import write_json, write_table
from unmask.submissions import card
from unmask.submissions.enter import own_scores
from unmask.submissions.scores import OPTIONAL, REQUIRED
from unmask.submissions.task import Task, of_run

if TYPE_CHECKING:
    import pandas as pd


def finished(config: Config) -> tuple[pd.DataFrame, Task]:
    """The scores of a run's own explainers, and what it asks of others; raises `UserError` where it lacks any."""
    scores = own_scores(config)
    if scores is None:
        raise UserError(f"results: '{config.results}' lacks scores of this config; run `snakemake scores` first")
    task = of_run(config, scores)
    lacking = [name for known in (task.models, task.data) for name, sha256 in known.items() if sha256 is None]
    if lacking:
        raise UserError(f"results: '{config.results}' does not say what '{lacking[0]}' was; run the benchmark again")
    return scores, task


def described(task: Task, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """A card in the order of its schema: what is said `about` the explainer, and what the run knows."""
    known = {
        "format": card.FORMAT,
        "explainer": name,
        "unmask": __version__,
        "models": task.models,
        "data": task.data,
        "metrics": {metric: one["options"] for metric, one in task.metrics.items()},
    }
    return {key: {**about, **known}.get(key) for key in card.SCHEMA["properties"]}


def write(path: Path, table: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write both files."""
    columns = [name for name in (*REQUIRED, *OPTIONAL) if name in table]
    write_table(path, table[columns].reset_index(drop=True))
    write_json(card.beside(path), about)
