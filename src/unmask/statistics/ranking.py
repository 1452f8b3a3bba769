"""Ranking across metrics: mean ranks, with equal weights level by level.

The ranks of a metric's removals are averaged first, then the metrics of a category, then the categories: neither a
metric with many removals nor a crowded category outvotes the others, and scores of different scale or direction
are never averaged. An explainer without a score under a metric counts as last there (shared by all such), so failing
never helps; `missing` says how often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.statistics.bootstrap import interval
from unmask.statistics.ranks import rank

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.boards import Board, Explainer


class Ranking:
    """Gathers the boards of one scope (a model, a domain, all) metric by metric."""

    def __init__(self) -> None:
        self._metrics: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
        self._scored: list[tuple[str, np.ndarray]] = []

    def add(self, category: str, metric: str, board: Board) -> None:
        """Add a metric under one removal; a board on which nothing was scored is left out."""
        if not board.scored.any():
            return
        sums = self._metrics.setdefault((category, metric), [])
        sums.append((board.ranks, board.resampled.astype("float32")))
        self._scored.append((category, board.scored))

    def rows(self, explainers: list[Explainer], confidence: float) -> list[dict[str, object]]:
        """Rows per category and for `all`, best first."""
        import numpy as np

        categories: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for (category, _), boards in self._metrics.items():
            categories.setdefault(category, []).append(_average(boards))
        levels = {category: _average(metrics) for category, metrics in categories.items()}
        if levels:
            levels["all"] = _average(list(levels.values()))
        rows = []
        for category, (mean, means) in levels.items():
            scored = np.array([s for c, s in self._scored if category in (c, "all")])
            some = scored.any(0)
            ranks, resampled = np.full(len(mean), np.nan), np.full(means.shape, np.nan)
            ranks[some], resampled[:, some] = rank(mean[some], "lower"), rank(means[:, some], "lower")
            low, high = interval(means, confidence)
            rank_low, rank_high = interval(resampled, confidence)
            part = [
                {
                    "category": category,
                    "explainer": e.name,
                    "family": e.family,
                    "is_control": e.is_control,
                    "mean_rank": mean[i],
                    "low": low[i],
                    "high": high[i],
                    "rank": ranks[i],
                    "rank_low": rank_low[i],
                    "rank_high": rank_high[i],
                    "scored": int(scored[:, i].sum()),
                    "missing": int((~scored[:, i]).sum()),
                }
                for i, e in enumerate(explainers)
                if some[i]
            ]
            rows.extend(sorted(part, key=lambda row: row["rank"]))
        return rows


def _average(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    return np.mean([mean for mean, _ in parts], axis=0), np.mean(
        [means for _, means in parts], axis=0, dtype=np.float64
    )
