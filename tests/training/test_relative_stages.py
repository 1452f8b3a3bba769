"""Encoders with relative positions through the stages: trained here, and brought in from an official checkpoint."""

import pytest
import torch

from unmask import explain, finetune, pretrain, subject
from unmask.config import ModelId
from unmask.files import read_arrays, read_json
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.models.simmim import SimMIM

ENTRIES = [
    *("saliency", "grad_cam", "chefer", "attn_lrp", "reconstruction_error"),
    *("occlusion@token_drop", "occlusion@mask_token", "occlusion@inpaint"),
]


@pytest.fixture
def bench(config):
    config.data["model"]["position"] = "relative"
    config.data["pretrain"]["epochs"] = config.data["finetune"]["epochs"] = 1
    config.data["explain"]["groups"] = {"one": ENTRIES}
    return config


def encoder(config, name):
    pretrain.run(config, encoder=name, pretrain_seed=0)
    return Layout(config.results).encoder(name, 0) / "encoder.safetensors"


def explained(config, name):
    """The fine-tuned model, and how each explainer fared."""
    job = {"domain": "defect", "encoder": name, "pretrain_seed": 0, "finetune_seed": 0}
    finetune.run(config, **job)
    explain.run(config, **job, group="one")
    model, sidecar = subject.load_model(config, ModelId(**job), torch.device("cpu"))
    index = read_json(Layout(config.results).maps(ModelId(**job)) / "one.json")
    return model, sidecar, {record["name"]: record["status"] for record in index["explainers"]}


def test_an_encoder_is_pretrained_fine_tuned_and_explained(bench):
    path = encoder(bench, "half")
    assert read_json(path.with_suffix(".json"))["architecture"]["position"] == "relative"
    table = read_arrays(path)["backbone.rel_pos_bias.relative_position_bias_table"]
    assert table.shape == (7 * 7 + 3, 3)
    assert table.any(), "training moves the biases"
    model, sidecar, statuses = explained(bench, "half")
    assert sidecar["architecture"]["position"] == "relative"
    assert (model.prefix, model.pooling, model.backbone.pos_embed) == (1, "avg", None)
    assert statuses == dict.fromkeys(ENTRIES, "ok")


def test_an_official_checkpoint_is_fine_tuned_and_explained_with_its_network(bench, tmp_path):
    torch.manual_seed(0)
    network = SimMIM(**bench["image"], **bench["model"])
    state = {name: tensor for name, tensor in checkpoint.network_state(network).items() if "normalise." not in name}
    decoder = {name: tensor for name, tensor in state.items() if name.startswith("decoder.")}
    inner = {f"encoder.{name.removeprefix('backbone.')}": state[name] for name in state if name not in decoder}
    torch.save({"model": inner | decoder}, tmp_path / "official.pth")
    entry = {"method": "imported", "weights": str(tmp_path / "official.pth"), "architecture": "simmim_vit"}
    bench.data["model"] = {**bench.data["model"], "width": 48, "position": "absolute"}  # of no weight for an import
    bench.data["encoders"] = {"stated": {**entry, "mask_ratio": 0.6, "mask_cell": 16}, "alone": entry}
    path = encoder(bench, "stated")
    sidecar = read_json(path.with_suffix(".json"))
    assert (sidecar["method"], sidecar["nominal_mask_ratio"], sidecar["mask_cell"]) == ("simmim", 0.6, 16)
    assert sidecar["mask_ratio"] == bench.mask_ratio("stated") == 0.75  # 3 of 4 cells, since they are rounded up
    assert sidecar["average_distance"] > 0
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(checkpoint.load_encoder(path).backbone(images), network.eval().encoder.backbone(images))
    model, sidecar, statuses = explained(bench, "stated")
    assert (sidecar["method"], sidecar["mask_ratio"]) == ("simmim", 0.75)
    assert statuses == dict.fromkeys(ENTRIES, "ok")
    assert (model.pretraining.mask_ratio, model.pretraining.mask_cell) == (0.6, 16)
    assert torch.equal(model.mask_token, network.encoder.mask_token)

    encoder(bench, "alone")
    model, sidecar, statuses = explained(bench, "alone")
    assert (sidecar["method"], sidecar["mask_ratio"], model.pretraining) == ("imported", None, None)
    assert torch.equal(model.mask_token, network.encoder.mask_token)
    assert {name for name, status in statuses.items() if status == "skipped"} == {
        "reconstruction_error",
        "occlusion@inpaint",
    }
