"""What differs between two tables of one kind, cell by cell, as rows of one long table.

Two means differ where the interval of their difference leaves out 0. That interval is recovered from the two intervals
(MOVER; Zou & Donner 2008, Statistics in Medicine 27): the difference is held against the root of the sum of the squares
of the two half-widths that face each other. It holds for independent runs; two on the same images lie closer, and are
told apart more rarely. Ranks differ where each lies outside the other's interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.comparison.boards import KEYS, Board, interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = [
    "table",
    "kind",
    *KEYS,
    "quantity",
    *("first", "first_low", "first_high"),
    *("second", "second_low", "second_high"),
    "difference",
    "excess",
    "beyond",
    "detail",
]
MISSING = "missing"  # kinds of differences
DIRECTION = "direction"
UNSCORED = "unscored"
FAILED = "failed"
VERDICT = "verdict"
VALUE = "value"
RANK = "rank"
COUNT = "count"
_VERDICTS = {"better": 1, "worse": -1}


@dataclass(frozen=True)
class Compared:
    """The differences of a table, a row each (columns `COLUMNS`), and how much was compared.

    cells          rows that both tables have and that compare; `equal` of them differ in nothing
    values, ranks  numbers with an interval, and ranks, that both have
    other_entries  rankings whose entries are not the same in both, which are not compared
    """

    rows: pd.DataFrame
    cells: int
    equal: int
    values: int
    ranks: int
    other_entries: int


def compare(board: Board, first: pd.DataFrame, second: pd.DataFrame, tolerance: float) -> Compared:
    """Compare two tables; numbers closer than `tolerance` times their metric's largest are equal."""
    import numpy as np
    import pandas as pd

    keys = list(board.keys)
    both = first.merge(second, on=keys, how="outer", suffixes=("_1", "_2"), indicator="_side", sort=False)
    both = _in_order(both, first, second, keys)
    parts = []
    for side, where in (("left_only", "second"), ("right_only", "first")):
        lost = both[both["_side"] == side]
        parts.append(_rows(board, MISSING, lost, beyond=True, detail=f"not in the {where}"))
    both = both[both["_side"] == "both"].reset_index(drop=True)
    turned = _turned(both)
    alike, ranked, other_entries = _comparable(board, both, first, second)
    parts.append(_turned_rows(board, both[turned]))
    differs = np.zeros(len(both), bool)
    scored, values = np.ones(len(both), bool), 0
    for value in board.values:
        if f"{value}_1" not in both:
            continue
        has = both[f"{value}_1"].notna().to_numpy(), both[f"{value}_2"].notna().to_numpy()
        for where, lost in (("second", has[0] & ~has[1]), ("first", has[1] & ~has[0])):
            scored &= ~lost
            differs |= lost
            parts.append(_rows(board, UNSCORED, both[lost], value, beyond=True, detail=f"no score in the {where}"))
        chosen = has[0] & has[1] & (alike if board.relative else True)
        values += int(chosen.sum())
        found = _values(board, both[chosen], value, tolerance)
        differs[found.index] = True
        parts.append(found)
    ranked &= scored & ~turned
    ranks = _ranks(board, both[ranked])
    differs[ranks.index] = True
    parts.append(ranks)
    for found in (_counts(board, both), _verdicts(board, both)):
        differs[found.index] = True
        parts.append(found)
    whole = pd.concat([part for part in parts if len(part)] or [_empty()], ignore_index=True)[COLUMNS]
    held = alike if board.relative else np.ones(len(both), bool)
    return Compared(whole, int(held.sum()), int((held & ~differs).sum()), values, int(ranked.sum()), other_entries)


