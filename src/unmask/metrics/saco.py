"""Salience-guided faithfulness coefficient (SaCo): do groups of more salient patches matter more, and by as much?"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import most_first
from unmask.metrics._subsets import drops

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [-1.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "1 + groups", "explanations": "0"},
    "draws": {"ends": "1"},
    "options": {"groups": 8},
    "ranges": {"groups": [2, None]},
    "undefined": "the logit falls alike without any group of patches",
    "chance": "0",
    "citation": "Wu et al., On the Faithfulness of Vision Transformer Explanations, CVPR 2024",
}


def score(case: Case, groups: int) -> np.ndarray:
    """Weighted share of pairs of groups in the right order less that of pairs in the wrong one: float64 [N] in [-1, 1].

    The patches, most salient first, make `groups` groups as equal as can be; each goes alone, and what the target's
    probability falls by is compared for every pair, weighted by the difference of the groups' mean salience (the paper
    has sums: the same for equal groups). A pair of equal falls counts for neither side. NaN where all groups are equal.
    """
    maps, ranks = case.patch_maps.astype(np.float64), most_first(case)
    patches = ranks[0].size
    if groups > patches:
        raise ValueError(f"{groups} groups are more than the {patches} patches")
    group = ((patches - ranks) * groups // patches)[:, None] == np.arange(groups)[:, None, None]
    salience = (maps[:, None] * group).sum((2, 3)) / group.sum((2, 3))
    fell = drops(case, group, softmax=True)
    ahead, behind = np.triu_indices(groups, 1)
    weight = salience[:, ahead] - salience[:, behind]
    with np.errstate(invalid="ignore"):
        return (weight * np.sign(fell[:, ahead] - fell[:, behind])).sum(1) / np.abs(weight).sum(1)
