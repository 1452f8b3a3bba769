"""Metrics that hold maps against true effects, in the stage: what they are given, what is skipped, what is kept."""

import numpy as np
import pytest
import torch
from changed_images import write_factors
from test_score_stage import MODEL, config, of, prepared, results, run  # noqa: F401 (fixtures)

from unmask.domains import NO_FACTORS
from unmask.errors import UserError
from unmask.files import read_arrays
from unmask.layout import Layout
from unmask.scoring import NO_TAG, ONE_FACTOR, Work

METRICS = ["interventional_agreement", "shortcut_detection"]


def test_the_score_is_that_of_the_changed_images(results):  # noqa: F811
    changed = write_factors(results)
    settings = config(results, ["saliency"], METRICS[:1])
    table = of(run(settings), metric="interventional_agreement").set_index("image_id")
    work = Work(settings, MODEL, "some")
    maps = read_arrays(Layout(results).maps(MODEL) / "saliency.safetensors")["maps"].astype(float)
    images = read_arrays(Layout(results).domain("defect") / "test.safetensors")["images"]

    def logit(pixels, target):
        given = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        return float(work.loaded.model(given)[0, target])

    for i in (0, 1, 2, 3, 5):
        target = int(work.loaded.targets[i])
        parts = {name: (one[i] != images[i]).any(-1) for name, one in changed.items()}
        parts["background"] &= ~(parts["evidence"] | parts["tag"])
        a = np.array([maps[i][pixels].sum() for pixels in parts.values()])
        e = np.array([logit(images[i], target) - logit(changed[name][i], target) for name in parts])
        expected = a @ e / np.linalg.norm(a) / np.linalg.norm(e)
        assert table.loc[f"t{i}", "score"] == pytest.approx(expected, abs=1e-5)
    assert table.loc["t4", ["status", "reason"]].tolist() == ["skipped", ONE_FACTOR]


def test_images_without_a_tag_and_predictions_without_need_of_it_are_skipped(results):  # noqa: F811
    write_factors(results)
    settings = config(results, ["saliency", "oracle"], METRICS[1:], shortcut_detection={"threshold": 1.0})
    table = of(run(settings), metric="shortcut_detection", explainer="saliency").set_index("image_id")
    assert set(table["status"]) == {"skipped"}
    assert (table.loc[["t0", "t2", "t4", "t5"], "reason"] == NO_TAG).all()
    assert table.loc[["t1", "t3"], "reason"].str.startswith("the prediction does not hang on the tag").all()
    settings = config(results, ["saliency"], METRICS[1:], shortcut_detection={"threshold": 0.0, "share": 1.0})
    table = of(run(settings), metric="shortcut_detection").set_index("image_id")
    found = table.loc[["t1", "t3"]]
    fell = found[found["status"] == "ok"]
    assert len(fell) + found["reason"].str.contains("does not hang").sum() == 2
    assert (fell["score"] == 1).all(), "with a share of 1 any map reveals it"


def test_a_domain_without_tags_costs_no_pass(results):  # noqa: F811
    write_factors(results, tagged=())
    table = run(config(results, ["saliency"], METRICS[1:]))
    assert table["reason"].tolist() == [NO_TAG] * 6
    assert table["passes"].sum() == 0


def test_a_domain_without_factors_is_skipped_with_the_reason(results):  # noqa: F811
    from unmask.files import write_arrays

    write_arrays(Layout(results).domain("defect") / "interventions.safetensors", {}, {"factors": ""})
    table = run(config(results, ["saliency"], METRICS))
    assert set(table["reason"]) == {NO_FACTORS}


def test_other_metrics_need_no_file_and_their_cells_outlive_a_new_one(results, capsys):  # noqa: F811
    path = Layout(results).domain("defect") / "interventions.safetensors"
    path.unlink()
    run(config(results, ["saliency"], ["sparseness"]))
    with pytest.raises(UserError, match=r"interventions\.safetensors does not exist; run the stage data again"):
        run(config(results, ["saliency"], ["sparseness", *METRICS[:1]]))
    write_factors(results)
    run(config(results, ["saliency"], ["sparseness", *METRICS[:1]]))
    capsys.readouterr()
    write_factors(results, tagged=())
    run(config(results, ["saliency"], ["sparseness", *METRICS[:1]]))
    said = capsys.readouterr().out
    assert "saliency interventional_agreement" in said
    assert "saliency sparseness" not in said


def test_under_noise_the_intervention_is_the_same_on_what_the_image_has_become(results):  # noqa: F811
    from unmask.judging import noisy_images

    write_factors(results)
    work = Work(config(results, ["saliency"], METRICS), MODEL, "some")
    noisy = noisy_images(work.loaded.images[:4], 0.05, 1)
    twin = work.twin(work.loaded.model, noisy)
    for name, one in twin._factors.items():
        before = work._factors[name].of([0, 1, 2, 3])
        np.testing.assert_array_equal(one.pixels, before.pixels)
        present = torch.from_numpy(one.present)
        expected = (before.images + noisy[present] - work.loaded.images[:4][present]).clamp(0, 1)
        torch.testing.assert_close(one.images, expected)
        outside = ~torch.from_numpy(one.pixels)[present][:, None].expand_as(one.images)
        torch.testing.assert_close(one.images[outside], noisy[present][outside])
