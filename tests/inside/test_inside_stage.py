"""The stage on models of random weights."""

import numpy as np
import pandas as pd
import pytest
import torch

from unmask import finetune, inside, plan, seeds
from unmask.config import ModelId
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table
from unmask.internals import decisions, missingness
from unmask.internals.catalogue import FAMILIES, MISSINGNESS, QUANTITIES
from unmask.layout import Layout
from unmask.models import checkpoint

BROKEN = '''"""A removal that raises."""
META = {"kind": "removals", "summary": "none", "architectures": ["vit", "resnet"]}


def remove(model, images, keep):
    raise RuntimeError("no\\nluck")
'''


def cell(encoder="half", finetune_seed=0):
    return {"domain": "defect", "encoder": encoder, "pretrain_seed": 0, "finetune_seed": finetune_seed}


def run(config, **which):
    inside.run(config, **cell(**which))
    return Layout(config.results).inside(ModelId(**cell(**which)))


@pytest.fixture(scope="module")
def config(made):
    return made(encoders=("half", "scratch", "convolution"), seeds=(0, 1))


@pytest.fixture(scope="module")
def folder(config):
    return run(config)


@pytest.fixture(scope="module")
def layers(folder):
    return read_table(folder / "layers.parquet")


def test_every_quantity_has_a_value_for_every_image_or_a_reason(layers):
    for phase in ("before", "after"):
        rows = layers[layers["phase"] == phase]
        known = rows[rows["status"] == "ok"]
        assert set(rows["quantity"]) == set(QUANTITIES)
        counts = known.groupby(["quantity", "layer", "head"], observed=True, dropna=False)["image_id"]
        assert set(counts.nunique()) == set(counts.size()) == {12}
        assert np.isfinite(known["value"]).all()
        reasons = rows[rows["status"] != "ok"].set_index("quantity")["reason"]
        assert {"class_token_entropy", "class_token_self_attention"} <= set(reasons.index)
        assert ("attribution_agreement" in reasons) == (phase == "before")


def test_layers_and_heads_are_those_of_the_network(layers):
    known = layers[(layers["status"] == "ok") & (layers["phase"] == "after")]
    over_heads = known["quantity"].map(lambda name: QUANTITIES[name].family in ("attention", "attribution"))
    assert set(known.loc[over_heads, "layer"]) == {1, 2}
    assert set(known.loc[~over_heads, "layer"]) == {0, 1, 2}
    assert set(known.loc[over_heads, "head"].dropna()) == {0, 1}
    assert known.loc[~over_heads, "head"].isna().all()
    means = known[over_heads].groupby(["quantity", "layer", "image_id", known["head"].isna()], observed=True)["value"]
    whole = means.mean().unstack()
    assert np.allclose(whole[True], whole[False]), "without a head it is the mean over the heads"


def test_images_are_the_explained_ones_and_more(folder, config):
    from unmask.sampling import explained

    labels = read_arrays(Layout(config.results).domain("defect") / "test.safetensors")["labels"]
    table = read_table(folder / "layers.parquet")
    names = table["image_id"].dropna().unique().tolist()
    assert names == [f"test{row}" for row in explained(labels, 12, config["seed"], "defect")]
    assert names[:4] == [f"test{row}" for row in explained(labels, 4, config["seed"], "defect")]


def test_before_is_the_network_that_fine_tuning_starts_from(config):
    for encoder in ("half", "scratch", "convolution"):
        model_id = ModelId(**cell(encoder))
        architecture = finetune._architecture(config, model_id, 3)
        torch.manual_seed(seeds.derive(config["seed"], "finetune", model_id.folder, "weights"))
        expected, _ = finetune._start(config, model_id, architecture)
        found = inside._before(config, model_id, {"architecture": architecture}, torch.device("cpu")).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())


def test_before_is_measured_once_per_encoder(config, folder):
    later = read_table(run(config, finetune_seed=1) / "layers.parquet")
    assert set(later["phase"]) == {"after"}
    assert set(read_arrays(folder / "grams.safetensors")) == {"before", "after"}


