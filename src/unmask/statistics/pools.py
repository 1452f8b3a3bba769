"""Scores of one metric pooled over models, encoders and domains.

Every score of a domain counts the same, and every domain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING

from unmask.statistics.bootstrap import Sums, sums

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from unmask.statistics.bootstrap import Draws
    from unmask.statistics.cells import Cell


@dataclass(frozen=True)
class Explainer:
    """A row of the tables. An alias has the maps of another entry: it is shown, but not ranked or tested."""

    name: str
    family: str
    is_control: bool
    is_oracle: bool
    alias_of: str | None = None


def null(explainers: list[Explainer]) -> int | None:
    """The control that stands for knowing nothing: `random_patch`, else the first random one, else None."""
    random = {e.name: i for i, e in enumerate(explainers) if e.is_control and e.name.startswith("random")}
    return random.get("random_patch", next(iter(random.values()), None))


@dataclass(frozen=True)
class Pool:
    """One or more cells of a metric, and the `draws` of their domains."""

    cells: list[Cell]
    draws: dict[str, Draws]
    _against: dict[int, Sums] = field(default_factory=dict)
    _intervals: dict[tuple[float, int | None], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def domains(self) -> list[str]:
        """The domains of the cells."""
        return list(dict.fromkeys(cell.domain for cell in self.cells))

    def sums(self, of: Callable[[Cell], np.ndarray]) -> Sums:
        """Resample what a function makes of each cell, [U, E]."""
        import numpy as np

        return reduce(
            add,
            (
                sums(self.draws[domain], np.stack([of(cell) for cell in self.cells if cell.domain == domain]))
                for domain in self.domains
            ),
        )

    @cached_property
    def scores(self) -> Sums:
        """The scores of every explainer."""
        return self.sums(lambda cell: cell.values)

    def differences(self, other: int, of: np.ndarray | slice = slice(None)) -> Sums:
        """The scores of some explainers minus another's on the same image and model."""
        return self.sums(lambda cell: cell.values[:, of] - cell.values[:, [other]])

    def against(self, other: int) -> Sums:
        """The scores of every explainer minus another's; several tables ask for them."""
        if other not in self._against:
            self._against[other] = self.differences(other)
        return self._against[other]

    def interval(self, confidence: float, other: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The intervals of the means, or of the mean differences to another explainer; several tables ask for them."""
        key = confidence, other
        if key not in self._intervals:
            self._intervals[key] = (self.scores if other is None else self.against(other)).interval(confidence)
        return self._intervals[key]

    @cached_property
    def known(self) -> np.ndarray:
        """Who has a score, in every row of all cells: bool [R, E]."""
        import numpy as np

        return np.isfinite(np.concatenate([cell.values for cell in self.cells]))

    @cached_property
    def lacking(self) -> list[str]:
        """On which models each explainer has no score though others have, [E]: encoders, `domain/encoder` where it is
        so in some domains only, joined by spaces."""
        import numpy as np

        seen: dict[str, list[Cell]] = {}
        for cell in self.cells:
            if np.isfinite(cell.values).any():
                seen.setdefault(cell.encoder, []).append(cell)
        found: list[list[str]] = [[] for _ in range(self.known.shape[1])]
        for encoder, cells in seen.items():
            without = ~np.array([np.isfinite(cell.values).any(0) for cell in cells])
            for i in np.flatnonzero(without.any(0)).tolist():
                models = [f"{cell.domain}/{encoder}" for cell, lost in zip(cells, without[:, i], strict=True) if lost]
                found[i].extend([encoder] if without[:, i].all() else models)
        return [" ".join(names) for names in found]

    @cached_property
    def failed(self) -> np.ndarray:
        """Failed scores by explainer, [E]."""
        return sum(cell.failed.sum(0) for cell in self.cells)

    @cached_property
    def skipped(self) -> np.ndarray:
        """Skipped scores by explainer, [E]."""
        return sum(cell.skipped for cell in self.cells)

    @cached_property
    def image(self) -> np.ndarray:
        """The image of every row of all cells, numbered over the domains."""
        import numpy as np

        sizes = [self.draws[domain].signs.shape[1] for domain in self.domains]
        first = dict(zip(self.domains, np.cumsum([0, *sizes]).tolist(), strict=False))
        return np.concatenate([self.draws[cell.domain].image + first[cell.domain] for cell in self.cells])

    @cached_property
    def balance(self) -> np.ndarray:
        """Weights of the rows of all cells, [R]; those with scores add up to the same in every domain, to 1 in all."""
        import numpy as np

        scored = dict.fromkeys(self.domains, 0)
        for cell in self.cells:
            scored[cell.domain] += int(np.isfinite(cell.values).any(1).sum())
        held = sum(n > 0 for n in scored.values())
        each = [1 / max(scored[cell.domain] * held, 1) for cell in self.cells]
        return np.repeat(each, [len(cell.values) for cell in self.cells])

    @cached_property
    def flips(self) -> np.ndarray:
        """Signs for the images of all domains: [B, I]."""
        import numpy as np

        return np.hstack([self.draws[domain].signs for domain in self.domains])

    def spread(self, other: int) -> np.ndarray:
        """The standard deviation of the differences to another explainer within a cell, [E]; NaN without any."""
        import numpy as np

        squares, freedom = 0.0, 0
        for cell in self.cells:
            difference = cell.values - cell.values[:, [other]]
            known = np.isfinite(difference)
            n = known.sum(0)
            filled = np.where(known, difference, 0.0)
            centred = np.where(known, difference - filled.sum(0) / np.maximum(n, 1), 0.0)
            squares, freedom = squares + (centred**2).sum(0), freedom + np.maximum(n - 1, 0)
        return np.sqrt(np.divide(squares, freedom, out=np.full(len(freedom), np.nan), where=freedom > 0))
