"""H1-H13: what was expected before anything was measured, and what the scores say.

`hypotheses.json` fixes statement, measure, direction and threshold of each. A hypothesis is supported where the
interval of its measure lies on the stated side of the threshold, not supported where it lies on the other, and
undecided where it holds the threshold.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.errors import Skip
from unmask.statistics import inside_hypotheses
from unmask.statistics.answer import Answer, answer, estimated
from unmask.statistics.complete import mean_known
from unmask.statistics.contrasts import contrasts
from unmask.statistics.orders import View, means
from unmask.statistics.pairwise import against
from unmask.statistics.ranks import rank
from unmask.statistics.signed_rank import holm
from unmask.statistics.stability import image_concordance

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.statistics.inside import Inside
    from unmask.statistics.study import Measured, Study

HYPOTHESES: list[dict[str, Any]] = json.loads(
    Path(__file__).parents[1].joinpath("hypotheses.json").read_text(encoding="utf-8")
)
PLAIN = "simmim"  # the method, and the series of its fixed mask ratios
SAYS: dict[str, Callable[[float, float, float], tuple[bool, bool]]] = {  # (supported, contradicted) by low, high, at
    "above": lambda low, high, at: (low > at, high < at),
    "below": lambda low, high, at: (high < at, low > at),
    "at least": lambda low, high, at: (low >= at, high < at),
}


def hypothesis_rows(study: Study, accuracy: pd.DataFrame, inside: Inside | None = None) -> list[dict[str, Any]]:
    """A row per hypothesis, with the verdict and, where there is one, the reason why it is no more than that.

    `inside` is what the stage of that name measured, None where it measured nothing.
    """
    rows = []
    for one in HYPOTHESES:
        row = {key: one[key] for key in ("statement", "source", "measure", "direction", "threshold")}
        try:
            found = _tested(one, study, accuracy, inside)
            row |= {"estimate": found.estimate, "low": found.low, "high": found.high, "n": found.n, "unit": found.unit}
            row |= {"verdict": verdict(one["direction"], one["threshold"], found), "reason": _caveat(study, found)}
        except Skip as reason:
            row |= {"n": 0, "verdict": "not measured", "reason": str(reason)}
        rows.append({"hypothesis": one["id"], **row})
    return rows


def _tested(one: dict[str, Any], study: Study, accuracy: pd.DataFrame, inside: Inside | None) -> Answer:
    options = one.get("options", {})
    if one["test"] in TESTS:
        return TESTS[one["test"]](study, accuracy, **options)
    if inside is None:
        raise Skip(f"it needs {one['needs']}, which the stage inside did not measure")
    return inside_hypotheses.TESTS[one["test"]](inside, **options)


def verdict(direction: str, threshold: float, found: Answer) -> str:
    """`supported`, `not supported` or `undecided`."""
    supported, contradicted = SAYS[direction](found.low, found.high, threshold)
    return "supported" if supported else "not supported" if contradicted else "undecided"


def _caveat(study: Study, found: Answer) -> str | None:
    if found.seeded or len(study.seeds) > 1:
        return None
    return "one pair of seeds: it holds for these models, not for others trained in the same way"


def accuracy_bulge(study: Study, accuracy: pd.DataFrame) -> Answer:
    """H7: the parabola of test accuracy over the mask ratio."""
    import numpy as np
    from scipy.special import stdtrit

    encoders = study.of_series(PLAIN)
    ratios = study.ratios[encoders]
    if len(set(ratios.tolist())) < 3:
        raise Skip("it needs encoders of three mask ratios")
    wide = accuracy.pivot_table(index=["domain", "pretrain_seed", "finetune_seed"], columns="encoder", values="test")
    values = wide[[study.encoders[m] for m in encoders]].dropna().to_numpy()
    if len(values) < 2:
        raise Skip("it needs two domains or pairs of seeds")
    curvature = np.linalg.pinv(np.vander(ratios, 3))[0]  # of the least-squares parabola
    bulges = -(values @ curvature) * (ratios.max() - ratios.min()) ** 2 / 4
    half = stdtrit(len(bulges) - 1, (1 + study.confidence) / 2) * bulges.std(ddof=1) / np.sqrt(len(bulges))
    middle = float(bulges.mean())
    return Answer(middle, middle - half, middle + half, len(bulges), "domains x seeds", seeded=True)


def relative_rank(study: Study, accuracy: pd.DataFrame, explainers: list[str], categories: list[str]) -> Answer:
    """H8: the place of some explainers among all that are no controls."""
    import numpy as np

    encoders = _need_masked(study)
    names = [e.name for e in study.explainers]
    chosen = np.array([name in explainers for name in names])
    if not chosen.any():
        raise Skip(f"it needs the explainers {' or '.join(explainers)}, with maps of their own")
    groups: dict[str, dict[str, list[np.ndarray]]] = {}
    counted = []
    for measured in study.metrics:
        if measured.keys["category"] not in categories:
            continue
        found = []
        for domain in study.weights:
            for m in encoders:
                view = View(measured, [domain], [m])
                known = view.takes_part(study)
                if known.sum() > 2 and (known & chosen).any():
                    scores, images, _ = means(study, view, known)
                    places = (rank(scores, measured.keys["direction"]) - 1) / (known.sum() - 1)
                    places[~np.isfinite(scores).all(1)] = np.nan
                    found.append(places[:, chosen[known]].mean(1))
                    counted.append((domain, images))
        if found:
            groups.setdefault(measured.keys["category"], {}).setdefault(measured.keys["metric"], []).append(
                mean_known(found)
            )
    if not groups:
        raise Skip(f"it needs scores of {' or '.join(categories)} on models with a mask ratio")
    by_category = [mean_known([mean_known(removals) for removals in metrics.values()]) for metrics in groups.values()]
    images = {domain: max(n for d, n in counted if d == domain) for domain, _ in counted}
    return answer(study, mean_known(by_category), sum(images.values()), len(images))


def native_keeps(study: Study, accuracy: pd.DataFrame, metric: str, native: list[str]) -> Answer:
    """H9: the null control's area under native removals minus that under the others, on the same models and images."""
    encoders = _need_masked(study)
    own, others = _removals(study, native, metric=metric)
    outcomes = {}
    for domain in study.weights:
        both = (_null_means(study, part, domain)[:, :, encoders] for part in (own, others))
        outcomes[domain] = _rows_mean(next(both) - next(both))
    return estimated(study, outcomes)


