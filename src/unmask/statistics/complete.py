"""Which explainers can be compared on the same scores, and the scores on which they can.

A row is what one model gives for one image: a score per explainer. An explainer that is skipped on a whole model would
take all of the model's rows out of the comparison, so it is left out of it instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SHARE = 0.9  # of the rows of every model that an explainer must have to take part


def comparable(cubes: Iterable[np.ndarray]) -> np.ndarray:
    """Explainers with a score in at least `SHARE` of each model's rows: bool [E] of cubes [I, S, M, E].

    A row counts where any explainer has a score; a model without such rows is no obstacle.
    """
    import numpy as np

    found = None
    for cube in cubes:
        known = np.isfinite(cube)
        rows = known.any(-1).sum((0, 1))[:, None]
        enough = (known.sum((0, 1)) >= SHARE * rows).all(0)
        seen = known.any((0, 1, 2))
        found = (enough, seen) if found is None else (found[0] & enough, found[1] | seen)
    if found is None:
        raise ValueError("no scores to compare")
    return found[0] & found[1]


def complete(cube: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The scores [I, S, M, K] of the chosen explainers in rows that have all of them; NaN in the other rows."""
    import numpy as np

    cube = cube[..., chosen]
    return np.where(np.isfinite(cube).all(-1, keepdims=True), cube, np.nan)


def image_means(cube: np.ndarray) -> np.ndarray:
    """The means [I, K] of complete rows over seeds and encoders; NaN for an image without any."""
    import numpy as np

    known = np.isfinite(cube[..., :1])
    n = known.sum((1, 2))
    total = np.where(known, cube, 0.0).sum((1, 2))
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def pair_means(cube: np.ndarray) -> np.ndarray:
    """The mean difference [I, E, E] (first minus second explainer) of each image over the rows that have both scores.

    NaN where there are none.
    """
    import numpy as np

    rows = cube.reshape(len(cube), -1, cube.shape[-1])
    known = np.isfinite(rows)
    # What a row's scores have in common cancels in every difference; taken off first, it leaves no rounding behind.
    centre = np.where(known, rows, 0.0).sum(-1, keepdims=True) / np.maximum(known.sum(-1, keepdims=True), 1)
    filled = np.where(known, rows - centre, 0.0)
    n = known.transpose(0, 2, 1).astype(np.float64) @ known
    total = filled.transpose(0, 2, 1) @ known
    difference = total - total.transpose(0, 2, 1)
    return np.divide(difference, n, out=np.full(n.shape, np.nan), where=n > 0)


def mean_known(parts: list[np.ndarray]) -> np.ndarray:
    """The mean of arrays of one shape, element by element over those that are known; NaN where none is."""
    import numpy as np

    stacked = np.stack(parts)
    n = np.isfinite(stacked).sum(0)
    return np.divide(np.nansum(stacked, 0), n, out=np.full(n.shape, np.nan), where=n > 0)
