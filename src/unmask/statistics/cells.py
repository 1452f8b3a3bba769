"""The long table of scores as dense arrays: one cell per domain, encoder and metric, images x explainers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.errors import UserError
from unmask.seeds import numpy_generator
from unmask.statistics.bootstrap import Draws, counts
from unmask.statistics.pairs import signs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

METRIC = ["metric", "removal", "variant", "category", "direction"]


@dataclass(frozen=True)
class Cell:
    """A model family's scores under one metric: `values` [U, E] (NaN unless ok), `failed` bool [U, E]; `skipped` [E]
    says how many scores are not there because an explainer or a metric does not apply."""

    domain: str
    encoder: str
    values: np.ndarray
    failed: np.ndarray
    skipped: np.ndarray


class Table:
    """The scores, coded by units: a unit is a test image under one pair of seeds, numbered within its domain."""

    def __init__(self, scores: pd.DataFrame, explainers: list[str], seed: int, resamples: int):
        """`scores` is the long table; `explainers` gives the columns' order; `seed` and `resamples` the bootstrap's."""
        import numpy as np
        import pandas as pd

        self.scores, self.explainers = scores, explainers
        self._seed, self._resamples = seed, resamples
        self._columns = pd.Index(explainers).get_indexer(scores["explainer"])
        self._scores, self._status = scores["score"].to_numpy(np.float64), scores["status"].to_numpy(object)
        models = scores[["domain", "encoder"]]
        self._models = list(models.drop_duplicates().itertuples(index=False, name=None))
        self._model = models.groupby(["domain", "encoder"], sort=False).ngroup().to_numpy()  # numbered as they appear
        self.units, self.draws = self._code_units()

    def _code_units(self) -> tuple[np.ndarray, dict[str, Draws]]:
        """The unit of every row, and the resampling of every domain."""
        import numpy as np
        import pandas as pd

        scores = self.scores
        pairs, names = pd.factorize(
            scores["pretrain_seed"] * (scores["finetune_seed"].max() + 1) + scores["finetune_seed"], sort=True
        )
        # With one pair of seeds there is nothing to draw, and the weight is 1.
        seeds = counts(numpy_generator(self._seed, "aggregate", "seeds"), len(names), self._resamples)
        every, _ = pd.factorize(scores["image_id"].astype(str), sort=True)
        units, draws = np.zeros(len(scores), np.int64), {}
        for domain, rows in scores.groupby("domain", sort=False).indices.items():
            images, ids = pd.factorize(every[rows], sort=True)
            units[rows], unit = pd.factorize(pairs[rows] * len(ids) + images, sort=True)
            drawn = counts(numpy_generator(self._seed, "aggregate", "images", domain), len(ids), self._resamples)
            image = unit % len(ids)
            draws[domain] = Draws(
                seeds[:, unit // len(ids)] * drawn[:, image],
                image,
                signs(numpy_generator(self._seed, "aggregate", "signs", domain), len(ids), self._resamples),
            )
        return units, draws

    def metrics(self) -> Iterator[tuple[dict[str, str | None], list[Cell]]]:
        """Each metric x removal x variant in the table's order: its keys, and its cells in the table's order."""
        for keys, rows in self.scores.groupby(METRIC, sort=False, dropna=False).indices.items():
            named = {
                name: (value if isinstance(value, str) and value else None)
                for name, value in zip(METRIC, keys, strict=True)
            }
            yield named, self._cells(rows, named)

    def _cells(self, rows: np.ndarray, metric: dict[str, str | None]) -> list[Cell]:
        import numpy as np

        cells = []
        for number in dict.fromkeys(self._model[rows].tolist()):
            (domain, encoder), inside = self._models[number], rows[self._model[rows] == number]
            unit, column, status = self.units[inside], self._columns[inside], self._status[inside]
            shape = (len(self.draws[domain].image), len(self.explainers))
            taken = np.zeros(shape, np.int64)
            np.add.at(taken, (unit, column), 1)
            if taken.max() > 1:
                raise UserError(
                    f"the scores of {domain}/{encoder} hold an image twice for the explainer "
                    f"'{self.explainers[int(taken.max(0).argmax())]}' and the metric '{metric['metric']}'; "
                    "delete them and run the stage score again"
                )
            values = np.full(shape, np.nan)
            values[unit, column] = np.where(status == "ok", self._scores[inside], np.nan)
            failed = np.zeros(shape, bool)
            failed[unit, column] = status == "failed"
            skipped = np.bincount(column[status == "skipped"], minlength=shape[1])
            cells.append(Cell(domain, encoder, values, failed, skipped))
        return cells
