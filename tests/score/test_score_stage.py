"""Stage 5 on a tiny model and maps written after the contract of stage 4."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from changed_images import write_factors

from unmask import explain, score, scoring
from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table, sha256, write_arrays, write_json, write_table
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.models.vit import Classifier

SIZE, COUNT = 16, 6
MODEL = ModelId("defect", "plain", 0, 0)
JOB = {"domain": "defect", "encoder": "plain", "pretrain_seed": 0, "finetune_seed": 0, "group": "some"}
METRICS = ["pixel_flipping", "relevance_mass_accuracy", "max_sensitivity", "sparseness"]

BROKEN = '''"""A metric that raises."""
META = {"kind": "metrics", "category": "axiomatic", "direction": "higher", "needs": [], "passes": {}, "citation": "-"}


def score(case):
    raise RuntimeError("no\\nluck")
'''
HALF = '''"""A metric that is undefined for the first image and costs a pass per image."""
import numpy as np

META = {"kind": "metrics", "category": "axiomatic", "direction": "higher", "needs": ["model"],
        "passes": {"forward": "1", "explanations": "0"}, "undefined": "no two images are alike", "citation": "-"}


def score(case):
    case.model(case.images)
    return np.array([np.nan, np.inf] + [0.5] * (len(case) - 2))
'''


def config(folder, entries=("saliency", "oracle"), metrics=METRICS, removals=("mean",), plugins=(), **options):
    return Config(
        {
            "results": str(folder),
            "device": "cpu",
            "image": {"size": SIZE, "patch": 8},
            "domains": {"defect": {}},
            "encoders": {"plain": {"method": "scratch"}},
            "pretrain": {"mask_cell": 8},
            "model": {"width": 8, "depth": 1, "heads": 1},
            "plugins": list(map(str, plugins)),
            "explain": {"images": COUNT, "groups": {"some": list(entries)}},
            "score": {"metrics": list(metrics), "removals": list(removals), "options": options},
        }
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Data, a random model, and the index of two explainers: six images, the last of which has no evidence."""
    folder = tmp_path_factory.mktemp("results")
    layout, rng = Layout(folder), np.random.default_rng(0)
    masks = np.zeros((8, SIZE, SIZE), bool)
    masks[:, 2:7, 3:9] = True
    masks[5] = False
    write_arrays(
        layout.domain("defect") / "test.safetensors",
        {
            "images": rng.integers(0, 256, (8, SIZE, SIZE, 3), np.uint8),
            "labels": np.arange(8) % 3,
            "masks": masks,
            "shortcut": np.zeros_like(masks),
        },
    )
    write_table(layout.domain("defect") / "test.csv", pd.DataFrame({"image_id": [f"t{i}" for i in range(8)]}))
    write_factors(folder, tagged=range(8), without=())
    torch.manual_seed(0)
    architecture = {"size": SIZE, "patch": 8, "width": 8, "depth": 1, "heads": 1, "classes": 3}
    model = Classifier(**architecture)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    checkpoint.save(layout.model(MODEL) / "model.safetensors", model.state_dict(), {"architecture": architecture})
    maps = {"saliency": rng.random((COUNT, SIZE, SIZE)), "oracle": masks[:COUNT]}
    write_index(layout, maps, {"oracle": {"t5": "no evidence mask"}})
    return folder


def write_index(layout, maps, failed=None, **changes):
    folder, records = layout.maps(MODEL), []
    for name, values in maps.items():
        path = folder / f"{name}.safetensors"
        write_arrays(path, {"maps": values.astype(np.float32)})
        control = name == "oracle"
        records.append(
            {
                "name": name,
                "plugin": name,
                "family": "control" if control else "gradient",
                "is_control": control,
                "class_specific": not control,
                "signed": False,
                "resolution": "pixel",
                "removal": None,
                "file": path.name,
                "sha256": sha256(path),
                "passes": {"forward": 0, "backward": 0},
                "seconds": 0.0,
                "failed": (failed or {}).get(name, {}),
                "error": None,
                "status": "ok",
                **changes,
            }
        )
    images = [
        {"image_id": f"t{i}", "index": i, "label": i % 3, "prediction": 1 if i == 0 else i % 3, "correct": i != 0}
        for i in range(COUNT)
    ]
    write_json(folder / "some.json", {"group": "some", "model": {}, "images": images, "explainers": records})


