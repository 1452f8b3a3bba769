"""Checkpoints cut short or of another architecture: one sentence with the file's name, and nothing finished is lost."""

import pytest

from unmask import explain, finetune, inside, pretrain
from unmask.config import ModelId
from unmask.errors import UserError
from unmask.files import read_json, write_json
from unmask.layout import Layout

JOB = {"domain": "defect", "encoder": "half", "pretrain_seed": 0, "finetune_seed": 0}


@pytest.fixture
def trained(config):
    config["pretrain"]["epochs"] = config["finetune"]["epochs"] = 1
    config["explain"]["groups"]["one"] = ["saliency", "reconstruction_error"]
    config["inside"]["what"] = ["rank"]
    pretrain.run(config, encoder="half", pretrain_seed=0)
    finetune.run(config, **JOB)
    return config


def paths(config):
    layout = Layout(config.results)
    return layout.encoder("half", 0) / "encoder.safetensors", layout.model(ModelId(**JOB)) / "model.safetensors"


def said(run, *arguments, **named):
    with pytest.raises(UserError) as caught:
        run(*arguments, **named)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 600
    return sentence


def test_a_truncated_checkpoint_is_named_and_what_to_do_with_it(trained):
    encoder, model = paths(trained)
    finished = model.read_bytes()
    encoder.write_bytes(encoder.read_bytes()[:-100])
    sentence = said(finetune.run, trained, **JOB)
    assert sentence.startswith(f"{encoder} is not a whole safetensors checkpoint")
    assert sentence.endswith("delete it and train again")
    assert model.read_bytes() == finished, "the model that was there is there still"
    model.write_bytes(finished[: len(finished) // 2])
    for run in (lambda: explain.run(trained, **JOB, group="one"), lambda: inside.run(trained, **JOB)):
        sentence = said(run)
        assert sentence.startswith(f"{model} is not a whole safetensors checkpoint")
        assert sentence.endswith("delete it and train again")


def test_a_checkpoint_of_another_architecture_is_named_with_what_differs(trained):
    encoder, model = paths(trained)
    finished = model.read_bytes()
    trained["model"]["width"] = 48
    sentence = said(finetune.run, trained, **JOB)
    assert sentence.startswith(f"{encoder} does not fit the model in the config: the encoder has")
    assert "backbone.blocks.0.attn.qkv.bias (72,) for (144,) ..." in sentence
    assert "sizes that it was pretrained with, or run the stage pretrain again" in sentence
    trained["model"].update(width=24, depth=3)
    assert "the encoder lacks backbone.blocks.2" in said(finetune.run, trained, **JOB)
    assert model.read_bytes() == finished
    sidecar = read_json(model.with_suffix(".json"))
    sidecar["architecture"]["width"] = 48
    write_json(model.with_suffix(".json"), sidecar)
    for run in (lambda: explain.run(trained, **JOB, group="one"), lambda: inside.run(trained, **JOB)):
        sentence = said(run)
        assert sentence.startswith(f"{model} does not fit the architecture in its side-car: it has shapes")
        assert "(1, 16, 24) for (1, 16, 48)" in sentence
