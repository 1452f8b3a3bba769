"""The table of metrics' quality from planted scores: what is pooled where, and what is missing."""

import numpy as np
import pandas as pd
import planted
import pytest

from unmask import questions
from unmask.statistics.consistency import CRITERIA, consistency
from unmask.statistics.quality import quality_rows
from unmask.statistics.study import study
from unmask.tables.columns import BOARDS
from unmask.tables.judged import JUDGED

JUDGES = ["saliency", "grad_cam", "lime"]
IMAGES = 6


def judged(config, metric="pixel_flipping", removal="mean", noise=0.0, fall=0.5, lost=()):
    """Scores of goodness that keep under minor noise up to `noise`, and fall by `fall` under disruption."""
    category, direction, _ = planted.METRICS[metric]
    sign, rows = 1 if direction == "higher" else -1, []
    for model in config.models:
        rng = np.random.default_rng(sum(map(ord, model.folder)))
        good = rng.normal(0, 1, (len(JUDGES), IMAGES))
        kinds = [("none", "none")] + [(t, s) for t in ("input", "model") for s in ("minor", "disruptive")]
        for test, strength in kinds:
            moved = good + (rng.normal(0, noise, good.shape) if strength == "minor" else 0)
            moved = moved - (fall if strength == "disruptive" else 0)
            for e, name in enumerate(JUDGES):
                for i in range(IMAGES):
                    failed = (name, strength) in lost
                    rows.append(
                        {
                            "domain": model.domain,
                            "encoder": model.encoder,
                            "mask_ratio": np.nan,
                            "pretrain_seed": model.pretrain_seed,
                            "finetune_seed": model.finetune_seed,
                            "explainer": name,
                            "metric": metric,
                            "category": category,
                            "direction": direction,
                            "removal": removal,
                            "test": test,
                            "strength": strength,
                            "repeat": 0,
                            "image_id": f"test-{i:03d}",
                            "changed": strength == "disruptive" and i > 0,
                            "score": np.nan if failed else sign * moved[e, i],
                            "status": "failed" if failed else "ok",
                            "reason": "planted" if failed else None,
                            "passes": 1.0,
                            "seconds": 0.1,
                        }
                    )
    return pd.DataFrame(rows)[list(JUDGED)]


def chance(config, separated=lambda domain, encoder: True):
    """The leaderboards' table of chance levels, as far as it is read."""
    rows = [
        {"scope": "model", "domain": m.domain, "encoder": m.encoder, "metric": metric, "removal": removal}
        | {"variant": None, "controls_separated": separated(m.domain, m.encoder)}
        for m in config.models
        for metric, (_, _, removes) in planted.METRICS.items()
        for removal in (config["score"]["removals"] if removes else [None])
    ]
    return pd.DataFrame(rows).reindex(columns=BOARDS["chance"]).astype({"variant": object, "removal": object})


def table(config, scores=None, **given):
    scores = planted.scores(config) if scores is None else scores
    made = study(config, scores, {})
    given = {"chance": chance(config), "judged": judged(config), **given}
    return pd.DataFrame(quality_rows(made, **given))


@pytest.fixture(scope="module")
def config():
    return planted.config()


@pytest.fixture(scope="module")
def whole(config):
    return table(config)


