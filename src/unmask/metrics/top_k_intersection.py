"""Top-k intersection: how many of the map's highest pixels, a fixed share of the image, are evidence."""

from __future__ import annotations

import numpy as np
from quantus import TopKIntersection

from unmask.case import Case
from unmask.quantus_bridge import COMMON, against_masks

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks"],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {"share": 0.02},
    "ranges": {"share": [0.0, 0.99]},
    "quantus": "TopKIntersection",
    "chance": "the evidence's share of the image",
    "citation": "Theiner et al., Interpretable Semantic Photo Geolocation, WACV 2022",
}


def score(case: Case, share: float) -> np.ndarray:
    """Share of evidence among the k = `share` of all pixels with the highest values: float64 [N] in [0, 1].

    Ties in random order. Evidence of fewer than k pixels bounds the score by its size over k, for every explainer
    alike. Quantus's default, k = 1000 pixels, is 2 % of an image of 224 px and a quarter of one of 64 px.
    """
    metric = TopKIntersection(
        k=max(1, round(share * case.masks[0].size)), concept_influence=False, abs=False, normalise=False, **COMMON
    )
    return against_masks(metric, case, case.ranks(case.pixel_maps))
