"""Fine-tuning: validation-selected, recorded, resumable, from the pretrained weights."""

import itertools

import numpy as np
import pytest
import torch

from unmask import finetune, pretrain, training
from unmask.config import ModelId
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table
from unmask.layout import Layout
from unmask.models import checkpoint

ONE = {"domain": "defect", "encoder": "scratch", "pretrain_seed": 0, "finetune_seed": 0}


def folder_of(config, **cell):
    return Layout(config.results).model(ModelId(**{**ONE, **cell}))


def test_learns_and_records_what_the_test_split_says(config):
    finetune.run(config, **ONE)
    folder = folder_of(config)
    sidecar, table = read_json(folder / "model.json"), read_table(folder / "predictions.parquet")
    model, _ = checkpoint.load_classifier(folder / "model.safetensors")
    test = read_arrays(Layout(config.results).domain("defect") / "test.safetensors")
    logits = finetune.predict(model, test["images"], torch.device("cpu"))
    assert (table["prediction"].to_numpy() == logits.argmax(1).numpy()).all(), (
        "the file holds the model that was tested"
    )
    assert (table["label"].to_numpy() == test["labels"]).all()
    assert np.allclose(table[["prob_0", "prob_1"]].sum(axis=1), 1)
    accuracy = (table["prediction"] == table["label"]).mean()
    assert sidecar["accuracy"]["test"] == pytest.approx(accuracy)
    assert accuracy > 0.9
    assert read_json(folder / "report.json")["accuracy"] == pytest.approx(accuracy)
    assert set(read_json(folder / "report.json")) >= {"up", "down", "macro avg"}
    assert sidecar["mask_ratio"] is None
    assert model.mask_token is None


def test_the_epoch_is_chosen_on_validation(config):
    finetune.run(config, **ONE)
    history, sidecar = read_table(folder_of(config) / "history.csv"), read_json(folder_of(config) / "model.json")
    best = history.sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    assert sidecar["epoch"] == best["epoch"]
    assert sidecar["accuracy"]["val"] == best["val_accuracy"]


def test_starts_from_the_encoder_and_keeps_its_mask_token(config):
    pretrain.run(config, encoder="half", pretrain_seed=0)
    finetune.run(config, **{**ONE, "encoder": "half"})
    encoder = read_arrays(Layout(config.results).encoder("half", 0) / "encoder.safetensors")
    state = read_arrays(folder_of(config, encoder="half") / "model.safetensors")
    assert (state["mask_token"] == encoder["mask_token"]).all(), "frozen"
    name = "backbone.blocks.0.mlp.fc1.weight"
    moved = np.abs(state[name] - encoder[name]).mean() / np.abs(encoder[name]).mean()
    assert 0 < moved < 0.5
    sidecar = read_json(folder_of(config, encoder="half") / "model.json")
    assert (sidecar["method"], sidecar["mask_ratio"]) == ("simmim", 0.5)


def test_a_killed_run_resumes_to_the_same_bytes(config, monkeypatch):
    folder = folder_of(config)
    finetune.run(config, **ONE)
    names = ("model.safetensors", "model.json", "history.csv", "predictions.parquet", "report.json")
    unbroken = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    whole = training.Resume.save

    def save(self, module, optimiser, progress, extra=None):
        whole(self, module, optimiser, progress, extra)
        if len(progress["history"]) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Resume, "save", save)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(config, **ONE)
    finetune.run(config, **ONE)
    assert {name: (folder / name).read_bytes() for name in names} == unbroken


def test_mistakes_are_named(config):
    with pytest.raises(UserError, match=r"encoder\.json does not exist"):
        finetune.run(config, **{**ONE, "encoder": "half"})
    with pytest.raises(UserError, match="no model nowhere x scratch"):
        finetune.run(config, **{**ONE, "domain": "nowhere"})
    pretrain.run(config, encoder="half", pretrain_seed=0)
    config["model"]["depth"] = 3
    with pytest.raises(UserError, match=r"encoder\.safetensors does not fit the model in the config: .*blocks\.2"):
        finetune.run(config, **{**ONE, "encoder": "half"})


def test_cosine_schedule():
    factors = [training.cosine(step, steps=100, warmup=10) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[55] == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert 0 < factors[-1] < 0.001
    assert training.scaled_rate(1e-4, 2048) == pytest.approx(4e-4)


def test_layer_decay_scales_the_rate():
    parameter = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimiser = torch.optim.AdamW([{"params": parameter[:1], "lr_scale": 0.25}, {"params": parameter[1:]}])
    training.set_learning_rate(optimiser, 0.1)
    assert [group["lr"] for group in optimiser.param_groups] == [0.025, 0.1]
