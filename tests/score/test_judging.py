"""The scores that the metrics are judged by: what is perturbed, what is scored, what is kept."""

import numpy as np
import pytest
import torch
from test_score_stage import BROKEN, JOB, MODEL, config, of, prepared, results  # noqa: F401 (fixtures)

from unmask import explain, judging, plan, score
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_json, read_table
from unmask.layout import Layout
from unmask.models.vit import Classifier
from unmask.scoring import Work
from unmask.tables.judged import JUDGED, read_judged

ENTRIES = ("saliency", "random_patch", "oracle", "grad_cam")
METRICS = ["pixel_flipping", "relevance_mass_accuracy", "max_sensitivity", "sparseness"]


def settings(folder, explainers=("saliency", "random_patch"), metrics=METRICS, removals=("mean", "zero"), **given):
    plugins = given.pop("plugins", ())
    made = config(folder, ENTRIES, metrics, removals, plugins, pixel_flipping={"step": 1}).data
    judge = {"explainers": list(explainers), "images": 4, **given}
    return Config({**made, "score": {**made["score"], "judge": judge}})


@pytest.fixture
def explained(results):  # noqa: F811 (a fixture of the other file)
    """Maps of the explainers themselves."""
    explain.run(settings(results), **JOB)
    return results


def judge(given):
    score.run(given, **JOB)
    return read_table(Layout(given.results).scores(MODEL) / "some.judged.parquet")


def test_a_few_explainers_and_images_are_scored_under_every_condition(explained):
    given = settings(explained, repeats=2)
    table = judge(given)
    assert list(table.columns) == list(JUDGED)
    cells = table.drop_duplicates(["explainer", "metric", "removal", "test", "strength", "repeat"])
    assert len(cells) == 2 * len(METRICS) * (1 + 2 * 2 * 2)
    assert set(table["explainer"]) == {"saliency", "random_patch"}
    assert set(table["removal"].dropna()) == {"mean"}, "the first removal only"
    index = read_json(Layout(explained).maps(MODEL) / "some.json")["images"]
    assert set(table["image_id"]) == {image["image_id"] for image in index[:4]}
    assert not table.duplicated(["explainer", "metric", "test", "strength", "repeat", "image_id"]).any()
    assert not table.loc[table["test"] == "none", "changed"].any()
    assert (table["score"].notna() == (table["status"] == "ok")).all()
    whole = read_table(Layout(explained).scores(MODEL) / "some.parquet")
    assert set(whole["explainer"]) == set(ENTRIES), "the leaderboards' rows are what they were"
    assert len(whole) == len(ENTRIES) * (len(METRICS) + 1) * 6
    assert read_judged(given, Layout(explained)).equals(table)


def test_undisturbed_scores_are_those_of_the_stage(explained):
    """Of metrics and explainers without draws: the number of images changes what is drawn."""
    table = judge(settings(explained, metrics=["pixel_flipping", "sparseness"]))
    whole = read_table(Layout(explained).scores(MODEL) / "some.parquet")
    keys = ["explainer", "metric", "image_id"]
    plain = of(table, test="none", explainer="saliency", metric="sparseness").set_index(keys)["score"]
    stage = of(whole, explainer="saliency", metric="sparseness").set_index(keys)["score"]
    np.testing.assert_array_equal(plain, stage[plain.index])


def test_minor_noise_moves_scores_less_than_disruption_and_draws_are_paired(explained):
    table = judge(settings(explained)).set_index(["explainer", "metric", "image_id"])
    table = table[table["status"] == "ok"]
    plain = table[table["test"] == "none"]["score"]
    for test in ("input", "model"):
        moved = {}
        for strength in ("minor", "disruptive"):
            rows = table[(table["test"] == test) & (table["strength"] == strength)]
            moved[strength] = (rows["score"] - plain.reindex(rows.index)).abs()
        for metric in ("pixel_flipping", "sparseness"):
            sizes = [one.xs(("saliency", metric), level=["explainer", "metric"]).mean() for one in moved.values()]
            assert sizes[0] < 0.2 * sizes[1], (test, metric)
        drawn = moved["minor"].xs(("random_patch", "sparseness"), level=["explainer", "metric"])
        assert (drawn == 0).all(), "an explainer that draws has the same draws under every condition"


def test_scores_under_noise_are_those_of_the_metric_on_what_is_perturbed(explained):
    """One condition by hand: the perturbed model, its own map, the metric's own file."""
    from unmask.case import Case
    from unmask.metrics import sparseness

    given = settings(explained, metrics=["sparseness"], repeats=2)
    table = of(judge(given), test="model", strength="disruptive", explainer="saliency", repeat=1)
    work = Work(given, MODEL, "some")
    seed = judging.seeds.derive(0, "score", "judge", "defect", "model", "disruptive", 1)
    model = judging.noisy_model(work.loaded.model, 2.0, seed)
    images, targets = work.loaded.images[:4], work.loaded.targets[:4]
    leaf = images.clone().requires_grad_()
    model(leaf).gather(1, targets[:, None]).sum().backward()
    maps = leaf.grad.abs().amax(1).numpy()
    case = Case(model, images, targets, work.loaded.masks[:4], maps, seed=0)
    np.testing.assert_allclose(table["score"], sparseness.score(case), rtol=1e-5)
    assert table["changed"].tolist() == (model(images).argmax(1) != targets).tolist()


