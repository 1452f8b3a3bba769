"""Patches needed: which share of the patches, the most relevant ones alone, keeps the model's confidence?"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import curves, least_first

META = {
    "category": "complexity",
    "direction": "lower",
    "bounds": [0.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "patches // step + 1", "explanations": "0"},
    "shares": {"forward": {"lerf": "patches // step - 1"}},
    "draws": {"ends": "2"},
    "options": {"step": 1, "tolerance": 0.1},
    "ranges": {"step": [1, None], "tolerance": [0.0, None]},
    "chance": "the share that a random order needs, which depends on the model",
    "citation": "Nguyen & Martinez, On Quantitative Aspects of Model Interpretability, arXiv:2007.07584, 2020, "
    "definition of effective complexity",
}


def score(case: Case, step: int, tolerance: float) -> np.ndarray:
    """Smallest share of the patches that keeps the target's log-probability to `tolerance` nats: float64 [N].

    In [0, 1]: the paper's effective complexity, its loss being the cross-entropy against the whole image's, and what
    is not kept being realised by the removal. The patches that count most are the first in the map's order, not in
    that of its magnitude: evidence against the target does not help to keep it. 0 where the model says the same of an
    image of which nothing is left. Read from the curve of the least relevant patches first.
    """
    (likely,) = curves(case, least_first(case), step=step)
    points = np.log(np.maximum(likely, np.finfo(np.float64).tiny))
    enough = points >= points[:, :1] - tolerance  # after 0, `step`, 2 `step` ... patches are gone
    gone = enough.shape[1] - 1 - enough[:, ::-1].argmax(1)
    return 1 - gone / (enough.shape[1] - 1)
