"""Models of random weights with their data and encoders, as the stages before leave them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from unmask import interventions
from unmask.config import Config
from unmask.domains import Intervention, Split
from unmask.files import read_arrays, write_arrays, write_json, write_table
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.models.classifier import build
from unmask.models.simmim import SimMIM, transfer

FEW = {"vectors": 3, "random_vectors": 5, "steps": 2, "factors": 3}
SIZE, TEST, TRAIN = 32, 15, 60
ENCODERS = {
    "half": {"method": "simmim", "mask_ratio": 0.5},
    "most": {"method": "simmim", "mask_ratio": 0.8},
    "scratch": {"method": "scratch"},
    "convolution": {"method": "resnet18"},
}


def configuration(folder, *, encoders=("half", "scratch"), pooling="avg", seeds=(0,), plugins=(), **inside) -> Config:
    return Config(
        {
            "results": str(folder),
            "device": "cpu",
            "image": {"size": SIZE, "patch": 8},
            "domains": {"defect": {}},
            "model": {"width": 12, "depth": 2, "heads": 2, "pooling": pooling},
            "encoders": {name: ENCODERS[name] for name in encoders},
            "seeds": {"finetune": list(seeds)},
            "plugins": [str(path) for path in plugins],
            "explain": {"images": 4, "groups": {"one": ["saliency"]}},
            "score": {"metrics": ["sparseness"]},
            "inside": {"images": 12, "train": 20, "neighbours": 3, **FEW, **inside},
            "aggregate": {"bootstrap": 200},
        }
    )


def with_factors(images: np.ndarray, labels: np.ndarray, draw: np.random.Generator) -> Split:
    """A split whose five factors every image has: other noise in a part of it."""
    changed = {name: images.copy() for name in ("evidence", "seam", "shadow", "pit", "background")}
    for part, pixels in enumerate(changed.values()):
        pixels[:, 6 * part : 6 * part + 6] ^= draw.integers(1, 256, pixels[:, :6].shape, np.uint8)
    found = {
        name: Intervention(pixels, np.where(labels > 0, labels, -1) if name == "evidence" else None)
        for name, pixels in changed.items()
    }
    nothing = np.zeros(images.shape[:3], bool)
    return Split(images, labels, nothing, nothing, [], [], {}, found)


def _masks(labels) -> dict[str, np.ndarray]:
    """Evidence of two classes in a patch of its own, and a distractor on every other image."""
    masks, distractor = (np.zeros((len(labels), SIZE, SIZE), bool) for _ in range(2))
    for i, label in enumerate(labels):
        row, column = 8 * (i % 4), 8 * (i // 4 % 4)
        masks[i, row : row + 8, column : column + 8] = label > 0
        distractor[i, 24 - row : 30 - row, :8] = i // 3 % 2
    return {"masks": masks, "shortcut": np.zeros_like(masks), "concepts/smudge": distractor & ~masks}


def prepare(config: Config) -> Config:
    """Write random images, and a model of random weights for every cell of the config."""
    layout, draw = Layout(config.results), np.random.default_rng(0)
    folder = layout.domain("defect")
    for split, count in {"train": TRAIN, "test": TEST}.items():
        labels = np.arange(count) % 3
        write_arrays(
            folder / f"{split}.safetensors",
            {"images": draw.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8), "labels": labels, **_masks(labels)},
        )
        write_table(folder / f"{split}.csv", pd.DataFrame({"image_id": [f"{split}{i}" for i in range(count)]}))
    test = read_arrays(folder / "test.safetensors")
    interventions.write(folder / "interventions.safetensors", with_factors(test["images"], test["labels"], draw))
    architecture = {**config["image"], **config["model"]}
    for name in config.pretrained:
        torch.manual_seed(list(config["encoders"]).index(name))
        network = SimMIM(**architecture)
        state = {**network.encoder.state_dict(), **{f"decoder.{k}": v for k, v in network.decoder.state_dict().items()}}
        ratio = config["encoders"][name]["mask_ratio"]
        checkpoint.save(
            layout.encoder(name, 0) / "encoder.safetensors",
            state,
            {
                "architecture": architecture,
                "method": "simmim",
                "mask_ratio": config.mask_ratio(name),
                "nominal_mask_ratio": ratio,
                "mask_cell": 8,
            },
        )
    for model_id in config.models:
        torch.manual_seed(7 + model_id.finetune_seed)
        own = {"arch": "resnet", **config["image"]} if model_id.encoder == "convolution" else architecture
        model = build({**own, "classes": 3})
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)  # so that attention is far from even
        if model_id.encoder in config.pretrained:
            encoder = checkpoint.load_state(layout.encoder(model_id.encoder, 0) / "encoder.safetensors")
            transfer(encoder, model)
        checkpoint.save(
            layout.model(model_id) / "model.safetensors",
            model.state_dict(),
            {"architecture": {**own, "classes": 3}, "accuracy": {"val": 0.5, "test": 0.5}},
        )
    write_json(folder / "card.json", {"classes": ["a", "b", "c"]})
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`made(**options)` gives the config of a prepared folder."""
    return lambda **options: prepare(configuration(tmp_path_factory.mktemp("results"), **options))
