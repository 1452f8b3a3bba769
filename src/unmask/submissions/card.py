"""The card of a submission: who made the explainer, what it is, and on which weights, data and options it was scored.

A submission is two files, `<name>.parquet` with the scores and `<name>.json` with the card.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.schema import problems

SCHEMA = json.loads(Path(__file__).parents[1].joinpath("submission.schema.json").read_text(encoding="utf-8"))
FORMAT = "unmask submission 1"


@dataclass(frozen=True)
class Card:
    """A card that keeps its schema; `path` is the submission's table of scores."""

    path: Path
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """The explainer's name in every table."""
        return self.data["explainer"]

    @property
    def meta(self) -> dict[str, Any]:
        """What the META of a plug-in would say."""
        keys = ("summary", "family", "class_specific", "signed", "resolution", "citation")
        return {key: self.data[key] for key in keys}

    @property
    def passes(self) -> dict[str, float]:
        """Forward and backward passes per image as the card says; empty where it does not."""
        return self.data["passes"] or {}


def beside(path: str | Path) -> Path:
    """Where the card of a table of scores lies."""
    return Path(path).with_suffix(".json")


def load(path: str | Path) -> tuple[Card | None, list[str]]:
    """The card of a submission, or None and all that is wrong with it, each a sentence."""
    path, where = Path(path), beside(path)
    if path.suffix != ".parquet":
        return None, [f"'{path}' is not the name of a submission; give its .parquet file, beside which its card lies"]
    if not path.is_file():
        return None, [f"'{path}' does not exist; give the .parquet file of a submission"]
    data, found = parse(where)
    found = found or [f"{where}: {problem}" for problem in problems(data, SCHEMA, "card")]
    return (None, found) if found else (Card(path, data), [])


def parse(path: Path) -> tuple[Any, list[str]]:
    """What a JSON file holds, or None and why it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse), []
    except FileNotFoundError:
        return None, [f"'{path}' does not exist; give the card of a submission, a JSON file"]
    except (OSError, ValueError, RecursionError) as error:
        return None, [f"'{path}' is not valid JSON ({' '.join(str(error).split())})"]


def read(path: str | Path, where: str) -> Card:
    """The card of a submission; raises `UserError`, beginning with `where`, for the first of its problems."""
    card, found = load(path)
    if card is None:
        raise UserError(f"{where}: {found[0]}{more(path, found)}")
    return card


def more(path: str | Path, found: list[str]) -> str:
    """Where to read the other problems of a submission of which a sentence names the first."""
    others = len(found) - 1
    return f" (and {others} more: `unmask submit-check {path}`)" if others else ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
