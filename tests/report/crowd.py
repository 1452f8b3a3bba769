"""Tables of 35 explainers with long names as the stage `aggregate` writes them: what figures must have room for."""

from __future__ import annotations

import itertools

import crowd_judged
import numpy as np
import pandas as pd
import synthetic

from unmask.config import Config
from unmask.files import write_table
from unmask.layout import Layout

FAMILIES = ["gradient", "cam", "attention", "relevance", "perturbation", "mim"]
NAMES = tuple(f"explainer_{i:02d}_of_a_long_name" + "_indeed" * (i % 5 == 0) for i in range(29))
CONTROLS = ("random_toy", "noise_toy", "oracle_toy", "centre_toy", "edges_toy")
ALIAS = NAMES[3]
METRICS = {
    ("toy_faithfulness", removal): ("faithfulness", "lower") for removal in ("mean", "zero", "blur", "mask_token")
} | {
    ("another_faithfulness", removal): ("faithfulness", "higher") for removal in ("mean", "zero", "blur", "mask_token")
}
METRICS |= {
    (name, None): (category, "higher")
    for name, category in (
        ("toy_localisation", "localisation"),
        ("relevance_rank_accuracy_of_the_long_name", "localisation"),
        ("toy_robustness", "robustness"),
        ("toy_complexity", "complexity"),
        ("randomisation_of_the_parameters", "randomisation"),
        ("toy_axiom", "axiomatic"),
    )
}


def config(folder) -> Config:
    """A config that names them all, over two domains."""
    controls = [name for name in CONTROLS if name not in synthetic.EXPLAINERS]
    made = synthetic.config(folder, extra=(*NAMES, *controls))
    for name in controls:
        path = folder / "plugins" / f"{name}.py"
        path.write_text(path.read_text().replace("'family': 'gradient'", "'family': 'control'"))
    return Config(made.data)


