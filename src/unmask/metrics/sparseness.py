"""Sparseness: the Gini index of the map's magnitude over patches."""

from __future__ import annotations

import numpy as np
from quantus import Sparseness

from unmask.case import Case
from unmask.quantus_bridge import COMMON, of_map

META = {
    "category": "complexity",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": [],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "quantus": "Sparseness",
    "chance": "1/3 for uniform values",
    "citation": "Chalasani et al., Concise Explanations of Neural Networks Using Adversarial Training, ICML 2020",
}


def score(case: Case) -> np.ndarray:
    """Gini index, 0 (all patches alike) to 1 - 1 / P (one patch has all): float64 [N].

    On the patch grid for every explainer: the index of a map on pixels counts its noise as sparseness.
    """
    metric = Sparseness(abs=True, normalise=True, **COMMON)
    return of_map(metric, case, case.patch_maps.astype(np.float64))
