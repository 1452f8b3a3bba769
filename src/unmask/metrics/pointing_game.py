"""Pointing game: does the map's highest pixel lie on the evidence?"""

from __future__ import annotations

import numpy as np
from quantus import PointingGame

from unmask.case import Case
from unmask.quantus_bridge import COMMON, against_masks

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks"],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "quantus": "PointingGame",
    "chance": "the evidence's share of the image",
    "citation": "Zhang et al., Top-Down Neural Attention by Excitation Backprop, IJCV 2018",
}


def score(case: Case) -> np.ndarray:
    """1 where the highest pixel is evidence, else 0: float64 [N].

    One pixel is drawn among ties, so that a map on the patch grid is not given a whole patch to hit with.
    """
    metric = PointingGame(weighted=False, abs=False, normalise=False, **COMMON)
    return against_masks(metric, case, case.ranks(case.pixel_maps))
