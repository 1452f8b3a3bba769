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
