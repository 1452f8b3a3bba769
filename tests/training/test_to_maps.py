"""From pretraining to maps: what the stages leave for one another, for every kind of encoder."""

import numpy as np
import pytest
import torch

from unmask import explain, finetune, pretrain, subject, training
from unmask.config import ModelId
from unmask.files import read_arrays, read_json, read_table, sha256
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.models.resnet import ConvClassifier

ENTRIES = ["saliency", "embedding", "chefer", "reconstruction_error", "occlusion@token_drop", "occlusion@inpaint"]


@pytest.fixture
def bench(config):
    """The tiny benchmark with a ResNet-18 beside the transformers, and a group that asks for all there is."""
    config.data["encoders"]["conv"] = {"method": "resnet18"}
    config.data["explain"]["groups"] = {"one": ENTRIES}
    config.data["finetune"]["epochs"] = 2
    return config


@pytest.fixture
def small_resnet(monkeypatch):
    """ResNet-18 in all but its size: a step of the real one takes half a second here."""
    whole = finetune._architecture

    def architecture(*given):
        found = whole(*given)
        assert found == {"arch": "resnet", "size": 32, "patch": 8, "classes": 2}
        return {**found, "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}

    monkeypatch.setattr(finetune, "_architecture", architecture)


def job(encoder):
    return {"domain": "defect", "encoder": encoder, "pretrain_seed": 0, "finetune_seed": 0}


def statuses(config, encoder):
    explain.run(config, **job(encoder), group="one")
    index = read_json(Layout(config.results).maps(ModelId(**job(encoder))) / "one.json")
    assert all(record["failed"] == {} for record in index["explainers"])
    return {record["name"]: record["status"] for record in index["explainers"]}


@pytest.mark.usefixtures("small_resnet")
def test_a_resnet_is_trained_saved_and_explained(bench):
    finetune.run(bench, **job("conv"))
    folder = Layout(bench.results).model(ModelId(**job("conv")))
    sidecar, history = read_json(folder / "model.json"), read_table(folder / "history.csv")
    assert (sidecar["method"], sidecar["mask_ratio"], sidecar["encoder_sha256"]) == ("resnet18", None, None)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    model, _ = subject.load_model(bench, ModelId(**job("conv")), torch.device("cpu"))
    assert isinstance(model, ConvClassifier)
    test = read_arrays(Layout(bench.results).domain("defect") / "test.safetensors")
    predicted = finetune.predict(model, test["images"], torch.device("cpu")).argmax(1).numpy()
    assert (read_table(folder / "predictions.parquet")["prediction"].to_numpy() == predicted).all()
    expected = dict.fromkeys(ENTRIES, "skipped") | {"saliency": "ok", "embedding": "ok"}
    assert statuses(bench, "conv") == expected


@pytest.mark.usefixtures("small_resnet")
def test_a_killed_resnet_resumes_to_the_same_bytes(bench, monkeypatch):
    """The statistics of batch normalisation come back, too."""
    weights = Layout(bench.results).model(ModelId(**job("conv"))) / "model.safetensors"
    finetune.run(bench, **job("conv"))
    unbroken = sha256(weights)
    weights.unlink()
    whole = training.Resume.save

    def save(self, *arguments, **given):
        whole(self, *arguments, **given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Resume, "save", save)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(bench, **job("conv"))
    finetune.run(bench, **job("conv"))
    assert sha256(weights) == unbroken


def test_a_pretrained_model_is_explained_with_its_pretraining_network(bench):
    pretrain.run(bench, encoder="half", pretrain_seed=0)
    finetune.run(bench, **job("half"))
    model, _ = subject.load_model(bench, ModelId(**job("half")), torch.device("cpu"))
    path = Layout(bench.results).encoder("half", 0) / "encoder.safetensors"
    images, masks = torch.rand(2, 3, 32, 32), torch.rand(2, 4, 4) < 0.5
    loss, _ = checkpoint.load_network(path)(images, masks)
    assert torch.equal(model.pretraining.network(images, masks)[0], loss)
    assert (model.pretraining.mask_ratio, model.pretraining.mask_cell) == (0.5, 8)
    assert statuses(bench, "half") == dict.fromkeys(ENTRIES, "ok")

    # Maps of the pretraining network are kept while the encoder is, and made anew with another.
    folder = Layout(bench.results).maps(ModelId(**job("half")))
    before = read_arrays(folder / "reconstruction_error.safetensors")["maps"]
    bench["pretrain"]["epochs"] = 1
    pretrain.run(bench, encoder="half", pretrain_seed=0)
    finetune.run(bench, **job("half"))
    statuses(bench, "half")
    assert not np.allclose(read_arrays(folder / "reconstruction_error.safetensors")["maps"], before, rtol=1e-3)


def test_a_model_from_scratch_has_no_pretraining_network(bench):
    finetune.run(bench, **job("scratch"))
    assert subject.load_model(bench, ModelId(**job("scratch")), torch.device("cpu"))[0].pretraining is None
    without = {"reconstruction_error": "skipped", "occlusion@inpaint": "skipped"}
    assert statuses(bench, "scratch") == dict.fromkeys(ENTRIES, "ok") | without
