"""Pixel flipping the other way round: how long the target's probability stands as the least relevant patches go."""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import area, curves, least_first

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
    "citation": "Ancona et al., Towards Better Understanding of Gradient-Based Attribution Methods for Deep Neural "
    "Networks, ICLR 2018; Samek et al., IEEE TNNLS 2017",
}


def score(case: Case, step: int) -> np.ndarray:
    """Area under the probability's curve, least relevant patch first: float64 [N] in [0, 1]."""
    (points,) = curves(case, least_first(case), step=step)
    case.trace("pixel_flipping_lerf", points)
    return area(points)
