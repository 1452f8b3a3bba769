"""Differences between encoders, image by image: the test images are the same for every model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.encoders import UNTRAINED

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.study import Study

STEP = 0.1  # of the mask ratio, that a slope is given for


@dataclass(frozen=True)
class Contrast:
    """A sum over encoders with these weights: a difference of two, or a slope over the mask ratio.

    `encoders` are places in the study; the weights add up to 0, so whatever all encoders share cancels.
    """

    kind: str
    encoder: str
    reference: str | None
    encoders: list[int]
    weights: np.ndarray


def slope(study: Study, encoders: list[int], name: str) -> Contrast:
    """The least-squares slope over the effective mask ratio, per `STEP` of it."""
    ratios = study.ratios[encoders]
    centred = ratios - ratios.mean()
    return Contrast("slope", name, None, encoders, STEP * centred / (centred**2).sum())


def contrasts(study: Study) -> list[Contrast]:
    """Each pretrained encoder minus each one from scratch, then the slope of each series over its fixed mask ratios.

    An encoder whose images draw their own ratios is a condition of its own: it has a difference, and is in no slope.
    """
    import numpy as np

    pretrained = [m for m, method in enumerate(study.methods) if method not in UNTRAINED]
    plain = [m for m, method in enumerate(study.methods) if method == "scratch"]
    found = [
        Contrast("difference", study.encoders[m], study.encoders[reference], [m, reference], np.array([1.0, -1.0]))
        for reference in plain
        for m in pretrained
    ]
    for name in dict.fromkeys(series for series in study.doses if series):
        own = study.of_series(name)
        if len(own) > 1:
            found.append(slope(study, own, name))
    return found


@dataclass(frozen=True)
class Estimate:
    """A mean over images [1 + B] (observed first), its standardised size, the images' own means [n], and how many
    domains they are of."""

    values: np.ndarray
    effect: float
    images: np.ndarray
    domains: int


def estimate(study: Study, outcomes: dict[str, np.ndarray]) -> Estimate:
    """The mean of outcomes by domain [I, S] (NaN = none), every image and pair of seeds counting the same.

    The effect is the mean over the standard deviation between images within a domain (Cohen's d of paired scores).
    """
    import numpy as np

    total, n, squares, images = 0.0, 0.0, 0.0, []
    for domain, outcome in outcomes.items():
        known = np.isfinite(outcome)
        drawn = np.concatenate([np.ones((1, outcome.size)), study.weights[domain].reshape(-1, outcome.size)])
        filled = np.where(known, outcome, 0.0)
        total = total + drawn @ filled.ravel()
        n = n + drawn @ known.ravel().astype(np.float64)
        held = known.any(1)
        if held.any():
            images.append(filled[held].sum(1) / known[held].sum(1))
            squares += ((images[-1] - images[-1].mean()) ** 2).sum()
    values = np.divide(total, n, out=np.full(np.shape(total), np.nan), where=n > 0)
    found = np.concatenate(images) if images else np.empty(0)
    spread = np.sqrt(squares / (len(found) - len(images))) if len(found) > len(images) else 0.0
    return Estimate(values, values[0] / spread if spread > 0 else np.nan, found, len(images))
