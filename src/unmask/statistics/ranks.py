"""Ranks by a metric's direction, 1 = best."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def rank(values: np.ndarray, direction: str) -> np.ndarray:
    """Rank the last axis of float [..., E]: 1 = best, ties share their average rank, NaN is last.

    `direction` is `higher` or `lower` (what is better). Values that differ by less than 1e-12 of the largest
    magnitude are ties: equal explainers must not be told apart by the rounding of a matrix product.
    """
    import numpy as np
    from scipy.stats import rankdata

    if direction not in ("higher", "lower"):
        raise ValueError(f"direction is '{direction}', not 'higher' or 'lower'")
    known = np.isfinite(values)
    scale = np.abs(values[known]).max(initial=0.0) or 1.0
    cost = np.round(values / scale, 12) * (-1 if direction == "higher" else 1)
    return rankdata(np.where(known, cost, np.inf), axis=-1)


def best_shares(ranks: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The share of resamples (ranks [B, E]) in which each explainer is the best of those in `among`, [E].

    Equals share a resample; NaN for the others. A bootstrap share is no probability of a hypothesis: read it as how
    often another draw of images would have put this explainer first.
    """
    import numpy as np

    shares = np.full(len(among), np.nan)
    if among.any():
        first = ranks[:, among] == ranks[:, among].min(1, keepdims=True)
        shares[among] = (first / first.sum(1, keepdims=True)).mean(0)
    return shares
