"""Monotonicity correlation: are the patches that the map calls important, of either sign, those that matter?"""

from __future__ import annotations

import numpy as np
from quantus import MonotonicityCorrelation
from scipy.stats import rankdata

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
    "quantus": "MonotonicityCorrelation",
    "undefined": "the attribution or the probability is the same for all patches",
    "chance": "0",
    "citation": "Nguyen & Martinez, On Quantitative Aspects of Model Interpretability, 2020",
}


def score(case: Case) -> np.ndarray:
    """Spearman correlation over all patches: float64 [N] in [-1, 1].

    Between the attribution's magnitude and the squared change of the target's probability without the patch. NaN where
    either is constant.
    """
    maps = np.abs(case.patch_maps.astype(np.float64))
    if case.engine == "quantus":
        metric = MonotonicityCorrelation(
            nr_samples=1, features_in_step=1, perturb_baseline=0.0, abs=True, normalise=False, **COMMON
        )
        return in_token_space(metric, case, maps, softmax=True)
    changes = drops(case, singles(case), softmax=True) ** 2
    return correlation(rankdata(maps.reshape(len(maps), -1), axis=1), rankdata(changes, axis=1))
