"""Faithfulness estimate: does each patch's attribution tell what the removal of this patch alone does to the logit?"""

from __future__ import annotations

import numpy as np
from quantus import FaithfulnessEstimate

from unmask.case import Case
from unmask.metrics._subsets import correlation, drops, singles
from unmask.quantus_bridge import COMMON, in_token_space

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [-1.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "1 + patches", "explanations": "0"},
    "draws": {"ends": "1", "singles": "patches"},
    "options": {},
    "quantus": "FaithfulnessEstimate",
    "undefined": "the attribution or the logit is the same for all patches",
    "chance": "0",
    "citation": "Alvarez-Melis & Jaakkola, Towards Robust Interpretability with Self-Explaining Neural Networks, "
    "NeurIPS 2018",
}


def score(case: Case) -> np.ndarray:
    """Pearson correlation over all patches: float64 [N] in [-1, 1].

    Between a patch's attribution and the fall of the target's logit without it. NaN where either is constant.
    """
    maps = case.patch_maps.astype(np.float64)
    if case.engine == "quantus":
        metric = FaithfulnessEstimate(features_in_step=1, perturb_baseline=0.0, abs=False, normalise=True, **COMMON)
        return in_token_space(metric, case, maps, softmax=False)
    return correlation(maps.reshape(len(maps), -1), drops(case, singles(case), softmax=False))
