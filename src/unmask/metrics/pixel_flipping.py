"""Pixel flipping by whole patches: how fast the target's probability falls as the most relevant patches go.

Also known as deletion (RISE) and as selectivity (Montavon et al.): on patches they are this curve.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import area, curves, most_first

META = {
    "category": "faithfulness",
    "direction": "lower",
    "bounds": [0.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "patches // step + 1", "explanations": "0"},
    "shares": {"forward": {"morf": "patches // step - 1"}},
    "draws": {"ends": "2"},
    "options": {"step": 1},
    "ranges": {"step": [1, None]},
    "quantus": "PixelFlipping",
    "chance": "the area of a random order, which depends on the model",
    "citation": "Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance "
    "Propagation, PLoS ONE 2015; Samek et al., IEEE TNNLS 2017",
}


def score(case: Case, step: int) -> np.ndarray:
    """Area under the probability's curve, most relevant patch first: float64 [N] in [0, 1].

    The probability, not the logit: it is bounded, so areas of different images and models compare.
    """
    (points,) = curves(case, most_first(case), step=step)
    case.trace("pixel_flipping", points)
    return area(points)
