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

    if direction not in ("higher", "lower"):
        raise ValueError(f"direction is '{direction}', not 'higher' or 'lower'")
    (told,) = told_apart(values)
    cost = np.negative(told, out=told) if direction == "higher" else told
    cost[~np.isfinite(cost)] = np.inf
    order = cost.argsort(-1)
    ordered = np.take_along_axis(cost, order, -1)
    places = np.broadcast_to(np.arange(1.0, cost.shape[-1] + 1), cost.shape)
    new = ordered[..., 1:] != ordered[..., :-1]
    if not new.all():  # the average of the first and the last place of equals
        edge = np.ones((*cost.shape[:-1], 1), bool)
        first = np.maximum.accumulate(np.where(np.concatenate([edge, new], -1), places, 0), -1)
        last = np.where(np.concatenate([new, edge], -1), places, np.inf)
        places = (first + np.minimum.accumulate(last[..., ::-1], -1)[..., ::-1]) / 2
    ranks = np.empty(cost.shape)
    np.put_along_axis(ranks, order, places, -1)
    return ranks


def told_apart(*values: np.ndarray) -> list[np.ndarray]:
    """Arrays in units of their largest magnitude, rounded so that what is no more than rounding apart is equal."""
    import numpy as np

    scale = max(largest(one) for one in values) or 1.0
    return [np.round(one / scale, 12) for one in values]


def largest(values: np.ndarray) -> float:
    """The largest magnitude among the values that are finite; 0 without any."""
    import numpy as np

    found = float(np.abs(values).max(initial=0.0))
    return found if np.isfinite(found) else float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


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