def test_what_does_not_apply_says_why(config):
    scratch = read_table(run(config, encoder="scratch") / "layers.parquet")
    reasons = scratch[scratch["status"] == "skipped"].set_index(["phase", "quantity"])["reason"]
    assert "no mask token" in reasons["after", "mask_token_distance"]
    table = read_table(run(config, encoder="scratch") / "missingness.parquet")
    assert set(table.loc[table["status"] == "skipped", "removal"]) == {"mask_token", "inpaint"}
    network = read_table(run(config, encoder="convolution") / "layers.parquet")
    reasons = network[network["status"] == "skipped"].set_index(["phase", "quantity"])["reason"]
    assert "resnet has no attention" in reasons["after", "attention_entropy"]
    known = network[network["status"] == "ok"]
    assert set(known["quantity"]) == {
        "effective_rank", "high_frequency", "high_norm_share", "knn_accuracy", "linear_probe_accuracy",
    }  # fmt: skip
    assert set(known.loc[known["quantity"] == "effective_rank", "layer"]) == {0, 1, 2, 3, 4}
    assert 4 not in set(known.loc[known["quantity"] == "high_frequency", "layer"]), "one position has no frequencies"


def test_a_class_token_has_its_own_quantities(made):
    table = read_table(
        run(made(encoders=("scratch",), pooling="token", what=["attention"]), encoder="scratch") / "layers.parquet"
    )
    known = table[table["status"] == "ok"]
    assert {"class_token_entropy", "class_token_self_attention"} <= set(known["quantity"])
    assert known.loc[known["quantity"].str.startswith("class_token"), "value"].between(0, 1).all()


def test_missingness_of_nothing_removed_is_the_models_own_answer(folder, config):
    table = read_table(folder / "missingness.parquet")
    assert set(table["quantity"].dropna()) == set(MISSINGNESS)
    known = table[table["status"] == "ok"]
    assert sorted(known["fraction"].unique()) == [count / 16 for count in missingness.counts(16)]
    nothing = known[known["fraction"] == 0].pivot_table(
        index=["removal", "image_id"], columns="quantity", values="value", observed=True
    )
    assert (nothing["unchanged_prediction"] == 1).all()
    assert (nothing["feature_distance"] == 0).all()
    model, _ = checkpoint.load_classifier(Layout(config.results).model(ModelId(**cell())) / "model.safetensors")
    arrays = read_arrays(Layout(config.results).domain("defect") / "test.safetensors")
    images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).float() / 255
    right = (model(images).argmax(1).numpy() == arrays["labels"]).astype(float)
    expected = {f"test{i}": value for i, value in enumerate(right)}
    for name, value in nothing.loc["zero", "accuracy"].items():
        assert value == expected[name]


def test_the_features_of_a_removal_are_those_before_the_head(config):
    model, _ = checkpoint.load_classifier(Layout(config.results).model(ModelId(**cell())) / "model.safetensors")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    probabilities, features = missingness.answers(model, None, images, torch.ones(3, 1, 4, 4, dtype=torch.bool))
    head = model.backbone.head
    logits = features[:, 0] @ head.weight.double().T + head.bias.double()
    assert torch.allclose(logits.softmax(1), probabilities[:, 0], atol=1e-6)


