"""Better, worse or undecided: what a board says of two of its explainers.

A difference is decided where its corrected p-value is below 1 - confidence and its interval leaves out 0. The first
guards against many comparisons and few images; the second knows of the seeds, which the sign flips do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from unmask.statistics.pairs import corrected
from unmask.statistics.pools import null

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.pools import Explainer, Pool


@dataclass(frozen=True)
class Verdicts:
    """All comparisons of a board's explainers; an alias and what has no score take no part."""

    pool: Pool
    direction: str
    confidence: float
    explainers: list[Explainer]
    _signs: dict[int, np.ndarray] = field(default_factory=dict)

    @cached_property
    def tested(self) -> np.ndarray:
        """Which explainers take part: bool [E]."""
        import numpy as np

        return np.array([e.alias_of is None for e in self.explainers]) & (self.pool.scores.n > 0)

    @cached_property
    def p(self) -> np.ndarray:
        """Corrected p-values of all pairs, [E, E]."""
        import numpy as np

        values = np.concatenate([cell.values for cell in self.pool.cells]) * self.pool.balance[:, None]
        control = np.array([e.is_control for e in self.explainers])
        return corrected(values, self.pool.image, self.pool.flips, self.tested, control)

    def signs(self, other: int) -> np.ndarray:
        """Every explainer against another, [E]: 1 = better, -1 = worse, 0 = undecided, NaN = not tested."""
        if other not in self._signs:
            self._signs[other] = self.compare(other, list(range(len(self.explainers))))
        return self._signs[other]

    def compare(self, other: int, these: list[int]) -> np.ndarray:
        """Some explainers against another, as `signs`."""
        import numpy as np

        p = self.p[other, these]
        found = np.where(np.isnan(p), np.nan, 0.0)
        likely = np.flatnonzero(p < 1 - self.confidence)
        if len(likely):
            better = 1 if self.direction == "higher" else -1
            found[likely] = better * self.pool.differences(other, np.array(these)[likely]).signs(self.confidence)
        return found

    def words(self, other: int) -> list[str | None]:
        """Every explainer against another in words; None = not tested."""
        return [None if sign != sign else ("undecided", "better", "worse")[int(sign)] for sign in self.signs(other)]

    @cached_property
    def controls_separated(self) -> bool | None:
        """Whether the metric tells controls apart: the oracle is better than the null control.

        Without an oracle's scores: whether any control differs from the null. None where there is nothing to compare.
        """
        import numpy as np

        reference = null(self.explainers)
        if reference is None:
            return None
        found = self.signs(reference)
        known = [
            (e, sign) for e, sign in zip(self.explainers, found, strict=True) if e.is_control and not np.isnan(sign)
        ]
        oracles = [sign for e, sign in known if e.is_oracle]
        if oracles:
            return 1 in oracles
        return any(sign != 0 for _, sign in known) if known else None
