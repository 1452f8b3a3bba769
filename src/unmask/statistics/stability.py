"""Does the ranking of the explainers hold when something else changes?

Kendall's tau-b between the orders of the explainers (no controls) by mean score: between encoders, domains, pairs of
seeds, removals and the two halves of randomly split images. Kendall's W: how alike the images of one model rank them,
per removal on the models that have every removal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from unmask.statistics.bootstrap import interval
from unmask.statistics.complete import comparable, complete, mean_known
from unmask.statistics.friedman import weighted_concordance
from unmask.statistics.kendall import tau_interval
from unmask.statistics.orders import View, likeness, order
from unmask.statistics.ranks import rank

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from unmask.statistics.study import Measured, Scope, Study

KINDS = ("encoder", "domain", "seed", "removal", "split_half", "images")


@dataclass(frozen=True)
class Finding:
    """How alike the orders `a` and `b` are under one metric: `values` [1 + B], observed first, or one per split;
    `more` holds the columns that only comparisons of two orders have."""

    kind: str
    scope: Scope
    keys: dict[str, str | None]
    a: str | None
    b: str | None
    values: np.ndarray
    explainers: int
    images: int
    domains: int
    more: dict[str, float] = field(default_factory=dict)


def stability_rows(study: Study) -> list[dict[str, Any]]:
    """A row per kind, scope, metric and compared pair; without a metric: the mean over all of them, every row alike.

    Noise lowers tau: `expected` is the tau of one ranking measured twice with this much noise. Of the `pairs` of
    explainers `agreed` are surely in the same order in both, `reversed` surely in opposite ones (summed up in rows
    without a metric). The interval of `split_half` holds the stated share of the splits, and each order there has half
    the images, so that its value is a lower bound.
    """
    import numpy as np

    found = [one for one in _findings(study) if np.isfinite(one.values[0])]
    rows = []
    for kind in KINDS:
        own = [one for one in found if one.kind == kind]
        for scope in study.scopes:
            here = [one for one in own if one.scope == scope]
            rows.extend(_row(study, one.keys, [one]) for one in here)
            between = [
                [one for one in here if (one.a, one.b) == pair]
                for pair in dict.fromkeys((one.a, one.b) for one in here)
            ]
            rows.extend(_row(study, {}, same) for same in between)
            if len(between) > 1 and kind != "images":
                rows.append(_row(study, {}, here) | {"a": None, "b": None})
    return rows


def _row(study: Study, keys: dict[str, str | None], found: list[Finding]) -> dict[str, Any]:
    import numpy as np

    first = found[0]
    values = mean_known([one.values for one in found])
    images, domains, explainers = (
        int(np.median([getattr(one, name) for one in found])) for name in ("images", "domains", "explainers")
    )
    value = values[0]
    if first.kind == "split_half":
        value = values.mean()
        low, high = np.quantile(values, [(1 - study.confidence) / 2, (1 + study.confidence) / 2])
    elif first.kind == "images":
        (low,), (high,) = interval(values[1:, None], study.confidence, images, domains)
    else:
        low, high = tau_interval(values, study.confidence, images, domains)
    more = {name: [one.more[name] for one in found] for name in first.more}
    if more:
        more = {name: sum(values) for name, values in more.items()}
        more["expected"] = float(mean_known([np.array(one.more["expected"]) for one in found]))
    return {
        "kind": first.kind,
        **first.scope.keys,
        **{key: keys.get(key) for key in ("metric", "removal", "category")},
        "a": first.a,
        "b": first.b,
        "measure": "kendall_w" if first.kind == "images" else "kendall_tau",
        "value": value,
        "low": low,
        "high": high,
        **more,
        "explainers": explainers,
        "n": images,
    }


def _findings(study: Study) -> Iterator[Finding]:
    for measured in study.metrics:
        for scope in study.scopes:
            encoders = _held(measured, scope.domains)
            by_encoder = {study.encoders[m]: View(measured, scope.domains, [m]) for m in encoders}
            yield from _between(study, "encoder", scope, measured.keys, by_encoder)
            if len(study.seeds) > 1:
                by_seed = {name: View(measured, scope.domains, seeds=[s]) for s, name in enumerate(study.seeds)}
                yield from _between(study, "seed", scope, measured.keys, by_seed)
            yield from _halves(study, measured, scope)
        by_domain = {domain: View(measured, [domain]) for domain in study.weights}
        yield from _between(study, "domain", study.scopes[0], measured.keys, by_domain)
    for scope in study.scopes:
        for group in _removals(study):
            yield from _between_removals(study, group, scope)
        yield from _between_images(study, scope)


def _between(
    study: Study, kind: str, scope: Scope, keys: dict[str, str | None], views: dict[str, View]
) -> Iterator[Finding]:
    orders = {name: order(study, view) for name, view in views.items()}
    for (a, first), (b, second) in combinations(orders.items(), 2):
        found = likeness(first, second)
        more = {name: getattr(found, name) for name in ("expected", "agreed", "reversed", "pairs")}
        yield Finding(kind, scope, keys, a, b, found.tau, found.explainers, found.images, found.domains, more)


def _held(measured: Measured, domains: list[str]) -> list[int]:
    """The encoders that have any score under a metric."""
    import numpy as np

    return np.flatnonzero(np.any([np.isfinite(measured.values[d]).any((0, 1, 3)) for d in domains], 0)).tolist()


def _halves(study: Study, measured: Measured, scope: Scope) -> Iterator[Finding]:
    """Orders from two halves of the images."""
    import numpy as np

    whole = order(study, View(measured, scope.domains))
    if whole.known.sum() > 2 and np.isfinite(whole.halves).all():
        keys, explainers = measured.keys, int(whole.known.sum())
        yield Finding("split_half", scope, keys, None, None, whole.halves, explainers, whole.images, whole.domains)


def _removals(study: Study) -> list[list[Measured]]:
    """The metrics that were scored under two removals or more."""
    groups: dict[str | None, list[Measured]] = {}
    for measured in study.metrics:
        if measured.keys["removal"] is not None:
            groups.setdefault(measured.keys["metric"], []).append(measured)
    return [group for group in groups.values() if len(group) > 1]


def _between_removals(study: Study, group: list[Measured], scope: Scope) -> Iterator[Finding]:
    """Orders under the removals of one metric, over the models that have both."""
    for pair in combinations(group, 2):
        encoders = sorted(set.intersection(*(set(_held(measured, scope.domains)) for measured in pair)))
        if encoders:
            views = {m.keys["removal"]: View(m, scope.domains, encoders) for m in pair}
            yield from _between(study, "removal", scope, {**pair[0].keys, "removal": None}, views)


def _between_images(study: Study, scope: Scope) -> Iterator[Finding]:
    """Kendall's W over the images of a model, averaged over models."""
    groups = _removals(study)
    for measured in study.metrics:
        group = next((one for one in groups if measured in one), [measured])
        encoders = sorted(set.intersection(*(set(_held(one, scope.domains)) for one in group)))
        if encoders:
            values, known, images, domains = image_concordance(study, group, measured, scope.domains, encoders)
            removal = measured.keys["removal"]
            yield Finding("images", scope, measured.keys, removal, None, values, int(known.sum()), images, domains)


def image_concordance(
    study: Study, group: list[Measured], measured: Measured, domains: list[str], encoders: list[int]
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Kendall's W [1 + B] under `measured`, over the explainers that can be compared under each metric of `group`.

    Per model over its images, averaged over models. Also who takes part [E], and how many images in how many domains.
    """
    import numpy as np

    known = np.all([comparable(m.values[d][:, :, encoders] for d in domains) for m in group], 0) & ~study.control
    found, images, seen = [], 0, 0
    for domain in domains:
        cube = complete(measured.values[domain][:, :, encoders], known)
        held = np.isfinite(cube).all(-1) if known.any() else np.zeros(cube.shape[:3], bool)
        for s, m in np.ndindex(held.shape[1:]):
            rows = held[:, s, m]
            drawn = np.vstack([np.ones((1, rows.sum())), study.weights[domain][:, rows, s]])
            found.append(weighted_concordance(rank(cube[rows, s, m], measured.keys["direction"]), drawn))
        here = int(held.any((1, 2)).sum())
        images, seen = images + here, seen + (here > 0)
    return mean_known(found), known, images, seen
