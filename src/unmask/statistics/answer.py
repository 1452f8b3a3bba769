"""What a hypothesis is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.errors import Skip
from unmask.statistics.bootstrap import interval
from unmask.statistics.contrasts import estimate

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.study import Study


@dataclass(frozen=True)
class Answer:
    """A measure's estimate and interval, over `n` of a `unit`; `seeded` where the interval knows of the seeds."""

    estimate: float
    low: float
    high: float
    n: int
    unit: str
    seeded: bool = False


def answer(study: Study, values: np.ndarray, images: int, domains: int) -> Answer:
    """From an estimate and its resamples [1 + B], over so many images in so many domains."""
    (low,), (high,) = interval(values[1:, None], study.confidence, images, domains)
    return Answer(float(values[0]), float(low), float(high), images, "images")


def estimated(study: Study, outcomes: dict[str, np.ndarray]) -> Answer:
    """The mean of outcomes by domain [I, S] (NaN = none); raises `Skip` where there are none."""
    found = estimate(study, outcomes)
    if not len(found.images):
        raise Skip("no image has all the values it needs")
    return answer(study, found.values, len(found.images), found.domains)
