"""Leaderboards: means, intervals, ranks, tie groups and what stands against the controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.statistics.bootstrap import interval
from unmask.statistics.matched import Matched
from unmask.statistics.pairs import tie_groups
from unmask.statistics.pools import null
from unmask.statistics.ranks import best_shares
from unmask.statistics.scale import Scale
from unmask.statistics.verdicts import Verdicts

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.matched import Values
    from unmask.statistics.pools import Explainer, Pool


@dataclass(frozen=True)
class Board:
    """One leaderboard: its rows, verdicts and scale, and for the rankings who is compared (also without scores) and who
    is both compared and scored (bool [E]), and the ranks."""

    rows: list[dict[str, object]]
    verdicts: Verdicts
    scale: Scale
    matched: Matched
    ranks: Values
    scored: np.ndarray


def board(pool: Pool, direction: str, confidence: float, explainers: list[Explainer]) -> Board:
    """Rows from best to worst; an explainer without any ok score has no rank and stands last.

    Ranks compare two explainers at a time, on the scores that both have (`unmask.statistics.matched`); where one has
    none on a whole model, `lacks` names the model.
    `p_best` and `tie_group` are the explainers': the controls are what they are measured with, and have neither.
    """
    import numpy as np

    verdicts = Verdicts(pool, direction, confidence, explainers)
    mean, n = pool.scores.mean, pool.scores.n
    low, high = pool.interval(confidence)
    ranked = np.array([e.alias_of is None for e in explainers])
    control = np.array([e.is_control for e in explainers])
    matched = Matched(pool, ranked)
    ranks, resampled = matched.ranks(direction)
    shown = ranked & (n > 0)
    rank_low, rank_high = interval(resampled, confidence, pool.scores.images, pool.scores.domains, "inverted_cdf")
    best = best_shares(resampled, shown & ~control)
    order = sorted(np.flatnonzero(shown & ~control), key=lambda i: ranks[i])
    groups = tie_groups(order, lambda leader, others: verdicts.compare(leader, others) == -1)
    reference = null(explainers)
    versus = [None] * len(explainers) if reference is None else verdicts.words(reference)
    beaten = beats(verdicts)
    scale = Scale(verdicts)
    place, place_low, place_high = scale.places
    rows = [
        {
            "explainer": e.name,
            "family": e.family,
            "is_control": e.is_control,
            "mean": mean[i],
            "low": low[i],
            "high": high[i],
            "rank": ranks[i] if shown[i] else np.nan,
            "rank_low": rank_low[i] if shown[i] else np.nan,
            "rank_high": rank_high[i] if shown[i] else np.nan,
            "p_best": best[i],
            "tie_group": groups.get(i),
            "rescaled": place[i],
            "rescaled_low": place_low[i],
            "rescaled_high": place_high[i],
            "n": int(n[i]),
            "failed": int(pool.failed[i]),
            "skipped": int(pool.skipped[i]),
            "versus_random": None if i == reference else versus[i],
            "beats": beaten[i],
            "controls_separated": verdicts.controls_separated,
            "lacks": (pool.lacking[i] if n[i] else None) or None,
            "alias_of": e.alias_of,
        }
        for i, e in enumerate(explainers)
        if n[i] + pool.failed[i] + pool.skipped[i]
    ]
    rows.sort(key=lambda row: np.inf if np.isnan(row["rank"]) else row["rank"])
    return Board(rows, verdicts, scale, matched, (ranks, resampled), shown)


def beats(verdicts: Verdicts) -> list[str | None]:
    """The controls that each explainer is shown better than, joined by spaces; `none` for none, None where untested."""
    words = {e.name: verdicts.words(i) for i, e in enumerate(verdicts.explainers) if e.is_control}
    return [
        None
        if e.is_control or not any(against[i] for against in words.values())
        else " ".join(name for name, against in words.items() if against[i] == "better") or "none"
        for i, e in enumerate(verdicts.explainers)
    ]
