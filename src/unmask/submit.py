"""`unmask submit`: the scores of an explainer of a run as a submission to the leaderboards of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.errors import UserError
from unmask.layout import Layout
from unmask.registry import suggest
from unmask.schema import problems
from unmask.submissions import card as cards
from unmask.submissions import checks, make
from unmask.submissions.summary import summary
from unmask.tables.entries import describe
from unmask.tables.read import read_maps

if TYPE_CHECKING:
    from unmask.submissions.task import Task

SAID = ("authors", "contact", "licence")  # what a run cannot know
KNOWN = ("summary", "citation")  # the plug-in says it, and the card may say it better


def run(config: Config, *, explainer: str, card: str, output: str) -> None:
    """Write the submission and say what is in it; raises `UserError` where the run or the card lacks something."""
    path = Path(output)
    if path.suffix != ".parquet":
        raise UserError(f"--output: '{path}' is not the name of a submission; let it end in .parquet")
    entries = [entry for group in config.groups.values() for entry in group]
    if explainer not in entries:
        raise UserError(f"--explainer: no group has '{explainer}'; {suggest(explainer, entries)}")
    if config.meta(explainer)["family"] == "control":
        raise UserError(f"--explainer: '{explainer}' is a control, which each run computes itself; submit another")
    said = _said(Path(card), path)
    scores, task = make.finished(config)
    about = make.described(task, explainer, {**_known(config, explainer), **said})
    make.write(path, scores[scores["explainer"] == explainer], about)
    found = _written(path, task)
    if found:
        raise UserError(f"--output: {found[0]}")


def _said(path: Path, output: Path) -> dict[str, Any]:
    """What the user's card says."""
    texts = {key: cards.SCHEMA["properties"][key] for key in (*SAID, *KNOWN)}
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": list(SAID),
        "properties": texts,
        "$defs": cards.SCHEMA["$defs"],
    }
    if path.resolve() == cards.beside(output).resolve():
        raise UserError(f"--card: '{path}' is where the submission's own card goes; give --output another name")
    data, found = cards.parse(path)
    found = found or [f"'{path}': {problem}" for problem in problems(data, schema, "card")]
    if found:
        raise UserError(f"--card: {found[0]}")
    return data


def _known(config: Config, explainer: str) -> dict[str, Any]:
    """What the plug-in says and what was measured of it."""
    described = describe(config, read_maps(config, Layout(config.results))).set_index("explainer")
    passes = described.loc[explainer, ["forward", "backward"]]
    keys = ("summary", "citation", "family", "class_specific", "signed", "resolution")
    return {
        **{key: config.meta(explainer)[key] for key in keys},
        "removal": config.explainer(explainer).removal,
        "passes": None if passes.isna().any() else passes.astype(float).to_dict(),
    }


def _written(path: Path, task: Task) -> list[str]:
    """What is wrong with the files; says what is in them where nothing is."""
    about, table, found = checks.problems(path, task)
    if not found:
        print(f"{path} and {cards.beside(path)} are written", *summary(about, table, task), sep="\n")
    return found
