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
    (told,) = told_apart(values)
    cost = told * (-1 if direction == "higher" else 1)
    return rankdata(np.where(np.isfinite(cost), cost, np.inf), axis=-1)


def told_apart(*values: np.ndarray) -> list[np.ndarray]:
    """Arrays in units of their largest magnitude, rounded so that what is no more than rounding apart is equal."""
    import numpy as np

    scale = max(np.abs(one[np.isfinite(one)]).max(initial=0.0) for one in values) or 1.0
    return [np.round(one / scale, 12) for one in values]


def share_behind(first: np.ndarray, second: np.ndarray, direction: str) -> np.ndarray:
    """Whether each of `first` [..., P] is behind each of `second` [..., Q]: 1, 0, or .5 for equals and NaN, [.., P, Q].

    Sums of it are ranks: 1 + how many others are better, equals counting half.
    """
    import numpy as np

    one, other = told_apart(first, second)
    one, other = one[..., :, None], other[..., None, :]
    worse, better = (one < other, one > other) if direction == "higher" else (one > other, one < other)
    return 0.5 + 0.5 * worse.astype(np.float32) - 0.5 * better


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