def test_a_removal_that_raises_costs_its_own_rows(made, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    config = made(encoders=("scratch",), plugins=[tmp_path / "broken.py"], what=["missingness"])
    table = read_table(run(config, encoder="scratch") / "missingness.parquet")
    row = table[table["removal"] == "broken"]
    assert row["status"].tolist() == ["failed"]
    assert row["reason"].tolist() == ["RuntimeError: no luck"]
    assert set(table.loc[table["status"] == "ok", "removal"]) == {
        "zero", "mean", "blur", "token_drop", "noisy_linear",
    }  # fmt: skip
    assert len(read_table(Layout(config.results).inside(ModelId(**cell("scratch"))) / "layers.parquet")) == 0


def test_a_model_of_weights_that_are_not_finite_fails_with_reasons(made):
    config = made(encoders=("scratch",), what=["attention", "rank", "probes", "cka"])
    path = Layout(config.results).model(ModelId(**cell("scratch"))) / "model.safetensors"
    state = checkpoint.load_state(path)
    state["backbone.blocks.0.mlp.fc1.weight"][:] = float("nan")
    checkpoint.save(path, state, read_json(path.with_suffix(".json")))
    table = read_table(run(config, encoder="scratch") / "layers.parquet")
    rows = table[(table["phase"] == "after") & (table["status"] == "failed")]
    assert {"effective_rank", "knn_accuracy", "attention_entropy", "cka"} <= set(rows["quantity"])
    assert rows["reason"].notna().all()
    assert (table.loc[table["phase"] == "before", "status"] != "failed").all()


def test_the_same_job_writes_the_same_bytes(config, folder):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    run(config)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_it_leaves_the_model_as_it_found_it(config):
    from unmask.internals.measure import Labelled, measure

    model, _ = checkpoint.load_classifier(Layout(config.results).model(ModelId(**cell())) / "model.safetensors")
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, weights = model(images), {k: v.clone() for k, v in model.state_dict().items()}
    keep = torch.rand(8, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    labelled = Labelled(images, np.arange(8) % 3)
    measure(model, labelled, ["attention", "cka", "mask_token", "probes"], train=labelled, keep=keep, neighbours=2)
    assert torch.equal(model(images), before)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_batches_change_nothing(config, monkeypatch):
    from unmask.internals import observe
    from unmask.internals.measure import Labelled, measure

    model, _ = checkpoint.load_classifier(Layout(config.results).model(ModelId(**cell())) / "model.safetensors")
    images = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for size in (32, 4):
        monkeypatch.setattr(observe, "AT_ONCE", size)
        found.append(
            measure(model, Labelled(images, np.arange(9) % 3), ["attention", "frequency", "rank", "norms", "cka"])
        )
    for one, other in zip(found[0].blocks, found[1].blocks, strict=True):
        assert (one.quantity, one.layer, one.head) == (other.quantity, other.layer, other.head)
        assert np.allclose(one.values, other.values, rtol=1e-4, atol=1e-6)
    assert np.allclose(found[0].grams, found[1].grams, rtol=1e-4, atol=1e-4)


def test_the_plan_counts_the_passes_that_are_made(made, capsys):
    # How many sets of patches are tried depends on the decisions, what there is to visualise on classes and units:
    # their plans are bounds.
    left_out = (*decisions.FAMILIES, "visualisation")
    config = made(encoders=("half",), what=[name for name in FAMILIES if name not in left_out])
    run(config)
    said = capsys.readouterr().out
    counts = [int(text.split(",")[0].split("}")[0]) for text in said.split("'forward': ")[1:]]
    # The plan counts images that a domain renders, of which there are more than in this folder.
    images = {"defect": {"test": 12, "train": 20}}
    assert plan._inside(config, images).forward == sum(counts)
    assert plan._inside(config, images).backward == 2 * 12, "attributions, and the slopes for concepts"
    assert plan.jobs(config)["inside"] == 1


def test_mistakes_are_sentences(made, config):
    with pytest.raises(UserError, match="the config has no model defect x nobody"):
        inside.run(config, **cell("nobody"))
    with pytest.raises(UserError, match="unknown removal 'zeros'"):
        made(removals=["zeros"])
    with pytest.raises(UserError, match=r"inside\.what"):
        made(what=["attentions"])


def test_its_settings_name_what_it_depends_on(made, config):
    plain = inside.settings(config, **cell())
    assert set(plain["plugins"]) >= {"input_x_gradient", "zero", "mask_token"}
    fewer = inside.settings(made(encoders=("half", "scratch"), images=6), **cell())
    assert plain["inside"] != fewer["inside"]
    assert pd.Series(plain).drop(["inside", "plugins", "versions"]).notna().all()
