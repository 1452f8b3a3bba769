"""Effective complexity: how many patches have a magnitude that counts beside the largest."""

from __future__ import annotations

import numpy as np
from quantus import EffectiveComplexity

from unmask.case import Case
from unmask.quantus_bridge import COMMON, of_map

META = {
    "category": "complexity",
    "direction": "lower",
    "bounds": [1.0, None],
    "needs": [],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {"threshold": 0.1},
    "ranges": {"threshold": [0.0, 1.0]},
    "quantus": "EffectiveComplexity",
    "chance": "P (1 - threshold) for uniform values on P patches",
    "citation": "Nguyen & Martinez, On Quantitative Aspects of Model Interpretability, arXiv:2007.07584, 2020, as "
    "Quantus simplifies it",
}


def score(case: Case, threshold: float) -> np.ndarray:
    """Number of patches with a magnitude above `threshold` of the map's largest: float64 [N] in 1 ... P.

    Each map is divided by its own largest magnitude; Quantus's default divides by the largest of the whole call, and
    its threshold of 0.00001 counts every patch of almost every map. The paper's quantity, which asks the model, is
    `patches_needed`.
    """
    metric = EffectiveComplexity(eps=threshold, abs=True, normalise=True, **COMMON)
    return of_map(metric, case, case.patch_maps.astype(np.float64))
