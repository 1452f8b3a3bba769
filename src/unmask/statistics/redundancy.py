"""Which metrics rank explainers alike: within a category, metrics whose rankings agree vote together, not twice."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unmask.statistics.pools import Explainer
    from unmask.statistics.ranking import Clusters
    from unmask.statistics.scopes import MetricRanks


def agreement(models: list[MetricRanks], one: tuple[str, str], two: tuple[str, str]) -> float:
    """Kendall's tau-b of the explainers' ranks under two metrics, the mean over the models; 0 where there is none.

    `models` holds each model's ranks [E] by metric, NaN = not ranked; fewer than three shared explainers say nothing.
    """
    import numpy as np
    from scipy.stats import kendalltau

    found = []
    for ranks in models:
        if one in ranks and two in ranks:
            both = np.isfinite(ranks[one]) & np.isfinite(ranks[two])
            if both.sum() >= 3:
                found.append(kendalltau(ranks[one][both], ranks[two][both]).statistic)
    found = [tau for tau in found if np.isfinite(tau)]
    return float(np.mean(found)) if found else 0.0


def cluster(
    models: list[MetricRanks], explainers: list[Explainer], threshold: float
) -> tuple[Clusters, list[dict[str, object]]]:
    """The clusters of the metrics, and a row per metric: its cluster, closest other metric and share of the vote.

    `models` are those of `unmask.statistics.scopes.ranks_by_model`. Average linkage on 1 - tau within a category, cut
    at 1 - `threshold`; controls take no part, since they agree under most metrics by what they are.
    """
    import numpy as np
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    candidates = ~np.array([e.is_control for e in explainers])
    models = [{key: ranks[candidates] for key, ranks in one.items()} for one in models]
    categories: dict[str, dict[tuple[str, str], None]] = {}
    for key in (key for ranks in models for key in ranks):
        categories.setdefault(key[0], {})[key] = None
    clusters: Clusters = {}
    rows = []
    for category, keys in categories.items():
        metrics = list(keys)
        tau = np.eye(len(metrics))
        for i, j in combinations(range(len(metrics)), 2):
            tau[i, j] = tau[j, i] = agreement(models, metrics[i], metrics[j])
        labels = np.ones(len(metrics), np.int64)
        if len(metrics) > 1:
            # A hair above the threshold: metrics that agree perfectly are one cluster at a threshold of 1, too.
            joined = linkage(squareform(1 - tau, checks=False), "average")
            labels = fcluster(joined, 1 - threshold + 1e-9, "distance")
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()), 1)}
        np.fill_diagonal(tau, -np.inf)
        for i, key in enumerate(metrics):
            clusters[key] = numbers[labels[i]]
            rows.append(
                {
                    "category": category,
                    "metric": key[1],
                    "cluster": clusters[key],
                    "closest": metrics[tau[i].argmax()][1] if len(metrics) > 1 else None,
                    "tau": tau[i].max() if len(metrics) > 1 else np.nan,
                    "weight": 1 / (len(categories) * len(numbers) * (labels == labels[i]).sum()),
                }
            )
    return clusters, rows
