"""Missingness-aware fine-tuning: what it draws, what it refuses, and that its models stand removal better."""

import numpy as np
import pytest
import torch

from unmask import dag, finetune, missing, pretrain, registry, removals, subject
from unmask.config import Config, ModelId
from unmask.encoders import condition, fill, series
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, sha256, write_arrays
from unmask.internals import missingness
from unmask.layout import Layout
from unmask.models.resnet import ConvClassifier
from unmask.models.simmim import SimMIM
from unmask.models.vit import Classifier

SIZES = {"size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def job(encoder, domain="defect"):
    return {"domain": domain, "encoder": encoder, "pretrain_seed": 0, "finetune_seed": 0}


def test_every_number_of_missing_patches_is_as_likely_and_every_patch():
    keep = missing.subsets(34_000, (4, 4), generator())
    assert keep.shape == (34_000, 4, 4)
    counts = torch.bincount((~keep).flatten(1).sum(1), minlength=17).double()
    assert len(counts) == 17
    # The chi-squared statistic of 16 degrees of freedom exceeds 39.3 once in a thousand draws.
    assert ((counts - 2000) ** 2 / 2000).sum() < 39.3
    assert (keep.double().mean(0) - 0.5).abs().max() < 0.02
    few = keep[(~keep).flatten(1).sum(1) == 1].double().mean(0)
    assert (few - 15 / 16).abs().max() < 0.03, "a single one is anywhere"


def test_a_share_of_the_images_lacks_patches():
    whole = missing.subsets(20_000, (4, 4), generator(), 0.3).flatten(1).all(1).double().mean()
    assert whole == pytest.approx(0.7 + 0.3 / 17, abs=0.015), "the rest, and those of which no patch was drawn"


@pytest.mark.parametrize("removal", missing.REMOVALS)
def test_the_model_is_trained_with_the_removal_that_explainers_use(removal):
    network = SimMIM(**SIZES)
    model = Classifier(**SIZES, classes=2)
    model.mask_token = network.encoder.mask_token
    images, index = torch.rand(3, 3, 32, 32, generator=generator()), torch.tensor([4, 0, 2])
    inputs = missing.lacking(removal, model, 5, generator(1))(images, index)
    keep = missing.subsets(5, (4, 4), generator(1))[index]
    same = removals.bind(registry.find("removals", removal), model).remove(images, keep)
    assert torch.equal(model(inputs), model(same))
    assert not torch.equal(model(inputs), model(images))


@pytest.mark.parametrize("pooling", ["avg", "token"])
@pytest.mark.parametrize("position", ["absolute", "relative"])
@pytest.mark.parametrize("removal", missing.REMOVALS)
def test_an_image_that_lacks_all_of_its_patches_trains_without_harm(removal, position, pooling, monkeypatch):
    model = Classifier(**SIZES, classes=2, position=position, pooling=pooling)
    model.mask_token = SimMIM(**SIZES).encoder.mask_token
    keep = torch.zeros(2, 4, 4, dtype=torch.bool)
    keep[1] = True
    monkeypatch.setattr(missing, "subsets", lambda *given: keep)
    images = torch.rand(2, 3, 32, 32, generator=generator(), requires_grad=True)
    logits = model(missing.lacking(removal, model, 2, generator())(images, torch.arange(2)))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert logits.isfinite().all()
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())
    assert images.grad[0].abs().max() == 0, "nothing of it is seen"
    assert images.grad[1].abs().max() > 0


def test_without_it_nothing_is_drawn():
    drawn, images = generator(), torch.rand(2, 3, 32, 32)
    assert missing.lacking(None, Classifier(**SIZES, classes=2), 5, drawn)(images, torch.arange(2)) is images
    assert torch.equal(drawn.get_state(), generator().get_state())


def test_native_is_what_the_encoder_knows():
    plain, small = Classifier(**SIZES, classes=2), {"layers": [1] * 4, "channels": [8] * 4}
    conv = ConvClassifier(size=32, patch=8, classes=2, **small)
    masked = Classifier(**SIZES, classes=2)
    masked.mask_token = SimMIM(**SIZES).encoder.mask_token
    found = [missing.chosen("native", model, "it") for model in (masked, plain, conv)]
    assert found == ["mask_token", "token_drop", "mean"]
    assert missing.chosen("none", masked, "it") is None
    with pytest.raises(UserError, match=r"encoders\.it: no mask token went through"):
        missing.chosen("mask_token", plain, "it")
    with pytest.raises(UserError, match=r"encoders\.it: token_drop needs a transformer"):
        missing.chosen("token_drop", conv, "it")


@pytest.mark.parametrize(
    ("whole", "own", "words"),
    [
        ("mask_token", {"method": "scratch"}, "finetune.missing: mask_token asks for a token .* no scratch encoder"),
        (None, {"method": "supervised", "missing": "mask_token"}, "encoders.it.missing: mask_token .*use native"),
        (
            None,
            {"method": "resnet18", "missing": "token_drop"},
            "encoders.it.missing: token_drop asks for a transformer",
        ),
        (None, {"method": "scratch", "missing": "blur"}, "encoders.it.missing: 'blur' is not allowed"),
        ("drop", {"method": "scratch"}, "finetune.missing: 'drop' is not allowed"),
    ],
)
def test_what_an_encoder_lacks_is_refused(config, whole, own, words):
    given = config.data | {"encoders": {"it": own}}
    given["finetune"] |= {"missing": whole} if whole else {}
    with pytest.raises(UserError, match=words):
        Config(given)


