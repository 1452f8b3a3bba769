"""Leaderboards: sums of scores pooled over cells, turned into means, intervals, ranks and verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from unmask.statistics.bootstrap import Sums, interval, sums
from unmask.statistics.ranks import rank

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.cells import Cell


@dataclass(frozen=True)
class Explainer:
    """A row of the tables. An alias has the maps of another entry: it is shown, but not ranked twice."""

    name: str
    family: str
    is_control: bool
    is_oracle: bool
    alias_of: str | None = None


@dataclass(frozen=True)
class Pool:
    """Scores of one metric over one or more cells: of every explainer, and minus each control's on the same image."""

    scores: Sums
    against: dict[str, Sums]
    failed: np.ndarray
    skipped: np.ndarray
    _intervals: dict[tuple[str | None, float], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def interval(self, confidence: float, control: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The interval (low, high [E]) of the means, or of the differences to a control; several tables ask for it."""
        key = control, confidence
        if key not in self._intervals:
            self._intervals[key] = interval((self.against[control] if control else self.scores).means, confidence)
        return self._intervals[key]


def pool(cell: Cell, weights: np.ndarray, explainers: list[Explainer]) -> Pool:
    """One cell, resampled with the weights [B, U] of its domain's units."""
    against = {
        e.name: sums(weights, cell.values - cell.values[:, [i]]) for i, e in enumerate(explainers) if e.is_control
    }
    return Pool(sums(weights, cell.values), against, cell.failed, cell.skipped)


def join(pools: list[Pool], controls: list[str]) -> Pool:
    """Pool several cells, keeping the differences to `controls` only; every score counts the same."""

    def total(parts):
        return reduce(add, parts)

    return Pool(
        total(p.scores for p in pools),
        {name: total(p.against[name] for p in pools) for name in controls},
        total(p.failed for p in pools),
        total(p.skipped for p in pools),
    )


def null(explainers: list[Explainer]) -> str | None:
    """The control that stands for knowing nothing: `random_patch`, else the first random one, else None."""
    random = [e.name for e in explainers if e.is_control and e.name.startswith("random")]
    return "random_patch" if "random_patch" in random else next(iter(random), None)


def verdicts(pool: Pool, control: str, direction: str, confidence: float) -> list[str | None]:
    """Each explainer against a control: `better`, `worse` or `undecided`, by the interval of the paired difference.

    None where no image has both scores.
    """
    import numpy as np

    low, high = pool.interval(confidence, control)
    better, worse = (low > 0, high < 0) if direction == "higher" else (high < 0, low > 0)
    words = np.select([pool.against[control].n == 0, better, worse], ["", "better", "worse"], "undecided")
    return [word or None for word in words.tolist()]


def separates(pool: Pool, direction: str, confidence: float, explainers: list[Explainer]) -> bool | None:
    """Whether a metric tells controls apart: the oracle is better than the null control.

    Without an oracle's scores: whether any control differs from the null. None where there is nothing to compare.
    """
    reference = null(explainers)
    if reference is None:
        return None
    words = dict(zip((e.name for e in explainers), verdicts(pool, reference, direction, confidence), strict=True))
    oracles = [words[e.name] for e in explainers if e.is_oracle and words[e.name]]
    if oracles:
        return "better" in oracles
    others = [words[e.name] for e in explainers if e.is_control and e.name != reference and words[e.name]]
    return any(word != "undecided" for word in others) if others else None


@dataclass(frozen=True)
class Board:
    """One leaderboard: its rows, and what rankings are made of (ranks [E] and [B, E] without aliases)."""

    rows: list[dict[str, object]]
    ranks: np.ndarray
    resampled: np.ndarray
    scored: np.ndarray


def board(pool: Pool, direction: str, confidence: float, explainers: list[Explainer]) -> Board:
    """Means, intervals, ranks, counts; an explainer without any ok score has no rank and stands last."""
    import numpy as np

    mean, means, n = pool.scores.mean, pool.scores.means, pool.scores.n
    low, high = pool.interval(confidence)
    ranked = np.array([e.alias_of is None for e in explainers])
    ranks, resampled = np.full(len(explainers), np.nan), np.full(means.shape, np.nan)
    ranks[ranked], resampled[:, ranked] = rank(mean[ranked], direction), rank(means[:, ranked], direction)
    rank_low, rank_high = interval(resampled, confidence)
    reference = null(explainers)
    versus = verdicts(pool, reference, direction, confidence) if reference else [None] * len(explainers)
    flag = separates(pool, direction, confidence, explainers)
    rows = []
    for i, e in enumerate(explainers):
        shown = n[i] > 0 and ranked[i]
        if n[i] + pool.failed[i] + pool.skipped[i] == 0:
            continue
        rows.append(
            {
                "explainer": e.name,
                "family": e.family,
                "is_control": e.is_control,
                "mean": mean[i],
                "low": low[i],
                "high": high[i],
                "rank": ranks[i] if shown else np.nan,
                "rank_low": rank_low[i] if shown else np.nan,
                "rank_high": rank_high[i] if shown else np.nan,
                "n": int(n[i]),
                "failed": int(pool.failed[i]),
                "skipped": int(pool.skipped[i]),
                "versus_random": None if e.name == reference else versus[i],
                "controls_separated": flag,
                "alias_of": e.alias_of,
            }
        )
    rows.sort(key=lambda row: np.inf if np.isnan(row["rank"]) else row["rank"])
    return Board(rows, ranks, resampled, (n > 0) & ranked)
