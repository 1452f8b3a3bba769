"""Iterative removal of features (IROF): how fast the target's probability falls as the most relevant segments go.

A segment is a set of neighbouring patches of like colour, so that what belongs together goes together. Quantus's IROF
fails on colour images, fills with the mean of the mini-batch and does not divide by the number of segments.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import logits
from unmask.metrics._segments import segments as cut
from unmask.metrics._target import of_target

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [None, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "segments + 1", "explanations": "0"},
    "draws": {"ends": "2"},
    "options": {"segments": 16},
    "ranges": {"segments": [2, None]},
    "chance": "the area of a random order, which depends on the model",
    "citation": "Rieger & Hansen, IROF: a Low Resource Evaluation Metric for Explanation Methods, ICLR 2020 workshops",
}


def score(case: Case, segments: int) -> np.ndarray:
    """1 - area under the target's probability, relative to the intact image's, as segments go: float64 [N], at most 1.

    The segment of highest mean attribution goes first, ties in random order; trapezoids over unit length from the
    intact image to that without any segment.
    """
    maps, labels = case.patch_maps.astype(np.float64), cut(case, segments)
    inside = labels[:, None] == np.arange(segments)[:, None, None]
    means = (maps[:, None] * inside).sum((2, 3)) / inside.sum((2, 3))
    ranks = case.ranks(means[:, None])[:, 0]  # 1 to `segments`
    of_patch = np.take_along_axis(ranks, labels.reshape(len(case), -1), axis=1).reshape(labels.shape)
    keep = of_patch[:, None] <= np.arange(segments, -1, -1)[:, None, None]
    left = of_target(logits(case, keep)[0], case, softmax=True)
    return 1 - np.trapezoid(left / left[:, :1], axis=1) / segments
