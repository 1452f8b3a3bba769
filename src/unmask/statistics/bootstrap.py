"""Paired bootstrap over images nested in seeds, as matrix products of resampling weights and scores.

One draw serves every explainer, metric and encoder of a domain, so that differences between any two of them are
paired. Test images are the same for every model; they are drawn with replacement within their domain. Where there are
several pairs of seeds these are drawn too, and an image's weight is multiplied by its seed's (the crossed bootstrap of
Owen 2007, "The pigeonhole bootstrap", which is conservative).

Intervals are expanded percentile intervals (Hesterberg 2015, "What teachers should know about the bootstrap"): with
few images plain percentiles are too narrow, since they lack both the factor n / (n - 1) and the heavier tails of t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Draws:
    """The resampling of a domain: `weights` [B, U] of its units, `image` [U] the image of each unit, and `signs`
    [B, I] (+1, -1) of its images for the tests."""

    weights: np.ndarray
    image: np.ndarray
    signs: np.ndarray


def counts(generator: np.random.Generator, units: int, resamples: int) -> np.ndarray:
    """How often each of `units` is drawn in each resample of that size: float64 [resamples, units]."""
    import numpy as np

    drawn = generator.integers(0, units, (resamples, units))
    drawn += np.arange(resamples)[:, None] * units
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


@dataclass(frozen=True)
class Part:
    """Sums of scores over the images of a domain: `total`, `n` [E] as observed, `totals` [B, E] per resample.

    `images` [E] says how many images hold a score, `weights` [B, U], `filled` and `held` [U, E] what a resample's
    scores add up to and how many it holds.
    """

    total: np.ndarray
    n: np.ndarray
    images: np.ndarray
    weights: np.ndarray
    filled: np.ndarray
    held: np.ndarray

    @cached_property
    def totals(self) -> np.ndarray:
        """The sums of the resamples, [B, E]."""
        return self.weights @ self.filled

    @property
    def means(self) -> np.ndarray:
        """The means of the resamples, [B, E]; NaN where a resample holds no score."""
        import numpy as np

        # Mostly everyone has a score wherever anyone has, so that there are few different columns, or one.
        places: dict[bytes, int] = {}
        which = [places.setdefault(column.tobytes(), i) for i, column in enumerate(self.held.T)]
        numbers = self.weights @ self.held[:, list(places.values())]
        if len(places) > 1:
            numbers = numbers[:, np.searchsorted(list(places.values()), which)]
        return _ratio(self.totals, numbers)


@dataclass(frozen=True)
class Sums:
    """Sums of scores, domain by domain; in a mean domains weigh equally, however many scores each has."""

    parts: tuple[Part, ...]

    def __add__(self, other: Sums) -> Sums:
        return Sums((*self.parts, *other.parts))

    @property
    def n(self) -> np.ndarray:
        """How many scores there are, [E]."""
        return sum(part.n for part in self.parts)

    @property
    def images(self) -> np.ndarray:
        """On how many images, [E]."""
        return sum(part.images for part in self.parts)

    @property
    def domains(self) -> np.ndarray:
        """In how many domains, [E]."""
        return sum((part.n > 0).astype("int64") for part in self.parts)

    @cached_property
    def mean(self) -> np.ndarray:
        """The mean of each explainer's scores, [E]; NaN without any."""
        return self._balanced([_ratio(part.total, part.n) for part in self.parts])

    @cached_property
    def means(self) -> np.ndarray:
        """The means of the resamples, [B, E]; over the domains that a resample holds scores of, NaN where of none."""
        return self._balanced([part.means for part in self.parts])

    def _balanced(self, means: list[np.ndarray]) -> np.ndarray:
        """The mean over the domains that have scores."""
        import numpy as np

        if len(means) == 1:
            return means[0]
        known = [np.isfinite(mean) for mean in means]
        return _ratio(sum(np.where(held, mean, 0.0) for held, mean in zip(known, means, strict=True)), sum(known))

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """The interval of each mean: (low [E], high [E])."""
        return interval(self.means, confidence, self.images, self.domains)

    def signs(self, confidence: float) -> np.ndarray:
        """1 where the interval of the mean lies above 0, -1 where below, else 0: [E]."""
        values = self.parts[0].totals if len(self.parts) == 1 else self.means
        resamples, cut = len(values), len(values) * tails(confidence, self.images, self.domains)
        above, below = ((values > 0).sum(0), (values < 0).sum(0))
        return 1.0 * (resamples - above < cut) - (resamples - below < cut)


