"""Concept activation vectors judged: which concepts a layer represents, and which of these a class's logit follows.

A concept is represented where its vectors tell images with it from images without it better than chance among images
that were held out; of one that is not there is no score (Kim et al., ICML 2018, test the scores alone; a vector of
nothing has one, too). A decision follows a concept where both the score and the mean derivative differ, in the same
direction, from those of vectors between random images, p the larger of the two: behind a linear head the score is 0 or
1 for any vector, and one that hardly touches the decision would pass by its sign alone. All tests take into account
that the vectors of a concept share images, and are corrected by Holm's rule for all that a model is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.statistics.resampled import above, differ
from unmask.statistics.signed_rank import holm

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["layer", "kind", "name"]
RANDOM = "random"
FOR, AGAINST, NEITHER, UNKNOWN = "for", "against", "not significant", "not represented"


def accuracies(runs: pd.DataFrame, confidence: float) -> list[dict[str, Any]]:
    """Per layer and concept of one phase: the accuracy on held-out images, its interval, and whether it is represented.

    `runs` are rows of `tcav.parquet`, of one model or of its repetitions with other seeds together.
    """
    import numpy as np

    rows = []
    known = runs[(runs["measure"] == "accuracy") & (runs["kind"] != RANDOM)]
    for keys, part in known.groupby(KEYS, sort=False, observed=True):
        values = part["value"].to_numpy()
        p, low, high = above(values, float((part["held"] / part["fitted"]).mean()), 0.5, confidence)
        rows.append(
            {
                **dict(zip(KEYS, keys, strict=True)),
                "accuracy": float(values.mean()),
                "accuracy_low": low,
                "accuracy_high": high,
                "p": p,
                "vectors": len(values),
            }
        )
    corrected = holm(np.array([row.pop("p") for row in rows], np.float64)) if rows else []
    return [
        {**row, "accuracy_p_holm": float(p), "represented": bool(p < 1 - confidence)}
        for row, p in zip(rows, corrected, strict=True)
    ]


def scores(runs: pd.DataFrame, found: list[dict[str, Any]], confidence: float) -> list[dict[str, Any]]:
    """Per class, layer and represented concept of `accuracies`: what is tested of its score."""
    import numpy as np

    measured = runs[runs["measure"].isin(["score", "sensitivity"]) & (runs["status"] == "ok")]
    values = {
        keys: part.to_numpy()
        for keys, part in measured.groupby([*KEYS, "target", "measure"], sort=False, observed=True)["value"]
    }
    sizes = runs[runs["measure"] == "accuracy"].groupby(KEYS, observed=True)[["held", "fitted"]].mean()
    targets = list(dict.fromkeys(measured["target"]))
    rows = []
    for one in found:
        concept = tuple(one[name] for name in KEYS)
        for target in targets:
            if (*concept, target, "score") not in values or not one["represented"]:
                continue
            chance = (one["layer"], RANDOM, RANDOM, target)
            own, others = values[*concept, target, "score"], values[*chance, "score"]
            slopes, random = values[*concept, target, "sensitivity"], values[*chance, "sensitivity"]
            overlap = float(sizes.loc[concept, "held"] / sizes.loc[concept, "fitted"])
            agree = (own.mean() - others.mean()) * (slopes.mean() - random.mean()) > 0
            typical = float(np.sqrt((random**2).mean()))
            rows.append(
                {
                    **dict(zip(KEYS, concept, strict=True)),
                    "target": target,
                    "random_score": float(others.mean()),
                    "difference": float(own.mean() - others.mean()),
                    "p": max(differ(own, overlap, others), differ(slopes, overlap, random)) if agree else 1.0,
                    "sensitivity": float(slopes.mean()) / typical if typical else np.nan,
                }
            )
    corrected = holm(np.array([row["p"] for row in rows], np.float64)) if rows else []
    return [
        {**row, "p_holm": float(p), "verdict": _verdict(row.pop("difference"), p < 1 - confidence)}
        for row, p in zip(rows, corrected, strict=True)
    ]


def _verdict(difference: float, significant: bool) -> str:
    return (FOR if difference > 0 else AGAINST) if significant else NEITHER
