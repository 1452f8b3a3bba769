"""Sensitivity-n: do subsets' attributions tell what their removal does to the logit, whatever the subsets' size?

Quantus correlates over the images of the first mini-batch at each step of one order, and the fall after all steps so
far with the attribution of the last. Here, as in the paper, it is random subsets of one image, size by size.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._subsets import correlation, drops, partitions, sums

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [-1.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "1 + sizes * samples", "explanations": "0"},
    "draws": {"ends": "1", "subsets": "sizes * samples"},
    "options": {"sizes": 4, "samples": 16},
    "ranges": {"sizes": [1, None], "samples": [3, None]},
    "undefined": "the attribution or the logit is the same for all subsets of a size",
    "chance": "0",
    "citation": "Ancona et al., Towards Better Understanding of Gradient-Based Attribution Methods for Deep Neural "
    "Networks, ICLR 2018",
}


def score(case: Case, sizes: int, samples: int) -> np.ndarray:
    """Pearson correlation over `samples` random subsets of n patches, mean over n: float64 [N] in [-1, 1].

    n is a half, a quarter ... of the patches, `sizes` of them; one patch alone is `faithfulness_estimate`. With
    2 ** `sizes` samples or more no patch is in no subset; with fewer, a sparse map may have the same sum everywhere.
    NaN where the attribution or the fall of the target's logit is constant for a size.
    """
    maps = case.patch_maps.astype(np.float64)
    removed = [partitions(case, "sensitivity_n", 2**power, samples) for power in range(1, sizes + 1)]
    fell = np.split(drops(case, *removed, softmax=False), sizes, axis=1)
    return np.mean([correlation(sums(maps, part), drop) for part, drop in zip(removed, fell, strict=True)], axis=0)