def native_concordance(study: Study, accuracy: pd.DataFrame, category: str, native: list[str]) -> Answer:
    """H10: Kendall's W under native removals minus that under the others, on the same models."""
    import numpy as np

    encoders = _need_masked(study)
    differences, counted = [], []
    names = dict.fromkeys(m.keys["metric"] for m in study.metrics if m.keys["category"] == category)
    for metric in names:
        try:
            own, others = _removals(study, native, metric=metric)
        except Skip:
            continue
        domains = list(study.weights)
        values = {}
        for measured in (*own, *others):
            found, _, images, seen = image_concordance(study, [*own, *others], measured, domains, encoders)
            values[measured.keys["removal"]] = found
            counted.append((images, seen))
        means_of = [mean_known([values[m.keys["removal"]] for m in part]) for part in (own, others)]
        differences.append(means_of[0] - means_of[1])
    if not differences or not np.isfinite(differences[0][0]):
        raise Skip(f"it needs {category} under a native and another removal on the same models")
    return answer(study, mean_known(differences), *min(counted))


def flatter_curve(study: Study, accuracy: pd.DataFrame, metric: str, native: list[str]) -> Answer:
    """H11: the slope over the mask ratio of the null control's area."""
    import numpy as np

    slopes = [one for one in contrasts(study) if one.kind == "slope" and one.encoder == PLAIN]
    if not slopes:
        raise Skip("it needs encoders of two mask ratios")
    _, others = _removals(study, native, metric=metric, both=False)
    outcomes = {}
    for domain in study.weights:
        areas = _null_means(study, others, domain)
        found = mean_known([areas[:, :, one.encoders] @ one.weights for one in slopes])
        outcomes[domain] = np.where(study.correct[domain].all(-1), found, np.nan)
    return estimated(study, outcomes)


def above_random(study: Study, accuracy: pd.DataFrame, categories: list[str]) -> Answer:
    """H12: every explainer against the null control, under every metric of these categories."""
    import numpy as np

    if study.null is None:
        raise Skip("it needs a random control")
    tests = [
        against(study, measured, study.scopes[0], study.null)
        for measured in study.metrics
        if measured.keys["category"] in categories
    ]
    if not tests:
        raise Skip(f"it needs scores of {' or '.join(categories)}")
    difference, p = np.concatenate(tests, axis=1)
    tested = np.isfinite(p)
    if not tested.any():
        raise Skip("no explainer shares an image with the random control")
    difference, sure = difference[tested], holm(p[tested]) < 1 - study.confidence
    better, worse = (sure & (difference > 0)).mean(), (sure & (difference < 0)).mean()
    return Answer(float((difference > 0).mean()), float(better), float(1 - worse), int(tested.sum()), "comparisons")


TESTS: dict[str, Callable[..., Answer]] = {
    one.__name__: one
    for one in (
        accuracy_bulge,
        relative_rank,
        native_keeps,
        native_concordance,
        flatter_curve,
        above_random,
    )
}


def _masked(study: Study) -> list[int]:
    """The encoders that the hypotheses speak of, SimMIM's, at whatever mask ratio."""
    return [m for m, method in enumerate(study.methods) if method == PLAIN]


def _need_masked(study: Study) -> list[int]:
    found = _masked(study)
    if not found:
        raise Skip("it needs an encoder of SimMIM")
    return found


def _removals(study: Study, native: list[str], metric: str, both: bool = True) -> tuple[list[Measured], list[Measured]]:
    """A metric under native removals and under the others."""
    found = [m for m in study.metrics if m.keys["metric"] == metric and m.keys["removal"] is not None]
    own = [m for m in found if m.keys["removal"] in native]
    others = [m for m in found if m.keys["removal"] not in native]
    if both and not own:
        raise Skip(f"it needs {metric} under one of the removals {', '.join(native)}")
    if not others:
        raise Skip(f"it needs {metric} under a removal other than {', '.join(native)}")
    return own, others


def _null_means(study: Study, metrics: list[Measured], domain: str) -> np.ndarray:
    """The null control's scores [I, S, M], means over removals; NaN where one of them is missing."""
    if study.null is None:
        raise Skip("it needs a random control")
    return sum(m.values[domain][..., study.null] for m in metrics) / len(metrics)


def _rows_mean(values: np.ndarray) -> np.ndarray:
    """The mean over encoders, of [I, S, M]; NaN where one is missing, so that every image stands for all of them."""
    return values.mean(-1)
