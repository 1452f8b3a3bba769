"""Region perturbation (AOPC): how far the target's logit falls, on average, while the first patches go.

It reads the beginning of pixel flipping's curve, where little is removed yet, and in logits, which fall before a
saturated probability does. Over all patches and in probabilities it would be pixel flipping's area again.
"""

from __future__ import annotations

import numpy as np
from quantus import RegionPerturbation

from unmask.case import Case
from unmask.metrics._curves import curves, most_first
from unmask.quantus_bridge import COMMON, in_token_space

META = {
    "category": "faithfulness",
    # Quantus's class says "lower"; what it returns, and what the paper averages, is the fall.
    "direction": "higher",
    "needs": ["removal"],
    "passes": {"forward": "patches // step + 1", "explanations": "0"},
    "shares": {"forward": {"morf": "patches // step - 1"}},
    "draws": {"ends": "2"},
    "options": {"share": 0.25, "step": 1},
    "ranges": {"share": [0.0, 1.0], "step": [1, None]},
    "chance": "the fall in a random order, which depends on the model",
    "citation": "Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS "
    "2017, eq. 12",
}


def score(case: Case, share: float, step: int) -> np.ndarray:
    """Mean fall of the logit after `step`, 2 `step` ... `share` of the patches, most relevant first: float64 [N]."""
    ranks = most_first(case)
    steps = max(1, round(share * ranks[0].size / step))
    if case.engine == "quantus":
        metric = RegionPerturbation(
            patch_size=1,
            order="morf",
            regions_evaluation=steps * step,
            perturb_baseline=0.0,
            abs=False,
            normalise=False,
            **COMMON,
        )
        return in_token_space(metric, case, ranks, softmax=False)[:, step - 1 :: step].mean(axis=1)
    (points,) = curves(case, ranks, step=step, softmax=False)
    return (points[:, :1] - points[:, 1 : steps + 1]).mean(axis=1)