@pytest.fixture
def results(prepared, tmp_path):
    """A copy of the prepared folder that a test may change."""
    import shutil

    return shutil.copytree(prepared, tmp_path / "results")


def run(settings):
    score.run(settings, **JOB)
    return read_table(Layout(settings.results).scores(MODEL) / "some.parquet")


def of(table, **columns):
    return table[np.logical_and.reduce([table[name] == value for name, value in columns.items()])]


def test_the_long_table_has_a_row_per_image_metric_and_explainer(results):
    settings = config(results)
    table = run(settings)
    assert list(table.columns) == list(score.COLUMNS)
    assert len(table) == 2 * len(METRICS) * COUNT
    assert not table.duplicated(["explainer", "metric", "removal", "image_id"]).any()
    kinds = {name: table[name].dtype.kind for name in table}
    assert {name for name, kind in kinds.items() if kind == "f"} == {"mask_ratio", "score", "passes", "seconds"}
    assert {name for name, kind in kinds.items() if kind == "b"} == {"is_control", "correct"}
    whole = {"pretrain_seed", "finetune_seed", "label", "prediction"}
    assert {name for name, kind in kinds.items() if kind == "i"} == whole
    assert table["mask_ratio"].isna().all()  # from scratch
    assert set(of(table, metric="pixel_flipping")["removal"]) == {"mean"}
    assert of(table, metric="sparseness")["removal"].isna().all()
    assert (table["score"].notna() == (table["status"] == "ok")).all()
    assert (table["reason"].isna() == (table["status"] == "ok")).all()
    assert set(table["config_hash"]) == {score.config_hash(settings, MODEL)}
    flips = of(table, metric="pixel_flipping", explainer="saliency")
    assert (flips["passes"] == 5).all()  # 2 x 2 patches, one after another, from the whole image on
    assert (of(table, metric="max_sensitivity", explainer="saliency")["passes"] == 5 * 3).all()
    assert (flips["seconds"] > 0).all()
    assert flips["image_id"].tolist() == [f"t{i}" for i in range(COUNT)]


def test_images_that_localisation_cannot_judge_are_skipped_with_the_reason(results):
    table = of(run(config(results)), metric="relevance_mass_accuracy")
    for _, rows in table.groupby("explainer"):
        status = dict(zip(rows["image_id"], zip(rows["status"], rows["reason"], strict=True), strict=True))
        assert status["t0"] == ("skipped", scoring.MISCLASSIFIED)
        assert status["t5"] == ("skipped", "no evidence mask")
        assert {status[f"t{i}"][0] for i in range(1, 5)} == {"ok"}
    assert (of(table, explainer="oracle", status="ok")["score"] == 1).all()


def test_a_map_that_failed_costs_its_own_rows(results):
    rng, layout = np.random.default_rng(1), Layout(results)
    maps = rng.random((COUNT, SIZE, SIZE))
    maps[2], maps[3, 0, 0] = 0.25, np.nan
    write_index(
        layout,
        {"saliency": maps, "oracle": rng.random((COUNT, 2, 2))},
        {"saliency": {"t1": "the map is all zero"}, "oracle": {"t5": "no evidence mask"}},
    )
    table = run(config(results))
    for metric in ("pixel_flipping", "max_sensitivity", "sparseness"):
        rows = of(table, metric=metric, explainer="saliency").set_index("image_id")
        assert rows["status"].tolist() == ["ok", "failed", "failed", "failed", "ok", "ok"]
        assert rows["reason"][["t1", "t2", "t3"]].tolist() == [
            "the map is all zero",
            "the map is constant",
            "the map is not finite",
        ]
        without = of(table, metric=metric, explainer="oracle").set_index("image_id").loc["t5"]
        assert (without["status"], without["reason"]) == ("skipped", "no evidence mask")


