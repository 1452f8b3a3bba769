"""Relevance mass accuracy: which share of the positive attribution lies on the evidence?"""

from __future__ import annotations

import numpy as np
from quantus import RelevanceMassAccuracy

from unmask.case import Case
from unmask.quantus_bridge import COMMON, against_masks

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks"],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "quantus": "RelevanceMassAccuracy",
    "undefined": "the map is nowhere positive",
    "chance": "the evidence's share of the image",
    "citation": "Arras et al., CLEVR-XAI: a Benchmark Dataset for the Ground Truth Evaluation of Neural Network "
    "Explanations, Information Fusion 2022",
}


def score(case: Case) -> np.ndarray:
    """Positive attribution on the evidence over all positive attribution: float64 [N] in [0, 1].

    The positive part only: over signed sums the ratio has no bounds. NaN where nothing is positive.
    """
    metric = RelevanceMassAccuracy(abs=False, normalise=False, **COMMON)
    return against_masks(metric, case, np.maximum(case.pixel_maps, 0).astype(np.float64))