def test_an_entry_overrides_the_recipe(config):
    given = config.data
    given["encoders"]["conv"] = {"method": "resnet18", "missing": "mean"}
    given["encoders"]["plain"] = {"method": "scratch", "missing": "none"}
    given["finetune"]["missing"] = "native"
    made = Config(given)
    found = {name: made.missing(name) for name in made["encoders"]}
    assert found == {"half": "native", "scratch": "native", "conv": "mean", "plain": "none"}


def two_conditions(config):
    config.data["encoders"]["aware"] = {**config["encoders"]["half"], "missing": "mask_token"}
    fill(config.data["encoders"])
    return Config(config.data)


def test_two_conditions_of_one_encoder_share_its_pretraining(config, capsys):
    made = two_conditions(config)
    assert [made.pretraining_of(name) for name in ("half", "aware", "scratch")] == ["half", "half", "scratch"]
    for kind in (series, condition):  # so that hypotheses about SimMIM speak of the plain one
        assert [kind(made["encoders"][name]) for name in ("half", "aware")] == ["simmim", "simmim missing=mask_token"]
    assert condition({"method": "scratch", "missing": "none"}) == "scratch"
    wildcards = type("Wildcards", (), {"encoder": "aware", "pretrain_seed": "0"})
    layout = Layout(made.results)
    assert dag.shared_pretraining(made)(wildcards) == [layout.encoder("half", 0) / "encoder.safetensors"]
    wildcards.encoder = "half"
    assert dag.shared_pretraining(made)(wildcards) == []
    with pytest.raises(UserError, match=r"half/p0/encoder\.json does not exist; run the stage"):
        pretrain.run(made, encoder="aware", pretrain_seed=0)
    for name in ("half", "aware"):
        pretrain.run(made, encoder=name, pretrain_seed=0)
    assert "aware: the pretraining of half" in capsys.readouterr().out
    old, new = (layout.encoder(name, 0) for name in ("half", "aware"))
    for name in ("encoder.safetensors", "history.csv", "reconstruction.png"):
        assert sha256(old / name) == sha256(new / name)
    sidecars = [read_json(folder / "encoder.json") for folder in (old, new)]
    assert [one["encoder"] for one in sidecars] == ["half", "aware"]
    assert {k for k in sidecars[0] if sidecars[0][k] != sidecars[1][k]} == {"encoder", "settings"}


def test_how_patches_are_missing_is_of_no_concern_to_pretraining(config):
    before = pretrain.settings(config, encoder="half", pretrain_seed=0)
    config["encoders"]["half"]["missing"] = "native"
    assert pretrain.settings(config, encoder="half", pretrain_seed=0) == before


def planted(n, seed):
    """Every patch tells the class by its colour, so that an image that lacks most of them still does."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 2
    images = draw.integers(60, 160, (n, 32, 32, 3), dtype=np.uint8)
    images[..., 0] += (labels * 60)[:, None, None].astype(np.uint8)
    images[..., 2] += ((1 - labels) * 60)[:, None, None].astype(np.uint8)
    empty = np.zeros((n, 32, 32), bool)
    return {"images": images, "labels": labels, "masks": empty, "shortcut": empty}


def test_a_model_that_saw_patches_missing_keeps_its_prediction_without_them(config):
    made = two_conditions(config)
    made["pretrain"]["epochs"], made["finetune"]["epochs"] = 1, 8
    layout = Layout(made.results)
    for seed, (split, n) in enumerate({"train": 64, "val": 16, "test": 20}.items()):
        write_arrays(layout.domain("defect") / f"{split}.safetensors", planted(n, seed))
    images = torch.from_numpy(read_arrays(layout.domain("defect") / "test.safetensors")["images"])
    images = images.permute(0, 3, 1, 2).float() / 255
    keep = missingness.subsets(np.random.default_rng(0), 20, 4, (4, 4))
    kept, entropy = {}, {}
    for encoder in ("half", "aware"):
        pretrain.run(made, encoder=encoder, pretrain_seed=0)
        finetune.run(made, **job(encoder))
        model, sidecar = subject.load_model(made, ModelId(**job(encoder)), torch.device("cpu"))
        assert sidecar["accuracy"]["test"] == 1
        assert sidecar.get("missing") == (None if encoder == "half" else "mask_token")
        removal = removals.bind(registry.find("removals", "mask_token"), model)
        found, _ = missingness.answers(model, removal, images, keep.flatten(1, 2))
        whole, _ = missingness.answers(model, None, images, keep[:, 0])
        found = found.unflatten(1, keep.shape[1:3])
        same = missingness.unchanged(found.argmax(-1), whole[:, 0].argmax(-1))
        kept[encoder], entropy[encoder] = same.mean((0, 2)), missingness.prediction_entropy(found).mean((0, 2))
    print(kept, entropy)
    assert kept["half"][0] == kept["aware"][0] == 1, "nothing is removed there"
    assert kept["aware"].min() > 0.95
    assert kept["half"][-1] < 0.7
