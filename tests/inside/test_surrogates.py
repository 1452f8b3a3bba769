"""Surrogates on models whose structure is known, and what the stage writes of them."""

import json

import numpy as np
import pytest
import torch
from test_counterfactuals import add_scenes
from torch import nn

from unmask import inside, plan, registry
from unmask.cli import main
from unmask.config import ModelId
from unmask.domains._proxy import tag_colours
from unmask.errors import Skip
from unmask.files import read_json, read_table, write_json
from unmask.internals import concept_surrogates
from unmask.internals.scenes import Scenes
from unmask.internals.standins import stand_ins
from unmask.internals.surrogates import patch_rows, subsets
from unmask.layout import Layout
from unmask.models.vit import Normalise

FITTING, HELD = 128, 64
GIVEN = {"fitting": FITTING, "held_out": HELD, "depth": 3, "r2": 0.7, "agreement": 0.8}
NAMES = [f"row {i // 4 + 1}, column {i % 4 + 1}" for i in range(16)]


def draws(seed=0, patches=16):
    return subsets(np.random.default_rng(seed), 1, FITTING + HELD, patches)[0]


def test_every_number_of_patches_is_as_likely_as_any_other():
    present = subsets(np.random.default_rng(0), 40, 500, 9)
    sizes = np.bincount(present.sum(-1).ravel(), minlength=10) / present[..., 0].size
    assert np.abs(sizes - 0.1).max() < 0.01
    assert np.abs(present.mean((0, 1)) - 0.5).max() < 0.01, "and every patch is there half of the time"
    assert not np.array_equal(present[0], present[1])


def test_of_a_linear_model_the_lasso_explains_everything_and_finds_the_coefficients():
    present = draws()
    weights = np.zeros(16)
    weights[[2, 5, 11]] = 3.0, -2.0, 1.0
    logit = 0.5 + present @ weights
    found = stand_ins(present, logit, logit - 1.0, FITTING, 3, NAMES)["linear"]
    assert found.r2 == pytest.approx(1, abs=1e-4)
    assert found.agreement == 1
    intercept, coefficients = found.content
    assert coefficients == pytest.approx(weights, abs=0.02)
    assert intercept == pytest.approx(0.5, abs=0.05)


def test_of_two_patches_that_only_count_together_the_tree_knows_and_the_lasso_does_not():
    present = draws()
    logit = np.where(present[:, 3] & present[:, 12], 4.0, -1.0)
    found = stand_ins(present, logit, logit, FITTING, 3, NAMES)
    assert found["tree"].r2 == pytest.approx(1)
    assert found["tree"].agreement == 1
    assert found["linear"].r2 < 0.85
    assert found["tree"].content.splitlines()[0] in ("if row 1, column 4 is present:", "if row 4, column 1 is present:")
    assert "        logit 4.00" in found["tree"].content
    # By hand: of the better of always yes and always no, on the held-out part.
    stays = logit >= 0
    usual = stays[:FITTING].mean() >= 0.5
    assert found["tree"].baseline == (stays[FITTING:] == usual).mean()


def test_r2_is_that_of_scikit_learn_on_the_held_out_part():
    from sklearn.metrics import r2_score
    from sklearn.tree import DecisionTreeRegressor

    present, rng = draws(), np.random.default_rng(1)
    logit = present @ rng.normal(size=16) + rng.normal(size=len(present))
    margin = logit + rng.normal(size=len(present))
    found = stand_ins(present, logit, margin, FITTING, 2, NAMES)["tree"]
    tree = DecisionTreeRegressor(max_depth=2, min_samples_leaf=5, random_state=0)
    tree.fit(present[:FITTING].astype(float), np.stack([logit, margin], 1)[:FITTING])
    guessed = tree.predict(present[FITTING:].astype(float))
    assert found.r2 == pytest.approx(r2_score(logit[FITTING:], guessed[:, 0]))
    assert found.agreement == pytest.approx(((guessed[:, 1] >= 0) == (margin[FITTING:] >= 0)).mean())


def test_noise_has_no_faithful_surrogate():
    logit = np.random.default_rng(3).normal(size=FITTING + HELD)
    found = stand_ins(draws(), logit, logit, FITTING, 3, NAMES)
    assert all(one.r2 < 0.2 for one in found.values())


def test_of_a_constant_the_surrogate_is_undefined_with_the_reason():
    with pytest.raises(Skip, match="the logit is the same whatever is removed"):
        stand_ins(draws(), np.full(FITTING + HELD, 2.0), np.ones(FITTING + HELD), FITTING, 3, NAMES)


class Planted(nn.Module):
    """The logit of class 1 is a sum over white patches, or, of the first image's dark corner, a constant."""

    arch, grid, mask_token, pretraining = "vit", (4, 4), None, None

    def __init__(self):
        super().__init__()
        self.normalise = Normalise()

    def forward(self, images):
        white = (images.mean(1).unflatten(1, (4, 8)).unflatten(3, (4, 8)).mean((2, 4)).flatten(1) > 0.9).float()
        score = 2 * white[:, 5] + white[:, 6] + 0.5
        return torch.stack([torch.ones_like(score), score], 1)


