"""Faithfulness correlation by patches: do random subsets' attributions tell what their removal does to the logit?"""

from __future__ import annotations

import numpy as np
from quantus import FaithfulnessCorrelation

from unmask.case import Case
from unmask.metrics._subsets import correlation, drops, sums
from unmask.quantus_bridge import COMMON, in_token_space

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [-1.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "1 + runs", "explanations": "0"},
    "draws": {"ends": "1", "correlation": "runs"},
    "options": {"runs": 50, "share": 0.25},
    "ranges": {"runs": [3, None], "share": [0.0, 1.0]},
    "quantus": "FaithfulnessCorrelation",
    "undefined": "the attribution or the logit is the same for all subsets",
    "chance": "0",
    "citation": "Bhatt et al., Evaluating and Aggregating Feature-Based Model Explanations, IJCAI 2020, eq. 5",
}


def score(case: Case, runs: int, share: float) -> np.ndarray:
    """Pearson correlation over `runs` random subsets of `share` of the patches: float64 [N] in [-1, 1].

    Between the subset's summed attribution and the fall of the target's logit. NaN where either is constant.
    """
    maps = case.patch_maps.astype(np.float64)
    patches = maps[0].size
    subset = min(max(round(share * patches), 1), patches - 1)
    if case.engine == "quantus":
        metric = FaithfulnessCorrelation(
            nr_runs=runs, subset_size=subset, perturb_baseline=0.0, abs=False, normalise=True, **COMMON
        )
        return in_token_space(metric, case, maps, softmax=False)
    key = "subsets", case.seed, len(case), patches, runs, subset
    removed = case.shared.get(key, lambda: _drawn(case, runs, subset))
    return correlation(sums(maps, removed), drops(case, removed, softmax=False))


def _drawn(case: Case, runs: int, subset: int) -> np.ndarray:
    """The subsets that Quantus draws, bool [N, runs, gh, gw]: from numpy's old generator, run by run."""
    draws = np.random.RandomState(case.seed % 2**32)
    removed = np.zeros((len(case), runs, np.prod(case.model.grid)), bool)
    for run in range(runs):
        for i in range(len(case)):
            removed[i, run, draws.permutation(removed.shape[2])[:subset]] = True
    return removed.reshape(len(case), runs, *case.model.grid)