def test_an_explainer_without_maps_gives_rows_with_its_reason(results):
    write_index(
        Layout(results),
        {"saliency": np.ones((COUNT, 2, 2)), "oracle": np.ones((COUNT, 2, 2))},
        status="failed",
        error="ValueError: no",
        file=None,
        sha256=None,
    )
    table = run(config(results))
    assert len(table) == 2 * len(METRICS) * COUNT
    assert set(zip(table["status"], table["reason"], strict=True)) == {("failed", "ValueError: no")}
    assert (table["passes"] == 0).all()


def test_a_metric_that_raises_or_returns_nan_costs_its_own_rows(results, tmp_path):
    for name, text in (("broken", BROKEN), ("half", HALF)):
        (tmp_path / f"{name}.py").write_text(text)
    plugins = [tmp_path / "broken.py", tmp_path / "half.py"]
    table = run(config(results, metrics=["broken", "half", "sparseness"], plugins=plugins))
    broken = of(table, metric="broken", explainer="saliency")
    assert set(zip(broken["status"], broken["reason"], strict=True)) == {("failed", "RuntimeError: no luck")}
    half = of(table, metric="half", explainer="saliency")
    assert half["status"].tolist() == ["failed"] * 2 + ["ok"] * 4
    assert half["reason"].tolist()[:2] == ["no number: no two images are alike", "metric returned inf"]
    assert (half["passes"] == 1).all()
    assert (of(table, metric="sparseness", explainer="saliency")["status"] == "ok").all()


def test_a_removal_that_the_model_lacks_is_skipped_with_the_reason(results):
    table = run(config(results, metrics=["pixel_flipping"], removals=["mean", "mask_token"]))
    assert (of(table, removal="mean", explainer="saliency")["status"] == "ok").all()
    lacking = of(table, removal="mask_token", explainer="saliency")
    assert set(lacking["status"]) == {"skipped"}
    assert lacking["reason"].str.contains("mask token").all()


def test_a_metric_may_score_only_the_first_images(results):
    table = run(config(results, sparseness={"images": 2}))
    assert of(table, metric="sparseness", explainer="saliency")["image_id"].tolist() == ["t0", "t1"]
    assert len(of(table, metric="pixel_flipping", explainer="saliency")) == COUNT


def log_of(capsys, settings):
    run(settings)
    return capsys.readouterr().out


def test_only_missing_cells_are_computed(results, capsys):
    first = log_of(capsys, config(results, metrics=["sparseness", "pixel_flipping"]))
    assert "4 cells to compute, at most 48 forward-pass equivalents" in first
    assert "minutes of passes" in first
    path = Layout(results).scores(MODEL) / "some.parquet"
    before = path.read_bytes()
    assert "0 cells to compute" in log_of(capsys, config(results, metrics=["sparseness", "pixel_flipping"]))
    assert path.read_bytes() == before
    added = log_of(capsys, config(results, metrics=["complexity", "sparseness", "pixel_flipping"]))
    assert "2 cells to compute" in added
    assert "complexity: " in added
    assert "sparseness" not in added
    robustness = config(results, metrics=["max_sensitivity"], max_sensitivity={"samples": 2})
    changed = log_of(capsys, robustness)
    assert "2 cells to compute, at most 36 " in changed  # 6 images x 2 explanations x 3, and an oracle that costs none
    path = Layout(results).maps(MODEL) / "saliency.safetensors"
    index = read_json(path.with_name("some.json"))
    write_arrays(path, {"maps": np.random.default_rng(8).random((COUNT, SIZE, SIZE)).astype(np.float32)})
    index["explainers"][0]["sha256"] = sha256(path)
    write_json(path.with_name("some.json"), index)
    assert "1 cells to compute" in log_of(capsys, robustness)


def test_what_metrics_share_is_planned_and_spent_once(results, capsys):
    names = ["pixel_flipping", "srg", "pixel_flipping_gain", "faithfulness_correlation", "max_sensitivity"]
    log = log_of(capsys, config(results, metrics=[*names, "local_lipschitz", "avg_sensitivity"]))
    planned = int(re.search(r"at most (\d+) forward-pass", log)[1])
    steps, orders, runs, samples = 3, 4, 50, 5  # steps between the ends of a curve: all patches, and none
    drawn = 2 + orders * steps + runs
    saliency, oracle = 2 * steps + samples * 3, 2 * steps
    assert planned == COUNT * (drawn + saliency + oracle)
    spent = sum(int(count) for count in re.findall(r" s, (\d+) passes", log))
    assert spent == planned


