"""Does the mask ratio change how good explanations are?

The outcome is an image's score, averaged over the explainers (no controls) that can be compared on all the models at
hand, and under metrics that remove patches relative to the null control on the same image: a model trained on masked
images tolerates removal, whatever is removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.statistics.bootstrap import interval
from unmask.statistics.complete import comparable, complete
from unmask.statistics.contrasts import contrasts, estimate
from unmask.statistics.signed_rank import holm, signed_rank

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.statistics.contrasts import Contrast
    from unmask.statistics.study import Measured, Scope, Study


def ratio_rows(study: Study, accuracy: pd.DataFrame) -> list[dict[str, Any]]:
    """A row per scope, metric, contrast and set of images (`all`, or `correct`: those that every encoder gets right).

    A `difference` is an encoder minus its reference, a `slope` the change per .1 of the effective mask ratio. `effect`
    is standardised; `accuracy` is the same contrast of the test accuracies. `p` is the signed-rank test's over the
    images, `p_holm` corrected for all metrics and contrasts of the scope and set. `verdict`: whether the metric gets
    better by its direction, where `p_holm` is below 1 - confidence and the interval leaves out 0. With one pair of
    seeds (`seeds`) that holds for these models, not for others trained in the same way.
    """
    import numpy as np

    rows = []
    tests = _accuracies(study, accuracy)
    for scope in study.scopes:
        families: dict[str, list[dict[str, Any]]] = {"all": [], "correct": []}
        for measured in study.metrics:
            for contrast in contrasts(study):
                by_domain, explainers = _outcomes(study, measured, scope, contrast)
                change = np.mean([tests[domain][contrast.encoders] @ contrast.weights for domain in scope.domains])
                for images, family in families.items():
                    row = _effect(study, by_domain, images)
                    if row:
                        family.append(
                            {
                                **scope.keys,
                                **{key: measured.keys[key] for key in ("metric", "removal", "category", "direction")},
                                "contrast": contrast.kind,
                                "encoder": contrast.encoder,
                                "reference": contrast.reference,
                                "images": images,
                                "relative_to": _relative_to(study, measured),
                                **row,
                                "explainers": explainers,
                                "seeds": len(study.seeds),
                                "accuracy": change,
                            }
                        )
        for family in families.values():
            for row, p in zip(family, holm(np.array([row["p"] for row in family])), strict=True):
                rows.append({**row, "p_holm": p, "verdict": _verdict(row, p < 1 - study.confidence)})
    return rows


def _verdict(row: dict[str, Any], sure: bool) -> str:
    above, below = sure and row["low"] > 0, sure and row["high"] < 0
    if row["direction"] == "lower":
        above, below = below, above
    return "better" if above else "worse" if below else "undecided"


def _accuracies(study: Study, accuracy: pd.DataFrame) -> dict[str, np.ndarray]:
    """Test accuracies by domain, [M], means over the seeds."""
    means = accuracy.groupby(["domain", "encoder"])["test"].mean()
    return {domain: means[domain].reindex(study.encoders).to_numpy() for domain in study.weights}


def _relative_to(study: Study, measured: Measured) -> str | None:
    removes = measured.keys["removal"] is not None and study.null is not None
    return study.explainers[study.null].name if removes else None


def _outcomes(study: Study, measured: Measured, scope: Scope, contrast: Contrast) -> tuple[dict[str, np.ndarray], int]:
    """The contrast of every image, by domain [I, S], NaN where a model lacks a score; and of how many explainers."""
    import numpy as np

    cubes = {domain: measured.values[domain][:, :, contrast.encoders] for domain in scope.domains}
    chosen = comparable(cubes.values()) & ~study.control
    if not chosen.any():
        return {domain: np.full(cube.shape[:2], np.nan) for domain, cube in cubes.items()}, 0
    outcomes = {}
    for domain, cube in cubes.items():
        means = complete(cube, chosen).mean(-1)
        if _relative_to(study, measured):
            means = means - cube[..., study.null]
        outcomes[domain] = means @ contrast.weights
    return outcomes, int(chosen.sum())


def _effect(study: Study, outcomes: dict[str, np.ndarray], images: str) -> dict[str, Any] | None:
    import numpy as np

    if images == "correct":
        outcomes = {d: np.where(study.correct[d].all(-1), outcome, np.nan) for d, outcome in outcomes.items()}
    found = estimate(study, outcomes)
    if not len(found.images):
        return None
    (low,), (high,) = interval(found.values[1:, None], study.confidence, len(found.images), found.domains)
    return {
        "estimate": found.values[0],
        "low": low,
        "high": high,
        "effect": found.effect,
        "p": signed_rank(found.images[:, None], np.abs(found.images).max())[0][0],
        "n": len(found.images),
    }
