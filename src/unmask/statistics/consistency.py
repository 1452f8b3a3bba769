"""MetaQuantus's meta-consistency of a metric: is it resilient to noise, and does it react to disruption?

From scores of the same explainers and images, undisturbed and under minor and disruptive perturbations of the image or
the model (Hedstroem et al. 2023, "The Meta-Evaluation Problem in Explainable AI", TMLR). Four criteria, each in [0, 1],
1 = a metric as it should be:

- `iac_nr`, intra-consistency under minor noise: the p-value of Wilcoxon's signed-rank test between an explainer's
  scores before and after. Only images whose prediction stayed count.
- `iac_ar`, intra-consistency under disruption: 1 - p. Only images whose prediction changed count.
- `iec_nr`, inter-consistency under minor noise: the share of (explainer, image) whose rank on the image stayed.
- `iec_ar`, inter-consistency under disruption: the share of (explainer, image) whose score got worse, by the metric's
  own direction. (The reference implementation takes every metric for one whose lower scores are better, since it tests
  a string that is never empty.)

`mc`, the meta-consistency, is their mean. A metric of pure noise has about .5, .5, 1 / explainers and .5; one that
says the same whatever it is given 1, 0, 1 and 0. The test sees N images: with 6 no p-value is below .031.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.statistics.ranks import rank
from unmask.statistics.signed_rank import signed_rank

if TYPE_CHECKING:
    import numpy as np

CRITERIA = ("iac_nr", "iac_ar", "iec_nr", "iec_ar")


def consistency(
    base: np.ndarray, minor: np.ndarray, disrupted: np.ndarray, stayed: np.ndarray, changed: np.ndarray, direction: str
) -> dict[str, np.ndarray]:
    """The four criteria and `mc`, each [M, T]; NaN where no image counts.

    `base` [M, L, N] are the scores of L explainers on N images under M models, `minor` and `disrupted` [M, T, R, L, N]
    those under R perturbations of T kinds (NaN = no score); `stayed` and `changed` bool [M, T, R, N] say whether the
    prediction is still the same under the minor one, and another under the disruptive one.
    """
    import numpy as np

    sign = 1 if direction == "higher" else -1
    before = base[:, None, None]
    calm = np.where(stayed[..., None, :], minor, np.nan)
    upset = np.where(changed[..., None, :], disrupted, np.nan)
    found = {
        "iac_nr": _mean(_p(calm - before, base)),
        "iac_ar": _mean(1 - _p(upset - before, base)),
        "iec_nr": _kept_ranks(before, calm, direction),
        "iec_ar": _mean(np.where(np.isfinite(upset - before), sign * (upset - before) < -_rounding(base), np.nan)),
    }
    return {**found, "mc": np.mean(list(found.values()), axis=0)}


def _rounding(base: np.ndarray) -> float:
    """Differences below this are none."""
    import numpy as np

    return 1e-10 * np.abs(base[np.isfinite(base)]).max(initial=0.0)


def _p(differences: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Signed-rank p-values [M, T, R, L] of differences [M, T, R, L, N]; NaN without any."""
    import numpy as np

    images = differences.shape[-1]
    scale = float(np.abs(base[np.isfinite(base)]).max(initial=0.0))
    p = signed_rank(differences.reshape(-1, images).T, scale)[0]
    return p.reshape(differences.shape[:-1])


def _kept_ranks(before: np.ndarray, after: np.ndarray, direction: str) -> np.ndarray:
    """The share of ranks among the explainers that stayed, [M, T].

    An image counts where all explainers have a score that have one on any image of the model; two of them at least.
    """
    import numpy as np

    before = np.broadcast_to(before, after.shape)
    taken = np.broadcast_to(np.isfinite(before).any(-1, keepdims=True), after.shape)
    whole = (np.isfinite(before) & np.isfinite(after) | ~taken).all(-2, keepdims=True) & (
        taken.sum(-2, keepdims=True) > 1
    )
    ranks = [rank(np.moveaxis(np.where(taken, one, np.nan), -2, -1), direction) for one in (before, after)]
    same = np.moveaxis(ranks[0] == ranks[1], -1, -2)
    return _mean(np.where(whole & taken, same, np.nan))


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over all but the first two axes of what is known, NaN without any.

    Repetitions weigh equally, however many images count in each.
    """
    import numpy as np

    def mean(values: np.ndarray) -> np.ndarray:
        n = np.isfinite(values).sum(-1)
        return np.divide(np.nansum(values, -1), n, out=np.full(n.shape, np.nan), where=n > 0)

    return mean(mean(values.astype(np.float64).reshape(*values.shape[:3], -1)))
