"""Distractor avoidance: of the positive attribution on evidence and distractors, which share is on the evidence?"""

from __future__ import annotations

import numpy as np

from unmask.case import Case

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks", "concepts"],
    "passes": {"forward": "0", "explanations": "0"},
    "options": {},
    "undefined": "nothing positive lies on the evidence or a distractor",
    "chance": "the evidence's share of the area of evidence and distractors",
    "citation": "after Yang & Kim, Benchmarking Attribution Methods with Relative Feature Importance, "
    "arXiv:1907.09701, 2019, and Arras et al., CLEVR-XAI, Information Fusion 2022",
}


def score(case: Case) -> np.ndarray:
    """Positive attribution on the evidence over that on evidence and distractors: float64 [N] in [0, 1].

    The distractors are all concepts of the image. What lies on neither does not count: the background may have any
    attribution. NaN where nothing is positive on either, or where the image lacks one of them.
    """
    positive, others = np.maximum(case.pixel_maps, 0).astype(np.float64), np.any(list(case.concepts.values()), axis=0)
    evidence, distractors = ((positive * pixels).sum((1, 2)) for pixels in (case.masks, others))
    with np.errstate(invalid="ignore"):
        share = evidence / (evidence + distractors)
    return np.where(case.masks.any((1, 2)) & others.any((1, 2)), share, np.nan)