def test_scores_do_not_depend_on_which_metrics_are_asked_for_or_in_which_order(results, tmp_path):
    import shutil

    other = shutil.copytree(results, tmp_path / "other")
    names = [*METRICS, "faithfulness_correlation", "local_lipschitz"]
    keys = ["explainer", "metric", "image_id"]
    entries = ("saliency", "oracle")
    table = run(config(results, entries, names)).set_index(keys)["score"]
    reverse = run(config(other, entries[::-1], names[::-1])).set_index(keys)["score"]
    pd.testing.assert_series_equal(table.sort_index(), reverse.sort_index(), check_exact=True)


def test_a_broken_cell_file_or_maps_of_another_run_are_one_sentence(results):
    settings = config(results, metrics=["sparseness"])
    write_arrays(Layout(results).maps(MODEL) / "saliency.safetensors", {"maps": np.ones((COUNT, 2, 2), np.float32)})
    with pytest.raises(UserError, match=r"saliency\.safetensors is not the file that .*some\.json describes"):
        run(settings)
    with pytest.raises(UserError, match=r"some\.json lacks the explainer 'sobel'"):
        run(config(results, entries=["sobel"]))
    with pytest.raises(UserError, match="unknown group"):
        score.settings(settings, **{**JOB, "group": "other"})


def test_settings_change_with_what_a_score_depends_on_and_with_nothing_else(tmp_path):
    def of_config(**changes):
        return score.settings(config(tmp_path, **changes), **JOB)

    base = of_config()
    assert base == score.settings(config(tmp_path / "elsewhere"), **JOB)
    assert base != of_config(metrics=["sparseness"])
    assert base != of_config(removals=["mean", "zero"])
    assert base != of_config(max_sensitivity={"samples": 2})
    assert base != of_config(entries=["saliency"])


def test_settings_import_no_heavy_library():
    import subprocess
    import sys

    code = "import sys, unmask.score; print(sorted({'torch', 'quantus', 'pandas', 'timm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stage_4_hands_over_to_stage_5(results):
    settings = config(
        results,
        ["saliency", "rise", "oracle", "random_patch"],
        ["pixel_flipping", "max_sensitivity"],
        max_sensitivity={"samples": 2},
    )
    explain.run(settings, **JOB)
    table = run(settings)
    assert set(of(table, explainer="random_patch")["status"]) == {"ok"}
    assert set(of(table, explainer="oracle")["reason"].dropna()) <= {"no evidence mask"}
    moved = of(table, metric="max_sensitivity", status="ok").groupby("explainer")["score"].mean()
    assert moved["oracle"] == 0
    assert moved["random_patch"] > 0.3


def test_other_networks_and_classes_are_explained_with_the_same_draws(results):
    """So that a map of luck fails the gates, and one by sampling is not called sensitive to its samples."""
    layout = Layout(results)
    images = read_arrays(layout.domain("defect") / "test.safetensors")
    write_arrays(layout.domain("defect") / "train.safetensors", images)
    gates = ["mprt", "efficient_mprt", "smooth_mprt", "random_logit", "input_invariance"]
    entries = ["saliency", "input_x_gradient", "random_patch", "random_pixel", "rise", "gradient_shap"]
    settings = config(results, entries, [*gates, "max_sensitivity"])
    explain.run(settings, **JOB)
    table = run(settings)
    assert set(table["status"]) == {"ok"}
    scores = table.pivot_table(index="explainer", columns="metric", values="score", aggfunc=["min", "max"])
    for control in ("random_patch", "random_pixel"):
        for name in gates:
            for least_or_most in ("min", "max"):
                expected = 0 if name == "efficient_mprt" else 1
                assert scores.loc[control, (least_or_most, name)] == pytest.approx(expected, abs=1e-6), name
        assert scores.loc[control, ("min", "max_sensitivity")] > 0.1  # whose draws are new for every input
    for name in ("saliency", "rise", "gradient_shap"):
        assert scores.loc[name, ("min", "input_invariance")] > 0.999
        assert scores.loc[name, ("min", "mprt")] < 0.999
    assert scores.loc["input_x_gradient", ("max", "input_invariance")] < 0.9
    passes = table.groupby(["explainer", "metric"])["passes"].first()
    assert passes["saliency", "mprt"] == 3 * 3  # its map of the model itself is that of stage 4
    assert passes["gradient_shap", "mprt"] == 4 * 3 * 16


