"""Model parameter randomisation test: is the map another one when the network's weights are of chance?

A gate, no contest: a map that stays explains the image and not the network, and one that goes may still be wrong. All
weights are randomised, each tensor with draws of its own, and what stock MPRT leaves alone in a ViT too: position
embedding, class and mask token, layer scale, the norms' scale and offset. They go from the head down, in `steps` parts.

The score is that of the last step, where no weight is left. In the steps before, what the lower blocks compute passes
through, whatever the upper ones do with it (Binder et al., Shortcomings of Top-Down Randomization-Based Sanity Checks,
CVPR 2023), so that they are kept as a curve and not averaged in.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics import _alike, _networks

META = {
    "category": "randomisation",
    "direction": "lower",
    "bounds": [-1.0, 1.0],
    "gate": True,
    "pass": {"below": 0.5},
    "needs": ["explainer"],
    "passes": {"forward": "0", "explanations": "1 + steps"},
    "shares": {"explanations": {"paired": "1", "cascade": "steps"}},
    "options": {"steps": 3},
    "ranges": {"steps": [1, None]},
    "quantus": "MPRT",
    "chance": "1 for a map that does not depend on the network",
    "citation": "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018",
}


def score(case: Case, steps: int) -> np.ndarray:
    """Rank correlation of the map's magnitude over patches with that of the random network: float64 [N] in [-1, 1]."""
    own = case.explain(case.images, case.targets, paired=True)
    curve = [
        _alike.rank_correlation(
            own, case.explain(case.images, case.targets, network, paired=True), case.model.grid, magnitude=True
        )
        for network in _networks.cascade(case, steps)
    ]
    case.trace("mprt", np.stack(curve, axis=1))
    return curve[-1]
