"""Relevance rank accuracy: how many of the K highest pixels are evidence, K being the evidence's size."""

from __future__ import annotations

import numpy as np
from quantus import RelevanceRankAccuracy

from unmask.case import Case
from unmask.quantus_bridge import COMMON, against_masks

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks"],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "quantus": "RelevanceRankAccuracy",
    "chance": "the evidence's share of the image",
    "citation": "Arras et al., CLEVR-XAI: a Benchmark Dataset for the Ground Truth Evaluation of Neural Network "
    "Explanations, Information Fusion 2022",
}


def score(case: Case) -> np.ndarray:
    """Share of evidence among the K highest pixels, ties in random order: float64 [N] in [0, 1]."""
    metric = RelevanceRankAccuracy(abs=False, normalise=False, **COMMON)
    return against_masks(metric, case, case.ranks(case.pixel_maps))