TRACING = '''"""A metric that keeps two curves, one of which depends on no map."""
import numpy as np

META = {"kind": "metrics", "category": "axiomatic", "direction": "higher", "needs": ["removal"],
        "passes": {"forward": "0", "explanations": "0"}, "citation": "-"}


def score(case):
    case.trace("tracing", case.patch_maps.reshape(len(case), -1))
    case.trace("random", case.rng("curve").random((len(case), 3)))
    return np.ones(len(case))
'''


def test_curves_that_metrics_trace_are_kept_and_those_without_a_map_once(results, tmp_path, capsys):
    (tmp_path / "tracing.py").write_text(TRACING)
    settings = config(results, metrics=["tracing", "sparseness"], plugins=[tmp_path / "tracing.py"])
    run(settings)
    path = Layout(results).scores(MODEL) / "some.curves.parquet"
    curves, bytes_before = read_table(path), path.read_bytes()
    assert list(curves.columns) == list(scoring.CURVES)
    own = of(curves, metric="tracing")
    assert own.groupby("explainer").size().to_dict() == {"saliency": 6, "oracle": 5}  # no evidence on t5
    maps = read_arrays(Layout(results).maps(MODEL) / "saliency.safetensors")["maps"]
    expected = maps.reshape(COUNT, 2, 8, 2, 8).sum((2, 4)).reshape(COUNT, 4)
    found = np.stack(of(own, explainer="saliency")["curve"])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    random = of(curves, metric="random")
    assert random["explainer"].isna().all()
    assert random["image_id"].tolist() == [f"t{i}" for i in range(COUNT)]
    assert (random["removal"] == "mean").all()
    run(settings)
    assert path.read_bytes() == bytes_before
    run(config(results, metrics=["sparseness", "tracing", "complexity"], plugins=[tmp_path / "tracing.py"]))
    assert path.read_bytes() == bytes_before


SUM = '''"""The mean brightness of all images of the mini-batch, and how many they are."""
import numpy as np

META = {"kind": "metrics", "category": "axiomatic", "direction": "higher", "needs": ["model"],
        "passes": {"forward": "1", "explanations": "0"}, "citation": "-", "options": {"size": False}}


def score(case, size):
    case.model(case.images)
    return np.full(len(case), float(len(case) if size else case.images.mean()))
'''


def test_a_metric_sees_all_images_whatever_maps_failed_and_not_more_than_a_batch(results, tmp_path):
    (tmp_path / "brightness.py").write_text(SUM)
    rng = np.random.default_rng(1)
    maps = {name: rng.random((COUNT, SIZE, SIZE)) for name in ("saliency", "oracle")}
    maps["saliency"][2] = np.nan
    write_index(Layout(results), maps, {"saliency": {"t1": "the map is all zero"}})
    made = config(results, metrics=["brightness"], plugins=[tmp_path / "brightness.py"])
    table = of(run(made), status="ok")
    assert table.groupby("explainer").size().to_dict() == {"saliency": 4, "oracle": 6}
    assert table["score"].nunique() == 1
    assert (table["passes"] == 1).all()
    data = {**made.data, "score": {**made.data["score"], "batch": 4, "options": {"brightness": {"size": True}}}}
    parts = of(run(Config(data)), explainer="oracle").set_index("image_id")["score"]
    assert parts.tolist() == [4, 4, 4, 4, 2, 2]


def test_scores_of_small_batches_are_those_of_a_large_one(results):
    names = ["pixel_flipping", "sparseness", "relevance_mass_accuracy"]
    made = config(results, entries=["saliency"], metrics=names)  # no ties, which are broken at random
    table = run(made)
    small = run(Config({**made.data, "score": {**made.data["score"], "batch": 2}}))
    np.testing.assert_allclose(table["score"], small["score"], rtol=0, atol=1e-6)
