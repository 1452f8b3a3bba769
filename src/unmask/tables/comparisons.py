"""Rows on pairs: every explainer minus every control on the same images, and minus the null one by mask ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.statistics.verdicts import Verdicts


def control_rows(verdicts: Verdicts) -> list[dict[str, Any]]:
    """Each explainer minus each control; `p_corrected` and `verdict` allow for all comparisons of the board."""
    rows = []
    for j, control in enumerate(verdicts.explainers):
        if not control.is_control:
            continue
        difference, words = verdicts.pool.against(j), verdicts.words(j)
        low, high = verdicts.pool.interval(verdicts.confidence, j)
        rows.extend(
            {
                "explainer": e.name,
                "family": e.family,
                "is_control": e.is_control,
                "control": control.name,
                "difference": difference.mean[i],
                "low": low[i],
                "high": high[i],
                "p_corrected": verdicts.p[j, i],
                "n": int(difference.n[i]),
                "verdict": words[i],
                "controls_separated": verdicts.controls_separated,
            }
            for i, e in enumerate(verdicts.explainers)
            if i != j and difference.n[i]
        )
    return rows


def ratio_rows(verdicts: Verdicts) -> list[dict[str, Any]]:
    """Scores, and scores relative to the null control on the same images.

    A model trained on masked images tolerates removal, so the scores alone are not comparable across mask ratios.
    """
    import numpy as np

    from unmask.statistics.pools import null

    pool, reference = verdicts.pool, null(verdicts.explainers)
    low, high = pool.interval(verdicts.confidence)
    empty = np.full(len(verdicts.explainers), np.nan)
    difference, (below, above) = empty, (empty, empty)
    if reference is not None:
        difference = pool.against(reference).mean
        below, above = pool.interval(verdicts.confidence, reference)
    return [
        {
            "explainer": e.name,
            "family": e.family,
            "is_control": e.is_control,
            "mean": pool.scores.mean[i],
            "low": low[i],
            "high": high[i],
            "minus_random": difference[i],
            "minus_random_low": below[i],
            "minus_random_high": above[i],
            "n": int(pool.scores.n[i]),
        }
        for i, e in enumerate(verdicts.explainers)
        if pool.scores.n[i]
    ]
