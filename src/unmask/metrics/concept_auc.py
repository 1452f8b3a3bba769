"""Concept AUC: does the map put the evidence above every kind of distractor?"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._roc import auc

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks", "concepts"],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "chance": "1/2",
    "citation": "after Yang & Kim, Benchmarking Attribution Methods with Relative Feature Importance, "
    "arXiv:1907.09701, 2019; Fawcett, An Introduction to ROC Analysis, Pattern Recognition Letters 2006",
}


def score(case: Case) -> np.ndarray:
    """Mean over the concepts in the image of P(value on the evidence > value on the concept): float64 [N] in [0, 1].

    Ties count half. Every kind of distractor weighs the same, a speck as much as a house, and a negative attribution
    is as good as it is low: the order alone counts. NaN where the image lacks evidence or concepts.
    """
    areas = np.array([auc(case.pixel_maps, case.masks, pixels) for pixels in case.concepts.values()])
    with np.errstate(invalid="ignore"):
        return np.nansum(areas, axis=0) / np.isfinite(areas).sum(axis=0)