def test_fidelity_comes_with_every_image_and_content_only_where_it_is_fit():
    images = torch.ones(2, 3, 32, 32)
    images[1] = 0.0  # nothing is white: whatever is removed, the logits stay
    present = subsets(np.random.default_rng(0), 2, FITTING + HELD, 16)
    plugin = registry.find("removals", "mean")
    rows, contents = patch_rows([plugin], Planted(), images, ["a", "b"], present, GIVEN)
    skipped = [row for row in rows if row.get("status") == "skipped"]
    assert [(row["image_id"], row["removal"]) for row in skipped] == [("b", "mean")]
    values = {(row["surrogate"], row["quantity"]): row["value"] for row in rows if row["image_id"] == "a"}
    assert values["linear", "r2"] == pytest.approx(1, abs=1e-4)
    assert values["linear", "fit"] == 1
    linear = next(one for one in contents if one["surrogate"] == "linear")
    assert [patch for patch, _ in linear["coefficients"][:2]] == [5, 6]
    assert [value for _, value in linear["coefficients"][:2]] == pytest.approx([2, 1], abs=0.05)
    _, strict = patch_rows([plugin], Planted(), images, ["a", "b"], present, {**GIVEN, "r2": 1.0})
    one = next(one for one in strict if one["surrogate"] == "linear")
    assert one["fit"] is False
    assert "coefficients" not in one


