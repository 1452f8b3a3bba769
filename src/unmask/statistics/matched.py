"""Explainers compared two at a time, on the scores that both have.

Where everyone has every score, that is comparing means. But some lack scores, on models that they do not apply to or
on images where they failed, and means over other models and images are not comparable: who lacks the hard ones would
come first. Explainers that lack the same scores form a class, of which there are few; within a class means will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from unmask.statistics.ranks import rank, share_behind

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.bootstrap import Sums
    from unmask.statistics.pools import Pool

Values = tuple["np.ndarray", "np.ndarray"]  # as observed [E], and per resample [B, E]; NaN for who takes no part


@dataclass(frozen=True)
class Matched:
    """The explainers of a pool that are compared (`chosen`, bool [E])."""

    pool: Pool
    chosen: np.ndarray

    @cached_property
    def classes(self) -> list[np.ndarray]:
        """The compared explainers that have scores, in groups that have them in the same rows."""
        return same_rows(self.pool.known, self.chosen & (self.pool.scores.n > 0))

    @cached_property
    def sums(self) -> list[Sums]:
        """Per class: everyone's scores in the rows where the class has scores."""
        import numpy as np

        if len(self.classes) == 1:
            return [self.pool.scores]
        return [
            self.pool.sums(lambda cell, i=members[0]: np.where(np.isfinite(cell.values[:, [i]]), cell.values, np.nan))
            for members in self.classes
        ]

    def ranks(self, direction: str) -> Values:
        """1 + how many others are better, equals counting half; those without any score are last, all alike."""
        means = [one.means for one in self.sums]
        return self.observed(direction), self._ranks(self.pool.scores.means.shape, means, direction)

    def observed(self, direction: str) -> np.ndarray:
        """The ranks [E] as observed."""
        return self._ranks(self.pool.scores.mean.shape, [one.mean for one in self.sums], direction)

    def _ranks(self, shape: tuple[int, ...], means: list[np.ndarray], direction: str) -> np.ndarray:
        """Ranks [.., E] by the means [.., E] in the rows of each class."""
        import numpy as np

        scored, every = sum(map(len, self.classes)), int(self.chosen.sum())
        found = np.full(shape, np.nan)
        found[..., self.chosen] = (scored + 1 + every) / 2
        for own, members in zip(means, self.classes, strict=True):
            found[..., members] = rank(own[..., members], direction)
        for p, one in enumerate(self.classes):
            for q, other in enumerate(self.classes[:p]):
                behind = share_behind(means[q][..., one], means[p][..., other], direction)
                found[..., one] += behind.sum(-1)
                found[..., other] += (1 - behind).sum(-2)
        return found

    def gains(self, reference: int) -> Values:
        """How much larger the scores are than those of a compared explainer with scores.

        A difference of two is the mean over all of how much the first differs from each on the scores that both have,
        minus the same of the second: without missing scores their own mean difference.
        """
        if len(self.classes) == 1:
            difference = self.pool.against(reference)
            return difference.mean, difference.means
        return (
            self._gains([one.mean for one in self.sums], reference),
            self._gains([one.means for one in self.sums], reference),
        )

    def _gains(self, means: list[np.ndarray], reference: int) -> np.ndarray:
        import numpy as np

        found = np.full(means[0].shape, np.nan)
        for p, one in enumerate(self.classes):
            total, size = 0.0, 0
            for q, other in enumerate(self.classes):
                if self.sums[p].n[other[0]]:  # they share rows
                    total = total + len(other) * means[q][..., one] - means[p][..., other].sum(-1, keepdims=True)
                    size += len(other)
            found[..., one] = total / size
        return found - found[..., [reference]]


def same_rows(known: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """The chosen columns of bool [R, E] in groups of equal ones, in the order of their first."""
    import numpy as np

    groups: dict[bytes, list[int]] = {}
    packed = np.packbits(known.T, axis=1)
    for i in np.flatnonzero(chosen).tolist():
        groups.setdefault(packed[i].tobytes(), []).append(i)
    return [np.array(members) for members in groups.values()]
