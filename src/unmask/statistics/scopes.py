"""Boards of any scope (a model, a domain, all of them), and the rankings in which they vote."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

from unmask.statistics.boards import Board, board
from unmask.statistics.ranking import Ranking
from unmask.statistics.votes import vote

if TYPE_CHECKING:
    from unmask.statistics.pools import Explainer, Pool

# What a board says of merit: passing a gate is none.
MERITS = (
    *("rank", "rank_low", "rank_high", "p_best", "tie_group"),
    *("rescaled", "rescaled_low", "rescaled_high"),
    *("versus_random", "beats", "controls_separated"),
)


class Scopes:
    """Makes boards, and gathers the ranking of each scope in `rankings`.

    Variants of a metric are shown beside it, and have no vote of their own; nor have the metrics in `gates`, which rank
    nobody.
    """

    def __init__(self, confidence: float, gates: Collection[str] = ()):
        self.confidence, self.gates = confidence, gates
        self.rankings: dict[Hashable, Ranking] = {}

    def board(self, scope: Hashable, metric: dict[str, str | None], pool: Pool, explainers: list[Explainer]) -> Board:
        """The board of a metric in a scope, whose ranking gets its vote."""
        made = board(pool, metric["direction"], self.confidence, explainers)
        if metric["metric"] in self.gates:
            nothing = dict.fromkeys(MERITS)
            return replace(made, rows=[{**row, **nothing} for row in made.rows])
        if not metric["variant"] and made.scored.any():
            ranking = self.rankings.setdefault(scope, Ranking())
            ranking.votes.append(vote(metric["category"], metric["metric"], made))
        return made
