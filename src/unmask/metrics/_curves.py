"""Removal curves: what becomes of the target as patches go, a step at a time. Several metrics read the same ones.

Inserting the most relevant patches first into an image of which all are absent passes through the same inputs as
removing the least relevant first, from the other end: one curve is both.
"""

from __future__ import annotations

import numpy as np
from quantus import PixelFlipping

from unmask.case import Case
from unmask.metrics._target import intact, of_target
from unmask.quantus_bridge import COMMON, in_token_space


def most_first(case: Case) -> np.ndarray:
    """Ranks [N, gh, gw] of the case's maps: the most relevant patch has the highest, and goes first."""
    return case.ranks(case.patch_maps)


def least_first(case: Case) -> np.ndarray:
    """Ranks [N, gh, gw] by which the least relevant patch goes first: the other order, ties included."""
    ranks = most_first(case)
    return ranks[0].size + 1 - ranks


def kept(ranks: np.ndarray, step: int) -> np.ndarray:
    """Which patches are there after 0, `step`, 2 `step` ... all are gone: bool [N, P / step + 1, gh, gw].

    Raises `ValueError` where `step` does not divide P into two steps or more.
    """
    patches = ranks[0].size
    if patches % step or patches == step:
        raise ValueError(f"step {step} does not divide the {patches} patches into two steps or more")
    gone = np.arange(0, patches + 1, step)
    return ranks[:, None] <= (patches - gone)[:, None, None]


def logits(case: Case, *keeps: np.ndarray) -> list[np.ndarray]:
    """Logits along ways from the whole image to none of it: float32 [N, S + 1, C] for each bool [N, S + 1, gh, gw].

    The ends are the same for all: asked for by themselves, they are computed once.
    """
    whole, empty = (case.logits(np.full(keeps[0][:, 0].shape, value))[:, None] for value in (True, False))
    return [np.concatenate([whole, case.logits(keep[:, 1:-1]), empty], axis=1) for keep in keeps]


def curves(case: Case, *orders: np.ndarray, step: int, softmax: bool = True) -> list[np.ndarray]:
    """The target's softmax probability, or its logit, after 0, `step`, 2 `step` ... all patches: float64 [N, S + 1].

    For each of `orders`, ranks [N, gh, gw] from 1 to P, of which the highest go first. Under the engine "quantus" all
    but the first point come from its PixelFlipping.
    """
    keeps = [kept(ranks, step) for ranks in orders]
    if case.engine != "quantus":
        return [of_target(values, case, softmax=softmax) for values in logits(case, *keeps)]
    metric = PixelFlipping(
        features_in_step=step, perturb_baseline=0.0, abs=False, normalise=False, return_auc_per_sample=False, **COMMON
    )
    first = intact(case, softmax=softmax)
    return [np.column_stack([first, in_token_space(metric, case, ranks, softmax=softmax)]) for ranks in orders]


def area(curve: np.ndarray) -> np.ndarray:
    """Area under curves [N, S + 1] from the first step to the last, by trapezoids over unit length: float64 [N].

    Without the intact image, as Quantus has it: no explainer has a say in that point. Quantus's own area calls
    `np.trapz`, which numpy 2.4 has not, and is the same times the number of intervals.
    """
    return np.trapezoid(curve[:, 1:], axis=1) / (curve.shape[1] - 2)


def random_orders(case: Case, count: int) -> list[np.ndarray]:
    """Ranks [N, gh, gw] of `count` random orders, the same for every explainer."""
    draws = case.rng("random orders").random((len(case), count, *case.model.grid))
    return [case.ranks(draws[:, k]) for k in range(count)]


def beside_random(case: Case, ranks: np.ndarray, orders: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Area of an order and mean area of `orders` random ones, whose mean curve is traced: float64 [N] twice."""
    own, *others = curves(case, ranks, *random_orders(case, orders), step=step)
    case.trace("random", np.mean(others, axis=0))
    return area(own), np.mean([area(other) for other in others], axis=0)
