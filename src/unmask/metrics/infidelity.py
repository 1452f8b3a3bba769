"""Infidelity: how far the attribution of a square of patches is from what the square's removal does to the logit.

Quantus removes one block after another and puts none back, so that its last block is judged with all else gone. Here
every square goes alone, as in the paper's square removal.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._subsets import drops, singles, squares, sums

META = {
    "category": "faithfulness",
    "direction": "lower",
    "bounds": [0.0, 1.0],
    "needs": ["removal"],
    "passes": {
        "forward": "1 + patches + (patches ** 0.5 - 1) ** 2 + (patches ** 0.5 - 2) ** 2",
        "explanations": "0",
    },
    "draws": {
        "ends": "1",
        "singles": "patches",
        "squares": "(patches ** 0.5 - 1) ** 2 + (patches ** 0.5 - 2) ** 2",
    },
    "options": {},
    "undefined": "no square makes any difference to the logit",
    "chance": "below 1, since a larger square makes more of a difference whatever is in it: a constant map's",
    "citation": "Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019",
}


def score(case: Case) -> np.ndarray:
    """Mean squared error over all squares of 1, 4 and 9 patches, relative to the zero map's: float64 [N] in [0, 1].

    The map is scaled by the factor, 0 or more, that makes the error least, as in the paper's experiments: explainers
    have units of their own. But a negative factor would praise a map for being wrong about the sign. NaN where no
    square makes any difference.
    """
    maps = case.patch_maps.astype(np.float64)
    parts = [singles(case), squares(case, (2, 3))]
    said = np.concatenate([sums(maps, removed) for removed in parts], axis=1)
    fell = drops(case, *parts, softmax=False)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.maximum((said * fell).sum(1) / (said**2).sum(1), 0)
        factor = np.where((said == 0).all(1), 0, factor)
        return ((factor[:, None] * said - fell) ** 2).mean(1) / (fell**2).mean(1)
