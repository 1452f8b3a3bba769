"""What pretraining and its mask ratio change inside the models: the same images, encoder against encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from unmask.internals.catalogue import QUANTITIES
from unmask.statistics.bootstrap import interval
from unmask.statistics.contrasts import contrasts, estimate
from unmask.statistics.inside import SIMILARITY, Layer, layer_numbers

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.contrasts import Contrast
    from unmask.statistics.inside import Inside
    from unmask.statistics.study import Study

ROUNDING = 1e-12  # what a slope makes of equal values is this small, but not 0
OVER_LAYERS, LAST = "mean over layers", "last layer"


def effect_rows(inside: Inside) -> Iterator[dict[str, Any]]:
    """What is measured layer by layer and under every removal; see `compared`."""
    return compared(inside.study, lambda contrast: _measures(inside, contrast))


def compared(
    study: Study, measures: Callable[[Contrast], Iterable[tuple[dict[str, Any], dict[str, np.ndarray]]]]
) -> Iterator[dict[str, Any]]:
    """A row per quantity, its layers, contrast and scope: all domains pooled (None), then each.

    A `difference` is an encoder minus the one from scratch, a `slope` the change per .1 of the effective mask ratio.
    `verdict`: whether the interval lies above 0 (`higher`), below (`lower`) or holds it; it is not corrected for the
    number of rows. `effect` is standardised, as in `ratio_effects`. `measures` gives what names a quantity, with its
    values of the contrast's encoders by domain [I, S, encoders].
    """
    for scope in (None, *study.weights):
        domains = list(study.weights) if scope is None else [scope]
        for contrast in contrasts(study):
            for keys, values in measures(contrast):
                outcomes = {d: values[d] @ contrast.weights for d in domains if d in values}
                found = estimate(study, outcomes)
                if len(found.images):
                    (low,), (high,) = interval(
                        found.values[1:, None], study.confidence, len(found.images), found.domains
                    )
                    yield {
                        "domain": scope,
                        **keys,
                        "contrast": contrast.kind,
                        "encoder": contrast.encoder,
                        "reference": contrast.reference,
                        "estimate": found.values[0],
                        "low": low,
                        "high": high,
                        "effect": found.effect,
                        "verdict": "higher" if low > ROUNDING else "lower" if high < -ROUNDING else "undecided",
                        "n": len(found.images),
                        "seeds": len(study.seeds),
                    }


def _measures(inside: Inside, contrast: Contrast) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """What is compared, with its values of the contrast's encoders by domain [I, S, encoders]."""
    chosen = contrast.encoders
    for phase in ("before", "after"):
        for quantity in QUANTITIES:
            numbers = layer_numbers(inside.layers, phase, quantity, chosen)
            for layers, some in ((OVER_LAYERS, numbers), (LAST, numbers[-1:])):
                if some:
                    parts = [inside.layers[Layer(phase, quantity, number, None)] for number in some]
                    keys = {"phase": phase, "quantity": quantity, "layers": layers}
                    yield keys, _mean(parts, chosen)
        similarity = inside.layers.get(Layer(phase, SIMILARITY, None, None))
        if similarity:
            yield {"phase": phase, "quantity": SIMILARITY, "layers": OVER_LAYERS}, _mean([similarity], chosen)
    for key, values in inside.curves.items():
        if key.fraction is None:
            yield {"phase": "after", "quantity": key.quantity, "removal": key.removal}, _mean([values], chosen)


def _mean(parts: list[dict[str, np.ndarray]], encoders: list[int]) -> dict[str, np.ndarray]:
    return {domain: sum(part[domain][..., encoders] for part in parts) / len(parts) for domain in parts[0]}