def one(table, metric="pixel_flipping", removal="mean", domain=None, encoder=None):
    for name, value in {"metric": metric, "removal": removal, "domain": domain, "encoder": encoder}.items():
        table = table[table[name].isna() if value is None else table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_a_row_per_metric_removal_and_scope(config, whole):
    metrics = 2 * 2 + 2
    counts = whole["scope"].value_counts()
    assert counts["all"] == metrics
    assert counts["domain"] == 2 * metrics
    assert counts["model"] == 2 * (4 * metrics - 2), "the mask token has no scores on models from scratch"
    made = questions.tables(
        config, planted.scores(config), planted.accuracy(config), {}, None, chance(config), judged(config)
    )
    assert len(made["metric_quality"]) == len(whole)
    assert list(made["metric_quality"].columns) == questions.COLUMNS["metric_quality"]
    assert questions.tables(config, planted.scores(config), planted.accuracy(config), {})["metric_quality"].empty


def test_little_noise_is_reliable_and_much_is_not(config):
    sure = one(table(config, planted.scores(config, noise=0.01)))
    assert sure["reliability"] > 0.95
    assert sure["alpha"] > 0.95
    assert (sure["explainers"], sure["images"]) == (6, 40), "controls take no part"
    noisy = one(table(config, planted.scores(config, noise=20.0)))
    assert noisy["reliability"] < 0.6
    assert abs(noisy["alpha"]) < 0.1
    assert noisy["alpha_low"] <= noisy["alpha"] <= noisy["alpha_high"]


def test_meta_consistency_is_that_of_the_models_scores(config, whole):
    """Recomputed for one model from its rows, and averaged by hand over the models of a domain."""
    rows = judged(config)
    own = rows[(rows["domain"] == "medical") & (rows["encoder"] == "scratch")]

    def scores(test, strength):
        return (
            own[(own["test"] == test) & (own["strength"] == strength)]
            .pivot(index="explainer", columns="image_id", values="score")
            .loc[JUDGES]
            .to_numpy()
        )

    def both(strength):
        return np.stack([[scores(test, strength)] for test in ("input", "model")])[None]

    stayed = np.ones((1, 2, 1, IMAGES), bool)
    changed = stayed & (np.arange(IMAGES) > 0)
    expected = consistency(scores("none", "none")[None], both("minor"), both("disruptive"), stayed, changed, "lower")
    row = one(whole, domain="medical", encoder="scratch")
    assert [row[name] for name in CRITERIA] == pytest.approx([expected[name].mean() for name in CRITERIA])
    assert (row["mc_input"], row["mc_model"]) == pytest.approx(tuple(expected["mc"][0]))
    models = [one(whole, domain="medical", encoder=name)["mc"] for name in config["encoders"]]
    pooled = one(whole, domain="medical")
    assert pooled["mc"] == pytest.approx(np.mean(models))
    assert pooled["mc_sd"] == pytest.approx(np.std(models, ddof=1))
    assert (pooled["changed_minor"], pooled["changed_disruptive"]) == pytest.approx((0, 5 / 6))
    assert (pooled["judged_images"], pooled["judged_explainers"]) == (IMAGES, 3)


def test_scores_that_fall_under_disruption_are_right_in_either_direction(config):
    for metric in ("pixel_flipping", "faithfulness_correlation"):
        falling = one(table(config, judged=judged(config, metric=metric)), metric=metric)
        assert (falling["iac_nr"], falling["iec_nr"], falling["iec_ar"]) == (1, 1, 1)
        assert falling["iac_ar"] == pytest.approx(1 - 2 / 2**5)
        rising = one(table(config, judged=judged(config, metric=metric, fall=-0.5)), metric=metric)
        assert rising["iec_ar"] == 0


def test_what_was_not_judged_has_no_meta_consistency(config, whole):
    assert np.isnan(one(whole, removal="mask_token")["mc"])
    assert np.isnan(one(whole, metric="sparseness", removal=None)["mc"])
    nobody = table(config, judged=judged(config).iloc[:0])
    assert "mc" not in nobody or nobody["mc"].isna().all()
    assert one(nobody)["reliability"] == pytest.approx(one(whole)["reliability"])
    gone = one(table(config, judged=judged(config, lost={(name, "disruptive") for name in JUDGES})))
    assert np.isnan(gone["mc"])
    assert np.isnan(gone["iac_ar"])
    assert gone["iac_nr"] == 1


def test_models_whose_controls_are_told_apart_are_counted(config):
    made = table(config, chance=chance(config, lambda domain, encoder: domain == "medical" and encoder != "scratch"))
    assert (one(made)["separated"], one(made)["models"]) == (3, 8)
    assert (one(made, domain="defect")["separated"], one(made, domain="defect")["models"]) == (0, 4)
    assert one(made, domain="medical", encoder="simmim_30")["separated"] == 1
    unknown = table(config, chance=chance(config, lambda domain, encoder: None))
    assert one(unknown)["models"] == 0


def test_the_same_numbers_again(config, whole):
    pd.testing.assert_frame_equal(whole, table(config))
