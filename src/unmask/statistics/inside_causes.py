"""True effects of the planted factors, and next to them what an observer would estimate, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from unmask.internals.catalogue import CAUSES
from unmask.statistics.bootstrap import interval
from unmask.statistics.inside import bounds, named, resampled

if TYPE_CHECKING:
    from unmask.statistics.inside import Cubes, Missing
    from unmask.statistics.study import Study

PAIR = ("true_effect", "estimated_effect")


class Cause(NamedTuple):
    """A quantity of a factor, on the class `target` (None = each image's predicted class)."""

    factor: str
    quantity: str
    target: int | None


@dataclass(frozen=True)
class Causes:
    """`effects` by `Cause`; why there is none by (domain, encoder's place, factor, target), each part None for all;
    the names of a domain's classes."""

    study: Study
    effects: Cubes = field(default_factory=dict)
    without: Missing = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)


def cause_rows(causes: Causes) -> Iterator[dict[str, Any]]:
    """Rows of `causes.csv`: per domain and pooled (None), encoder, factor and quantity, on the predicted class."""
    study = causes.study
    chosen = {key: values for key, values in causes.effects.items() if key.quantity in CAUSES}
    for where, found in bounds(study, chosen):
        key: Cause = where.pop("key")
        yield {**where, "factor": key.factor, "quantity": key.quantity, "unit": CAUSES[key.quantity].unit, **found}
    for (domain, m, factor, target), (status, reason) in causes.without.items():
        if target is None:
            yield {**named(study, domain, m), "factor": factor, "n": 0, "status": status, "reason": reason}


def model_rows(causes: Causes) -> Iterator[dict[str, Any]]:
    """Rows of `causal_model.csv`: per domain, encoder, class and factor the two averages and their difference.

    `difference` is estimated less true, on the same resamples; `verdict` says whether its interval lies above 0
    (`too high`), below (`too low`) or holds it (`undecided`), not corrected for the number of rows. `n` is the images
    that the estimate is from, `n_true` those that have the factor.
    """
    study = causes.study
    keys = dict.fromkeys((key.factor, key.target) for key in causes.effects if key.quantity in PAIR)
    for domain in study.weights:
        for m in range(len(study.encoders)):
            for factor, target in sorted(keys, key=lambda one: one[1]):
                pair = [causes.effects.get(Cause(factor, quantity, target), {}).get(domain) for quantity in PAIR]
                values = [None if one is None else one[..., m] for one in pair]
                status, reason = causes.without.get((domain, m, factor, target), ("ok", None))
                row = _pair(study, domain, values)
                if row is not None or status != "ok":
                    yield {
                        **named(study, domain, m),
                        "class": causes.classes[domain][target],
                        "factor": factor,
                        **(row or {"n": 0, "n_true": 0}),
                        "status": status,
                        "reason": reason,
                    }


def _pair(study: Study, domain: str, values: list[Any]) -> dict[str, Any] | None:
    """Both means with intervals, and their difference, from [I, S] each (None = there is none)."""
    import numpy as np

    whole, seeds = resampled(study, {domain: values})
    if not whole.images.any():
        return None
    low, high = whole.interval(study.confidence)
    row: dict[str, Any] = {"n_true": int(whole.images[0]), "n": int(whole.images[1]), "seeds": int(seeds.max())}
    for place, name in enumerate(("true", "estimated")):
        row |= {name: whole.mean[place], f"{name}_low": low[place], f"{name}_high": high[place]}
    if whole.images.all():
        below, above = interval(np.diff(whole.means), study.confidence, whole.images.min())
        row |= {
            "difference": whole.mean[1] - whole.mean[0],
            "difference_low": below[0],
            "difference_high": above[0],
            "verdict": "too high" if below[0] > 0 else "too low" if above[0] < 0 else "undecided",
        }
    return row
