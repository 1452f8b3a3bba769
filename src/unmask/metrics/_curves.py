"""Patch-flipping curves, which several metrics read."""

from __future__ import annotations

import numpy as np
from quantus import PixelFlipping

from unmask.case import Case
from unmask.quantus_bridge import COMMON, in_token_space


def area(case: Case, ranks: np.ndarray, step: int = 1) -> np.ndarray:
    """Area under the target's softmax probability as patches go, highest rank first: float64 [N] in [0, 1].

    `ranks` [N, gh, gw]; `step` patches go at once and must divide their number P = gh * gw (else a `ValueError`). The
    curve has P / step points, after the first step to the last; the area is by trapezoids over unit length. The
    probability, not the logit: it is bounded, so areas of different images and models compare.
    Quantus's own area calls `np.trapz`, which numpy 2.4 has not, and is the same times the number of intervals.
    """
    patches = ranks[0].size
    if patches % step:
        raise ValueError(f"step {step} does not divide the {patches} patches")
    metric = PixelFlipping(
        features_in_step=step, perturb_baseline=0.0, abs=False, normalise=False, return_auc_per_sample=False, **COMMON
    )
    curve = in_token_space(metric, case, ranks, softmax=True)
    return np.trapezoid(curve, axis=1) / (curve.shape[1] - 1)