def _in_order(both: pd.DataFrame, first: pd.DataFrame, second: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows in the first table's order, then those of the second alone in its order."""
    places = {key: i for i, key in enumerate(map(tuple, first[keys].to_numpy()))}
    for key in map(tuple, second[keys].to_numpy()):
        places.setdefault(key, len(places))
    order = [places[key] for key in map(tuple, both[keys].to_numpy())]
    return both.assign(_place=order).sort_values("_place", kind="stable").drop(columns="_place").reset_index(drop=True)


def _turned(both: pd.DataFrame) -> np.ndarray:
    """Whether a row's metric has another direction, bool [rows]."""
    import numpy as np

    if "direction_1" not in both:
        return np.zeros(len(both), bool)
    return (both["direction_1"].astype(str) != both["direction_2"].astype(str)).to_numpy()


def _turned_rows(board: Board, both: pd.DataFrame) -> pd.DataFrame:
    """A row per metric, not per cell."""
    once = both.drop_duplicates([name for name in ("metric", "removal", "variant") if name in both])
    detail = [f"{a} is better in the first, {b} in the second" for a, b in _pairs(once, "direction")]
    return _rows(board, DIRECTION, once, beyond=True, detail=detail).assign(explainer="", domain="", encoder="")


def _pairs(both: pd.DataFrame, name: str) -> list[tuple]:
    return list(zip(both.get(f"{name}_1", []), both.get(f"{name}_2", []), strict=True))


def _values(board: Board, both: pd.DataFrame, value: str, tolerance: float) -> pd.DataFrame:
    import numpy as np

    one, other = both[f"{value}_1"].to_numpy(float), both[f"{value}_2"].to_numpy(float)
    low, high = interval(value)
    largest = both[[f"{value}_1", f"{value}_2"]].abs().max(axis=1)
    metric = [name for name in board.scope if name in ("metric", "removal", "variant", "category")]
    scale = largest.groupby([both[name] for name in metric]).transform("max").to_numpy()
    difference = other - one
    differs = np.abs(difference) > tolerance * scale
    rows = _rows(board, VALUE, both, value).assign(
        first=one,
        first_low=both[f"{low}_1"],
        first_high=both[f"{high}_1"],
        second=other,
        second_low=both[f"{low}_2"],
        second_high=both[f"{high}_2"],
        difference=difference,
    )[differs]
    rows["excess"] = _excess(rows)
    return rows.assign(beyond=rows["excess"] > 1)


def _excess(rows: pd.DataFrame) -> np.ndarray:
    """The difference in units of what the two intervals allow; a number without one allows nothing."""
    import numpy as np

    up = rows["difference"] > 0
    first = np.where(up, rows["first_high"] - rows["first"], rows["first"] - rows["first_low"])
    second = np.where(up, rows["second"] - rows["second_low"], rows["second_high"] - rows["second"])
    allowed = np.sqrt(np.nan_to_num(first) ** 2 + np.nan_to_num(second) ** 2)
    with np.errstate(divide="ignore"):
        return rows["difference"].abs().to_numpy() / allowed


def _comparable(
    board: Board, both: pd.DataFrame, first: pd.DataFrame, second: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, int]:
    """Which rows stand in rankings of the same entries, and which of them are ranked, bool [rows]; how many do not."""
    import numpy as np

    scope = list(board.scope)
    ranked = [table[table["rank"].notna()].groupby(scope)["explainer"].agg(frozenset) for table in (first, second)]
    shared = ranked[0].index.intersection(ranked[1].index)
    same = {key for key in shared if ranked[0][key] == ranked[1][key]}
    fits = np.array([tuple(row) in same for row in both[scope].to_numpy()], bool)
    known = both["rank_1"].notna().to_numpy() & both["rank_2"].notna().to_numpy()
    return fits, fits & known, len(shared) - len(same)


def _ranks(board: Board, both: pd.DataFrame) -> pd.DataFrame:
    rows = _rows(board, RANK, both, "rank")
    for side, name in (("_1", "first"), ("_2", "second")):
        rows[name] = both[f"rank{side}"]
        rows[f"{name}_low"] = both[f"rank_low{side}"].fillna(both[f"rank{side}"])
        rows[f"{name}_high"] = both[f"rank_high{side}"].fillna(both[f"rank{side}"])
    rows["difference"] = rows["second"] - rows["first"]
    outside = (
        ~rows["second"].between(rows["first_low"], rows["first_high"])
        & ~rows["first"].between(rows["second_low"], rows["second_high"])
        & (rows["difference"].abs() >= 1)  # less is a tie that rounding broke
    )
    return rows.assign(beyond=outside)[rows["difference"] != 0]


def _counts(board: Board, both: pd.DataFrame) -> pd.DataFrame:
    """Numbers of images: scores that failed count against a run, those skipped or not asked for are told."""
    import pandas as pd

    parts = []
    for name, kind in (("failed", FAILED), ("n", COUNT), ("skipped", COUNT)):
        if f"{name}_1" not in both or f"{name}_2" not in both:
            continue
        rows = _rows(board, kind, both, name, beyond=kind == FAILED)
        rows = rows.assign(first=both[f"{name}_1"], second=both[f"{name}_2"])
        rows["difference"] = rows["second"] - rows["first"]
        parts.append(rows[rows["difference"] != 0])
    return pd.concat(parts) if parts else _empty()


def _verdicts(board: Board, both: pd.DataFrame) -> pd.DataFrame:
    """Verdicts against the null control; one that turned into its opposite contradicts the other run."""
    import pandas as pd

    name = "versus_random"
    if f"{name}_1" not in both or f"{name}_2" not in both:
        return _empty()
    one, other = (both[f"{name}{side}"].fillna("none").astype(str) for side in ("_1", "_2"))
    opposite = one.map(_VERDICTS).fillna(0) * other.map(_VERDICTS).fillna(0) < 0
    detail = pd.Series([f"{a} -> {b}" for a, b in zip(one, other, strict=True)], both.index, dtype=object)
    return _rows(board, VERDICT, both, name, beyond=opposite, detail=detail)[one != other]


def _rows(board: Board, kind: str, both: pd.DataFrame, quantity: str = "", **columns) -> pd.DataFrame:
    """Rows of the long table for the rows of a joined one, with its index."""
    import numpy as np
    import pandas as pd

    rows = pd.DataFrame(index=both.index)
    for name in COLUMNS:
        rows[name] = both[name] if name in board.keys else np.nan if name.startswith(("first", "second")) else ""
    rows = rows.assign(table=board.name, kind=kind, quantity=quantity, difference=np.nan, excess=np.nan, beyond=False)
    return rows.assign(**columns)


def _empty() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=COLUMNS)
