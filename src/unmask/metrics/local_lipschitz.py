"""Local Lipschitz estimate: how far the map moves for how far the image moved, at worst."""

from __future__ import annotations

import numpy as np
from quantus import LocalLipschitzEstimate
from quantus.functions.perturb_func import batch_uniform_noise

from unmask.case import Case
from unmask.quantus_bridge import COMMON, re_explaining

META = {
    "category": "robustness",
    "direction": "lower",
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

    Each map is divided by its largest magnitude first: explainers have units of their own.

    The noise is uniform in [-`radius`, `radius`]; images are in [0, 1], and not clipped to it: that would give dark and
    bright ones less noise.
    """
    metric = LocalLipschitzEstimate(
        nr_samples=samples,
        perturb_func=batch_uniform_noise,
        perturb_func_kwargs={"lower_bound": radius, "upper_bound": None},
        abs=False,
        normalise=True,
        return_nan_when_prediction_changes=False,
        **COMMON,
    )
    return re_explaining(metric, case)
