"""Tests on scores of classifiers that were fitted to overlapping random parts of the same images.

Such scores are not independent: a plain t-test finds anything significant if only there are enough of them. Nadeau &
Bengio, Inference for the Generalization Error, Machine Learning 52, 2003: the variance of their mean is taken as
`(1 / T + held / fitted) s^2` instead of `s^2 / T`.
"""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def above(values: np.ndarray, overlap: float, chance: float, confidence: float) -> tuple[float, float, float]:
    """Whether the mean of `values` [T] lies above chance: one-sided p, and its two-sided interval (p, low, high).

    `overlap` is held / fitted. Values that are all the same leave no doubt.
    """
    import numpy as np
    from scipy.special import stdtr, stdtrit

    freedom, mean = len(values) - 1, float(values.mean())
    error = float(values.std(ddof=1) * np.sqrt(1 / len(values) + overlap))
    if error == 0:
        return (0.0 if mean > chance else 1.0), mean, mean
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    return float(stdtr(freedom, (chance - mean) / error)), mean - half, mean + half


def differ(values: np.ndarray, overlap: float, others: np.ndarray) -> float:
    """Two-sided p-value of Welch's t-test of the means of `values` [T], which overlap, and of independent `others` [R].

    Where neither varies, what the permutation test of two different constants gives: `2 / (T + R choose T)`.
    """
    import numpy as np
    from scipy.special import stdtr

    parts = np.array([values.var(ddof=1) * (1 / len(values) + overlap), others.var(ddof=1) / len(others)])
    difference = float(values.mean() - others.mean())
    if parts.sum() <= 1e-24:
        return 1.0 if abs(difference) < 1e-12 else 2 / comb(len(values) + len(others), len(values))
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(values), len(others)]) - 1)).sum()
    return float(2 * stdtr(freedom, -abs(difference) / np.sqrt(parts.sum())))
