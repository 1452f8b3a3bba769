"""True effects of factors against known coefficients, and the structural model against other implementations."""

import numpy as np
import pandas as pd
import pytest
import torch

from unmask import inside
from unmask.config import ModelId
from unmask.domains import NO_FACTORS, Intervention, Split
from unmask.errors import UserError
from unmask.files import read_table, write_arrays
from unmask.internals import causes
from unmask.internals.catalogue import CAUSES
from unmask.interventions import Factor, read, write
from unmask.layout import Layout
from unmask.tables.image_maps import image_maps
from unmask.tables.inside import COLUMNS, read_inside, tables

N, CLASSES = 40, 3
EFFECTS = {  # on the logits of the three classes
    ("evidence", 1): [-1.0, 3.0, 0.5],
    ("evidence", 2): [-2.0, 0.25, 4.0],
    ("spot", None): [0.5, -0.75, 0.0],
    ("bar", None): [0.0, 0.0, 1.5],
}
BACKDROP = [1.0, 0.5, -0.5]


class Linear(torch.nn.Module):
    """Logits that are a weighted sum of single pixels: pixel k is on where the k-th part is in the image."""

    def forward(self, images):
        parts = images[:, 0, 0, : len(EFFECTS) + 1]
        return parts @ torch.tensor([*EFFECTS.values(), BACKDROP])


