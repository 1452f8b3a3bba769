"""What the stage `inside` measured, as dense arrays, and the tables of it with intervals over images and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

from unmask.internals.catalogue import MISSINGNESS, QUANTITIES
from unmask.statistics.bootstrap import Draws, sums

if TYPE_CHECKING:
    import numpy as np

    from unmask.config import Config
    from unmask.statistics.bootstrap import Sums
    from unmask.statistics.inside_causes import Causes
    from unmask.statistics.study import Study

SIMILARITY = "layer_similarity"
PATCHES = "attention_distance_patches"  # the same in patches


class Layer(NamedTuple):
    """A quantity of a phase at a layer (None = of all of them together) and a head (None = their mean)."""

    phase: str
    quantity: str
    layer: int | None
    head: int | None


class Gone(NamedTuple):
    """A quantity under a removal at a fraction removed (None = the mean over the curve)."""

    removal: str
    quantity: str
    fraction: float | None


class Net(NamedTuple):
    """An encoder, by its place, in a phase."""

    encoder: int
    phase: str


Cubes = dict[Any, dict[str, "np.ndarray"]]  # a key's values by domain, [I, S, M], NaN = none
Missing = dict[Any, tuple[str, str]]  # by (domain, encoder's place, a key without layer): (status, reason)


@dataclass(frozen=True)
class Inside:
    """`layers` by `Layer`, `curves` by `Gone`, `cka` by two `Net`s and two layers (by domain [I, S] each), `causes`.

    `study` has the encoders and the draws: S are pairs of seeds, M encoders, I the images of a domain.
    """

    study: Study
    layers: Cubes
    curves: Cubes
    cka: dict[tuple[Net, int, Net, int], dict[str, np.ndarray]]
    without: Missing
    removed_without: Missing
    causes: Causes


def curve_weights(fractions: list[float]) -> np.ndarray:
    """Weights by which a curve's values add up to its mean over the fractions, by trapezoids; they sum to 1."""
    import numpy as np

    steps = np.diff(fractions)
    ends = (np.append(steps, 0.0) + np.append(0.0, steps)) / 2
    return ends / ends.sum()


def layer_rows(config: Config, inside: Inside) -> Iterator[dict[str, Any]]:
    """Rows of `inside.csv`: per domain and pooled (None), encoder, phase, quantity, layer and head."""
    patch = config["image"]["patch"]
    for where, found in bounds(inside.study, inside.layers):
        key: Layer = where.pop("key")
        about = QUANTITIES.get(key.quantity)
        keys = {**where, **key._asdict(), "unit": about.unit if about else "CKA"}
        yield {**keys, **found}
        if key.quantity == "attention_distance":
            scaled = {name: found[name] / patch for name in ("value", "low", "high")}
            yield {**keys, "quantity": PATCHES, "unit": "patches", **found, **scaled}
    for (domain, m, phase, quantity), (status, reason) in inside.without.items():
        yield {
            **named(inside.study, domain, m),
            "phase": phase,
            "quantity": quantity,
            "n": 0,
            "status": status,
            "reason": reason,
        }


def missingness_rows(inside: Inside) -> Iterator[dict[str, Any]]:
    """Rows of `missingness.csv`: per domain and pooled (None), encoder, removal, quantity and fraction."""
    for where, found in bounds(inside.study, inside.curves):
        key: Gone = where.pop("key")
        yield {**where, **key._asdict(), "unit": MISSINGNESS[key.quantity].unit, **found}
    for (domain, m, removal), (status, reason) in inside.removed_without.items():
        yield {
            **named(inside.study, domain, m),
            "removal": removal,
            "n": 0,
            "status": status,
            "reason": reason,
        }


def cka_rows(inside: Inside) -> Iterator[dict[str, Any]]:
    """Rows of `cka.csv`: per domain and pooled (None), two encoders with their phases, and a layer of each."""
    study = inside.study
    for scope in (None, *study.weights) if inside.cka else ():
        domains = list(study.weights) if scope is None else [scope]
        stacks = {domain: [values.get(domain) for values in inside.cka.values()] for domain in domains}
        for (one, layer_a, other, layer_b), row in zip(inside.cka, stacked(study, stacks), strict=True):
            if row is not None:
                yield {
                    "domain": scope,
                    **_net(study, one, layer_a, "_a"),
                    **_net(study, other, layer_b, "_b"),
                    **row,
                }


def _net(study: Study, net: Net, layer: int, suffix: str) -> dict[str, Any]:
    keys = {"encoder": study.encoders[net.encoder], "phase": net.phase, "layer": layer}
    return {name + suffix: value for name, value in keys.items()}


def named(study: Study, domain: str | None, m: int) -> dict[str, Any]:
    """The columns that name a domain (None = all pooled) and an encoder."""
    return {"domain": domain, "encoder": study.encoders[m], "mask_ratio": study.ratios[m]}


def bounds(study: Study, cubes: Cubes) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Per scope (all domains pooled: None), encoder and key: what names the row, and its mean with its interval."""
    if not cubes:
        return
    for scope in (None, *study.weights):
        domains = list(study.weights) if scope is None else [scope]
        for m in range(len(study.encoders)):
            stacks = {
                domain: [values[domain][..., m] if domain in values else None for values in cubes.values()]
                for domain in domains
            }
            for key, row in zip(cubes, stacked(study, stacks), strict=True):
                if row is not None:
                    yield {**named(study, scope, m), "key": key}, {**row, "status": "ok", "reason": None}


def stacked(study: Study, stacks: dict[str, list[np.ndarray | None]]) -> Iterator[dict[str, Any] | None]:
    """Mean and interval of every value [I, S] in turn, over the domains that have it; None where none has."""
    whole, seeds = resampled(study, stacks)
    low, high = whole.interval(study.confidence)
    for place, images in enumerate(whole.images.tolist()):
        yield (
            {
                "value": whole.mean[place],
                "low": low[place],
                "high": high[place],
                "n": images,
                "seeds": int(seeds[place]),
            }
            if images
            else None
        )


def resampled(study: Study, stacks: dict[str, list[np.ndarray | None]]) -> tuple[Sums, np.ndarray]:
    """Every value [I, S] resampled over the domains that have it, and how many seeds do."""
    import numpy as np

    totals: list[Sums] = []
    seeds: np.ndarray | None = None
    for domain, values in stacks.items():
        weights = study.weights[domain]
        images, pairs = weights.shape[1:]
        none = np.full((images, pairs), np.nan)
        cube = np.stack([none if value is None else value for value in values], -1)  # [I, S, E]
        draws = Draws(weights.reshape(len(weights), -1), np.repeat(np.arange(images), pairs), np.zeros((0, images)))
        totals.append(sums(draws, cube.reshape(images * pairs, -1)))
        held = np.isfinite(cube).any(0)  # [S, E]
        seeds = held if seeds is None else seeds | held
    return reduce(add, totals), seeds.sum(0)


def layer_numbers(cubes: Cubes, phase: str, quantity: str, encoders: Iterable[int]) -> list[int]:
    """The layers of a quantity that some encoders have values at, without layer 0."""
    import numpy as np

    chosen = list(encoders)
    return sorted(
        key.layer
        for key, values in cubes.items()
        if key[:2] == (phase, quantity)
        and key.head is None
        and key.layer
        and any(np.isfinite(one[..., chosen]).any() for one in values.values())
    )
