"""`unmask compare FIRST SECOND`: two leaderboards side by side, for readers and for continuous integration.

Exit code 0 where no cell differs beyond tolerance, 1 where one does, 2 where there is nothing to compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.comparison import boards, runs, words
from unmask.comparison.differences import RANK, VALUE, Compared, compare
from unmask.errors import UserError
from unmask.files import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _Side:
    """A folder, where its tables lie, and those that both sides have."""

    name: str
    folder: Path
    paths: dict[str, Path]
    tables: dict[str, pd.DataFrame]

    def beside(self, table: str) -> pd.DataFrame | None:
        """Another table of the same folder, None where there is none."""
        path = next(iter(self.paths.values())).with_name(f"{table}.csv")
        return read_table(path) if path.is_file() else None


def run(
    first: str, second: str, *, tolerance: float = 1e-5, allow: float = 0.0, exact: bool = False, csv: str | None = None
) -> int:
    """Print the comparison, write every difference to `csv`; returns the exit code.

    tolerance  numbers closer than this share of their metric's largest are equal
    allow      share of the numbers, and of the ranks, that may lie beyond their intervals
    exact      any difference beyond `tolerance` counts, also within the intervals
    """
    import pandas as pd

    for name, value in (("--tolerance", tolerance), ("--allow", allow)):
        if not 0 <= value < 1:
            raise UserError(f"{name}: {value:g} is not a share; give 0 or more and less than 1")
    sides = _sides(first, second)
    made = _made(sides)
    compared = {
        board.name: compare(board, *(side.tables[board.name] for side in sides), tolerance)
        for board in boards.BOARDS
        if board.name in sides[0].tables
    }
    rows = pd.concat([one.rows for one in compared.values()], ignore_index=True)
    against = rows if exact else _beyond_allowance(rows[rows["beyond"].astype(bool)], compared, allow)
    if csv is not None:
        _write(csv, rows)
    _print_verdict(rows, against, compared, exact)
    for side in sides:
        print(f"  {side.name:<12}{side.folder}")
    for topic, text in made.items():
        print(f"  {topic:<12}{text}")
    for line in words.blocks(against, _present(sides), exact):
        print(line)
    if rest := words.within(rows.drop(against.index)):
        print(f"\nAlso: {rest}")
    _print_conclusions(sides)
    _print_tables(sides, compared)
    return 1 if len(against) else 0


def _write(path: str, rows: pd.DataFrame) -> None:
    try:
        write_table(path, rows)
    except OSError as error:
        raise UserError(f"--csv: '{path}' cannot be written ({error.strerror}); give another file") from None


def _sides(first: str, second: str) -> list[_Side]:
    """Both folders with the tables that they share; raises `UserError` where there are none."""
    folders = [Path(first), Path(second)]
    paths = [boards.tables_of(folder) for folder in folders]
    shared = [board for board in boards.BOARDS if all(board.name in found for found in paths)]
    if not shared:
        raise UserError(
            f"'{first}' and '{second}' have no table in common: {', '.join(paths[0])} and {', '.join(paths[1])}"
        )
    return [
        _Side(name, folder, found, {board.name: boards.read(found[board.name], board) for board in shared})
        for name, folder, found in zip(("first", "second"), folders, paths, strict=True)
    ]


def _beyond_allowance(against: pd.DataFrame, compared: dict[str, Compared], allow: float) -> pd.DataFrame:
    """Without numbers or ranks of which no more than `allow` lie beyond their intervals."""
    totals = {VALUE: sum(one.values for one in compared.values()), RANK: sum(one.ranks for one in compared.values())}
    for kind, total in totals.items():
        if (against["kind"] == kind).sum() <= allow * total:
            against = against[against["kind"] != kind]
    return against


def _present(sides: list[_Side]) -> dict[str, dict[str, set[str]]]:
    """By table and key, the values that both sides have."""
    return {
        board.name: {
            key: set.intersection(*(set(side.tables[board.name][key]) for side in sides)) for key in board.keys
        }
        for board in boards.BOARDS
        if board.name in sides[0].tables
    }


def _print_verdict(rows: pd.DataFrame, against: pd.DataFrame, compared: dict[str, Compared], exact: bool) -> None:
    cells = sum(one.cells for one in compared.values())
    if len(against):
        print(f"DIFFERENT: {words.counted(against, exact)} ({cells} cells compared)")
    elif len(rows):
        print(f"WITHIN TOLERANCE: of {cells} cells {words.within(rows)}")
    else:
        print(f"THE SAME: all {cells} cells are equal")


def _made(sides: list[_Side]) -> dict[str, str]:
    """What made the two, from their manifests."""
    manifests = [runs.read(side.folder) for side in sides]
    lines = {}
    for side, found in zip(sides, manifests, strict=True):
        if found is not None and (wrong := runs.stale(side.folder, found, list(side.paths.values()))):
            lines[f"! {side.name}"] = f"its manifest is not of these tables: {', '.join(wrong)}"
    without = [side.name for side, found in zip(sides, manifests, strict=True) if found is None]
    if without:
        which = "neither has one" if len(without) == 2 else f"the {without[0]} has none"
        return {**lines, "manifest": f"{which}, so configs, code and environments are not compared"}
    return {**lines, **runs.differences(*manifests)}


def _print_conclusions(sides: list[_Side]) -> None:
    lines = []
    if "ranking" in sides[0].tables:
        lines = list(words.leaders(*(side.tables["ranking"] for side in sides)))
    if lines:
        print("\nLeaders over all categories")
        print("\n".join(f"  {line}" for line in lines))
    tables = [side.beside("hypotheses") for side in sides]
    if all(table is not None for table in tables):
        print(f"\nHypotheses: {words.hypotheses(*tables)}")


def _print_tables(sides: list[_Side], compared: dict[str, Compared]) -> None:
    print("\nTables")
    for name, one in compared.items():
        other = f", {one.other_entries} rankings of other entries not compared" if one.other_entries else ""
        print(f"  {name:<12}{one.equal} of {one.cells} cells equal, {one.ranks} ranks compared{other}")
    for side in sides:
        for table in side.paths:
            if table not in compared:
                print(f"  {table:<12}only in the {side.name}: not compared")
