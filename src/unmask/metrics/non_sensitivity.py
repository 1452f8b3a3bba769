"""Non-sensitivity: patches that the map calls irrelevant though their removal matters, and the other way round."""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._subsets import drops, singles

META = {
    "category": "axiomatic",
    "direction": "lower",
    "bounds": [0.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "1 + patches", "explanations": "0"},
    "draws": {"ends": "1", "singles": "patches"},
    "options": {"tolerance": 0.01},
    "ranges": {"tolerance": [0.0, 1.0]},
    "quantus": "NonSensitivity",
    "chance": "the share of patches without an effect, for a map without zeros",
    "citation": "Nguyen & Rodríguez Martínez, On quantitative aspects of model interpretability, arXiv:2007.07584, "
    "2020, section 3.2",
}


def score(case: Case, tolerance: float) -> np.ndarray:
    """The share of patches that are nothing to the map or to the model, but not to both: float64 [N] in [0, 1].

    Nothing is what is at most `tolerance` times the image's largest: of the map's magnitudes over patches, and of the
    changes of the target's logit when a patch alone is absent. Quantus counts the patches, and takes one absolute
    bound for attributions and probabilities.
    """
    effects = np.abs(drops(case, singles(case), softmax=False))
    values = np.abs(case.patch_maps.reshape(len(case), -1).astype(np.float64))
    irrelevant = [part <= tolerance * part.max(1, keepdims=True) for part in (effects, values)]
    return (irrelevant[0] != irrelevant[1]).mean(1)
