"""The area under the ROC curve of a map's pixels, which two metrics read."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def auc(maps: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """The probability that a positive pixel has a higher value than a negative one, ties counting half: float64 [N].

    `maps` float [N, H, W], finite; `positive`, `negative` bool [N, H, W]; other pixels do not count. By the ranks of
    Mann & Whitney (1947), which is the trapezoidal area (Hanley & McNeil, Radiology 1982). NaN where either is empty.
    """
    taken = (positive | negative).reshape(len(maps), -1)
    values = np.where(taken, maps.reshape(taken.shape).astype(np.float64), -np.inf)  # the others have the lowest ranks
    ranks = rankdata(values, axis=1) - (~taken).sum(1, keepdims=True)
    ups, downs = positive.sum((1, 2)), negative.sum((1, 2))
    with np.errstate(invalid="ignore"):
        return ((ranks * positive.reshape(taken.shape)).sum(1) - ups * (ups + 1) / 2) / (ups * downs)
