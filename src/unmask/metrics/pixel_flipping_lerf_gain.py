"""Least relevant first against the model's own random order: what share of what that order loses the map's order keeps.

The mirror of `pixel_flipping_gain`: areas above the curves, where that has areas below.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import beside_random, least_first

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [None, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "2 + (patches // step - 1) * (1 + orders)", "explanations": "0"},
    "shares": {"forward": {"lerf": "patches // step - 1"}},
    "draws": {"ends": "2", "random": "(patches // step - 1) * orders"},
    "options": {"orders": 4, "step": 1},
    "ranges": {"orders": [1, None], "step": [1, None]},
    "chance": "about 0: a ratio to the mean of `orders` random orders",
    "citation": "Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS 2017",
}


def score(case: Case, orders: int, step: int) -> np.ndarray:
    """1 - (1 - area) / (1 - mean area of `orders` random orders): float64 [N], at most 1.

    The random orders are the same for every explainer.
    """
    own, chance = beside_random(case, least_first(case), orders, step)
    return 1 - (1 - own) / (1 - chance)
