"""What recomputed cells are held against: a run's own scores, image by image, or the means of published tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.comparison import boards
from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import read_arrays, read_table
from unmask.layout import Layout
from unmask.verification.workshop import Recomputed, Sampled

if TYPE_CHECKING:
    import pandas as pd

SAME, WITHIN, DIFFERS = "ok", "within", "DIFFERS"


@dataclass(frozen=True)
class Verdict:
    """On a cell: `SAME`, `WITHIN` (the published interval) or `DIFFERS`, under its name and with the numbers."""

    status: str
    name: str
    text: str


@dataclass
class Scores:
    """The scores in a results folder; a draw is a cell of a model."""

    config: Config
    folder: Path
    tolerance: float
    _tables: dict[ModelId, pd.DataFrame] = field(default_factory=dict)

    def cells(self) -> list[tuple[Sampled, ...]]:
        """Every cell that has a score, in config order."""
        found = []
        for model in self.config.models:
            table = self._table(model)
            scored = table.loc[table["status"] == "ok", ["explainer", "metric", "removal"]].drop_duplicates()
            found += [(Sampled(model, *row),) for row in _named(scored, self.config)]
        return found

    def judge(self, made: list[Recomputed]) -> Verdict:
        """Hold a draw's rows against the stored ones: every status, and every score up to the tolerance."""
        (one,) = made
        cell, table = one.cell, self._table(one.cell.model)
        removal = table["removal"].isna() if cell.removal is None else table["removal"] == cell.removal
        stored = table[(table["explainer"] == cell.explainer) & (table["metric"] == cell.metric) & removal]
        keys = ["image_id", "variant"]
        both = stored.merge(one.rows, on=keys, how="outer", suffixes=("_stored", "_now"))
        wrong = _wrong(both, self.tolerance)
        if not wrong.any():
            largest = (both["score_stored"] - both["score_now"]).abs().max()
            return Verdict(SAME, cell.name, f"{len(both)} scores, largest difference {largest:.2g}")
        off = (both["score_stored"] - both["score_now"]).abs().where(wrong).fillna(float("inf")).where(wrong, -1.0)
        worst = both.loc[off.idxmax()]
        was, now = (_outcome(worst, side) for side in ("stored", "now"))
        return Verdict(
            DIFFERS,
            cell.name,
            f"{int(wrong.sum())} of {len(both)} scores, most on {worst['image_id']}: stored {was}, now {now}; "
            + self._maps(one),
        )

    def _table(self, model: ModelId) -> pd.DataFrame:
        import pandas as pd

        if model not in self._tables:
            folder = Layout(self.folder).scores(model)
            parts = [read_table(folder / f"{group}.parquet") for group in self.config.groups]
            self._tables[model] = pd.concat(parts, ignore_index=True)
        return self._tables[model]

    def _maps(self, one: Recomputed) -> str:
        """Whether the maps are the stored ones, which says where to look."""
        import numpy as np

        path = Layout(self.folder).maps(one.cell.model) / f"{one.cell.explainer}.safetensors"
        try:
            stored = read_arrays(path)["maps"]
        except (UserError, KeyError):
            return "its maps are not stored"
        if one.maps is None or stored.shape != one.maps.shape:
            return "its maps differ, too"
        same = np.allclose(stored, one.maps, rtol=0, atol=self.tolerance * np.abs(stored).max(), equal_nan=True)
        return "its maps are the stored ones" if same else "its maps differ, too"


def _named(table: pd.DataFrame, config: Config) -> list[tuple[str, str, str | None]]:
    """(explainer, metric, removal) of the rows that the config still asks for."""
    entries = {entry for group in config.groups.values() for entry in group}
    asked = {(metric, removal) for metric in config["score"]["metrics"] for removal in _removals(config, metric)}
    rows = ((e, m, r if isinstance(r, str) and r else None) for e, m, r in table.itertuples(index=False, name=None))
    return [row for row in rows if row[0] in entries and row[1:] in asked]


def _removals(config: Config, metric: str) -> list[str | None]:
    return config["score"]["removals"] if "removal" in config.metric(metric).plugin.meta["needs"] else [None]


def _wrong(both: pd.DataFrame, tolerance: float) -> pd.Series:
    """Rows whose status differs, or whose score does by more than the tolerance allows.

    It is a share of the score, or of the cell's mean absolute score where that is larger.
    """
    allowed = tolerance * both["score_stored"].abs().clip(lower=both["score_stored"].abs().mean())
    off = (both["score_stored"] - both["score_now"]).abs() > allowed
    return (both["status_stored"] != both["status_now"]) | off


def _outcome(row: pd.Series, side: str) -> str:
    status = row[f"status_{side}"]
    if status == "ok":
        return f"{row[f'score_{side}']:.6g}"
    return f"{status} ({row[f'reason_{side}']})" if isinstance(status, str) else "nothing"


class Published:
    """The means of a published table; a draw is one of its rows, that is a cell of every model that the row pools.

    `leaderboard` pools the seeds of a model, `by_domain` the encoders, too; every score has the same weight.
    """

    def __init__(self, config: Config, name: str, path: Path, tolerance: float):
        self.config, self.path, self.tolerance = config, path, tolerance
        board = next(board for board in boards.BOARDS if board.name == name)
        table = boards.read(path, board)
        self._rows = table[table["mean"].notna() & (table["variant"] == "")]
        self._pools = [key for key in ("domain", "encoder") if key in board.keys]

    def cells(self) -> list[tuple[Sampled, ...]]:
        """Every row that the config asks for, too, as the cells of its models."""
        found = []
        for keys, part in self._rows.groupby(self._pools, sort=False):
            models = [one for one in self.config.models if tuple(getattr(one, key) for key in self._pools) == keys]
            rows = _named(part[["explainer", "metric", "removal"]], self.config) if models else []
            found += [tuple(Sampled(model, *row) for model in models) for row in rows]
        if not found:
            raise UserError(f"{self.path} has no cell of this config; give the config that was published")
        return found

    def judge(self, made: list[Recomputed]) -> Verdict:
        """Hold the mean of a row's recomputed scores against the published one and its interval."""
        import pandas as pd

        cell = made[0].cell
        row = self._row(cell)
        scores = pd.concat([one.rows for one in made])
        mean = scores.loc[scores["status"] == "ok", "score"].mean()
        known = f"published {row['mean']:.6g} [{row['low']:.4g}, {row['high']:.4g}], now {mean:.6g}"
        if abs(mean - row["mean"]) <= self.tolerance * self._scale(row):
            status = SAME
        else:
            status = WITHIN if row["low"] <= mean <= row["high"] else DIFFERS
        where = "/".join(getattr(cell.model, key) for key in self._pools)
        where += f" ({len(made)} models)" if len(made) > 1 else ""
        return Verdict(status, f"{where}  {cell.explainer}  {cell.asked}", known)

    def _row(self, cell: Sampled) -> pd.Series:
        keys = {key: getattr(cell.model, key) for key in self._pools}
        keys |= {"metric": cell.metric, "removal": cell.removal or "", "explainer": cell.explainer}
        chosen = self._rows
        for key, value in keys.items():
            chosen = chosen[chosen[key] == value]
        return chosen.iloc[0]

    def _scale(self, row: pd.Series) -> float:
        """The metric's largest mean: what a tolerance is a share of, as in a comparison of leaderboards."""
        alike = self._rows[(self._rows["metric"] == row["metric"]) & (self._rows["removal"] == row["removal"])]
        return float(alike["mean"].abs().max())
