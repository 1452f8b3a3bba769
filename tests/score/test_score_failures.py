"""What a metric that fails, hangs or is handed a bad map costs: its own cells, each with a reason, and nothing else."""

import shutil

import numpy as np
import pandas as pd
import pytest
from test_score_stage import COUNT, JOB, MODEL, SIZE, config, of, prepared, results, run, write_index  # noqa: F401

from unmask import registry, scoring
from unmask.cli import main
from unmask.files import read_arrays, read_table, write_arrays, write_json
from unmask.layout import Layout

METRICS = registry.available("metrics")
EVERY = sorted(METRICS)
KEYS = ["explainer", "metric", "image_id"]
OPTIONS = {  # small budgets; four patches are too few for the others' defaults
    **{name: {"samples": 2} for name in EVERY if "samples" in METRICS[name].options},
    **{name: {"step": 1} for name in EVERY if "step" in METRICS[name].options},
    "faithfulness_correlation": {"runs": 6},
    "irof": {"segments": 2},
    "saco": {"groups": 2},
    "sensitivity_n": {"sizes": 1, "samples": 4},
    "smooth_mprt": {"samples": 2},
    "mprt": {"steps": 2},
}
HEAD = '''"""A metric."""
import sys
import time

import numpy as np

META = {{"kind": "metrics", "category": "axiomatic", "direction": "higher", "needs": {needs},
        "passes": {{"forward": "0", "explanations": "0"}}, "chance": "0", "citation": "-"}}


def score(case):
    {body}
'''
EMPTY = HEAD.format(needs="[]", body="pass")
WRONG = {
    "raises": ("raise KeyError('no\\nluck')", "failed", r"KeyError: 'no\nluck'"),
    "imports": ("import nowhere_to_be_found", "failed", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "exits": ("sys.exit(3)", "failed", "SystemExit: 3"),
    "recurses": ("return score(case)", "failed", "RecursionError: maximum recursion depth exceeded"),
    "hangs": ("time.sleep(60)", "failed", "TimeoutError: took longer than 1 s (score.time_limit)"),
    "undefined": ("return np.full(len(case), np.nan)", "failed", "metric returned nan"),
    "infinite": ("return np.full(len(case), -np.inf)", "failed", "metric returned -inf"),
    "nothing": ("return None", "failed", "returned shape () for 6 images"),
    "words": ("return ['good'] * len(case)", "failed", "ValueError: could not convert string to float: 'good'"),
    "one": ("return 0.5", "failed", "returned shape () for 6 images"),
    "few": ("return np.zeros(len(case) - 1)", "failed", "returned shape (5,) for 6 images"),
    "table": ("return np.zeros((len(case), 2))", "failed", "returned shape (6, 2) for 6 images"),
    "writes": ("case.maps[:] = 0", "failed", "ValueError: assignment destination is read-only"),
    "traces": ("case.trace('x', np.zeros((2, 3))); return np.zeros(len(case))", "failed", "shape (2, 3) for 6 images"),
    "skips": (
        "from unmask.errors import Skip; raise Skip('not on a day like this')",
        "skipped",
        "not on a day like this",
    ),
}


def plugin(folder, name, body, needs="[]"):
    path = folder / f"{name}.py"
    path.write_text(HEAD.format(body=body, needs=needs))
    return path


def scores(table):
    return table.set_index([*KEYS, "removal"])[["score", "status", "reason"]].sort_index()


@pytest.fixture(scope="module")
def plain(prepared, tmp_path_factory):  # noqa: F811
    """The scores of two sound metrics alone."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("plain") / "results")
    return scores(run(config(folder, metrics=["pixel_flipping", "sparseness"])))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_metric_that_fails_costs_its_own_rows_and_says_why(wrong, results, plain, tmp_path):  # noqa: F811
    body, status, reason = WRONG[wrong]
    mine = plugin(tmp_path, wrong, body)
    settings = config(results, metrics=["pixel_flipping", wrong, "sparseness"], plugins=[mine])
    settings.data["score"]["time_limit"] = 1
    table = run(settings)
    own, others = of(table, metric=wrong), table[table["metric"] != wrong]
    assert len(own) == 2 * COUNT
    assert set(own["status"]) == {status, "skipped"}  # the oracle has no map of the image without evidence
    judged = own[own["reason"] != "no evidence mask"]
    assert len(judged) == 2 * COUNT - 1
    assert set(judged["status"]) == {status}
    assert judged["reason"].str.contains(reason, regex=False).all(), judged["reason"].iloc[0]
    assert own["score"].isna().all()
    pd.testing.assert_frame_equal(scores(others), plain, check_exact=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def score(case:\n", "is not valid Python"),
        ("def score(case):\n    return 1\n", "a plug-in needs a literal `META"),
        (
            HEAD.format(needs="[]", body="pass").replace("def score", "def scored"),
            r"must define the function score\(\)",
        ),
        (HEAD.format(needs="[]", body="pass").replace('"direction": "higher", ', ""), "META lacks direction"),
        (HEAD.format(needs="[]", body="pass").replace('"metrics"', '"metric"'), "META\\['kind'\\] is 'metric'"),
    ],
)
def test_a_file_that_is_no_metric_is_one_sentence_before_any_work(text, words, results, tmp_path, capsys):  # noqa: F811
    (tmp_path / "mine.py").write_text(text)
    data = config(results, metrics=["sparseness"]).data
    data["plugins"], data["score"]["metrics"] = [str(tmp_path / "mine.py")], ["mine", "sparseness"]
    write_json(tmp_path / "config.json", data)
    job = [f"--{key.replace('_', '-')}={value}" for key, value in JOB.items()]
    assert main(["score", "--config", str(tmp_path / "config.json"), *job]) == 2
    error = capsys.readouterr().err
    assert pd.Series([error]).str.contains(words).all(), error
    assert str(tmp_path / "mine.py") in error
    assert len(error.strip().splitlines()) == 1
    assert not Layout(results).scores(MODEL).exists()


def test_a_metric_that_hangs_is_stopped_and_the_next_one_has_its_whole_time(results, tmp_path):  # noqa: F811
    slow = plugin(tmp_path, "slow", "time.sleep(0.7); return np.zeros(len(case))")
    hangs = plugin(tmp_path, "hangs", "time.sleep(60)")
    settings = config(results, ["saliency"], ["hangs", "slow", "sparseness"], plugins=[slow, hangs])
    settings.data["score"]["time_limit"] = 1
    table = run(settings)
    assert set(of(table, metric="hangs")["reason"]) == {"TimeoutError: took longer than 1 s (score.time_limit)"}
    assert (of(table, metric="hangs")["seconds"] * COUNT).between(0.9, 5).all()
    for metric in ("slow", "sparseness"):
        assert set(of(table, metric=metric)["status"]) == {"ok"}


def test_a_metric_that_is_undefined_for_one_image_keeps_the_others(results, tmp_path):  # noqa: F811
    half = plugin(tmp_path, "half", "return np.where(np.arange(len(case)) == 2, np.nan, 0.25)")
    table = of(run(config(results, ["saliency"], ["half"], plugins=[half])), metric="half")
    assert table["status"].tolist() == ["ok", "ok", "failed", "ok", "ok", "ok"]
    assert table["score"].tolist()[:2] == [0.25, 0.25]


def ill(maps):
    """Of six maps: one of zeros, one constant, one with a NaN, one with an infinity."""
    maps = maps.copy()
    maps[0], maps[1], maps[2, 3, 4], maps[3, 5, 6] = 0, -0.5, np.nan, np.inf
    return maps


@pytest.fixture(scope="module")
def well_and_ill(prepared, tmp_path_factory):  # noqa: F811
    """The scores of every metric, once on six sound maps and once where four of them are not."""
    tables = []
    for name, change in (("well", lambda maps: maps), ("ill", ill)):
        folder = shutil.copytree(prepared, tmp_path_factory.mktemp(name) / "results")
        layout = Layout(folder)
        path = layout.domain("defect") / "test.safetensors"
        arrays = read_arrays(path)
        arrays["masks"][:] = False
        arrays["masks"][:, 2:7, 3:9] = True  # all have evidence
        spot = np.zeros_like(arrays["masks"])
        spot[:, 10:12, 10:13] = True
        write_arrays(path, {**arrays, "concepts/spot": spot})
        sound = np.random.default_rng(5).normal(size=(COUNT, SIZE, SIZE))
        write_index(layout, {"saliency": change(sound), "oracle": np.ones((COUNT, SIZE, SIZE))})
        tables.append(run(config(folder, ["saliency"], EVERY, **OPTIONS)).set_index(KEYS))
    return tables


@pytest.mark.parametrize("metric", EVERY)
def test_a_bad_map_costs_its_own_score_and_changes_no_other(metric, well_and_ill):
    well, poor = (table.xs(metric, level="metric").droplevel("explainer") for table in well_and_ill)
    assert len(well) == len(poor) == COUNT
    masked = "masks" in METRICS[metric].meta["needs"]
    reasons = ["the map is constant", "the map is constant", "the map is not finite", "the map is not finite"]
    for image, reason in zip(["t0", "t1", "t2", "t3"], reasons, strict=True):
        expected = ("skipped", scoring.MISCLASSIFIED) if masked and image == "t0" else ("failed", reason)
        assert (poor.loc[image, "status"], poor.loc[image, "reason"]) == expected
        assert np.isnan(poor.loc[image, "score"])
    pd.testing.assert_frame_equal(
        well.loc[["t4", "t5"], ["score", "status", "reason"]],
        poor.loc[["t4", "t5"], ["score", "status", "reason"]],
        check_exact=True,
    )


# Whether a decision hangs on the tag is for the model to say.
@pytest.mark.parametrize("metric", [name for name in EVERY if name != "shortcut_detection"])
def test_every_metric_scores_every_image_that_it_can_judge(metric, well_and_ill):
    table = well_and_ill[0].xs(metric, level="metric").droplevel("explainer")
    judged = table[table["reason"] != scoring.MISCLASSIFIED]
    assert len(judged) == COUNT - ("masks" in METRICS[metric].meta["needs"])
    assert (judged["status"] == "ok").mean() > 0.8, set(judged["reason"])


def test_no_metric_judges_fewer_images_for_small_mini_batches(results):  # noqa: F811
    tables = {}
    for batch in (64, 4):
        folder = results.with_name(f"batch_{batch}")
        shutil.copytree(results, folder)
        settings = config(folder, ["saliency"], EVERY, **OPTIONS)
        settings.data["score"]["batch"] = batch
        tables[batch] = run(settings).set_index(KEYS)[["status", "score", "removal"]]
    assert tables[64].index.equals(tables[4].index)
    whole, parts = tables[64], tables[4]
    alone = [  # whose draws, if any, belong to the image and not to its place in the mini-batch
        name
        for name in EVERY
        if METRICS[name].meta["needs"] in ([], ["masks"], ["masks", "concepts"])
        and name not in ("pointing_game", "relevance_rank_accuracy", "top_k_intersection")
    ]
    assert len(alone) >= 6
    for name in alone:
        one, other = (table.xs(name, level="metric") for table in (whole, parts))
        np.testing.assert_allclose(one["score"], other["score"], rtol=1e-12)
    assert ((whole["status"] == "ok") & (parts["status"] != "ok")).mean() < 0.02


def test_concepts_are_asked_for_and_images_without_are_skipped(results):  # noqa: F811
    names = ["distractor_avoidance", "concept_auc"]
    table = run(config(results, ["saliency"], names))
    assert set(table["reason"]) == {scoring.MISCLASSIFIED, "no evidence mask", "no concept mask"}
    path = Layout(results).domain("defect") / "test.safetensors"
    arrays = read_arrays(path)
    pit = np.zeros_like(arrays["masks"])
    pit[2:4, 12:14, 12:14] = True
    write_arrays(path, {**arrays, "concepts/pit": pit})
    table = run(config(results, ["saliency"], names)).set_index(["metric", "image_id"])
    for name in names:
        assert table.loc[name]["status"].to_dict() == {
            **dict.fromkeys(["t0", "t1", "t4", "t5"], "skipped"),
            **dict.fromkeys(["t2", "t3"], "ok"),
        }
    maps = read_arrays(Layout(results).maps(MODEL) / "saliency.safetensors")["maps"]
    for i in (2, 3):
        on, beside = (np.maximum(maps[i], 0)[pixels[i]].sum() for pixels in (arrays["masks"], pit))
        assert table.loc["distractor_avoidance", f"t{i}"]["score"] == pytest.approx(on / (on + beside))


def test_focus_asks_for_mosaics_of_all_explained_images_whatever_failed_or_is_scored(results, capsys):  # noqa: F811
    path = Layout(results).domain("defect") / "test.safetensors"
    arrays = read_arrays(path)
    arrays["masks"][5] = arrays["masks"][4]
    write_arrays(path, arrays)
    settings = config(results, ["saliency", "oracle"], ["focus"])
    whole = run(settings).set_index(["explainer", "image_id"])
    known = whole.loc["oracle"]["score"].drop(["t0", "t5"])  # its map of t5 failed in stage 4
    np.testing.assert_allclose(known, 1, atol=1e-6)
    assert set(whole.loc["saliency"]["status"]) == {"ok", "skipped"}
    rng = np.random.default_rng(0)
    maps = rng.random((COUNT, SIZE, SIZE))
    maps[3] = np.nan
    write_index(Layout(results), {"saliency": maps, "oracle": arrays["masks"][:COUNT]})
    again = run(settings).set_index(["explainer", "image_id"]).loc["saliency"]
    assert again.loc["t3", "status"] == "failed"
    kept = ["t1", "t2", "t4", "t5"]
    pd.testing.assert_series_equal(again["score"][kept], whole.loc["saliency"]["score"][kept], check_exact=True)


def test_draws_of_localisation_do_not_depend_on_which_maps_failed(results):  # noqa: F811
    """Ties are broken by draws for the place among the images that can be judged, whatever their maps are."""
    layout, coarse = Layout(results), np.zeros((COUNT, 2, 2))
    coarse[:, 0, 0] = 1
    maps = {"saliency": coarse.copy(), "oracle": coarse}
    maps["saliency"][1] = np.nan
    write_index(layout, maps)
    table = run(config(results, metrics=["relevance_rank_accuracy", "top_k_intersection"]))
    table = table.pivot(index=["metric", "image_id"], columns="explainer", values="score")
    assert table["saliency"].isna().sum() == 2 * 3
    sound = table.dropna()
    assert len(sound) == 2 * 3
    np.testing.assert_array_equal(sound["saliency"], sound["oracle"])
    assert sound["saliency"].nunique() > 2


def test_the_order_of_metrics_changes_no_score(results, tmp_path):  # noqa: F811
    noisy = plugin(tmp_path, "noisy", "np.random.rand(); np.random.seed(3); return case.rng('n').random(len(case))")
    names = ["noisy", *(name for name in EVERY if METRICS[name].meta["needs"] != ["explainer"])]
    tables = []
    for number, order in enumerate((names, names[::-1])):
        folder = shutil.copytree(results, tmp_path / f"order_{number}")
        tables.append(scores(run(config(folder, ["saliency"], order, plugins=[noisy], **OPTIONS))))
    pd.testing.assert_frame_equal(*tables, check_exact=True)


EXPLAINER = '''"""An explainer that gives up."""
import sys

META = {"kind": "explainers", "family": "gradient", "class_specific": True, "signed": False, "resolution": "pixel",
        "architectures": ["vit"], "passes": {"forward": "0", "backward": "0"}, "citation": "-"}


def explain(model, images, targets, *, generator, removal=None):
    sys.exit("enough")
'''


def test_an_explainer_that_gives_up_when_asked_again_costs_what_asked(results, tmp_path):  # noqa: F811
    (tmp_path / "quits.py").write_text(EXPLAINER)
    rng = np.random.default_rng(2)
    write_index(Layout(results), {"quits": rng.random((COUNT, SIZE, SIZE)), "oracle": rng.random((COUNT, 2, 2))})
    settings = config(results, ["quits"], ["max_sensitivity", "sparseness"], plugins=[tmp_path / "quits.py"])
    settings.data["score"]["judge"]["explainers"] = ["quits"]
    table = run(settings)
    asked = of(table, metric="max_sensitivity")
    assert set(zip(asked["status"], asked["reason"], strict=True)) == {("failed", "SystemExit: enough")}
    assert set(of(table, metric="sparseness")["status"]) == {"ok"}
    judged = read_table(Layout(results).scores(MODEL) / "some.judged.parquet")
    anew = judged[judged["test"] != "none"]
    assert len(anew) > 0
    assert set(zip(anew["status"], anew["reason"], strict=True)) == {("failed", "SystemExit: enough")}
