"""Attribution localisation: which share of the attribution's magnitude, of either sign, lies on the evidence?"""

from __future__ import annotations

import numpy as np
from quantus import AttributionLocalisation

from unmask.case import Case
from unmask.quantus_bridge import COMMON, against_masks

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks"],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "quantus": "AttributionLocalisation",
    "chance": "the evidence's share of the image",
    "citation": "Kohlbrenner et al., Towards Best Practice in Explaining Neural Network Decisions with LRP, IJCNN 2020",
}


def score(case: Case) -> np.ndarray:
    """Absolute attribution on the evidence over all absolute attribution: float64 [N] in [0, 1].

    Unweighted: Quantus's weighted form divides by the size of the mini-batch. Normalised by image, since it adds 1e-9.
    """
    metric = AttributionLocalisation(weighted=False, positive_attributions=False, abs=True, normalise=True, **COMMON)
    return against_masks(metric, case, case.pixel_maps.astype(np.float64))
