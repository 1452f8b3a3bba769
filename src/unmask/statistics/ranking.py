"""Ranking across metrics by three rules side by side, with equal weights level by level.

The votes of a metric's removals are averaged first, then the metrics of a cluster (metrics that rank alike), then the
clusters of a category, then the categories: neither a metric with many removals nor many metrics that say the same nor
a crowded category outvotes the others, and scores of different scale or direction are never averaged. The rescaled
scores of the clusters are not averaged but their median is taken, with the same weights.

The table is ordered by mean rank. Its tie groups rest on the Borda counts, which add up image by image and so have an
exact paired test; ranks of means have none (the bootstrap of ranks is not consistent where explainers are equal).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from unmask.statistics.bootstrap import interval
from unmask.statistics.pairs import corrected, tie_groups
from unmask.statistics.pools import Pool
from unmask.statistics.ranks import best_shares, rank

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.matched import Values
    from unmask.statistics.pools import Explainer
    from unmask.statistics.votes import Vote

Clusters = dict[tuple[str, str], int]  # the cluster of a category's metric


class Ranking:
    """Gathers the votes of one scope (a model, a domain, all)."""

    def __init__(self) -> None:
        self.votes: list[Vote] = []

    def rows(self, explainers: list[Explainer], confidence: float, clusters: Clusters) -> list[dict[str, object]]:
        """Rows per category and for `all`, best first."""
        categories = list(dict.fromkeys(vote.category for vote in self.votes))
        chosen = {category: [vote for vote in self.votes if vote.category == category] for category in categories}
        if self.votes:
            chosen["all"] = self.votes
        return [
            {"category": category, **row}
            for category, votes in chosen.items()
            for row in _rows(votes, explainers, confidence, clusters)
        ]


def _rows(
    votes: list[Vote], explainers: list[Explainer], confidence: float, clusters: Clusters
) -> list[dict[str, object]]:
    import numpy as np

    images, domains = (
        max(vote.images for vote in votes),
        max(len({cell.domain for cell in vote.cells}) for vote in votes),
    )
    scored = np.array([vote.scored for vote in votes])
    some = scored.any(0)
    weights = shares(votes, clusters)
    means = _average([vote.rank for vote in votes], weights)
    bordas = _average([vote.borda for vote in votes], weights)
    medians = rescaled(votes, clusters)
    ranks, resampled = _ranked(means[0], some, "lower"), _ranked(means[1], some, "lower")
    control = np.array([e.is_control for e in explainers])
    candidates = some & ~control
    best = best_shares(resampled, candidates)
    counts = np.concatenate([weight * vote.rows for weight, vote in zip(weights, votes, strict=True)])
    p = _p(votes, counts, some, control)

    def worse(leader: int, others: list[int]) -> np.ndarray:
        low, _ = interval(bordas[1][:, [leader]] - bordas[1][:, others], confidence, images, domains)
        ahead = np.nansum(counts[:, [leader]] - counts[:, others], axis=0) > 0  # in what both take part in
        return (p[leader, others] < 1 - confidence) & (low > 0) & ahead

    order = sorted(np.flatnonzero(candidates), key=lambda i: ranks[i])
    groups = tie_groups(order, worse)
    bounds = {
        name: interval(values, confidence, images, domains)
        for name, values in (("mean", means[1]), ("borda", bordas[1]), ("rescaled", medians[1]))
    }
    rank_low, rank_high = interval(resampled, confidence, images, domains, "inverted_cdf")
    borda_ranks, rescaled_ranks = (_ranked(values[0], some, "higher") for values in (bordas, medians))
    rows = [
        {
            "explainer": e.name,
            "family": e.family,
            "is_control": e.is_control,
            "mean_rank": means[0][i],
            "low": bounds["mean"][0][i],
            "high": bounds["mean"][1][i],
            "rank": ranks[i],
            "rank_low": rank_low[i],
            "rank_high": rank_high[i],
            "p_best": best[i],
            "tie_group": groups.get(i),
            "borda": bordas[0][i],
            "borda_low": bounds["borda"][0][i],
            "borda_high": bounds["borda"][1][i],
            "borda_rank": borda_ranks[i],
            "rescaled": medians[0][i],
            "rescaled_low": bounds["rescaled"][0][i],
            "rescaled_high": bounds["rescaled"][1][i],
            "rescaled_rank": rescaled_ranks[i],
            "scored": int(scored[:, i].sum()),
            "missing": int((~scored[:, i]).sum()),
            "lacks": _joined(vote.lacking[i] for vote in votes if vote.scored[i]),
        }
        for i, e in enumerate(explainers)
        if some[i]
    ]
    return sorted(rows, key=lambda row: row["rank"])


def _joined(lacking: Iterable[str]) -> str | None:
    """The models that an explainer lacks under some metric; `domain/encoder` is left out beside its `encoder`."""
    names = dict.fromkeys(name for text in lacking for name in text.split())
    return " ".join(name for name in names if name.partition("/")[2] not in names) or None


def shares(votes: list[Vote], clusters: Clusters) -> np.ndarray:
    """Each vote's weight, level by level; they sum to 1."""
    import numpy as np

    paths = [(*_cluster(vote, clusters), vote.metric, number) for number, vote in enumerate(votes)]
    weights = np.ones(len(votes))
    for level in range(4):
        known = {path[: level + 1] for path in paths}
        weights /= [sum(other[:level] == path[:level] for other in known) for path in paths]
    return weights


