"""Pixel flipping against the model's own random order: what share of that area the map's order saves.

A model trained on masked images tolerates removal, so raw areas of models with different mask ratios do not compare.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import beside_random, most_first

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [None, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "2 + (patches // step - 1) * (1 + orders)", "explanations": "0"},
    "shares": {"forward": {"morf": "patches // step - 1"}},
    "draws": {"ends": "2", "random": "(patches // step - 1) * orders"},
    "options": {"orders": 4, "step": 1},
    "ranges": {"orders": [1, None], "step": [1, None]},
    "chance": "about 0: a ratio to the mean of `orders` random orders",
    "citation": "Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS 2017",
}


def score(case: Case, orders: int, step: int) -> np.ndarray:
    """1 - area / (mean area of `orders` random orders, the same for every explainer): float64 [N], at most 1."""
    own, chance = beside_random(case, most_first(case), orders, step)
    return 1 - own / chance
