"""Average ranks and who cannot be told apart, for critical-difference diagrams (Demsar 2006).

An image's ranks are averaged over its models, then over the removals of a metric, the metrics of a category and, for
`all`, the categories it has scores in. Explainers are told apart by signed-rank tests of these averages with Holm's
correction, as Benavoli et al. (2016) advise: a test of mean ranks depends on who else takes part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.statistics.complete import comparable, complete, image_means, mean_known
from unmask.statistics.friedman import nemenyi
from unmask.statistics.ranks import rank
from unmask.statistics.signed_rank import holm, signed_rank

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.study import Measured, Scope, Study


def critical_rows(study: Study) -> list[dict[str, Any]]:
    """A row per scope, category (and `all`) and explainer, best first.

    `cliques` numbers the bars of the diagram that the explainer lies under (`c1 c2`): within a bar no two explainers
    differ. `critical_difference` is Nemenyi's, for one metric; averages of several metrics vary less. An explainer
    that cannot be compared, since it is not scored under every metric and model, has no rank and stands last.
    """
    rows = []
    for scope in study.scopes:
        held = [m for m in study.metrics if any(_scored(m.values[domain]) for domain in scope.domains)]
        categories = list(dict.fromkeys(m.keys["category"] for m in held))
        for category in [*categories, *(["all"] if categories else [])]:
            among = [m for m in held if category in (m.keys["category"], "all")]
            rows.extend({**scope.keys, "category": category, **row} for row in _diagram(study, among, scope))
    return rows


def _scored(cube: np.ndarray) -> bool:
    import numpy as np

    return bool(np.isfinite(cube).any())


def _diagram(study: Study, metrics: list[Measured], scope: Scope) -> list[dict[str, Any]]:
    import numpy as np

    chosen = np.all([comparable(m.values[domain] for domain in scope.domains) for m in metrics], 0)
    seen = np.any([np.isfinite(m.values[d]).any((0, 1, 2)) for m in metrics for d in scope.domains], 0)
    ranks = mean_known([_category(group, scope, chosen) for group in _by(metrics, "category")])
    ranks = ranks[np.isfinite(ranks).all(1)]
    n, k = ranks.shape
    average = np.full(len(study.explainers), np.nan)
    bars: dict[int, list[str]] = {}
    if n > 1 and k > 1:
        average[chosen] = ranks.mean(0)
        places = np.flatnonzero(chosen)
        order = np.argsort(ranks.mean(0), kind="stable")
        for number, (start, stop) in enumerate(cliques(_differ(ranks[:, order], 1 - study.confidence)), 1):
            for place in places[order[start : stop + 1]]:
                bars.setdefault(int(place), []).append(f"c{number}")
    rows = [
        {
            "explainer": e.name,
            "family": e.family,
            "is_control": e.is_control,
            "average_rank": average[i],
            "cliques": " ".join(bars.get(i, [])),
            "n": n,
            "k": k,
            "critical_difference": nemenyi(k, n, study.confidence) if n > 1 and k > 1 else np.nan,
        }
        for i, e in enumerate(study.explainers)
        if seen[i]
    ]
    return sorted(rows, key=lambda row: np.inf if np.isnan(row["average_rank"]) else row["average_rank"])


def _by(metrics: list[Measured], key: str) -> list[list[Measured]]:
    groups: dict[str | None, list[Measured]] = {}
    for measured in metrics:
        groups.setdefault(measured.keys[key], []).append(measured)
    return list(groups.values())


def _category(metrics: list[Measured], scope: Scope, chosen: np.ndarray) -> np.ndarray:
    """Average ranks [I, K] of every image of the scope under the metrics of one category."""
    import numpy as np

    def one(measured: Measured) -> np.ndarray:
        parts = []
        for domain in scope.domains:
            cube = complete(measured.values[domain], chosen)
            ranks = rank(cube, measured.keys["direction"])
            parts.append(image_means(np.where(np.isfinite(cube), ranks, np.nan)))
        return np.concatenate(parts)

    return mean_known([mean_known([one(measured) for measured in group]) for group in _by(metrics, "metric")])


def _differ(ranks: np.ndarray, alpha: float) -> np.ndarray:
    """Which explainers are told apart: bool [K, K] of ranks [n, K]."""
    import numpy as np

    k = ranks.shape[1]
    first, second = np.triu_indices(k, 1)
    p = holm(signed_rank(ranks[:, first] - ranks[:, second], float(k))[0])
    found = np.zeros((k, k), bool)
    found[first, second] = found[second, first] = p < alpha
    return found


def cliques(differ: np.ndarray) -> list[tuple[int, int]]:
    """The longest runs (first, last) of two or more neighbours in which no two differ, by bool [K, K] in order."""
    found: list[tuple[int, int]] = []
    for start in range(len(differ)):
        stop = start
        while stop + 1 < len(differ) and not differ[start : stop + 1, stop + 1].any():
            stop += 1
        if stop > start and (not found or stop > found[-1][1]):
            found.append((start, stop))
    return found
