"""Subsets of patches that do not depend on the map: what their removal does is computed once for all explainers."""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._target import intact, of_target


def singles(case: Case) -> np.ndarray:
    """Every patch alone: bool [N, P, gh, gw], True = removed, in raster order."""
    one = np.eye(np.prod(case.model.grid), dtype=bool).reshape(-1, *case.model.grid)
    return np.repeat(one[None], len(case), axis=0)


def squares(case: Case, sides: tuple[int, ...]) -> np.ndarray:
    """Every square of so many patches a side: bool [N, K, gh, gw], True = removed, side by side, in raster order."""
    height, width = case.model.grid
    rows, columns = np.arange(height)[:, None], np.arange(width)
    one = [
        (top <= rows) & (rows < top + side) & (left <= columns) & (columns < left + side)
        for side in sides
        for top in range(height - side + 1)
        for left in range(width - side + 1)
    ]
    return np.repeat(np.array(one)[None], len(case), axis=0)


def partitions(case: Case, name: str, parts: int, count: int) -> np.ndarray:
    """`count` subsets of P // `parts` patches: bool [N, count, gh, gw], True = removed, each uniform among its size.

    Cut from random permutations, as many from each as there are, so that no patch is left out by chance.
    """
    patches = np.prod(case.model.grid)
    size = max(1, patches // parts)
    each = patches // size
    rounds = -(-count // each)
    order = case.rng(name, parts).random((len(case), rounds, patches)).argsort(axis=-1)
    chosen = order[..., : each * size].reshape(len(case), rounds * each, size)[:, :count]
    removed = np.zeros((len(case), count, patches), bool)
    np.put_along_axis(removed, chosen, True, axis=-1)
    return removed.reshape(len(case), count, *case.model.grid)


def drops(case: Case, *removed: np.ndarray, softmax: bool) -> np.ndarray:
    """How far the target's probability or logit falls as each subset goes: float64 [N, K].

    `removed` bool [N, K, gh, gw], True = removed; where there are several, one after another.
    """
    left = np.concatenate([of_target(case.logits(~part), case, softmax=softmax) for part in removed], axis=1)
    return intact(case, softmax=softmax)[:, None] - left


def sums(maps: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Attribution summed over each subset: float64 [N, K] from maps [N, gh, gw]."""
    return np.einsum(
        "nkp,np->nk", removed.reshape(*removed.shape[:2], -1), maps.reshape(len(maps), -1), dtype=np.float64
    )


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's, row by row: float64 [N] in [-1, 1] from [N, K] twice. NaN where either is constant."""
    apart = [values - values.mean(axis=1, keepdims=True) for values in (one, other)]
    flat = (np.ptp(one, axis=1) == 0) | (np.ptp(other, axis=1) == 0)
    with np.errstate(invalid="ignore"):
        found = (apart[0] * apart[1]).sum(axis=1) / np.sqrt((apart[0] ** 2).sum(axis=1) * (apart[1] ** 2).sum(axis=1))
    return np.where(flat, np.nan, found)