def test_only_missing_cells_are_computed_and_the_bytes_are_the_same(explained, capsys):
    path = Layout(explained).scores(MODEL) / "some.judged.parquet"
    score.run(settings(explained, metrics=METRICS[:3]), **JOB)
    log = capsys.readouterr().out
    assert log.count("judging the metrics") == 5
    score.run(settings(explained, metrics=METRICS[:3]), **JOB)
    assert "judging" not in capsys.readouterr().out
    score.run(settings(explained), **JOB)
    log = capsys.readouterr().out
    assert log.count("judging the metrics") == 5
    assert log.count("saliency sparseness") == 1 + 5
    assert "saliency max_sensitivity" not in log
    grown = path.read_bytes()
    for cells in (path.parent / "cells").iterdir():
        cells.unlink()
    score.run(settings(explained), **JOB)
    assert read_table(path).drop(columns="seconds").equals(_read(grown, explained).drop(columns="seconds"))


def _read(content, folder):
    path = folder / "copy.parquet"
    path.write_bytes(content)
    return read_table(path)


def test_a_kill_loses_no_condition(explained, monkeypatch, capsys):
    """The second condition dies; what the first had is not computed again."""
    calls = []

    def dies(*arguments):
        calls.append(arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(judging, "noisy_images", dies)
        with pytest.raises(KeyboardInterrupt):
            score.run(settings(explained), **JOB)
    capsys.readouterr()
    score.run(settings(explained), **JOB)
    log = capsys.readouterr().out
    assert log.count("judging the metrics") == 4
    assert "judging the metrics: none" not in log


def test_nobody_named_means_an_empty_table(explained, capsys):
    table = judge(settings(explained, explainers=()))
    assert len(table) == 0
    assert list(table.columns) == list(JUDGED)
    assert "judging" not in capsys.readouterr().out


def test_gates_are_not_judged_and_what_raises_costs_its_own_rows(explained, tmp_path):
    gate, broken = tmp_path / "gate.py", tmp_path / "broken.py"
    gate.write_text(BROKEN.replace('"kind"', '"gate": True, "kind"'))
    broken.write_text(BROKEN)
    table = judge(settings(explained, metrics=["sparseness", "gate", "broken"], plugins=[gate, broken]))
    assert set(table["metric"]) == {"sparseness", "broken"}
    assert set(of(table, metric="broken")["reason"]) == {"RuntimeError: no luck"}
    assert (of(table, metric="sparseness")["status"] == "ok").all()


def test_an_explainer_that_fails_on_what_is_perturbed_costs_its_own_rows(explained, monkeypatch):
    from unmask import explainers

    bind = explainers.bind

    def fails(spec, model, *rest):
        if spec.name == "saliency" and not torch.equal(model.backbone.pos_embed, original):
            raise ValueError("no gradient")
        return bind(spec, model, *rest)

    original = Work(settings(explained), MODEL, "some").loaded.model.backbone.pos_embed
    monkeypatch.setattr(explainers, "bind", fails)
    table = judge(settings(explained, metrics=["sparseness"]))
    lost = of(table, explainer="saliency", test="model")
    assert set(lost["reason"]) == {"ValueError: no gradient"}
    assert (lost["status"] == "failed").all()
    rest = table.drop(index=lost.index)
    assert (rest["status"] == "ok").all()


def test_noisy_images_stay_images_and_do_not_depend_on_their_number():
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = judging.noisy_images(images, 0.1, 3)
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    assert 0.09 < (noisy - images).abs().max() <= 0.1 + 1e-6
    torch.testing.assert_close(judging.noisy_images(images[:2], 0.1, 3), noisy[:2], rtol=0, atol=0)
    assert not torch.equal(judging.noisy_images(images, 0.1, 4), noisy)


def test_a_noisy_model_is_a_copy_with_every_parameter_scaled():
    model = Classifier(size=16, patch=8, width=64, depth=2, heads=1, classes=3).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noisy = judging.noisy_model(model, 0.5, 0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    ratios = torch.cat(
        [(new / old)[old != 0].flatten() for new, old in zip(noisy.parameters(), model.parameters(), strict=True)]
    )
    assert ratios.mean().item() == pytest.approx(1, abs=0.01)
    assert ratios.std().item() == pytest.approx(0.5, abs=0.01)
    assert not any(parameter.requires_grad for parameter in noisy.parameters())
    assert not noisy.training
    again = judging.noisy_model(model, 0.5, 0)
    assert all(torch.equal(a, b) for a, b in zip(noisy.parameters(), again.parameters(), strict=True))


def test_a_judge_must_be_explained_and_not_alone(explained):
    with pytest.raises(UserError, match=r"'lime' is in no group of explain\.groups"):
        settings(explained, explainers=("saliency", "lime"))
    with pytest.raises(UserError, match="'saliency' alone has no rank"):
        settings(explained, explainers=("saliency",))


def test_settings_of_a_group_change_with_its_own_judges_only(explained):
    one, other = settings(explained, explainers=("saliency", "oracle")), settings(explained)
    assert judging.settings(one, ["grad_cam"]) == judging.settings(other, ["grad_cam"])
    assert judging.settings(one, ["saliency", "random_patch"]) != judging.settings(other, ["saliency", "random_patch"])


def test_what_judging_costs_is_planned(explained):
    """Per condition: explaining, the curve of every explainer, and its ends once."""
    given = settings(explained, explainers=("saliency", "grad_cam"), metrics=["pixel_flipping", "sparseness"])
    planned = plan._judged(given, 4)
    images, times, patches = 4, 5, 4
    assert planned.backward == times * 2 * images
    assert planned.forward == times * images * (2 + 2 * (patches - 1))
    assert plan._judged(settings(explained, explainers=()), 4).total == 0
