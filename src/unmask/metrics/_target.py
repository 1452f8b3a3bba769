"""The target's logit or probability, in double precision."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax as shares

from unmask.case import Case


def intact(case: Case, *, softmax: bool) -> np.ndarray:
    """The target's probability or logit where every patch is there: float64 [N]."""
    whole = np.ones((len(case), *case.model.grid), bool)
    return of_target(case.logits(whole)[:, None], case, softmax=softmax)[:, 0]


def of_target(logits: np.ndarray, case: Case, *, softmax: bool) -> np.ndarray:
    """The target's softmax probability or logit: float64 [N, K] from logits [N, K, C]."""
    values = logits.astype(np.float64)
    if softmax:
        values = shares(values, axis=-1)
    return np.take_along_axis(values, case.targets.cpu().numpy()[:, None, None], axis=-1)[..., 0]
