"""The hypotheses about what is inside a model: SimMIM against training from scratch, and over the mask ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unmask.errors import Skip
from unmask.statistics.answer import Answer, estimated
from unmask.statistics.complete import mean_known
from unmask.statistics.contrasts import slope
from unmask.statistics.inside import SIMILARITY, Gone, Layer, layer_numbers

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.inside import Inside

PLAIN = "simmim"  # the method, and the series of its fixed mask ratios
LAYERS: dict[str, Callable[[list[int]], list[int]]] = {
    "all": lambda layers: layers,
    "last": lambda layers: layers[-1:],
    "last three": lambda layers: layers[-3:],
    "last third": lambda layers: layers[-max(1, round(len(layers) / 3)) :],
}


def against_scratch(inside: Inside, quantity: str, layers: str, phase: str = "after") -> Answer:
    """H1-H5: a quantity in SimMIM models minus that in models from scratch."""
    return estimated(inside.study, _differences(inside, quantity, layers, phase))


def apart_from_scratch(inside: Inside, quantity: str, layers: str, phase: str = "after") -> Answer:
    """H13: the size of that difference, whichever way it goes; an interval that holds 0 begins there."""
    found = against_scratch(inside, quantity, layers, phase)
    low, high = sorted((abs(found.low), abs(found.high)))
    return Answer(abs(found.estimate), 0.0 if found.low <= 0 <= found.high else low, high, found.n, found.unit)


def bulge(inside: Inside, quantity: str, layers: str, phase: str) -> Answer:
    """H6: how far the middle of a quantity's parabola over the mask ratio lies above the line between its ends."""
    import numpy as np

    masked = inside.study.of_series(PLAIN)
    ratios = inside.study.ratios[masked]
    if len(set(ratios.tolist())) < 3:
        raise Skip("it needs encoders of three mask ratios")
    curvature = np.linalg.pinv(np.vander(ratios, 3))[0]  # of the least-squares parabola
    weights = -curvature * (ratios.max() - ratios.min()) ** 2 / 4
    means = _means(inside, quantity, layers, phase, masked)
    return estimated(inside.study, {domain: values @ weights for domain, values in means.items()})


def native_tolerance(inside: Inside, quantity: str, native: list[str], others: list[str]) -> Answer:
    """H9: a quantity's mean over the fraction removed, native removals minus others, on the same models and images."""
    masked, _ = _encoders(inside, plain=False)
    own, other = (_curves(inside, quantity, chosen, masked) for chosen in (native, others))
    return estimated(inside.study, {domain: (own[domain] - other[domain]).mean(-1) for domain in own})


def tolerance_slope(inside: Inside, quantity: str, removals: list[str]) -> Answer:
    """H11: a quantity's mean over the fraction removed, slope over the effective mask ratio."""
    masked = inside.study.of_series(PLAIN)
    if len(set(inside.study.ratios[masked].tolist())) < 2:
        raise Skip("it needs encoders of two mask ratios")
    contrast = slope(inside.study, masked, "masked")
    curves = _curves(inside, quantity, removals, masked)
    return estimated(inside.study, {domain: values @ contrast.weights for domain, values in curves.items()})


TESTS: dict[str, Callable[..., Answer]] = {
    one.__name__: one for one in (against_scratch, apart_from_scratch, bulge, native_tolerance, tolerance_slope)
}


def _encoders(inside: Inside, plain: bool = True) -> tuple[list[int], list[int]]:
    """The places of SimMIM's encoders, at whatever mask ratio, and of those from scratch."""
    masked = [m for m, method in enumerate(inside.study.methods) if method == PLAIN]
    scratch = [m for m, method in enumerate(inside.study.methods) if method == "scratch"]
    if not masked:
        raise Skip("it needs an encoder of SimMIM")
    if plain and not scratch:
        raise Skip("it needs an encoder trained from scratch")
    return masked, scratch


def _differences(inside: Inside, quantity: str, layers: str, phase: str) -> dict[str, np.ndarray]:
    masked, scratch = _encoders(inside)
    ours, theirs = (_means(inside, quantity, layers, phase, some) for some in (masked, scratch))
    return {domain: ours[domain].mean(-1) - theirs[domain].mean(-1) for domain in ours}


def _means(inside: Inside, quantity: str, layers: str, phase: str, encoders: list[int]) -> dict[str, np.ndarray]:
    """A quantity's mean over layers, by domain [I, S, encoders]; NaN where a layer has no value."""
    if quantity == SIMILARITY:
        keys = [Layer(phase, SIMILARITY, None, None)]
    else:
        numbers = LAYERS[layers](layer_numbers(inside.layers, phase, quantity, encoders))
        keys = [Layer(phase, quantity, number, None) for number in numbers]
    if not keys or keys[0] not in inside.layers:
        raise Skip(f"no model has a value of {quantity.replace('_', ' ')}")
    found = [inside.layers[key] for key in keys]
    return {domain: sum(one[domain][..., encoders] for one in found) / len(found) for domain in found[0]}


def _curves(inside: Inside, quantity: str, removals: list[str], encoders: list[int]) -> dict[str, np.ndarray]:
    """The means over the fraction removed, mean over those of the removals that were measured: [I, S, encoders]."""
    found = [inside.curves[key] for name in removals if (key := Gone(name, quantity, None)) in inside.curves]
    if not found:
        raise Skip(f"it needs the missingness of one of the removals {', '.join(removals)}")
    return {domain: mean_known([one[domain][..., encoders] for one in found]) for domain in inside.study.weights}
