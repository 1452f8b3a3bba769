"""`unmask inside`, with a config and with a checkpoint alone."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unmask.cli import main
from unmask.config import ModelId
from unmask.files import read_json, read_table, write_json
from unmask.layout import Layout


@pytest.fixture(scope="module")
def config(made):
    found = made(encoders=("half", "scratch"))
    for model in found.models:  # as the stage finetune describes a model
        path = Layout(found.results).model(model) / "model.json"
        sidecar = {**read_json(path), "classes": ["a", "b", "c"], "domain": model.domain, "encoder": model.encoder}
        write_json(path, {**sidecar, "pretrain_seed": 0, "finetune_seed": 0})
    return found


def checkpoint(config, encoder="half"):
    return str(Layout(config.results).model(ModelId("defect", encoder, 0, 0)) / "model.safetensors")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        part = folder / "abc"[i % 3]
        part.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(part / f"{i}.png")
    return folder


def test_the_stages_command_writes_what_the_stage_writes(config, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.data))
    assert main(["inside", "--config", str(path), "--domain", "defect", "--encoder", "scratch"]) == 0
    assert len(read_table(Layout(config.results).inside(ModelId("defect", "scratch", 0, 0)) / "layers.parquet"))


def test_a_model_in_a_results_folder_is_measured_on_its_own_test_split(config, tmp_path, capsys):
    assert main(["inside", "--model", checkpoint(config), "--output", str(tmp_path), "--most", "9"]) == 0
    said = capsys.readouterr().out
    assert "9 images of" in said
    assert "test.safetensors" in said
    layers = pd.read_csv(tmp_path / "layers.csv")
    assert {"linear_probe_accuracy", "attribution_agreement", "mask_token_distance"} <= set(layers["quantity"])
    assert (layers["n"] == 9).all()
    assert ((layers["low"] <= layers["value"]) & (layers["value"] <= layers["high"])).all()
    assert pd.read_csv(tmp_path / "cka.csv").query("layer_a == layer_b")["value"].to_numpy() == pytest.approx(1)
    assert {"accuracy", "class_entropy"} <= set(pd.read_csv(tmp_path / "missingness.csv")["quantity"])
    effects = pd.read_csv(tmp_path / "causes.csv").query("quantity == 'effect_logit'")
    assert set(effects["factor"]) == {"evidence", "seam", "shadow", "pit", "background"}
    assert (effects["n"] == 9).all()


def test_what_is_asked_for_is_measured_and_nothing_else(config, tmp_path, capsys):
    assert main(["inside", "--model", checkpoint(config), "--what", "attention,cka", "--output", str(tmp_path)]) == 0
    assert {"attention_entropy", "head_divergence"} <= set(pd.read_csv(tmp_path / "layers.csv")["quantity"])
    assert "effective_rank" not in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "missingness.csv").empty


def test_a_checkpoint_from_elsewhere_is_measured_on_a_folder_of_images(config, pictures, tmp_path, capsys):
    from shutil import copy

    for suffix in ("safetensors", "json"):
        copy(checkpoint(config).replace("safetensors", suffix), tmp_path)
    model = str(tmp_path / "model.safetensors")
    assert main(["inside", "--model", model, "--images", str(pictures), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "linear probe accuracy skipped: there are no labelled images" in said
    assert "inpaint skipped" in said
    curves = pd.read_csv(tmp_path / "out" / "missingness.csv")
    assert "accuracy" in set(curves["quantity"]), "subfolders that are named after classes are labels"
    assert main(["inside", "--model", model]) == 2
    assert "--images: name a folder of images" in capsys.readouterr().err


def test_images_of_unknown_classes_have_no_accuracy(config, pictures, tmp_path):
    (tmp_path / "images").mkdir()
    for i, path in enumerate(sorted(pictures.glob("*/*.png"))):
        (tmp_path / "images" / f"{i}.png").write_bytes(path.read_bytes())
    arguments = ["--images", str(tmp_path / "images"), "--what", "missingness", "--output", str(tmp_path)]
    assert main(["inside", "--model", checkpoint(config), *arguments]) == 0
    curves = pd.read_csv(tmp_path / "missingness.csv")
    assert set(curves["quantity"]) == {
        "class_entropy", "feature_distance", "prediction_entropy", "unchanged_prediction",
    }  # fmt: skip


def test_a_pretrained_encoder_is_measured_too(config, pictures, capsys):
    encoder = str(Layout(config.results).encoder("half", 0) / "encoder.safetensors")
    assert main(["inside", "--model", encoder, "--images", str(pictures)]) == 0
    said = capsys.readouterr().out
    assert "mask_token_distance" in said
    assert "missingness skipped: an encoder makes no decisions" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--what", "attentions"], "--what: unknown 'attentions'; did you mean 'attention'?"),
        (["--domain", "defect"], "--model: it stands alone"),
        (["--images", "nowhere"], "the folder 'nowhere' does not exist"),
        (["--most", "3"], "5 or more are needed"),
        (["--device", "tpu"], "'tpu' is not a torch device"),
    ],
)
def test_mistakes_are_one_sentence(config, capsys, arguments, sentence):
    assert main(["inside", "--model", checkpoint(config), *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_without_a_model_a_cell_must_be_named(capsys, tmp_path):
    assert main(["inside"]) == 2
    assert "--domain, --encoder" in capsys.readouterr().err
    assert main(["inside", "--model", str(tmp_path / "none.safetensors")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["inside", "--domain", "a", "--encoder", "b", "--what", "cka"]) == 2
    assert "go with --model" in capsys.readouterr().err