def scenes(count=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    masks = np.zeros((count, 16, 16), bool)
    for i, label in enumerate(labels):
        if label:
            side = rng.integers(2, 8)
            masks[i, :side, :side] = True
    speck = np.zeros_like(masks)
    speck[rng.random(count) < 0.5, 12:14, 12:14] = True
    tag = np.zeros_like(masks)
    tag[rng.random(count) < 0.6, 15, :2] = True
    images = np.zeros((count, 16, 16, 3), np.uint8)
    own = tag_colours(3)[rng.integers(3, size=count)]
    images[tag] = np.repeat(own[tag.any((1, 2))], 2, 0)
    return Scenes(images, labels, ["none", "hole", "stain"], masks, tag, {"speck": speck})


def test_concepts_are_presence_and_area_of_the_planted_factors():
    known = scenes()
    names, values = concept_surrogates.concepts(known)
    columns = dict(zip(names, values.T, strict=True))
    assert list(columns) == [
        "hole: present", "hole: area", "stain: present", "stain: area", "speck: present",
        "speck: area", "tag of none: present", "tag of hole: present", "tag of stain: present",
    ]  # fmt: skip
    assert columns["hole: area"] == pytest.approx(np.where(known.labels == 1, known.masks.mean((1, 2)), 0))
    assert np.array_equal(sum(columns[f"tag of {name}: present"] for name in known.classes), known.tag.any((1, 2)))
    pixel = np.argwhere(known.tag)[0]
    colour = known.images[tuple(pixel)]
    owner = known.classes[int(np.flatnonzero((tag_colours(3) == colour).all(1))[0])]
    assert columns[f"tag of {owner}: present"][pixel[0]] == 1
    with pytest.raises(Skip, match="nothing is known"):
        concept_surrogates.concepts(Scenes(known.images, known.labels, known.classes))


def fitted(decided, known, **given):
    names, values = concept_surrogates.concepts(known)
    ids = [f"i{i}" for i in range(len(decided))]
    rows, contents = concept_surrogates.concept_rows(
        names, values, decided, ids, known.classes, np.random.default_rng(0), {**GIVEN, **given}
    )
    means = {
        (surrogate, quantity): np.mean(
            [row["value"] for row in rows if (row["surrogate"], row["quantity"]) == (surrogate, quantity)]
        )
        for surrogate in ("tree", "linear")
        for quantity in ("agreement", "baseline", "fit")
    }
    return means, {one["surrogate"]: one for one in contents}


def test_a_model_that_reads_the_tag_is_found_out_by_both_surrogates():
    known = scenes(120)
    colours = tag_colours(3)
    seen = [np.flatnonzero((colours == image[15, 0]).all(1)) for image in known.images]
    decided = np.array([int(one[0]) if len(one) else 0 for one in seen])
    means, contents = fitted(decided, known)
    assert means["tree", "agreement"] == means["linear", "agreement"] == 1
    assert means["tree", "baseline"] < 0.8
    assert "if tag of" in contents["tree"]["tree"]
    for name, concept, _ in contents["linear"]["coefficients"]:
        assert concept.startswith("tag of"), name


def test_small_evidence_that_is_overlooked_is_a_threshold_of_its_area():
    known = scenes(120)
    area = known.masks.mean((1, 2))
    decided = np.where(area > 0.05, known.labels, 0)
    means, contents = fitted(decided, known)
    assert means["tree", "agreement"] > 0.95
    assert "area > 0.0" in contents["tree"]["tree"]


def test_decisions_at_random_have_no_fit_surrogate_and_no_content():
    decided = np.random.default_rng(5).integers(3, size=120)
    means, contents = fitted(decided, scenes(120))
    assert means["tree", "agreement"] < 0.6
    assert means["tree", "fit"] == means["linear", "fit"] == 0
    assert not any({"tree", "coefficients"} & set(one) for one in contents.values())


def test_more_of_the_usual_answer_is_not_fidelity():
    known = scenes(120)
    decided = np.where(np.arange(120) % 40 == 7, 1, 0)
    means, _ = fitted(decided, known)
    assert means["tree", "baseline"] > 0.95
    assert means["tree", "fit"] == 0, "it agrees no more often than always the most frequent class"


def test_one_decision_for_all_images_is_undefined():
    with pytest.raises(Skip, match="decides for one class"):
        fitted(np.ones(60, int), scenes())


@pytest.fixture(scope="module")
def config(made):
    given = {"images": 4, "removals": ["mean", "mask_token"], "fitting": 40, "held_out": 20, "r2": 0.2}
    config = made(what=["surrogates"], surrogates=given)
    add_scenes(config)
    for model in config.models:  # as the stage finetune describes a model
        path = Layout(config.results).model(model) / "model.json"
        names = {"classes": ["none", "hole", "stain"], "domain": model.domain, "encoder": model.encoder}
        write_json(path, {**read_json(path), **names, "pretrain_seed": 0, "finetune_seed": 0})
    return config


def run(config, encoder):
    which = {"domain": "defect", "encoder": encoder, "pretrain_seed": 0, "finetune_seed": 0}
    inside.run(config, **which)
    return Layout(config.results).inside(ModelId(**which))


def test_the_stage_writes_fidelity_and_contents_the_same_each_time_and_as_planned(config, capsys):
    folder = run(config, "half")
    said = capsys.readouterr().out
    spent = sum(int(text.split(",")[0].split("}")[0]) for text in said.split("'forward': ")[1:])
    assert spent == plan._inside(config, {"defect": {"test": 12, "train": 20}}).forward // 2, "two models are planned"
    rows = read_table(folder / "surrogates.parquet")
    patches = rows[(rows["of"] == "patches") & (rows["status"] == "ok")]
    assert set(patches["removal"]) == {"mean", "mask_token"}
    assert set(patches["quantity"]) == {"r2", "agreement", "baseline", "fit"}
    assert patches["image_id"].nunique() == 4
    contents = json.loads((folder / "surrogates.json").read_text())["surrogates"]
    fit = patches[(patches["quantity"] == "fit") & (patches["value"] == 1)]
    assert len(fit) == sum(one["fit"] for one in contents if one["of"] == "patches")
    assert all(("tree" in one or "coefficients" in one) == one["fit"] for one in contents)
    before = {name: (folder / name).read_bytes() for name in ("surrogates.parquet", "surrogates.json")}
    run(config, "half")
    assert before == {name: (folder / name).read_bytes() for name in before}
    scratch = read_table(run(config, "scratch") / "surrogates.parquet")
    reason = scratch.loc[scratch["removal"] == "mask_token", "reason"].tolist()
    assert len(reason) == 1
    assert "mask token" in reason[0]


def test_the_subsets_are_those_of_every_model_of_the_domain(config, monkeypatch):
    from unmask.internals import surrogates

    seen = []
    monkeypatch.setattr(surrogates, "patch_rows", lambda *given: (seen.append(given[4]), ([], []))[1])
    for encoder in ("half", "scratch"):
        run(config, encoder)
    assert np.array_equal(*seen)
    monkeypatch.undo()
    run(config, "half")


def test_a_checkpoint_alone_is_taken_apart_too(config, tmp_path, capsys):
    model = str(Layout(config.results).model(ModelId("defect", "half", 0, 0)) / "model.safetensors")
    arguments = ["--what", "surrogates,counterfactuals", "--output", str(tmp_path), "--most", "12"]
    assert main(["inside", "--model", model, *arguments]) == 0
    said = capsys.readouterr().out
    assert "counterfactual_size" in said
    assert "surrogates: means over the images" in said
    table = read_table(tmp_path / "counterfactuals.csv")
    assert {"flipped", "counterfactual_size", "new_class"} <= set(table["quantity"])
    sets = read_table(tmp_path / "counterfactual_sets.csv")
    assert set(sets["removal"]) == {"mean", "mask_token"}
    fidelity = read_table(tmp_path / "surrogates.csv")
    assert {"patches"} <= set(fidelity["of"])
    assert (tmp_path / "surrogates.json").is_file()
