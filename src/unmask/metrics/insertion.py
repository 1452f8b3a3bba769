"""Insertion: how fast the target's probability rises as the most relevant patches enter an image that lacks all.

The inputs are those of `pixel_flipping_lerf` from the other end, and so is the area but for its ends: the two rank
explainers alike, and one vote is enough.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import curves, least_first

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "patches // step + 1", "explanations": "0"},
    "shares": {"forward": {"lerf": "patches // step - 1"}},
    "draws": {"ends": "2"},
    "options": {"step": 1},
    "ranges": {"step": [1, None]},
    "chance": "the area of a random order, which depends on the model",
    "citation": "Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018",
}


def score(case: Case, step: int) -> np.ndarray:
    """Area under the probability's curve from no patch to all of them, by trapezoids: float64 [N] in [0, 1]."""
    (points,) = curves(case, least_first(case), step=step)
    inserted = points[:, ::-1]
    return np.trapezoid(inserted, axis=1) / (inserted.shape[1] - 1)
