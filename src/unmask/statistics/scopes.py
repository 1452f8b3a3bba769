"""The boards of a scope (a model, a domain, all of them), and the ranking in which they vote."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from unmask.statistics.boards import Board, board
from unmask.statistics.matched import Matched
from unmask.statistics.pools import Pool
from unmask.statistics.ranking import Ranking
from unmask.statistics.votes import vote

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.bootstrap import Draws
    from unmask.statistics.cells import Cell
    from unmask.statistics.pools import Explainer

Metric = dict[str, str | None]
MetricRanks = dict[tuple[str, str], "np.ndarray"]  # the ranks [E] under each metric of a category

# What a board says of merit: passing a gate is none.
MERITS = (
    *("rank", "rank_low", "rank_high", "p_best", "tie_group"),
    *("rescaled", "rescaled_low", "rescaled_high"),
    *("versus_random", "beats", "controls_separated"),
)


class Scope:
    """Makes the boards of a scope's explainers, and gathers their votes in `ranking`."""

    def __init__(self, explainers: list[Explainer], confidence: float, gates: Collection[str] = ()):
        self.explainers, self.confidence, self.gates = explainers, confidence, gates
        self.ranking = Ranking()

    def board(self, metric: Metric, pool: Pool) -> Board:
        """The board of a metric; the ranking gets its vote."""
        made = board(pool, metric["direction"], self.confidence, self.explainers)
        if metric["metric"] in self.gates:
            nothing = dict.fromkeys(MERITS)
            return replace(made, rows=[{**row, **nothing} for row in made.rows])
        if votes(metric, self.gates) and made.scored.any():
            self.ranking.votes.append(vote(metric["category"], metric["metric"], made))
        return made


def votes(metric: Metric, gates: Collection[str]) -> bool:
    """Whether a metric has a vote: variants are shown beside the metric itself, and gates rank nobody."""
    return not metric["variant"] and metric["metric"] not in gates


def ranks_by_model(
    metrics: Iterable[tuple[Metric, list[Cell]]],
    draws: dict[str, Draws],
    entries: Callable[[str, str], list[Explainer]],
    gates: Collection[str],
) -> list[MetricRanks]:
    """The explainers' ranks on each single model by the metrics that vote, removals averaged.

    `entries` gives the explainers of a domain and encoder. NaN for an explainer without a score under one of a metric's
    removals, and for an alias.
    """
    import numpy as np

    found: dict[tuple[str, str], dict[tuple[str, str], list[np.ndarray]]] = {}
    for metric, cells in metrics:
        for cell in cells if votes(metric, gates) else ():
            ranked = np.array([e.alias_of is None for e in entries(cell.domain, cell.encoder)])
            pool = Pool([cell], draws)
            scored = ranked & (pool.scores.n > 0)
            if scored.any():
                ranks = np.where(scored, Matched(pool, ranked).observed(metric["direction"]), np.nan)
                model = found.setdefault((cell.domain, cell.encoder), {})
                model.setdefault((metric["category"], metric["metric"]), []).append(ranks)
    return [{key: np.mean(ranks, axis=0) for key, ranks in model.items()} for model in found.values()]
