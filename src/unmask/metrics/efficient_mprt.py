"""Efficient MPRT: does the map become more complex when all the network's weights are of chance?

A gate: the map of a network that knows nothing should be less orderly than that of a trained one. It asks for no
likeness of two maps, which noise in them brings down as well. The random network is that of `mprt`.
"""

from __future__ import annotations

import math

import numpy as np
from quantus.functions.complexity_func import discrete_entropy

from unmask.case import Case
from unmask.metrics import _networks

META = {
    "category": "randomisation",
    "direction": "higher",
    "bounds": [-1.0, None],
    "gate": True,
    "pass": {"above": 0.0},
    "needs": ["explainer"],
    "passes": {"forward": "0", "explanations": "2"},
    "shares": {"explanations": {"paired": "1", "cascade": "1"}},
    "options": {},
    "quantus": "EfficientMPRT",
    "chance": "0 for a map that does not depend on the network",
    "citation": "Hedström et al., Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation "
    "Test, XAI in Action at NeurIPS 2023, eq. 5",
}


def score(case: Case) -> np.ndarray:
    """(entropy of the random network's map - entropy of the map) / entropy of the map: float64 [N], -1 or more.

    The entropy is that of a histogram of the map's values, in as many bins from its lowest to its highest as the square
    root of their number. Quantus's 100 bins have room for each value of a patch map, so that all are as complex.
    """
    bins = math.ceil(case.maps[0].size ** 0.5)
    network = _networks.cascade(case, 1)[-1]
    own = _entropy(case.explain(case.images, case.targets, paired=True), bins)
    other = _entropy(case.explain(case.images, case.targets, network, paired=True), bins)
    return (other - own) / np.where(own == 0, np.nan, own)


def _entropy(maps: np.ndarray, bins: int) -> np.ndarray:
    """float64 [N]; NaN where a map is not finite."""
    return np.array([discrete_entropy(a=one, x=one, n_bins=bins) if np.isfinite(one).all() else np.nan for one in maps])
