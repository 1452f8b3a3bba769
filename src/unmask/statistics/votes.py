"""What one board says in a ranking across metrics, by three rules.

- `rank`: the rank of the mean (1 = best).
- `borda`: on each image and model, the share of the other explainers that an explainer beats, equals counting half;
  averaged over images. 1 = always the best, 0 = always the last. It knows orders only, so no outlier moves it. Models
  that an explainer does not apply to do not count.
- `rescaled`: the mean difference to the null control on the same images, larger = better, in units of the typical
  (median over the explainers) standard deviation of such a difference. It knows distances, and needs no best or worst
  explainer to span a scale: 0 = the null control, whatever else takes part.

Under each rule an explainer without a score counts as last (all such alike), so failing never helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.statistics.pools import null
from unmask.statistics.ranks import rank

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.boards import Board
    from unmask.statistics.bootstrap import Draws
    from unmask.statistics.cells import Cell

Values = tuple["np.ndarray", "np.ndarray"]  # as observed [E], and per resample [B, E]; NaN for aliases


@dataclass(frozen=True)
class Vote:
    """A metric under one removal; `rows` [R, E] (NaN = not counted) add up to the Borda counts, image by image."""

    category: str
    metric: str
    scored: np.ndarray
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
    borda = pool.sums(lambda cell: beaten(cell, board))
    return Vote(
        category,
        metric,
        board.scored,
        int(pool.scores.images.max()),
        pool.cells,
        pool.draws,
        (board.ranks, board.resampled.astype("float32")),
        # Where nothing was drawn, all are alike.
        (borda.mean, np.where(board.ranked & np.isnan(borda.means), 0.5, borda.means).astype("float32")),
        rescaled(board),
        np.concatenate([beaten(cell, board) for cell in pool.cells]) / borda.n.max(),
    )


def beaten(cell: Cell, board: Board) -> np.ndarray:
    """The share of the other explainers that each beats, image by image: [U, E].

    A failed score is the last. NaN on images where nothing was scored, and for an explainer that was skipped on this
    model; one without any score on the board is last everywhere.
    """
    import numpy as np

    ok = np.isfinite(cell.values)
    taken = board.ranked & (ok.any(0) | (cell.failed > 0) | ~board.scored)
    made = np.full(cell.values.shape, np.nan)
    made[:, taken] = (taken.sum() - rank(cell.values[:, taken], board.verdicts.direction)) / max(taken.sum() - 1, 1)
    made[~ok[:, taken].any(1)] = np.nan
    return made


def rescaled(board: Board) -> Values | None:
    """None without a null control, or where no score differs from it."""
    import numpy as np

    verdicts = board.verdicts
    pool, reference = verdicts.pool, null(verdicts.explainers)
    if reference is None or not board.scored[reference]:
        return None
    candidates = board.scored & ~np.array([e.is_control for e in verdicts.explainers])
    spread = pool.spread(reference)[candidates]
    scale = np.median(spread[np.isfinite(spread)]) if np.isfinite(spread).any() else 0.0
    if scale == 0:
        return None
    difference, sign = pool.against(reference), 1 if verdicts.direction == "higher" else -1
    made = []
    for values in (difference.mean, difference.means):
        values = np.where(board.scored, values * sign / scale, np.nan)
        last = np.nan_to_num(np.fmin.reduce(values, axis=-1, keepdims=True))  # 0: nothing was drawn, all are alike
        made.append(np.where(board.ranked & ~np.isfinite(values), last, values))
    return made[0], made[1].astype("float32")
