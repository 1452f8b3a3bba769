"""Complexity: the entropy of the map's magnitude over patches."""

from __future__ import annotations

import numpy as np
from quantus import Complexity

from unmask.case import Case
from unmask.quantus_bridge import COMMON, of_map

META = {
    "category": "complexity",
    "direction": "lower",
    "bounds": [0.0, None],
    "needs": [],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "quantus": "Complexity",
    "chance": "log P - log 2 + 1/2 for uniform values on P patches",
    "citation": "Bhatt et al., Evaluating and Aggregating Feature-Based Model Explanations, IJCAI 2020, eq. 6",
}


def score(case: Case) -> np.ndarray:
    """Entropy in nats, 0 (one patch has all) to log P (all P patches alike): float64 [N]."""
    metric = Complexity(abs=True, normalise=True, **COMMON)
    return of_map(metric, case, case.patch_maps.astype(np.float64))
