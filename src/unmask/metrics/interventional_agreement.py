"""Interventional agreement: does the map share its attribution out as the image's parts truly share the decision?

The embedded domains can make an image again with one part changed: without the evidence, without one kind of
distractor, without the tag, or with all of these on another background. What the target's logit then loses is the
part's true effect on this model, whatever it has learned: no patches are blanked, no image leaves the data, and nothing
says that a model should look at the evidence. A map is faithful that gives the parts attribution in that proportion.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.domains import BACKGROUND
from unmask.metrics._factors import effects

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [-1.0, 1.0],
    "needs": ["interventions"],
    "passes": {"forward": "6", "explanations": "0"},
    "draws": {"as it is": "1", "changed": "5"},
    "options": {},
    "chance": "0 for signed noise; for noise that is never negative the cosine of the effects with the parts' areas",
    "citation": "ground truth by interventions as in Goyal et al., Explaining Classifiers with Causal Concept Effect "
    "(CaCE), arXiv:1907.07165, 2019, and Yang & Kim, Benchmarking Attribution Methods with Relative Feature "
    "Importance, arXiv:1907.09701, 2019",
}
NONE = 1e-6  # logits: what rounding makes of no effect at all


def score(case: Case) -> np.ndarray:
    """cos(a, e) over the factors that an image has: float64 [N] in [-1, 1].

    e_k is the target's logit less that with factor k changed; a_k the sum of the map over the pixels that changing k
    changes, the background's being those that no other factor of the image changes. 1 = proportional to the true
    effects, sign included; 0 also for a map that sums to 0 on every part. A map without signs can tell no part that
    speaks against the target from one that speaks for it, and has that much less.

    Skipped where the image has fewer than two factors, and where none has an effect. Six passes are for five factors;
    an image takes one more than it has.
    """
    maps = case.pixel_maps.astype(np.float64)
    others = np.any([one.pixels for name, one in case.factors.items() if name != BACKGROUND], axis=0)
    own = {name: one.pixels & ~others if name == BACKGROUND else one.pixels for name, one in case.factors.items()}
    a = np.array([(maps * pixels).sum((1, 2)) for pixels in own.values()])  # [factors, N], 0 where an image lacks one
    e = effects(case, own, softmax=False)
    size, known = np.linalg.norm(a, axis=0), np.linalg.norm(e, axis=0)
    case.skip(known < NONE, "no factor of the image has an effect on the prediction")
    return (a * e).sum(0) / np.maximum(size * known, 1e-300)
