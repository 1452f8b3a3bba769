"""Do explainers differ? Friedman's test over the images, signed-rank tests of all pairs, and what was detectable.

The unit is the image: scores of one image under several models are averaged first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.statistics.complete import comparable, complete, image_means, pair_means
from unmask.statistics.friedman import detectable, friedman, nemenyi
from unmask.statistics.ranks import rank
from unmask.statistics.signed_rank import holm, signed_rank

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.study import Measured, Scope, Study

METRIC = ("metric", "removal", "category", "direction")


def friedman_rows(study: Study) -> list[dict[str, Any]]:
    """A row per scope and metric: Friedman's test, Kendall's W and the minimum detectable differences.

    `k` explainers that can be compared (`left_out` names the others with scores) over `n` images that have all of
    them. `detectable_rank` is Nemenyi's critical difference of two mean ranks; `detectable_score` the difference of
    two mean scores that a paired t-test of one pair named beforehand finds with a power of .8 at the median spread of
    the pairs, `detectable_score_all` the same at the first step of Holm's correction for all pairs.
    """
    return [
        {**scope.keys, **_named(measured), **row}
        for measured in study.metrics
        for scope in study.scopes
        if (row := _friedman(study, measured, scope))
    ]


def pairwise_rows(study: Study) -> list[dict[str, Any]]:
    """A row per scope, metric and pair of explainers: Wilcoxon's signed-rank test over the images that have both.

    `difference` is the mean of first minus second; `effect` the matched rank-biserial correlation, positive where the
    first is better by the metric's direction. `p_holm` is corrected within the scope and metric.
    """
    return [
        {**scope.keys, **_named(measured), **row}
        for measured in study.metrics
        for scope in study.scopes
        for row in _pairs(study, measured, scope)
    ]


def _named(measured: Measured) -> dict[str, str | None]:
    return {key: measured.keys[key] for key in METRIC}


def _cubes(measured: Measured, scope: Scope) -> list[np.ndarray]:
    return [measured.values[domain] for domain in scope.domains]


def _friedman(study: Study, measured: Measured, scope: Scope) -> dict[str, Any] | None:
    import numpy as np

    cubes = _cubes(measured, scope)
    chosen = comparable(cubes)
    seen = np.any([np.isfinite(cube).any((0, 1, 2)) for cube in cubes], 0)
    if not seen.any():
        return None
    blocks = np.concatenate([image_means(complete(cube, chosen)) for cube in cubes])
    blocks = blocks[np.isfinite(blocks).all(1)]
    n, k = blocks.shape
    row: dict[str, Any] = {"n": n, "k": k}
    if n > 1 and k > 2:
        alpha = 1 - study.confidence
        row["statistic"], row["p"], row["w"] = friedman(rank(blocks, measured.keys["direction"]))
        row["detectable_rank"] = nemenyi(k, n, study.confidence)
        covariance = np.cov(blocks, rowvar=False)
        first, second = np.triu_indices(k, 1)
        variances = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
        spread = float(np.median(np.sqrt(np.maximum(variances, 0.0))))
        row["detectable_score"] = detectable(spread, n, alpha)
        row["detectable_score_all"] = detectable(spread, n, alpha / len(first))
    names = [e.name for e, left in zip(study.explainers, seen & ~chosen, strict=True) if left]
    return {**row, "left_out": " ".join(names)}


def against(study: Study, measured: Measured, scope: Scope, other: int) -> np.ndarray:
    """Every explainer that is no control against one: mean difference (positive = better) and p-value, [2, K].

    The differences and the test are those of `pairwise_rows`, without correction.
    """
    import numpy as np

    cubes = _cubes(measured, scope)
    differences = np.concatenate([pair_means(cube)[:, ~study.control, other] for cube in cubes])
    p, _, n = signed_rank(differences, _size(cubes))
    return np.stack([np.nansum(differences, 0) / np.maximum(n, 1) * measured.sign, p])


def _size(cubes: list[np.ndarray]) -> float:
    """The largest score in magnitude."""
    import numpy as np

    return max(float(np.abs(cube[np.isfinite(cube)]).max(initial=0.0)) for cube in cubes)


def _pairs(study: Study, measured: Measured, scope: Scope) -> list[dict[str, Any]]:
    import numpy as np

    cubes = _cubes(measured, scope)
    first, second = np.triu_indices(len(study.explainers), 1)
    differences = np.concatenate([pair_means(cube)[:, first, second] for cube in cubes])
    p, effect, n = signed_rank(differences, _size(cubes))
    corrected = holm(p)
    mean = np.nansum(differences, 0) / np.maximum(n, 1)
    names = [e.name for e in study.explainers]
    return [
        {
            "explainer_a": names[first[i]],
            "explainer_b": names[second[i]],
            "difference": mean[i],
            "effect": effect[i] * measured.sign,
            "p": p[i],
            "p_holm": corrected[i],
            "n": int(n[i]),
        }
        for i in np.flatnonzero(n)
    ]
