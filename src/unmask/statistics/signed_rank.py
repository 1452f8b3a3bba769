"""Wilcoxon's signed-rank test of many pairs at once, Holm's correction, and its effect size."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

EXACT, TIED = 50, 25  # differences up to which the null distribution is exact, without and with ties; else normal


def signed_rank(differences: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two-sided p-values, matched rank-biserial correlations and numbers of differences, each [P], of [n, P].

    Zeros are left out of the test, as Wilcoxon did, NaN altogether. The correlation is the share of rank sums in
    favour minus the share against (Kerby 2014): 1 = all differences positive; 0 where all are zero. Differences are
    told apart to 1e-10 of `scale`, the size of the scores that they are differences of.
    """
    import numpy as np
    from scipy.special import ndtr
    from scipy.stats import rankdata

    size = np.round(differences / (scale or 1.0), 10)
    n = np.isfinite(size).sum(0)
    held = np.isfinite(size) & (size != 0)
    ranks = np.where(held, rankdata(np.where(held, np.abs(size), np.inf), axis=0), 0.0)
    plus, total, counted = (ranks * (size > 0)).sum(0), ranks.sum(0), held.sum(0)
    spread = np.sqrt((ranks**2).sum(0)) / 2
    z = np.divide(plus - total / 2, spread, out=np.zeros_like(plus), where=spread > 0)
    p = 2 * ndtr(-np.abs(z))
    tied = (ranks**2).sum(0) < counted * (counted + 1) * (2 * counted + 1) / 6
    for count in np.unique(counted[~tied & (counted > 0) & (counted <= EXACT)]).tolist():
        own = np.flatnonzero(~tied & (counted == count))
        p[own] = _two_sided(tuple(range(2, 2 * count + 1, 2)))[np.rint(2 * plus[own]).astype(np.int64)]
    small = np.flatnonzero(tied & (counted <= TIED))
    if len(small):
        patterns, which = np.unique(
            np.sort(np.rint(2 * ranks[:, small]).astype(np.int64), axis=0), axis=1, return_inverse=True
        )
        doubled = np.rint(2 * plus[small]).astype(np.int64)
        which = which.reshape(-1)
        for i, pattern in enumerate(patterns.T):
            own = which == i
            p[small[own]] = _two_sided(tuple(pattern[pattern > 0].tolist()))[doubled[own]]
    p[n == 0] = np.nan
    effect = np.divide(2 * plus, total, out=np.ones_like(plus), where=total > 0) - 1
    effect[n == 0] = np.nan
    return p, effect, n


@lru_cache(maxsize=4096)
def _two_sided(ranks: tuple[int, ...]) -> np.ndarray:
    """The two-sided p-value of every sum of those of `ranks` that have a plus, when all signs are equally likely."""
    import numpy as np

    chance = np.ones(1)
    for rank in ranks:
        longer = np.zeros(len(chance) + rank)
        longer[: len(chance)] = chance / 2
        longer[rank:] += chance / 2
        chance = longer
    below = np.cumsum(chance)
    above = np.cumsum(chance[::-1])[::-1]
    return np.minimum(1.0, 2 * np.minimum(below, above))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of one family of p-values; NaN are no tests."""
    import numpy as np

    corrected = np.full(p.shape, np.nan)
    tests = np.flatnonzero(np.isfinite(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    steps = (len(order) - np.arange(len(order))) * p[order]
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected
