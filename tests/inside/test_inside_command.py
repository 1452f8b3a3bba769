"""`unmask inside`, with a config and with a checkpoint alone."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from timm.layers import resample_abs_pos_embed

from unmask.cli import main
from unmask.config import ModelId
from unmask.domains._reading import Reader
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


@pytest.mark.parametrize("head", [True, False])
def test_weights_of_another_code_are_measured_by_their_architecture(pictures, tmp_path, capsys, head):
    torch.manual_seed(0)
    vit = timm.create_model("test_vit", num_classes=3)
    state = {f"module.{name}": weights for name, weights in vit.state_dict().items() if head or "head" not in name}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "theirs.pth")
    asked = ["--what", "attention,cka,missingness", "--output", str(tmp_path)]
    given = ["--model", str(tmp_path / "theirs.pth"), "--architecture", "test_vit", "--size", "64"]
    assert main(["inside", *given, "--images", str(pictures), *asked]) == 0
    assert ("missingness skipped: an encoder makes no decisions" in capsys.readouterr().out) == (not head)
    layers = pd.read_csv(tmp_path / "layers.csv").query("quantity == 'attention_entropy' and layer == 1")
    reader = Reader(64)
    for path in sorted(pictures.glob("*/*.png")):
        reader.add(path)
    images = torch.from_numpy(reader.images())
    mean, std = (torch.tensor(vit.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    own = timm.create_model("test_vit", num_classes=3, img_size=64).eval()
    own.load_state_dict({**vit.state_dict(), "pos_embed": resample_abs_pos_embed(vit.pos_embed.detach(), [4, 4])})
    with torch.inference_mode():
        tokens = own._pos_embed(own.patch_embed((images.permute(0, 3, 1, 2) / 255 - mean) / std))
        block = own.blocks[0]
        query, key, _ = block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, block.attn.num_heads, -1)).unbind(2)
        rows = torch.softmax(query.transpose(1, 2) @ key.permute(0, 2, 3, 1) * block.attn.scale, -1)[:, :, 1:, 1:]
        rows = rows / rows.sum(-1, keepdim=True)
        entropy = -(rows * rows.log()).sum(-1).mean((0, 2)) / math.log(rows.shape[-1])
    measured = layers[layers["head"].notna()].sort_values("head")["value"].to_numpy()
    assert measured == pytest.approx(entropy.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "has no side-car theirs.json beside it; for weights of another code give --architecture"),
        (["--size", "64"], "--size: a side-car says it"),
        (["--architecture", "test_vitt"], "--architecture: 'test_vitt' is no model of timm"),
        (["--architecture", "resnet18"], "theirs.pth does not fit the architecture: it lacks layer1.0.conv1.weight"),
    ],
)
def test_weights_that_cannot_be_read_are_one_sentence(pictures, tmp_path, capsys, given, sentence):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "theirs.pth")
    assert main(["inside", "--model", str(tmp_path / "theirs.pth"), "--images", str(pictures), *given]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


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