def _ratio(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    import numpy as np

    with np.errstate(invalid="ignore"):
        return total / n  # 0 / 0, of nothing, is NaN


def sums(draws: Draws, values: np.ndarray) -> Sums:
    """Resample one or more models' `values` [.., U, E] (NaN = no score); models are added up unit by unit."""
    import numpy as np

    values = values.reshape(-1, *values.shape[-2:])
    known = np.isfinite(values)
    filled, held = np.where(known, values, 0.0).sum(0), known.sum(0).astype(np.float64)
    seen = np.zeros((draws.signs.shape[1], values.shape[2]))
    np.add.at(seen, draws.image, held)
    n = held.sum(0).astype(np.int64)
    return Sums((Part(filled.sum(0), n, (seen > 0).sum(0), draws.weights, filled, held),))


def tails(confidence: float, images: np.ndarray, domains: np.ndarray | int = 1) -> np.ndarray:
    """The probability to cut at each end for means over so many images in so many domains; NaN for one image a domain.

    `Phi(-sqrt(n / (n - d)) t)` with the quantile of Student's t with n - d degrees of freedom.
    """
    import numpy as np
    from scipy.special import ndtr, stdtrit

    images = np.asarray(images, np.float64)
    freedom = np.where(images > domains, images - domains, np.nan)
    return ndtr(-np.sqrt(images / freedom) * stdtrit(freedom, (1 + confidence) / 2))


def interval(
    resampled: np.ndarray,
    confidence: float,
    images: np.ndarray | int,
    domains: np.ndarray | int = 1,
    method: str = "linear",
) -> tuple[np.ndarray, np.ndarray]:
    """The expanded percentile interval of [B, E] along the resamples: (low [E], high [E]); NaN where all are.

    `images` and `domains`, [E] or one for all: over how many images in how many domains the statistic was taken.
    `method` is `linear` or `inverted_cdf`, as numpy names them; the latter gives values that occur, for ranks.
    """
    import numpy as np

    columns = np.sort(np.ascontiguousarray(resampled.T), axis=1)  # NaN come last
    n = columns.shape[1] - np.isnan(columns).sum(1)
    over = (np.broadcast_to(one, n.shape).tolist() for one in (images, domains))
    tail = np.array([_tail(confidence, *one) for one in zip(*over, strict=True)])
    held = (n > 0) & np.isfinite(tail)
    low, high = (_quantile(columns, np.where(held, share, 0.5), np.maximum(n, 1), method) for share in (tail, 1 - tail))
    return np.where(held, low, np.nan), np.where(held, high, np.nan)


def _quantile(ordered: np.ndarray, share: np.ndarray, n: np.ndarray, method: str) -> np.ndarray:
    """The quantiles [E] at the shares [E] of the first `n` [E] values of ordered rows [E, B], as numpy's methods."""
    import numpy as np

    rows = np.arange(len(ordered))
    if method == "inverted_cdf":
        return ordered[rows, np.maximum(np.ceil(n * share).astype(np.int64) - 1, 0)]
    place = share * (n - 1)
    below = np.floor(place).astype(np.int64)
    first, second, part = ordered[rows, below], ordered[rows, np.minimum(below + 1, n - 1)], place - below
    step = second - first
    return np.where(part < 0.5, first + step * part, second - step * (1 - part))


@lru_cache(maxsize=4096)
def _tail(confidence: float, images: float, domains: float) -> float:
    return float(tails(confidence, images, domains))
