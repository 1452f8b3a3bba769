"""Pixel flipping against the model's own random order: what share of that area the map's order saves.

A model trained on masked images tolerates removal, so raw areas of models with different mask ratios do not compare.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import area

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [None, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "patches // step * (1 + orders)", "explanations": "0"},
    "shares": {"forward": {"morf": "patches // step"}},
    "draws": {"random": "patches // step * orders"},
    "options": {"orders": 2, "step": 1},
    "ranges": {"orders": [1, None], "step": [1, None]},
    "chance": "0",
    "citation": "Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS 2017",
}


def score(case: Case, orders: int, step: int) -> np.ndarray:
    """1 - area / (mean area of `orders` random orders, the same for every explainer): float64 [N], at most 1."""
    rng = np.random.default_rng(case.seed)
    grid = case.patch_maps.shape
    chance = np.mean([area(case, case.ranks(rng.random(grid)), step) for _ in range(orders)], axis=0)
    return 1 - area(case, case.ranks(case.patch_maps), step) / chance
