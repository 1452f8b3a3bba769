"""A results folder made by the stages themselves on random models: a domain, two fine-tuning seeds, in seconds."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from unmask import aggregate, explain, manifest, score
from unmask.config import Config, ModelId
from unmask.files import write_arrays, write_json, write_table
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.models.classifier import build
from unmask.models.simmim import SimMIM, transfer

SIZE, COUNT, CLASSES = 16, 6, 3
VIT = {"size": SIZE, "patch": 8, "width": 8, "depth": 1, "heads": 1}
ENTRIES = ["saliency", "rise", "random_patch", "oracle"]
METRICS = ["pixel_flipping", "relevance_mass_accuracy", "max_sensitivity", "sparseness"]


def config(folder: Path) -> Config:
    """A config whose results lie in `folder`."""
    return Config(
        {
            "results": str(folder),
            "device": "cpu",
            "image": {"size": SIZE, "patch": 8},
            "domains": {"defect": {}},
            "encoders": {"plain": {"method": "scratch"}, "masked": {"method": "simmim", "mask_ratio": 0.5}},
            "seeds": {"finetune": [0, 1]},
            "pretrain": {"mask_cell": 8},
            "model": {name: VIT[name] for name in ("width", "depth", "heads")},
            "explain": {"images": COUNT, "groups": {"some": ENTRIES}, "options": {"rise": {"masks": 16}}},
            "score": {
                "metrics": METRICS,
                "removals": ["mean"],
                "options": {"max_sensitivity": {"samples": 2}},
                "judge": {"explainers": ["saliency", "random_patch"], "images": 2},
            },
            "aggregate": {"bootstrap": 100},
        }
    )


def make(folder: Path) -> Config:
    """Data and models, which are random, then stages 4 to 6 and the manifest."""
    made, layout = config(folder), Layout(folder)
    _data(layout.domain("defect"))
    write_arrays(layout.pool, {"images": np.zeros((1, SIZE, SIZE, 3), np.uint8)})
    encoder = layout.encoder("masked", 0) / "encoder.safetensors"
    torch.manual_seed(0)
    network = _random(SimMIM(**VIT))
    state = {name.removeprefix("encoder."): tensor for name, tensor in network.state_dict().items()}
    checkpoint.save(encoder, state, {"architecture": VIT, "nominal_mask_ratio": 0.5, "mask_cell": 8})
    for model in made.models:
        _model(layout.model(model), model, encoder)
    with contextlib.redirect_stdout(io.StringIO()):
        for model in made.models:
            seeds = {"pretrain_seed": model.pretrain_seed, "finetune_seed": model.finetune_seed}
            job = {"domain": model.domain, "encoder": model.encoder, **seeds, "group": "some"}
            explain.run(made, **job)
            score.run(made, **job)
        aggregate.run(made)
        manifest.run(made)
    return made


def _data(folder: Path) -> None:
    rng, masks = np.random.default_rng(0), np.zeros((8, SIZE, SIZE), bool)
    masks[:, 2:7, 3:9] = True
    masks[5] = False
    images = rng.integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    for split in ("train", "val", "test"):
        arrays = {"images": images, "labels": np.arange(8) % CLASSES, "masks": masks, "shortcut": masks & False}
        arrays |= {"concepts": np.zeros_like(masks)}
        write_arrays(folder / f"{split}.safetensors", arrays)
        write_table(folder / f"{split}.csv", pd.DataFrame({"image_id": [f"t{i}" for i in range(8)]}))
    write_arrays(folder / "unlabelled.safetensors", {"images": images})
    write_json(folder / "card.json", {"classes": ["none", "ring", "bar"]})


def _random(network: torch.nn.Module) -> torch.nn.Module:
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


def _model(folder: Path, model: ModelId, encoder: Path) -> None:
    torch.manual_seed(1 + model.finetune_seed)
    network = _random(build({**VIT, "classes": CLASSES}))
    if model.encoder == "masked":
        transfer(checkpoint.load_state(encoder), network)
    sidecar = {"architecture": {**VIT, "classes": CLASSES}, "accuracy": {"val": 0.5, "test": 0.5}}
    checkpoint.save(folder / "model.safetensors", network.state_dict(), sidecar)
    write_table(folder / "predictions.parquet", pd.DataFrame({"image_id": ["t0"], "prediction": [1]}))