def images_of(parts, backdrop):
    """uint8 [N, 4, 8, 3] of parts, bool [N, K], and a backdrop in {0, 1}."""
    made = np.zeros((len(parts), 4, 8, 3), np.uint8)
    made[:, 0, : parts.shape[1], 0] = 255 * parts
    made[:, 0, parts.shape[1], 0] = 255 * backdrop
    return made


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Images of random parts, their labels and factors as the stage data leaves them."""
    draw = np.random.default_rng(0)
    labels = np.arange(N) % CLASSES
    parts = np.stack([labels == 1, labels == 2, draw.random(N) < 0.4, draw.random(N) < 0.6], 1)
    backdrop = draw.random(N) < 0.5
    images = images_of(parts, backdrop)

    def without(*places):
        fewer = parts.copy()
        fewer[:, list(places)] = False
        return images_of(fewer, backdrop)

    speaks = np.where(labels > 0, labels, -1)
    found = {
        "evidence": Intervention(without(0, 1), speaks),
        "spot": Intervention(without(2)),
        "bar": Intervention(without(3)),
        "background": Intervention(images_of(parts, ~backdrop)),
    }
    nothing = np.zeros(images.shape[:3], bool)
    path = tmp_path_factory.mktemp("data") / "interventions.safetensors"
    write(path, Split(images, labels, nothing, nothing, [], [], {}, found))
    return images, labels, parts, backdrop, read(path)


@pytest.fixture(scope="module")
def given(planted):
    images, *_, factors = planted
    return causes.answers(Linear(), causes.pixels(images, torch.device("cpu")), factors)


def values(effects, **keys):
    (one,) = [e for e in effects if all(getattr(e, key) == value for key, value in keys.items())]
    return one.values


def test_the_effects_on_a_linear_model_are_its_coefficients(planted, given):
    _, labels, parts, backdrop, factors = planted
    effects = causes.true_effects(given, factors)
    predicted = given.whole.argmax(1)
    for place, (name, speaks) in enumerate(EFFECTS):
        found = values(effects, factor=name, quantity="effect_logit")
        has = parts[:, place]
        expected = np.array(EFFECTS[name, speaks])[predicted]
        np.testing.assert_allclose(found[has], expected[has], atol=1e-6)
        if name != "evidence":
            assert np.isnan(found[~has]).all()
    assert np.isnan(values(effects, factor="evidence", quantity="effect_logit")[labels == 0]).all()
    change = np.where(backdrop, 1, -1) * np.array(BACKDROP)[predicted]
    np.testing.assert_allclose(values(effects, factor="background", quantity="effect_logit"), change, atol=1e-6)


def test_probabilities_and_changed_predictions_are_those_of_the_changed_images(planted, given):
    images, _, _, _, factors = planted
    effects = causes.true_effects(given, factors)
    with torch.no_grad():
        before = Linear()(causes.pixels(images, torch.device("cpu"))).softmax(1).double().numpy()
        after = Linear()(causes.pixels(factors["bar"].changed, torch.device("cpu"))).softmax(1).double().numpy()
    has, predicted = factors["bar"].present, before.argmax(1)
    drop = before[has, predicted[has]] - after[np.arange(has.sum()), predicted[has]]
    np.testing.assert_allclose(values(effects, factor="bar", quantity="effect_probability")[has], drop, atol=1e-6)
    flips = (after.argmax(1) != predicted[has]).astype(float)
    np.testing.assert_array_equal(values(effects, factor="bar", quantity="changed_prediction")[has], flips)
    assert 0 < flips.mean() < 1


def test_the_structural_model_finds_the_coefficients_where_nothing_else_acts(planted):
    *_, parts, _, factors = planted
    still = causes.pixels(images_of(parts, np.zeros(N)), torch.device("cpu"))
    effects, missing = causes.causal_model(causes.answers(Linear(), still, factors), factors)
    assert missing == []
    for (name, speaks), coefficients in EFFECTS.items():
        for target in range(CLASSES) if speaks is None else [speaks]:
            estimated = values(effects, factor=name, quantity="estimated_effect", target=target)
            np.testing.assert_allclose(estimated, coefficients[target], atol=1e-5)
    assert not [e for e in effects if e.factor == "background"], "every image has one"
    assert not [e for e in effects if e.factor == "evidence" and e.target == 0], "no evidence speaks for it"


def test_estimates_and_true_effects_part_where_the_observer_cannot_see_all(planted, given):
    """The backdrop acts, too, and by chance not alike on images with and without a factor."""
    *_, parts, _, factors = planted
    effects, _ = causes.causal_model(given, factors)
    design = np.column_stack([np.ones(N), parts])
    for target in range(CLASSES):
        (expected, *_) = np.linalg.lstsq(design, given.whole[:, target], rcond=None)
        for place, (name, speaks) in enumerate(EFFECTS, 1):
            if speaks in (None, target):
                estimated = values(effects, factor=name, quantity="estimated_effect", target=target)
                assert estimated.mean() == pytest.approx(expected[place])
                true = values(effects, factor=name, quantity="true_effect", target=target)
                np.testing.assert_allclose(true[parts[:, place - 1]], EFFECTS[name, speaks][target], atol=1e-6)
                assert np.isfinite(true).sum() == parts[:, place - 1].sum()
                assert estimated.mean() != pytest.approx(true[np.isfinite(true)].mean(), abs=1e-3)


def test_pseudo_values_are_those_of_leaving_images_out():
    draw = np.random.default_rng(1)
    design = np.column_stack([np.ones(30), draw.random((30, 3)) < 0.5]).astype(float)
    outcome = design @ [1.0, 2.0, -1.0, 0.5] + draw.normal(size=30)
    found = causes.least_squares(design, outcome)
    whole = np.linalg.lstsq(design, outcome, rcond=None)[0]
    np.testing.assert_allclose(found.mean(0), whole)
    left = np.stack([np.linalg.lstsq(np.delete(design, i, 0), np.delete(outcome, i), rcond=None)[0] for i in range(30)])
    pseudo = 30 * whole - 29 * left
    np.testing.assert_allclose(found - found.mean(0), pseudo - pseudo.mean(0), atol=1e-9)


def test_their_spread_is_the_standard_error_that_heteroscedasticity_leaves_alone():
    """MacKinnon & White's HC3, written with the hat matrix."""
    draw = np.random.default_rng(2)
    design = np.column_stack([np.ones(80), draw.random((80, 2)) < 0.4]).astype(float)
    outcome = design @ [0.0, 1.0, -1.0] + draw.normal(size=80) * (1 + 2 * design[:, 1])
    pseudo_inverse = np.linalg.pinv(design)
    hat = design @ pseudo_inverse
    errors = (outcome - hat @ outcome) / (1 - np.diag(hat))
    expected = np.sqrt(np.diag(pseudo_inverse @ np.diag(errors**2) @ pseudo_inverse.T))
    found = causes.least_squares(design, outcome)
    np.testing.assert_allclose(found.std(0, ddof=1) / 80**0.5, expected, rtol=0.02)


def factor(present, classes=None):
    present = np.asarray(present, bool)
    return Factor(present, np.zeros((present.sum(), 4, 8, 3), np.uint8), classes)


