"""The questions of the benchmark, answered in tables from the scores alone.

`friedman`: do the explainers of a scope differ under a metric, and what difference could have been seen? `pairwise`:
which two differ? `critical_difference`: average ranks, and who cannot be told apart. `agreement`: which metrics rank
alike? `stability`: does the ranking hold between encoders, domains, seeds, removals, images? `ratio_effects`: does the
mask ratio change how good explanations are? `hypotheses`: what became of H1-H13. `metric_quality`: which metrics can
be trusted?

Everywhere the unit is the test image: its scores under several models are averaged or resampled together. Aliases
take no part, and neither do variants of metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.config import Config

if TYPE_CHECKING:
    import pandas as pd

    from unmask.statistics.inside import Inside

_SCOPE = ["scope", "domain"]
_METRIC = ["metric", "removal", "category", "direction"]
COLUMNS = {
    "friedman": [
        *_SCOPE,
        *_METRIC,
        "statistic",
        "p",
        "n",
        "k",
        "w",
        "detectable_rank",
        "detectable_score",
        "detectable_score_all",
        "left_out",
    ],
    "pairwise": [*_SCOPE, *_METRIC, "explainer_a", "explainer_b", "difference", "effect", "p", "p_holm", "n"],
    "critical_difference": [
        *_SCOPE,
        "category",
        "explainer",
        "family",
        "is_control",
        "average_rank",
        "cliques",
        "n",
        "k",
        "critical_difference",
    ],
    "agreement": [
        *_SCOPE,
        *("metric_a", "removal_a", "category_a"),
        *("metric_b", "removal_b", "category_b"),
        "tau",
        "low",
        "high",
        *("expected", "agreed", "reversed", "pairs"),
        "explainers",
        "n",
    ],
    "stability": [
        "kind",
        *_SCOPE,
        *("metric", "removal", "category"),
        "a",
        "b",
        "measure",
        "value",
        "low",
        "high",
        *("expected", "agreed", "reversed", "pairs"),
        "explainers",
        "n",
    ],
    "ratio_effects": [
        *_SCOPE,
        *_METRIC,
        "contrast",
        "encoder",
        "reference",
        "images",
        "relative_to",
        "estimate",
        "low",
        "high",
        "effect",
        "p",
        "p_holm",
        "verdict",
        "n",
        "explainers",
        "seeds",
        "accuracy",
    ],
    "hypotheses": [
        "hypothesis",
        "statement",
        "source",
        "measure",
        "direction",
        "threshold",
        "estimate",
        "low",
        "high",
        "n",
        "unit",
        "verdict",
        "reason",
    ],
    "metric_quality": [
        *_SCOPE,
        "encoder",
        *_METRIC,
        *("reliability", "reliability_low", "reliability_high"),
        *("alpha", "alpha_low", "alpha_high"),
        *("images", "explainers"),
        *("iac_nr", "iac_ar", "iec_nr", "iec_ar"),
        *("mc_input", "mc_model", "mc", "mc_sd"),
        *("changed_minor", "changed_disruptive"),
        *("judged_images", "judged_explainers"),
        *("separated", "models"),
    ],
}
WHOLE = {  # numbers that some rows do not have
    "stability": dict.fromkeys(("agreed", "reversed", "pairs"), "Int64"),
    "metric_quality": dict.fromkeys(("judged_images", "judged_explainers"), "Int64"),
}


def tables(
    config: Config,
    scores: pd.DataFrame,
    accuracy: pd.DataFrame,
    aliases: dict[str, str],
    inside: Inside | None = None,
    chance: pd.DataFrame | None = None,
    judged: pd.DataFrame | None = None,
    jobs: int = 1,
) -> dict[str, pd.DataFrame]:
    """Every table by name; `aliases` maps an entry to the one whose maps it has, `inside` is for the hypotheses.

    `chance` (the leaderboards' table) and `judged` (what stage 5 judges metrics by) are for `metric_quality`, which is
    empty without them. The questions are asked in `jobs` processes.
    """
    import pandas as pd

    from unmask.parallel import each
    from unmask.statistics.agreement import agreement_rows
    from unmask.statistics.critical import critical_rows
    from unmask.statistics.hypotheses import hypothesis_rows
    from unmask.statistics.pairwise import friedman_rows, pairwise_rows
    from unmask.statistics.quality import quality_rows
    from unmask.statistics.ratio_effects import ratio_rows
    from unmask.statistics.stability import stability_rows
    from unmask.statistics.study import study

    made = study(config, scores, aliases)
    # What was submitted is ranked and compared, but the benchmark's questions are asked of what was computed here.
    submitted = scores["explainer"].isin(list(config.submitted))
    computed = study(config, scores[~submitted], aliases) if submitted.any() else made
    asked: dict[str, Callable[[], list[dict[str, Any]]]] = {  # the longest first
        "stability": partial(stability_rows, computed),
        "agreement": partial(agreement_rows, computed),
        "ratio_effects": partial(ratio_rows, computed, accuracy),
        "pairwise": partial(pairwise_rows, made),
        "friedman": partial(friedman_rows, made),
        "critical_difference": partial(critical_rows, made),
        "hypotheses": partial(hypothesis_rows, computed, accuracy, inside),
    }
    if chance is not None and judged is not None:
        asked["metric_quality"] = partial(quality_rows, computed, chance, judged)
    rows = dict(zip(asked, each(list(asked.values()), jobs), strict=True))
    return {
        name: pd.DataFrame(rows.get(name, []), columns=columns).astype(WHOLE.get(name, {}))
        for name, columns in COLUMNS.items()
    }
