"""Pretraining: learns, resumes to the same weights, stops at a loss that is not finite."""

import numpy as np
import pytest

from unmask import digest, pretrain, training
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table, sha256, write_arrays
from unmask.layout import Layout

ONE = {"encoder": "half", "pretrain_seed": 0}


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


def kill_after(monkeypatch, epochs):
    whole, calls = training.Resume.save, []

    def save(self, *arguments, **named):
        whole(self, *arguments, **named)
        calls.append(1)
        if len(calls) == epochs:
            raise Killed

    monkeypatch.setattr(training.Resume, "save", save)


def test_writes_everything_and_learns(config):
    pretrain.run(config, **ONE)
    folder = Layout(config.results).encoder("half", 0)
    history = read_table(folder / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3]
    assert history["held_out_loss"].iloc[-1] < history["held_out_loss"].iloc[0]
    sidecar = read_json(folder / "encoder.json")
    assert (sidecar["mask_ratio"], sidecar["images"], sidecar["held_out"]) == (0.5, 65, 1)
    assert sidecar["pool_sha256"] == sha256(Layout(config.results).pool)
    assert "mask_token" in read_arrays(folder / "encoder.safetensors")
    assert (folder / "reconstruction.png").stat().st_size > 5000
    assert not list(folder.glob(".*")), "no half-written file is left"
    assert not (folder / "resume.safetensors").exists()


def test_a_killed_run_resumes_to_the_same_weights(config, monkeypatch, capsys):
    folder = Layout(config.results).encoder("half", 0)
    pretrain.run(config, **ONE)
    unbroken = {name: (folder / name).read_bytes() for name in ("encoder.safetensors", "history.csv", "encoder.json")}
    for name in unbroken:
        (folder / name).unlink()
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            pretrain.run(config, **ONE)
    assert not (folder / "encoder.safetensors").exists()
    capsys.readouterr()
    pretrain.run(config, **ONE)
    assert "resuming after epoch 2 of 3" in capsys.readouterr().out
    assert {name: (folder / name).read_bytes() for name in unbroken} == unbroken


def test_a_resume_file_of_other_settings_or_cut_short_is_not_used(config, monkeypatch, capsys):
    folder = Layout(config.results).encoder("half", 0)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            pretrain.run(config, **ONE)
    resume = folder / "resume.safetensors"
    resume.write_bytes(resume.read_bytes()[:-50])
    pretrain.run(config, **ONE)
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            pretrain.run(config, **ONE)
    config["pretrain"]["weight_decay"] = 0.1
    pretrain.run(config, **ONE)
    assert "resuming" not in capsys.readouterr().out


def test_seeds_differ_and_repeat(config):
    layout = Layout(config.results)
    for seed in (0, 1):
        pretrain.run(config, encoder="half", pretrain_seed=seed)
    first = sha256(layout.encoder("half", 0) / "encoder.safetensors")
    assert first != sha256(layout.encoder("half", 1) / "encoder.safetensors")
    pretrain.run(config, **ONE)
    assert sha256(layout.encoder("half", 0) / "encoder.safetensors") == first


def test_a_loss_that_is_not_finite_stops_with_a_sentence(config):
    config["pretrain"]["base_learning_rate"] = 1e30
    config["pretrain"]["warmup_epochs"] = 0
    with pytest.raises(UserError, match=r"pretrain half, epoch \d: the loss is (nan|inf); lower"):
        pretrain.run(config, **ONE)
    assert not (Layout(config.results).encoder("half", 0) / "encoder.safetensors").exists()


def test_mistakes_are_named(config):
    with pytest.raises(UserError, match=r"'scratch' is not an encoder that is pretrained.*half"):
        pretrain.run(config, encoder="scratch", pretrain_seed=0)
    pool = Layout(config.results).pool
    write_arrays(pool, {"images": np.zeros((1, 32, 32, 3), np.uint8)})
    with pytest.raises(UserError, match="holds 1 images"):
        pretrain.run(config, **ONE)
    pool.unlink()
    with pytest.raises(UserError, match=r"pool\.safetensors does not exist"):
        pretrain.run(config, **ONE)


def test_settings_follow_what_matters_only(config):
    before = digest.of(pretrain.settings(config, **ONE))
    config["finetune"]["epochs"] += 1
    config.data["device"] = "auto"
    assert digest.of(pretrain.settings(config, **ONE)) == before
    config["encoders"]["half"]["mask_ratio"] = 0.25
    assert digest.of(pretrain.settings(config, **ONE)) != before
