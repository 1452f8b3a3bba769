"""Every method of pretraining through the stages: what it leaves, that it resumes, what its models can do."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from unmask import digest, explain, finetune, pretrain, subject, training
from unmask.config import ModelId
from unmask.encoders import effective_ratio, fill
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table, write_arrays
from unmask.layout import Layout
from unmask.models import checkpoint

SMALL = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
ENCODERS = {
    "range": {"method": "simmim", "mask_ratio": [0.2, 0.9]},
    "mae": {"method": "mae", "mask_ratio": 0.75, **SMALL},
    "colours": {"method": "mae", "mask_ratio": 0.5, **SMALL, "target": "pixels"},
    "siamese": {"method": "simmim_siamese", "mask_ratio": 0.5},
    "labels": {"method": "supervised"},
}
MASKED = ("range", "mae", "colours", "siamese")
ENTRIES = [
    "saliency",
    "occlusion@token_drop",
    "occlusion@mask_token",
    "occlusion@inpaint",
    "reconstruction_error",
    "reconstruction_saliency",
    "patch_reconstruction",
]


@pytest.fixture
def bench(config):
    """The tiny benchmark with an encoder of every method that is trained, and labels on most of the pool."""
    config.data["encoders"] = {name: dict(spec) for name, spec in ENCODERS.items()}
    fill(config.data["encoders"])
    config.data["pretrain"]["epochs"] = 2
    config.data["finetune"]["epochs"] = 1
    config.data["explain"]["groups"] = {"one": ENTRIES}
    pool = Layout(config.results).pool
    images = read_arrays(pool)["images"]
    labels = np.where(np.arange(len(images)) < 50, np.arange(len(images)) % 2, -1)
    write_arrays(pool, {"images": images, "labels": labels}, {"classes": "defect/up\ndefect/down"})
    config.data["seed"] = seed_with_labels_held_out(config, labels)
    return config


def seed_with_labels_held_out(config, labels):
    """A base seed whose one held-out image has a label."""
    from unmask.seeds import torch_generator

    first = (torch.randperm(len(labels), generator=torch_generator(s, "pretrain", "held out"))[0] for s in range(99))
    return next(seed for seed, place in enumerate(first) if labels[place] >= 0)


def run(config, encoder):
    pretrain.run(config, encoder=encoder, pretrain_seed=0)
    return Layout(config.results).encoder(encoder, 0)


def job(encoder):
    return {"domain": "defect", "encoder": encoder, "pretrain_seed": 0, "finetune_seed": 0}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_writes_what_the_later_stages_read(bench, encoder):
    folder = run(bench, encoder)
    sidecar, history = read_json(folder / "encoder.json"), read_table(folder / "history.csv")
    assert sidecar["method"] == ENCODERS[encoder]["method"]
    assert {"epoch", "loss", "held_out_loss", "effective_rank", "learning_rate"} <= set(history)
    assert np.isfinite(history.to_numpy()).all()
    assert len(history) == 2
    assert sidecar["effective_rank"] == history["effective_rank"].iloc[-1]
    assert (folder / "reconstruction.png").exists() == (encoder in MASKED)
    assert not (folder / "resume.safetensors").exists()
    finetune.run(bench, **job(encoder))
    model = read_json(Layout(bench.results).model(ModelId(**job(encoder))) / "model.json")
    assert (model["method"], model["mask_ratio"]) == (sidecar["method"], sidecar["mask_ratio"])


def test_a_drawn_ratio_is_recorded_as_its_mean_and_its_range(bench):
    sidecar = read_json(run(bench, "range") / "encoder.json")
    assert sidecar["mask_ratio"] == effective_ratio(16, [0.2, 0.9])
    assert sidecar["nominal_mask_ratio"] == [0.2, 0.9]
    loaded = checkpoint.load_pretraining(Layout(bench.results).encoder("range", 0) / "encoder.safetensors")
    assert loaded.mask_ratio == 0.55


def test_the_average_distance_is_logged_and_grows_with_the_ratio(bench):
    # Measured with the official generator: 64 px in cells of 8 px.
    bench.data["encoders"] = {
        f"r{ratio}": {"method": "simmim", "mask_ratio": ratio / 100} for ratio in (25, 50, 75)
    } | {"range": {"method": "simmim", "mask_ratio": [0.2, 0.8]}}
    fill(bench["encoders"])
    bench.data["pretrain"]["epochs"] = 1
    found = [read_json(run(bench, name) / "encoder.json")["average_distance"] for name in bench["encoders"]]
    assert found[0] < found[1] < found[2]
    assert found[0] < found[3] < found[2]


def test_siamese_logs_both_losses_and_says_a_collapse(bench, capsys, monkeypatch):
    folder = run(bench, "siamese")
    history, spec = read_table(folder / "history.csv"), bench["encoders"]["siamese"]
    both = history["reconstruction_loss"] + spec["contrast_weight"] * history["contrast_loss"]
    assert np.allclose(history["loss"], both, rtol=1e-5)
    assert history["held_out_contrast_loss"].iloc[0] == 0, "of one image there is nothing to be told apart"
    assert "COLLAPSED" not in capsys.readouterr().out, "one held-out image tells nothing"
    monkeypatch.setattr("unmask.tasks.HELD_OUT", 0.2)
    monkeypatch.setattr("unmask.pretrain.COLLAPSED", 1e6)
    monkeypatch.setattr("unmask.pretrain.ENOUGH", 3)
    run(bench, "siamese")
    assert "siamese: COLLAPSED, the features of different images are nearly alike" in capsys.readouterr().out


def test_supervised_pretraining_sees_labelled_images_alone_and_learns(bench):
    bench.data["pretrain"] |= {"epochs": 12, "base_learning_rate": 0.1}
    folder = run(bench, "labels")
    sidecar, history = read_json(folder / "encoder.json"), read_table(folder / "history.csv")
    assert (sidecar["images"], sidecar["held_out"], sidecar["mask_ratio"]) == (49, 1, None)
    assert sidecar["classes"] == ["defect/up", "defect/down"]
    assert history["accuracy"].iloc[-1] > 0.9 > history["accuracy"].iloc[0]
    assert history["held_out_accuracy"].iloc[-1] == 1


def test_a_pool_without_labels_is_named(bench):
    pool = Layout(bench.results).pool
    write_arrays(pool, {"images": read_arrays(pool)["images"]})
    with pytest.raises(UserError, match=r"encoders\.labels: .*pool\.safetensors holds no labels; run `unmask data"):
        run(bench, "labels")
    images = read_arrays(pool)["images"]
    write_arrays(pool, {"images": images, "labels": np.full(len(images), -1)}, {"classes": "a\nb"})
    with pytest.raises(UserError, match=r"encoders\.labels: 0 images of .* have labels"):
        run(bench, "labels")


@pytest.mark.parametrize("encoder", ["range", "mae", "siamese", "labels"])
def test_a_killed_run_resumes_to_the_same_bytes(bench, encoder, monkeypatch):
    folder = run(bench, encoder)
    names = ("encoder.safetensors", "encoder.json", "history.csv")
    unbroken = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    whole = training.Resume.save

    def save(self, *arguments, **named):
        whole(self, *arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Resume, "save", save)
        with pytest.raises(KeyboardInterrupt):
            run(bench, encoder)
    run(bench, encoder)
    assert {name: (folder / name).read_bytes() for name in names} == unbroken


TOKEN = "the removal mask_token needs a mask token in the encoder, which only SimMIM pretrains"
COLOURS = "the removal inpaint needs colours, and this encoder's pretraining predicts normalised pixels"
NONE = "the removal inpaint needs the encoder's pretraining network, and this encoder has none"


@pytest.mark.parametrize(
    ("encoder", "skipped"),
    [
        ("range", {}),
        ("siamese", {}),
        ("mae", {"occlusion@mask_token": TOKEN, "occlusion@inpaint": COLOURS}),
        ("colours", {"occlusion@mask_token": TOKEN}),
        ("labels", {"occlusion@mask_token": TOKEN, "occlusion@inpaint": NONE, **dict.fromkeys(ENTRIES[-3:])}),
    ],
)
def test_which_removals_and_explainers_its_models_have(bench, encoder, skipped, capsys):
    run(bench, encoder)
    finetune.run(bench, **job(encoder))
    explain.run(bench, **job(encoder), group="one")
    index = read_json(Layout(bench.results).maps(ModelId(**job(encoder))) / "one.json")
    found = {record["name"]: record for record in index["explainers"]}
    assert {name for name, record in found.items() if record["status"] == "skipped"} == set(skipped)
    assert all(record["status"] == "ok" for name, record in found.items() if name not in skipped)
    said = capsys.readouterr().out.splitlines()
    assert all(f"{name}: skipped: {reason}" in said for name, reason in skipped.items() if reason)
    model, _ = subject.load_model(bench, ModelId(**job(encoder)), torch.device("cpu"))
    assert (model.pretraining is None) == (encoder == "labels")
    assert (model.mask_token is None) == (encoder in ("mae", "colours", "labels"))


@pytest.fixture
def imports(bench, tmp_path):
    """The benchmark with encoders from files, a ViT and a ResNet, at the patches that the ViT has."""
    torch.manual_seed(0)
    for name in ("test_vit", "test_resnet"):
        save_file(timm.create_model(name, pretrained=False).state_dict(), tmp_path / f"{name}.safetensors")
    bench.data["image"]["patch"] = 16
    bench.data["encoders"] = {
        name: {"method": "imported", "weights": str(tmp_path / f"{name}.safetensors"), "architecture": name}
        for name in ("test_vit", "test_resnet")
    }
    bench.data["explain"]["groups"] = {"one": ["saliency", "grad_cam", "occlusion@token_drop", "chefer"]}
    return bench


@pytest.mark.parametrize("encoder", ["test_vit", "test_resnet"])
def test_an_import_is_fine_tuned_and_explained(imports, encoder):
    folder = run(imports, encoder)
    brought, given = (
        read_arrays(path) for path in (folder / "encoder.safetensors", folder.parents[3] / f"{encoder}.safetensors")
    )
    name = "blocks.0.attn.qkv.weight" if encoder == "test_vit" else "layer1.0.conv1.weight"
    assert (brought[f"backbone.{name}"] == given[name]).all()
    sidecar = read_json(folder / "encoder.json")
    assert (sidecar["method"], sidecar["mask_ratio"]) == ("imported", None)
    assert sidecar["left_out"]
    encoder_alone = checkpoint.load_encoder(folder / "encoder.safetensors")
    assert encoder_alone.arch == ("vit" if encoder == "test_vit" else "resnet")
    finetune.run(imports, **job(encoder))
    model, _ = subject.load_model(imports, ModelId(**job(encoder)), torch.device("cpu"))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 2)
    explain.run(imports, **job(encoder), group="one")
    index = read_json(Layout(imports.results).maps(ModelId(**job(encoder))) / "one.json")
    statuses = {record["name"]: record["status"] for record in index["explainers"]}
    attention = "ok" if encoder == "test_vit" else "skipped"
    assert statuses == {
        "saliency": "ok",
        "grad_cam": "ok",
        "occlusion@token_drop": attention,
        "chefer": attention,
    }


def test_other_weights_in_the_file_run_the_import_again(imports, tmp_path):
    one = {"encoder": "test_vit", "pretrain_seed": 0}
    before = digest.of(pretrain.settings(imports, **one))
    assert digest.of(pretrain.settings(imports, **one)) == before
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "test_vit.safetensors")
    assert digest.of(pretrain.settings(imports, **one)) != before


def test_the_pool_has_labels_of_all_domains_side_by_side(tmp_path):
    from unmask import data
    from unmask.config import Config
    from unmask.files import read_metadata

    few = {"train": 8, "val": 4, "test": 4, "unlabelled": 3}
    config = Config(
        {
            "results": str(tmp_path),
            "image": {"size": 32, "patch": 8},
            "domains": {"medical": few, "defect": few},
            "encoders": {"labels": {"method": "supervised"}},
            "explain": {"groups": {"one": ["saliency"]}},
            "score": {"metrics": ["sparseness"]},
        }
    )
    for name in config["domains"]:
        data.run(config, domain=name)
    data.run(config, pool=True)
    layout = Layout(config.results)
    arrays, classes = read_arrays(layout.pool), read_metadata(layout.pool)["classes"].split("\n")
    expected = []
    for name in config["domains"]:
        rows = pd.read_csv(layout.domain(name) / "train.csv")
        expected += [f"{name}/{one}" for one in rows["class"]] + [None] * few["unlabelled"]
    assert [classes[label] if label >= 0 else None for label in arrays["labels"]] == expected
    assert len(classes) == 8
