"""A tiny benchmark on disk: two classes told apart by the place and colour of a square."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmask.config import Config
from unmask.files import write_arrays, write_json, write_table
from unmask.layout import Layout


def images(n, seed):
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pictures = draw.integers(0, 120, (n, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((n, 32, 32), dtype=bool)
    for row, label in enumerate(labels):
        masks[row, 8 * label : 8 * label + 8, 8:16] = True
    pictures[masks] = np.where(labels[:, None] == 0, [250, 0, 0], [0, 0, 250]).repeat(64, 0)
    return pictures, labels.astype(np.int64), masks


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    monkeypatch.chdir(tmp_path)
    built = Config(
        {
            "results": str(tmp_path / "results"),
            "device": "cpu",
            "image": {"size": 32, "patch": 8},
            "model": {"width": 24, "depth": 2, "heads": 3},
            "domains": {"defect": {}},
            "encoders": {"half": {"method": "simmim", "mask_ratio": 0.5}, "scratch": {"method": "scratch"}},
            "pretrain": {"epochs": 3, "batch": 16},
            "finetune": {"epochs": 4, "batch": 8, "warmup_epochs": 1, "base_learning_rate": 0.15},
            "explain": {"images": 4, "groups": {"one": ["saliency"]}},
            "score": {"metrics": ["sparseness"]},
        }
    )
    layout = Layout(built.results)
    folder = layout.domain("defect")
    for seed, (split, n) in enumerate({"train": 64, "val": 16, "test": 20}.items()):
        pictures, labels, masks = images(n, seed)
        write_arrays(
            folder / f"{split}.safetensors",
            {"images": pictures, "labels": labels, "masks": masks, "shortcut": np.zeros_like(masks)},
        )
        ids = [f"{split}-{i}" for i in range(n)]
        write_table(folder / f"{split}.csv", pd.DataFrame({"image_id": ids, "label": labels}))
    write_json(folder / "card.json", {"classes": ["up", "down"]})
    write_arrays(layout.pool, {"images": images(66, 9)[0]})
    assert Path(layout.pool).exists()
    return built