def test_what_cannot_be_estimated_says_why():
    draw = np.random.default_rng(3)
    half = draw.random(20) < 0.5
    logits = draw.normal(size=(20, 2))

    def reasons(factors):
        given = causes.Answers(logits, {name: logits[one.present] for name, one in factors.items()})
        effects, missing = causes.causal_model(given, factors)
        return {name: reason for name, target, reason in missing if target == 0}, effects

    rare, _ = reasons({"half": factor(half), "rare": factor(np.arange(20) == 3)})
    assert rare == {"rare": "1 of the 20 images have it: too few to compare"}
    twins, effects = reasons({"one": factor(half), "two": factor(half)})
    assert set(twins.values()) == {"which factors the images have does not tell their effects apart"}
    assert {e.quantity for e in effects} == {"true_effect"}, "which needs no model"


def cell(encoder="half"):
    return {"domain": "defect", "encoder": encoder, "pretrain_seed": 0, "finetune_seed": 0}


@pytest.fixture(scope="module")
def config(made):
    config = made(encoders=("half", "scratch"), what=["causes"])
    for encoder in ("half", "scratch"):
        inside.run(config, **cell(encoder))
    return config


def test_the_stage_writes_a_value_for_every_image_that_has_the_factor(config):
    table = read_table(Layout(config.results).inside(ModelId(**cell())) / "causes.parquet")
    known = table[table["status"] == "ok"]
    sizes = known[known["target"].isna()].groupby(["factor", "quantity"], observed=True)["image_id"].nunique()
    assert set(sizes.index.get_level_values(1)) == set(CAUSES)
    assert (sizes == 12).all()
    assert known["value"].notna().all()


def test_the_tables_hold_means_and_both_models_side_by_side(config):
    found = tables(config, read_inside(config, Layout(config.results)))
    effects, model = found["causes"], found["causal_model"]
    stored = read_table(Layout(config.results).inside(ModelId(**cell())) / "causes.parquet")
    row = effects[
        (effects["domain"] == "defect")
        & (effects["encoder"] == "half")
        & (effects["factor"] == "pit")
        & (effects["quantity"] == "effect_logit")
    ].iloc[0]
    own = stored[(stored["factor"] == "pit") & (stored["quantity"] == "effect_logit")]["value"]
    assert row["value"] == pytest.approx(own.mean())
    assert row["low"] < row["value"] < row["high"]
    assert row["n"] == 12
    assert set(effects["domain"].dropna()) == {"defect"}
    assert effects["domain"].isna().any(), "and pooled"
    assert set(model["class"]) <= {"a", "b", "c"}
    compared = model[model["difference"].notna()]
    np.testing.assert_allclose(compared["difference"], compared["estimated"] - compared["true"])
    # Every image has every factor but the evidence of one class each: only that can be compared.
    assert set(compared["factor"]) == {"evidence"}
    assert (compared["n"] == 12).all()
    assert (compared["n_true"] == 4).all()


def test_causes_alone_leave_files_that_the_tables_can_read(config):
    assert len(image_maps(config, Layout(config.results))) == 0
    found = tables(config, read_inside(config, Layout(config.results)))
    assert {name for name, table in found.items() if len(table)} == {"causes", "causal_model"}


def test_a_domain_that_cannot_be_made_again_is_a_row_with_the_reason(made):
    config = made(encoders=("scratch",), what=["causes"])
    write_arrays(Layout(config.results).domain("defect") / "interventions.safetensors", {}, {"factors": ""})
    inside.run(config, **cell("scratch"))
    found = tables(config, read_inside(config, Layout(config.results)))
    assert found["causes"][["status", "reason", "n"]].values.tolist() == [["skipped", NO_FACTORS, 0]]
    assert len(found["causal_model"]) == 0


def test_data_of_an_older_version_is_one_sentence(made):
    config = made(encoders=("scratch",), what=["causes"])
    (Layout(config.results).domain("defect") / "interventions.safetensors").unlink()
    with pytest.raises(UserError, match=r"interventions\.safetensors does not exist; run the stage"):
        inside.run(config, **cell("scratch"))


def test_a_run_from_before_there_were_causes_has_empty_tables(made):
    config = made(encoders=("scratch",), what=["rank"])
    inside.run(config, **cell("scratch"))
    (Layout(config.results).inside(ModelId(**cell("scratch"))) / "causes.parquet").unlink()
    found = tables(config, read_inside(config, Layout(config.results)))
    for name in ("causes", "causal_model"):
        assert isinstance(found[name], pd.DataFrame)
        assert list(found[name].columns) == COLUMNS[name]
        assert len(found[name]) == 0
