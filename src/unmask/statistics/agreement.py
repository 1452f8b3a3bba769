"""Which metrics agree: Kendall's tau-b between the orders of the explainers under any two metrics."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from unmask.statistics.kendall import tau_interval
from unmask.statistics.orders import View, likeness, order

if TYPE_CHECKING:
    from unmask.statistics.study import Study


def agreement_rows(study: Study) -> list[dict[str, Any]]:
    """A row per scope and pair of metrics under their removals: tau with its interval over `explainers` (no controls).

    The orders are those of the mean scores over all models of the scope. Noise lowers tau: `expected` is the tau of one
    ranking measured twice with this much noise. Of the `pairs` of explainers both metrics surely put `agreed` in the
    same order and `reversed` in opposite ones.
    """
    import numpy as np

    rows = []
    for scope in study.scopes:
        orders = [order(study, View(measured, scope.domains)) for measured in study.metrics]
        for first, second in combinations(orders, 2):
            found = likeness(first, second)
            if np.isnan(found.tau[0]):
                continue
            low, high = tau_interval(found.tau, study.confidence, found.images, found.domains)
            a, b = first.view.measured.keys, second.view.measured.keys
            rows.append(
                {
                    **scope.keys,
                    **{f"{key}_a": a[key] for key in ("metric", "removal", "category")},
                    **{f"{key}_b": b[key] for key in ("metric", "removal", "category")},
                    "tau": found.tau[0],
                    "low": low,
                    "high": high,
                    "expected": found.expected,
                    "agreed": found.agreed,
                    "reversed": found.reversed,
                    "pairs": found.pairs,
                    "explainers": found.explainers,
                    "n": found.images,
                }
            )
    return rows
