"""Average sensitivity: how far the map moves, on average, when a little noise is added to the image."""

from __future__ import annotations

import numpy as np
from quantus import AvgSensitivity

from unmask.case import Case
from unmask.metrics import _noise

META = {
    "category": "robustness",
    "direction": "lower",
    "bounds": [0.0, None],
    "needs": ["explainer"],
    "passes": {"forward": "0", "explanations": "samples"},
    "shares": {"explanations": {"noise": "samples"}},
    "options": {"samples": 5, "radius": 0.05},
    "ranges": {"samples": [1, None], "radius": [0.0, 1.0]},
    "quantus": "AvgSensitivity",
    "chance": "about 2 ** 0.5 for an explainer of zero-mean noise",
    "citation": "Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019",
}


def score(case: Case, samples: int, radius: float) -> np.ndarray:
    """Mean ||map(x + noise) - map(x)|| / ||map(x)|| of `samples` draws: float64 [N], 0 or more.

    `radius` bounds the noise.
    """
    return _noise.judge(AvgSensitivity, case, samples, radius, normalise=False)
