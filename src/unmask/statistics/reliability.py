"""How far a metric can be trusted, by its own scores: reliability of its means, agreement of its images.

Split-half reliability: do two random halves of the images put the explainers in the same order, and so would other
images? Krippendorff's alpha: does a single image? The first grows with the number of images, the second does not
(Tomsett et al. 2020, "Sanity Checks for Saliency Metrics", who found both wanting). Controls are left out: their
places are known beforehand.

Intervals are by the jackknife over images, a group of them at a time within each domain (delete-a-group, where there
are more than `GROUPS`), and Student's t. A bootstrap will not do: an image drawn twice agrees with itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.seeds import numpy_generator
from unmask.statistics.complete import complete, mean_known
from unmask.statistics.kendall import signs, tau_b
from unmask.statistics.orders import halves, means, spearman_brown
from unmask.statistics.ranks import rank

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.orders import View
    from unmask.statistics.study import Study

GROUPS = 20  # of images in a domain that are left out in turn
REPEATED = 25  # splits whose tau is taken again without each group
LEAST = 3  # explainers: of two, one is ahead or the other


@dataclass(frozen=True)
class Value:
    """A statistic with its interval; NaN where there is none."""

    value: float
    low: float
    high: float


def groups(study: Study, domain: str, scored: np.ndarray) -> np.ndarray:
    """The images to leave out in turn: bool [G, I], each image with a score (`scored` [I]) in one of the G groups."""
    import numpy as np

    images = np.flatnonzero(scored)
    order = numpy_generator(study.seed, "aggregate", "jackknife", domain).permutation(len(scored)).argsort()
    place = order[images].argsort(kind="stable").argsort(kind="stable") % min(GROUPS, max(len(images), 1))
    made = np.zeros((min(GROUPS, len(images)), len(scored)), bool)
    made[place, images] = True
    return made


def jackknife(value: float, dropped: list[np.ndarray], confidence: float) -> tuple[float, float]:
    """The interval of a value by what it is without each group of images, [G] for each domain.

    Tukey (1958); Kott (2001), "The delete-a-group jackknife"; domains are strata. NaN with a group or none.
    """
    import numpy as np
    from scipy.special import stdtrit

    dropped = [part[np.isfinite(part)] for part in dropped]
    freedom = sum(max(len(part) - 1, 0) for part in dropped)
    if freedom < 1:
        return np.nan, np.nan
    variance = sum((len(part) - 1) * part.var() for part in dropped if len(part))
    half = float(stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(variance))
    return value - half, value + half


def split_half(study: Study, view: View, chosen: np.ndarray) -> Value:
    """Split-half reliability of the mean scores of the chosen explainers (bool [E]), in [0, 1].

    As `Order.reliability`: the mean tau-b over random halves, made a correlation and stepped up by Spearman-Brown. The
    jackknife is of the mean tau, and its ends are stepped up.
    """
    import numpy as np

    whole = halves(study, view)
    if chosen.sum() < LEAST or min(half[d].sum(1).min() for half in whole for d in half) < 1:
        return Value(np.nan, np.nan, np.nan)

    out = {d: groups(study, d, np.isfinite(view.cube(d)).any((1, 2, 3))) for d in view.domains}
    left = [(domain, gone) for domain, made in out.items() for gone in made]

    def weights(half: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All splits, then the first few with each group of each domain left out."""
        few = {domain: rows[:REPEATED] for domain, rows in half.items()}
        return {
            d: np.concatenate([half[d], *(few[d] * ~gone if d == domain else few[d] for domain, gone in left)])
            for d in half
        }

    tau = tau_b(*(signs(means(study, view, chosen, weights(half))[0]) for half in whole))
    splits = len(tau) - REPEATED * len(left)
    value = mean_known(list(tau[:splits]))
    dropped = mean_known(list(tau[splits:].reshape(-1, REPEATED).T))
    ends = np.cumsum([len(made) for made in out.values()])[:-1]
    low, high = jackknife(float(value), np.split(dropped, ends), study.confidence)
    return Value(*(float(spearman_brown(np.clip(tau, -1, 1))) for tau in (value, low, high)))


def alpha(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Krippendorff's alpha for ordinal data [B] of m coders' values of k units [m, k], by those in `kept`, bool [B, m].

    1 = all coders agree, 0 = as by chance, below = they oppose each other; NaN without two coders, or where all values
    are equal. The ordinal difference of two values is the number of values between them, so it is the difference of
    their mid-ranks among all values (Krippendorff 2004, "Content Analysis", ch. 11; here of all coders, kept or not),
    and alpha is an analysis of variance of those: 1 - (m k - 1) / (k (m - 1)) SS within / SS. For rankings without ties
    that is 1 - (m k - 1) / (k (m - 1)) (1 - W) of Kendall's W.
    """
    import numpy as np
    from scipy.stats import rankdata

    k = values.shape[1]
    places = rankdata(values, axis=None).reshape(values.shape)
    places -= places.mean()
    kept = kept.astype(np.float64)
    m, squares, sums = kept.sum(1), kept @ (places**2).sum(1), kept @ places
    within = squares - np.divide((sums**2).sum(1), m, out=np.zeros(len(m)), where=m > 0)
    every = squares - np.divide(sums.sum(1) ** 2, m * k, out=np.zeros(len(m)), where=m > 0)
    known = (m > 1) & (every > 1e-9 * places.size**2)
    share = np.divide(within * (m * k - 1), every * k * (m - 1), out=np.full(len(m), np.nan), where=known)
    return 1 - share


def agreement(study: Study, view: View, chosen: np.ndarray) -> Value:
    """Krippendorff's alpha of the ranks that a model's images give the chosen explainers (bool [E]).

    Per model and pair of seeds, averaged over them.
    """
    import numpy as np

    found: list[float] = []
    changes = []  # by domain [models, G]: what leaving out a group of its images does to each of its models
    for domain in view.domains:
        cube, own = complete(view.cube(domain), chosen), []
        if chosen.sum() < LEAST:
            continue
        out = groups(study, domain, np.isfinite(cube).all(-1).any((1, 2)))
        for s, m in np.ndindex(cube.shape[1:3]):
            held = np.isfinite(cube[:, s, m]).all(-1)
            if held.sum() < 2:
                continue
            ranks = rank(cube[held, s, m], view.measured.keys["direction"])
            value, *left = alpha(ranks, np.vstack([np.ones((1, held.sum()), bool), ~out[:, held]]))
            if np.isfinite(value):
                found.append(float(value))
                own.append(np.array(left) - value)
        if own:
            changes.append(np.array(own))
    if not found:
        return Value(np.nan, np.nan, np.nan)
    value = float(np.mean(found))
    low, high = jackknife(value, [value + own.sum(0) / len(found) for own in changes], study.confidence)
    return Value(value, low, min(high, 1.0))