def _cluster(vote: Vote, clusters: Clusters) -> tuple[str, int]:
    return vote.category, clusters.get((vote.category, vote.metric), 0)  # 0: no single model ranks under it


def rescaled(votes: list[Vote], clusters: Clusters) -> Values:
    """The weighted median over the clusters of their mean rescaled scores; NaN where no metric has any."""
    import numpy as np

    known = [vote for vote in votes if vote.rescaled is not None]
    if not known:
        observed, resampled = votes[0].rank
        return np.full(observed.shape, np.nan), np.full(resampled.shape, np.nan)
    weights = shares(known, clusters)
    members: dict[tuple[str, int], list[int]] = {}
    for i, vote in enumerate(known):
        members.setdefault(_cluster(vote, clusters), []).append(i)
    total = np.array([weights[rows].sum() for rows in members.values()])
    parts = [_average([known[i].rescaled for i in rows], weights[rows]) for rows in members.values()]
    return weighted_median([part[0] for part in parts], total), weighted_median([part[1] for part in parts], total)


def weighted_median(values: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The median of equally shaped arrays with `weights` [M]: the midpoint where exactly half lies on each side."""
    import numpy as np

    stacked = np.array(values)
    order = np.argsort(stacked, axis=0, kind="stable")
    ordered, below = np.take_along_axis(stacked, order, 0), np.cumsum(weights[order], axis=0) / weights.sum()
    first, after = (below >= 0.5 - 1e-9).argmax(0), (below > 0.5 + 1e-9).argmax(0)
    return (np.take_along_axis(ordered, first[None], 0) + np.take_along_axis(ordered, after[None], 0))[0] / 2


def _average(values: list[Values], weights: np.ndarray) -> Values:
    """The weighted averages; of a part of the votes too."""
    import numpy as np

    weights = weights / weights.sum()
    observed, resampled = zip(*values, strict=True)
    total = np.zeros(resampled[0].shape)
    for weight, one in zip(weights, resampled, strict=True):
        total += weight * one
    return weights @ np.array(observed), total


def _ranked(values: np.ndarray, some: np.ndarray, direction: str) -> np.ndarray:
    """The ranks [.., E] of the explainers in `some`, NaN for the others and where there are no values."""
    import numpy as np

    ranks = np.full(values.shape, np.nan)
    if np.isfinite(values[..., some]).any():
        ranks[..., some] = rank(values[..., some], direction)
    return ranks


def _p(votes: list[Vote], counts: np.ndarray, tested: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Corrected p-values [E, E] of all pairs by their Borda counts [R, E], image by image."""
    pool = Pool([cell for vote in votes for cell in vote.cells], votes[0].draws)
    return corrected(counts, pool.image, pool.flips, tested, control)
