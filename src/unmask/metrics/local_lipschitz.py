"""Local Lipschitz estimate: how far the map moves for how far the image moved, at worst."""

from __future__ import annotations

import numpy as np
from quantus import LocalLipschitzEstimate

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
    "quantus": "LocalLipschitzEstimate",
    "chance": "depends on the image size",
    "citation": "Alvarez-Melis & Jaakkola, On the Robustness of Interpretability Methods, WHI at ICML 2018, eq. 2",
}


def score(case: Case, samples: int, radius: float) -> np.ndarray:
    """Largest ||map(x + noise) - map(x)|| / ||noise|| of `samples` draws: float64 [N], 0 or more.

    Each map is divided by its largest magnitude first: explainers have units of their own. `radius` bounds the noise.
    """
    return _noise.judge(LocalLipschitzEstimate, case, samples, radius, normalise=True)
