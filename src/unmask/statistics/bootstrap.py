"""Paired bootstrap over images nested in seeds, as matrix products of resampling weights and scores.

One draw serves every explainer, metric and encoder of a domain, so that differences between any two of them are
paired. Test images are the same for every model; they are drawn with replacement within their domain. Where there are
several pairs of seeds these are drawn too, and an image's weight is multiplied by its seed's (the crossed bootstrap of
Owen 2007, "The pigeonhole bootstrap", which is conservative).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def counts(generator: np.random.Generator, units: int, resamples: int) -> np.ndarray:
    """How often each of `units` is drawn in each resample of that size: float64 [resamples, units]."""
    import numpy as np

    drawn = generator.integers(0, units, (resamples, units))
    drawn += np.arange(resamples)[:, None] * units
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


@dataclass(frozen=True)
class Sums:
    """Sums and numbers of scores: `total`, `n` [E] as observed, `totals`, `ns` [B, E] per resample. They add up."""

    total: np.ndarray
    n: np.ndarray
    totals: np.ndarray
    ns: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.total + other.total, self.n + other.n, self.totals + other.totals, self.ns + other.ns)

    @property
    def mean(self) -> np.ndarray:
        """The mean of each explainer's scores, [E]; NaN without any."""
        return _ratio(self.total, self.n)

    @cached_property
    def means(self) -> np.ndarray:
        """The means of the resamples, [B, E]; NaN where a resample holds no score."""
        return _ratio(self.totals, self.ns)


def _ratio(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def sums(weights: np.ndarray, values: np.ndarray) -> Sums:
    """Resample `values` [U, E] (NaN = no score) with `weights` [B, U]."""
    import numpy as np

    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    if known.all():
        ns = np.broadcast_to(weights.sum(1, keepdims=True), (len(weights), values.shape[1]))
    else:
        ns = weights @ known.astype(np.float64)
    return Sums(filled.sum(0), known.sum(0), weights @ filled, ns)


def interval(resampled: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of [B, E] along the resamples: (low [E], high [E]); NaN where all are."""
    import numpy as np

    columns = np.ascontiguousarray(resampled.T)
    bounds = np.full((2, len(columns)), np.nan)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    whole = np.isfinite(columns).all(1)
    if whole.any():
        bounds[:, whole] = np.quantile(columns[whole], tails, axis=1)
    for row in np.flatnonzero(~whole & np.isfinite(columns).any(1)):
        bounds[:, row] = np.nanquantile(columns[row], tails)
    return bounds[0], bounds[1]
