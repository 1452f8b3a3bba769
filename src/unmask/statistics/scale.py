"""A metric's chance level and ceiling on a board, and every entry's place between them.

Chance is the null control's mean. The ceiling is the oracle's; where the oracle has no score, or none better than
chance, the best entry's, which another draw of images may well lower. An entry's place is

    rescaled = (mean - chance) / (ceiling - chance),

0 = chance, 1 = the ceiling, above 1 = better than the oracle. Both differences are paired: over the images that have
the entry's and the null control's score. Nothing is rescaled where the interval of ceiling - chance holds 0: the ratio
would have no bounds (Fieller 1954, "Some problems in interval estimation").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unmask.statistics.bootstrap import interval
from unmask.statistics.pools import null

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.bootstrap import Sums
    from unmask.statistics.verdicts import Verdicts


@dataclass(frozen=True)
class Scale:
    """The scale of one board."""

    verdicts: Verdicts

    @cached_property
    def chance(self) -> int | None:
        """Whose mean is chance; None without a score of the null control."""
        place = null(self.verdicts.explainers)
        return place if place is not None and self.verdicts.pool.scores.n[place] else None

    @cached_property
    def ceiling(self) -> int | None:
        """Whose mean is the ceiling; None where nothing is better than chance."""
        import numpy as np

        if self.chance is None:
            return None
        above = np.flatnonzero(self.verdicts.tested & (self._spans[0] > 0))
        if not len(above):
            return None
        oracles = [i for i in above if self.verdicts.explainers[i].is_oracle]
        return int((oracles or [above[(self._sign * self._gain.mean)[above].argmax()]])[0])

    @property
    def reason(self) -> str | None:
        """Why nothing is rescaled; None where it is."""
        entries = self.verdicts.explainers
        if self.ceiling is not None:
            return None
        place = null(entries)
        if place is None:
            return "there is no random control"
        if self.chance is None:
            return f"{entries[place].name} has no score"
        return f"nothing is better than {entries[place].name}: the interval of every difference holds 0"

    @property
    def _sign(self) -> int:
        return 1 if self.verdicts.direction == "higher" else -1

    @property
    def _confidence(self) -> float:
        return self.verdicts.confidence

    @property
    def _gain(self) -> Sums:
        return self.verdicts.pool.against(self.chance)

    @property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        """The interval of every entry's difference to chance, positive = better: (low [E], high [E])."""
        low, high = self.verdicts.pool.interval(self._confidence, self.chance)
        return (low, high) if self._sign == 1 else (-high, -low)

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`rescaled` of every entry with its interval: (value [E], low [E], high [E]), NaN where there is none.

        A resample whose ceiling is not above chance puts an entry at an end of the line, plus or minus infinity; the
        interval cuts off about as many as there can be, and has no bound (NaN) where that is one too few.
        """
        import numpy as np

        count = len(self.verdicts.explainers)
        if self.ceiling is None:
            return (np.full(count, np.nan),) * 3
        gain, sign = self._gain, self._sign
        span = sign * gain.means[:, [self.ceiling]]
        ends = np.where(np.isfinite(gain.means), np.copysign(np.inf, sign * gain.means), np.nan)
        resampled = np.divide(sign * gain.means, span, out=ends, where=span > 0)
        bounds = interval(resampled, self._confidence, gain.images, gain.domains, "inverted_cdf")
        low, high = (np.where(np.isfinite(bound), bound, np.nan) for bound in bounds)
        return gain.mean / gain.mean[self.ceiling] + 0.0, low + 0.0, high + 0.0  # -0.0 is 0

    def row(self) -> dict[str, Any]:
        """Chance and ceiling with their intervals, their difference (positive = the ceiling is better), and who they
        are; a `reason` where nothing is rescaled."""
        pool, entries, nan = self.verdicts.pool, self.verdicts.explainers, float("nan")

        def one(name: str, place: int | None) -> dict[str, Any]:
            low, high = pool.interval(self._confidence) if place is not None else ((), ())
            values = (nan,) * 3 if place is None else (pool.scores.mean[place], low[place], high[place])
            who = None if place is None else entries[place].name
            return {f"{name}_by": who, **dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))}

        span, n = (nan,) * 3, 0
        if self.ceiling is not None:
            ends = (bound[self.ceiling] for bound in self._spans)
            span, n = (abs(self._gain.mean[self.ceiling]), *ends), int(self._gain.n[self.ceiling])
        return {
            **one("chance", self.chance),
            **one("ceiling", self.ceiling),
            **dict(zip(("span", "span_low", "span_high"), span, strict=True)),
            "n": n,
            "controls_separated": self.verdicts.controls_separated,
            "reason": self.reason,
        }
