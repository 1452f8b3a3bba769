"""Relative output stability: by how much the map changes, per patch, for how much the logits change, at worst."""

from __future__ import annotations

import numpy as np
from quantus import RelativeOutputStability

from unmask.case import Case
from unmask.metrics import _noise

META = {
    "category": "robustness",
    "direction": "lower",
    "bounds": [0.0, None],
    "needs": ["explainer"],
    "passes": {"forward": "1 + samples", "explanations": "samples"},
    "shares": {"explanations": {"noise": "samples"}},
    "draws": {"noise": "1 + samples"},  # the noisy images' logits, the same for every explainer
    "options": {"samples": 5, "radius": 0.05},
    "ranges": {"samples": [1, None], "radius": [0.0, 1.0]},
    "quantus": "RelativeOutputStability",
    "chance": "none fixed: compare with the control random_patch",
    "citation": "Agarwal et al., Rethinking Stability for Attribution-based Explanations, arXiv:2203.06877, 2022",
}


def score(case: Case, samples: int, radius: float) -> np.ndarray:
    """Largest ||(m(x) - m(x')) / m(x)|| / ||h(x) - h(x')|| of `samples` draws of x': float64 [N], 0 or more.

    m is the map summed over patches, divided by its largest magnitude; x' is x and noise within `radius`; h are the
    logits.
    """
    return _noise.relative(RelativeOutputStability, case, samples, radius)
