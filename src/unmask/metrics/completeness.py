"""Completeness: do the map's values add up to what the image as a whole does to the logit?

Of all explainers, in their own units. Methods that promise it (integrated gradients, DeepLIFT, Shapley values) promise
it for a baseline of theirs, and it shows under the removal that is this baseline. A map of other units, say between 0
and 1, adds up to nothing in particular, which is what the axiom says of it.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._target import intact, of_target

META = {
    "category": "axiomatic",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "2", "explanations": "0"},
    "draws": {"ends": "2"},
    "options": {},
    "quantus": "Completeness",
    "chance": "depends on the units: 0 where sum and difference differ in sign or by orders of magnitude",
    "citation": "Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, proposition 1",
}


def score(case: Case) -> np.ndarray:
    """1 - |s - d| / (|s| + |d|): float64 [N], 1 where complete, 0 where the signs differ.

    s is the sum of the map, d the target's logit less that with every patch absent. Quantus asks whether s == d, which
    no sum of floats is.
    """
    absent = case.logits(np.zeros((len(case), *case.model.grid), bool))[:, None]
    change = intact(case, softmax=False) - of_target(absent, case, softmax=False)[:, 0]
    total = case.maps.reshape(len(case), -1).sum(1, dtype=np.float64)
    size = np.abs(total) + np.abs(change)
    return 1 - np.abs(total - change) / np.where(size == 0, 1, size)
