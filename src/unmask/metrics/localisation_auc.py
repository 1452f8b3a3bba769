"""Localisation AUC: how well the map's values tell evidence pixels from the others, at every threshold."""

from __future__ import annotations

import numpy as np
from quantus import AUC

from unmask.case import Case
from unmask.metrics._roc import auc
from unmask.quantus_bridge import COMMON, against_masks

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks"],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "quantus": "AUC",
    "chance": "1/2",
    "citation": "Fawcett, An Introduction to ROC Analysis, Pattern Recognition Letters 2006",
}


def score(case: Case) -> np.ndarray:
    """P(value of an evidence pixel > value of another pixel), ties counting half: float64 [N] in [0, 1].

    The chance level does not depend on the evidence's size. The order of all pixels counts alike, so a map that is
    right at its few highest ones gains little from that. NaN without evidence or where all is evidence.
    """
    if case.engine == "quantus":
        metric = AUC(abs=False, normalise=False, **COMMON)
        return against_masks(metric, case, case.pixel_maps.astype(np.float64))
    return auc(case.pixel_maps, case.masks, ~case.masks)
