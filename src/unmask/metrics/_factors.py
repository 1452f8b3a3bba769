"""What changing factors of the images does to the target: by rendering, not by a removal."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.special import softmax as shares

from unmask.case import Case


def effects(case: Case, factors: Iterable[str], *, softmax: bool) -> np.ndarray:
    """The target's logit or softmax probability, less that with each factor changed: float64 [factors, N], 0 without
    the factor."""
    whole, targets = case.changed_logits(None), case.targets.cpu().numpy()[:, None]
    found = []
    for factor in factors:
        present = case.factors[factor].present
        found.append(np.zeros(len(case)))
        if present.any():
            before, after = whole[present], case.changed_logits(factor)
            found[-1][present] = _of_target(before, targets[present], softmax) - _of_target(
                after, targets[present], softmax
            )
    return np.array(found)


def _of_target(logits: np.ndarray, targets: np.ndarray, softmax: bool) -> np.ndarray:
    values = logits.astype(np.float64)
    return np.take_along_axis(shares(values, axis=1) if softmax else values, targets, 1)[:, 0]