def tables() -> dict[str, pd.DataFrame]:
    """Every table that figures read, with ranks, intervals and flags that fit one another."""
    rng = np.random.default_rng(0)
    explainers = [*NAMES, *CONTROLS]
    entries = pd.DataFrame({"explainer": explainers, "is_control": [name in CONTROLS for name in explainers]})
    entries["family"] = [
        "control" if name in CONTROLS else FAMILIES[i % len(FAMILIES)] for i, name in enumerate(explainers)
    ]
    skill = pd.Series([*np.linspace(1, 0, len(NAMES)), 0.0, 0.0, 1.2, 0.3, 0.2], explainers)

    def board(domain):
        parts = []
        for (metric, removal), (category, direction) in METRICS.items():
            part = entries.assign(metric=metric, removal=removal, variant=None, category=category, direction=direction)
            sign = 1 if direction == "higher" else -1
            part["mean"] = sign * (skill.to_numpy() + rng.normal(0, 0.2, len(part)))
            part["low"], part["high"] = part["mean"] - 0.1, part["mean"] + 0.1
            part["alias_of"] = np.where(part["explainer"] == ALIAS, NAMES[0], None)
            part.loc[part["explainer"] == ALIAS, "mean"] = part.loc[part["explainer"] == NAMES[0], "mean"].to_numpy()
            part["rank"] = (-sign * part["mean"]).where(part["alias_of"].isna()).rank()
            part["tie_group"] = (part["rank"] // 6 + 1).where(~part["is_control"])
            part["controls_separated"] = metric != "toy_complexity"
            part["n"] = 20
            parts.append(part.sort_values("rank"))
        whole = pd.concat(parts, ignore_index=True)
        return whole if domain is None else whole.assign(domain=domain)

    overall, by_domain = board(None), pd.concat([board(d) for d in ("rings", "bars")], ignore_index=True)
    ranked = entries[entries["explainer"] != ALIAS]
    ranking = []
    for domain, category in itertools.product((None, "rings", "bars"), ("all", "faithfulness")):
        part = ranked.assign(scope="domain" if domain else "all", domain=domain, encoder=None, category=category)
        part["mean_rank"] = (part["explainer"].map(-skill).rank() + rng.normal(0, 2, len(part))).clip(1, len(part))
        part["low"], part["high"] = part["mean_rank"] - 2, part["mean_rank"] + 2
        part["rank"] = part["mean_rank"].rank()
        part["tie_group"] = (part["rank"] // 6 + 1).where(~part["is_control"])
        ranking.append(part.sort_values("rank"))
    ratios = pd.concat(
        [
            by_domain.assign(encoder=encoder, mask_ratio=ratio, mean=by_domain["mean"] + shift, n=20)
            for encoder, ratio, shift in (("scratch", None, 0), ("m25", 0.25, 0.1), ("m75", 0.75, -0.1))
        ],
        ignore_index=True,
    )
    ratios = ratios.assign(
        minus_random=ratios["mean"], minus_random_low=ratios["low"], minus_random_high=ratios["high"]
    )
    ends = by_domain.pivot_table(
        index=["domain", "metric", "removal"], columns="explainer", values="mean", dropna=False
    )
    keys = by_domain[["domain", "metric", "removal"]]
    span = keys.merge(ends[["random_toy", "oracle_toy"]].reset_index(), how="left")
    by_domain["rescaled"] = (
        (by_domain["mean"] - span["random_toy"]) / (span["oracle_toy"] - span["random_toy"])
    ).where(by_domain["controls_separated"])
    chance = by_domain.drop_duplicates(["domain", "metric", "removal"])[["domain", "metric", "removal"]]
    chance = chance.assign(scope="domain", encoder=None, variant=None, ceiling_by="oracle_toy")
    passes = np.where(entries["is_control"], 0, 2.0 ** rng.integers(0, 11, len(entries)))
    agreement = [
        {"scope": "all", "domain": domain, "metric_a": a[0], "removal_a": a[1], "metric_b": b[0], "removal_b": b[1]}
        for domain in (None, "rings", "bars")
        for a, b in itertools.combinations(METRICS, 2)
    ]
    effects = pd.DataFrame(
        [
            {"scope": "all", "domain": domain, "metric": metric, "removal": removal, "category": category}
            | {
                "direction": direction,
                "contrast": contrast,
                "encoder": encoder,
                "reference": reference,
                "images": "all",
            }
            for domain in (None, "rings", "bars")
            for (metric, removal), (category, direction) in METRICS.items()
            for contrast, encoder, reference in (
                ("difference", "m25", "scratch"),
                ("difference", "m75", "scratch"),
                ("slope", "simmim", None),
            )
        ]
    )
    effects["estimate"] = rng.normal(0, 0.2, len(effects))
    effects["low"], effects["high"] = effects["estimate"] - 0.2, effects["estimate"] + 0.1
    effects["effect"] = 2.0 * effects["estimate"]
    effects["verdict"], effects["seeds"] = np.resize(["better", "worse", "undecided"], len(effects)), 1
    tau = rng.uniform(-0.5, 1, len(agreement))
    critical = pd.concat(
        [
            part.assign(average_rank=part["mean_rank"].where(part["explainer"] != "oracle_toy"), n=40, k=len(part))
            for part in ranking
        ],
        ignore_index=True,
    )
    # Bars of eight neighbours, each three places on.
    place = critical.groupby(["domain", "category"], dropna=False)["average_rank"].rank() - 1
    critical["cliques"] = [
        " ".join(f"c{i}" for i in range(12) if 3 * i <= at < 3 * i + 8) if at == at else "" for at in place
    ]
    return {
        "overall": overall,
        "by_domain": by_domain,
        "ranking": pd.concat(ranking, ignore_index=True),
        "mask_ratio": ratios,
        "chance": chance,
        "explainers": entries.assign(forward=passes, backward=0.0),
        "critical_difference": critical,
        "ratio_effects": effects,
        "agreement": pd.DataFrame(agreement).assign(tau=tau, low=tau - 0.2, high=tau + 0.2),
        "metric_quality": crowd_judged.quality(METRICS),
        "curves": crowd_judged.curves(explainers),
    }


def write(config: Config) -> Config:
    """Write the tables where the figures look for them; there is nothing else in the results."""
    for name, table in tables().items():
        write_table(Layout(config.results).leaderboards / f"{name}.csv", table)
    return config
