"""Friedman's test, Kendall's W, and what differences a sample can detect."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

POWER = 0.8


def concordance(ranks: np.ndarray) -> float:
    """Kendall's W, corrected for ties, of ranks [n, k]: 0 = the images' rankings are unrelated, 1 = they are one.

    NaN without two images and two explainers, or where every image holds one value only.
    """
    import numpy as np

    return float(weighted_concordance(ranks, np.ones((1, len(ranks))))[0])


def weighted_concordance(ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Kendall's W of ranks [n, k] under resampling weights [B, n], each [B]; weights of 1 give W itself.

    By the mean rank correlation over pairs of different images, W = r + (1 - r) / n: an image that is drawn twice
    must not count as agreeing with itself, or every resample would be more concordant than the sample.
    """
    import numpy as np

    n, k = ranks.shape
    if n < 2 or k < 2:
        return np.full(len(weights), np.nan)
    centred = ranks - ranks.mean(1, keepdims=True)
    own = (centred**2).sum(1)
    total = weights.sum(1)
    pairs = total**2 - (weights**2).sum(1)
    cross = ((weights @ centred) ** 2).sum(1) - weights**2 @ own
    spread = np.divide(weights @ own, total, out=np.zeros(len(weights)), where=total > 0)
    known = (pairs > 0) & (spread > 0)
    r = np.divide(cross, pairs * spread, out=np.full(len(weights), np.nan), where=known)
    return r + (1 - r) / n


def friedman(ranks: np.ndarray) -> tuple[float, float, float]:
    """Friedman's statistic, its p-value (chi-squared with k - 1 degrees of freedom) and W, of ranks [n, k]."""
    from scipy.special import chdtrc

    n, k = ranks.shape
    w = concordance(ranks)
    statistic = n * (k - 1) * w
    return statistic, float(chdtrc(k - 1, statistic)), w


@lru_cache
def nemenyi(k: int, n: int, confidence: float) -> float:
    """The critical difference of mean ranks of k explainers over n images (Demsar 2006, eq. 4 and its table 5)."""
    import numpy as np
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(confidence, k, np.inf) * np.sqrt(k * (k + 1) / (12 * n)))


def detectable(spread: float, n: int, alpha: float) -> float:
    """The mean difference that a paired two-sided t-test finds with a power of .8; `spread` is the differences' SD."""
    import numpy as np
    from scipy.special import nctdtrinc, stdtrit

    if n < 2:
        return float("nan")
    # The chance of finding it in the wrong direction is below 1e-4 at this power, and left out.
    return float(spread * nctdtrinc(n - 1, 1 - POWER, stdtrit(n - 1, 1 - alpha / 2)) / np.sqrt(n))
