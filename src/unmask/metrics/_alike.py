"""How alike two maps of an image are."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata

from unmask.patches import patch_sum


def rank_correlation(ones: np.ndarray, others: np.ndarray, grid: tuple[int, int], *, magnitude: bool) -> np.ndarray:
    """Spearman's correlation of two maps over patches: float64 [N] in [-1, 1], for maps [N, H, W].

    By patches, so that explainers of pixels are not called different for their noise within a patch, nor those of
    patches alike for having none. Of the patch sums, or of their `magnitude`: with reversed signs a map then stays
    the same. 0 where a map is constant, which points nowhere; NaN where it is not finite.
    """
    ranks = []
    for maps in (ones, others):
        sums = patch_sum(torch.from_numpy(maps), grid).numpy().reshape(len(maps), -1).astype(np.float64)
        finite = np.isfinite(sums).all(1, keepdims=True)
        rows = rankdata(np.where(finite, np.abs(sums) if magnitude else sums, 0), axis=1)
        ranks.append(np.where(finite, rows - rows.mean(1, keepdims=True), np.nan))
    one, other = ranks
    length = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return (one * other).sum(1) / np.where(length == 0, 1, length)


def overlap(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """1 - ||a - b|| / (||a|| + ||b||), sums of magnitudes: float64 [N], 1 for equal maps and 0 for disjoint ones."""
    a, b = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (ones, others))
    size = np.abs(a).sum(1) + np.abs(b).sum(1)
    return 1 - np.abs(a - b).sum(1) / np.where(size == 0, 1, size)
