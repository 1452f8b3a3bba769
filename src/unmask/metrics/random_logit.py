"""Random logit test: is the map another one when another class is explained?

A gate: a map that stays the same whatever is asked for cannot say why this class and no other. Where one class speaks
against the other, a map with reversed signs is another map.
"""

from __future__ import annotations

import numpy as np
import torch

from unmask.case import Case
from unmask.errors import Skip
from unmask.metrics import _alike

META = {
    "category": "randomisation",
    "direction": "lower",
    "bounds": [-1.0, 1.0],
    "gate": True,
    "pass": {"below": 0.5},
    "needs": ["explainer"],
    "passes": {"forward": "0", "explanations": "2"},
    "shares": {"explanations": {"paired": "1"}},
    "options": {},
    "quantus": "RandomLogit",
    "chance": "1 for a map that does not depend on the class",
    "citation": "Sixt et al., When Explanations Lie: Why Many Modified BP Attributions Fail, ICML 2020",
}


def score(case: Case) -> np.ndarray:
    """Rank correlation over patches of the maps for the target and for another class, drawn: float64 [N] in [-1, 1]."""
    classes = case.model.classes
    if classes < 2:
        raise Skip("the model knows one class only")
    drawn = torch.from_numpy(case.rng("class").integers(classes - 1, size=len(case))).to(case.targets)
    others = drawn + (drawn >= case.targets)  # every class but the target, each as likely
    own, other = (case.explain(case.images, asked, paired=True) for asked in (case.targets, others))
    return _alike.rank_correlation(own, other, case.model.grid, magnitude=False)
