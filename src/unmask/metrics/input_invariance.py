"""Input invariance: does the map stay when every image is shifted and the network's first layer takes the shift away?

The two networks compute the same function of the image, so that there is nothing to explain otherwise. What fails reads
the numbers in the image and not what they mean: a product with the input, or a baseline fixed at 0. Images of the
training split that an explainer refers to are shifted too, as they would be in such data.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics import _alike, _networks

META = {
    "category": "axiomatic",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["explainer"],
    "passes": {"forward": "0", "explanations": "2"},
    "shares": {"explanations": {"paired": "1"}},
    "options": {"shift": -1.0},
    "quantus": "InputInvariance",
    "chance": "1 for a map that reads no image",
    "citation": "Kindermans et al., The (Un)reliability of Saliency Methods, in Explainable AI, Springer 2019",
}


def score(case: Case, shift: float) -> np.ndarray:
    """1 - ||a - b|| / (||a|| + ||b||), of the maps a and b before and after: float64 [N] in [0, 1], 1 = invariant.

    ||.|| sums magnitudes. `shift` is added to all values of the image, which are in [0, 1] before.
    """
    network = case.shared.get(("network", "shifted", shift), lambda: _networks.shifted(case.model, shift))
    own = case.explain(case.images, case.targets, paired=True)
    return _alike.overlap(own, case.explain(case.images + shift, case.targets, network, paired=True))
