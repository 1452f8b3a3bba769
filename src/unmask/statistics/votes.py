"""What one board says in a ranking across metrics, by three rules.

- `rank`: 1 + how many others are better on the scores that both have (1 = best).
- `borda`: the share of another's images that an explainer is better on, equals counting half, averaged over the others.
  1 = always the best, 0 = always the last. It knows orders only, so no outlier moves it.
- `rescaled`: the mean difference to the null control on the same images, larger = better, in units of the typical
  (median over the explainers) standard deviation of such a difference. It knows distances, and needs no best or worst
  explainer to span a scale: 0 = the null control, whatever else takes part.

All three compare two explainers at a time on the images and models that both apply to. Under each an explainer without
any score counts as last (all such alike), and under `borda` a failed score does, so failing never helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.statistics.matched import same_rows
from unmask.statistics.pools import null
from unmask.statistics.ranks import told_apart

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.boards import Board
    from unmask.statistics.bootstrap import Draws
    from unmask.statistics.cells import Cell
    from unmask.statistics.matched import Values


@dataclass(frozen=True)
class Vote:
    """A metric under one removal; `rows` [R, E] (NaN = not counted) add up to the Borda counts, image by image, where
    everyone applies to everything. `lacking` [E] names models that an explainer has no score on."""

    category: str
    metric: str
    scored: np.ndarray
    lacking: list[str]
    images: int
    cells: list[Cell]
    draws: dict[str, Draws]
    rank: Values
    borda: Values
    rescaled: Values | None
    rows: np.ndarray


def vote(category: str, metric: str, board: Board) -> Vote:
    """The vote of a board on which something was scored."""
    import numpy as np

    pool = board.verdicts.pool
    ranks, resampled = board.ranks
    counts = Counts(board)
    return Vote(
        category,
        metric,
        board.scored,
        pool.lacking,
        int(pool.scores.images.max()),
        pool.cells,
        pool.draws,
        (ranks, resampled.astype("float32")),
        counts.borda(),
        rescaled(board),
        np.concatenate([counts.rows(cell) for cell in pool.cells]) * pool.balance[:, None],
    )


class Counts:
    """Who is better than whom on a board, image by image.

    An explainer takes part in a row (an image under a model) where it has a score or failed; one without any score on
    the board in every row. A failed score is worse than any other, and all such are equal.
    """

    def __init__(self, board: Board):
        import numpy as np

        self.board, self.pool = board, board.verdicts.pool
        self.part = {id(cell): self._part(cell) for cell in self.pool.cells}
        every = np.concatenate(list(self.part.values()))
        self.classes = same_rows(every, board.matched.chosen)
        self.others = np.array([[len(members)] * len(board.scored) for members in self.classes])  # [classes, E]
        for others, members in zip(self.others, self.classes, strict=True):
            others[members] -= 1  # nobody meets itself
        self.shares = {id(cell): self._shares(cell) for cell in self.pool.cells}

    def _part(self, cell: Cell) -> np.ndarray:
        """Who takes part: bool [U, E]; nobody where nothing was scored."""
        import numpy as np

        ok, compared = np.isfinite(cell.values), self.board.matched.chosen
        taking = (ok | cell.failed | ~self.board.scored) & compared
        return taking & (ok & compared).any(1, keepdims=True)

    def _shares(self, cell: Cell) -> list[np.ndarray]:
        """Per class: the share of its members that each explainer is better than, [U, E], where both take part; NaN
        elsewhere."""
        import numpy as np

        (told,) = told_apart(cell.values)
        goodness = np.where(np.isfinite(told), told if self.board.verdicts.direction == "higher" else -told, -np.inf)
        part, found = self.part[id(cell)], []
        for members, others in zip(self.classes, self.others, strict=True):
            one, other = goodness[:, :, None], goodness[:, None, members]
            wins = ((one > other).sum(-1) + (one >= other).sum(-1)) / 2
            wins[:, members] -= 0.5  # itself
            found.append(np.where(part & part[:, members[:1]], wins / np.maximum(others, 1), np.nan))
        return found

    def rows(self, cell: Cell) -> np.ndarray:
        """The share of those taking part that each explainer is better than, [U, E]; NaN where it takes no part."""
        import numpy as np

        shares = np.array(self.shares[id(cell)])
        met = np.where(np.isfinite(shares), self.others[:, None], 0)
        part = np.where(self.part[id(cell)], 1.0, np.nan)
        return np.nansum(shares * met, 0) / np.maximum(met.sum(0), 1) * part

    def borda(self) -> Values:
        """The share of the images of another that an explainer is better on, averaged over the others."""
        import numpy as np

        met = [self.pool.sums(lambda cell, k=k: self.shares[id(cell)][k]) for k in range(len(self.classes))]
        others = np.where([one.n > 0 for one in met], self.others, 0)
        weights = others / np.maximum(others.sum(0), 1)
        compared = self.board.matched.chosen

        def average(shares: list[np.ndarray]) -> np.ndarray:
            known = (np.where(weight > 0, weight * share, 0.0) for weight, share in zip(weights, shares, strict=True))
            return np.where(compared, sum(known), np.nan)

        means = average([one.means for one in met])
        # Where nothing was drawn, all are alike.
        return average([one.mean for one in met]), np.where(compared & np.isnan(means), 0.5, means).astype("float32")


def rescaled(board: Board) -> Values | None:
    """None without a null control, or where no score differs from it."""
    import numpy as np

    verdicts, matched = board.verdicts, board.matched
    reference = null(verdicts.explainers)
    if reference is None or not board.scored[reference]:
        return None
    candidates = board.scored & ~np.array([e.is_control for e in verdicts.explainers])
    spread = verdicts.pool.spread(reference)[candidates]
    scale = np.median(spread[np.isfinite(spread)]) if np.isfinite(spread).any() else 0.0
    if scale == 0:
        return None
    sign = 1 if verdicts.direction == "higher" else -1
    made = []
    for values in matched.gains(reference):
        values = np.where(board.scored, values * sign / scale, np.nan)
        last = np.nan_to_num(np.fmin.reduce(values, axis=-1, keepdims=True))  # 0: nothing was drawn, all are alike
        made.append(np.where(matched.chosen & ~np.isfinite(values), last, values))
    return made[0], made[1].astype("float32")
