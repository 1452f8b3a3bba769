"""The tables that are compared, and how they are read from a folder of results or of published tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.errors import UserError
from unmask.files import read_table
from unmask.layout import Layout

if TYPE_CHECKING:
    import pandas as pd

_METRIC = ("metric", "removal", "variant")


@dataclass(frozen=True)
class Board:
    """A table: rows are told apart by `keys`, ranked within `scope`; each of `values` has an interval of its own.

    `relative` values depend on who else is in the ranking, so they compare only where the entries are the same.
    """

    name: str
    scope: tuple[str, ...]
    values: tuple[str, ...]
    relative: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.scope, "explainer")


BOARDS = (
    Board("leaderboard", ("domain", "encoder", *_METRIC), ("mean",)),
    Board("by_domain", ("domain", *_METRIC), ("mean",)),
    Board("overall", _METRIC, ("mean",)),
    Board("ranking", ("scope", "domain", "encoder", "category"), ("mean_rank", "borda", "rescaled"), relative=True),
)
KEYS = ("scope", "domain", "encoder", "category", *_METRIC, "explainer")  # of all tables
OPTIONAL = ("borda", "rescaled")  # not in tables of early versions


def interval(value: str) -> tuple[str, str]:
    """The columns that hold a value's interval."""
    return ("low", "high") if value in ("mean", "mean_rank") else (f"{value}_low", f"{value}_high")


def tables_of(folder: Path) -> dict[str, Path]:
    """The compared tables that a folder has, by name; raises `UserError` where it has none.

    They lie in `6_leaderboards/`, or in the folder itself; published tables may be compressed (`.csv.gz`).
    """
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder; give a folder of results, such as results or results/reference")
    for place in (Layout(folder).leaderboards, folder):
        found = {
            board.name: path
            for board in BOARDS
            for path in (place / f"{board.name}.csv", place / f"{board.name}.csv.gz")
            if path.is_file()
        }
        if found:
            return found
    raise UserError(
        f"'{folder}' holds no leaderboards ({Layout(folder).leaderboards / 'leaderboard.csv'}); "
        f"run the benchmark, or `unmask aggregate`, first"
    )


def read(path: Path, board: Board) -> pd.DataFrame:
    """A table with its keys as text, "" where a row has none; raises `UserError` where it is no such table."""
    import pandas as pd

    table = read_table(path)
    needed = [*board.keys, "rank", "rank_low", "rank_high"]
    for value in board.values:
        if value not in OPTIONAL or value in table:
            needed += [value, *interval(value)]
    missing = [name for name in needed if name not in table]
    if missing:
        raise UserError(f"{path} is not a table `{board.name}` of this version: it lacks {', '.join(missing)}")
    numbers = [name for name in needed if name not in board.keys]
    words = [name for name in numbers if not pd.api.types.is_numeric_dtype(table[name])]
    if words:
        raise UserError(f"{path}: the column '{words[0]}' holds something that is not a number")
    keys = list(board.keys)
    table[keys] = table[keys].astype(object).where(table[keys].notna(), "").astype(str)
    double = table.duplicated(keys)
    if double.any():
        raise UserError(f"{path} has two rows for {' / '.join(filter(None, table.loc[double, keys].iloc[0]))}")
    return table
