"""The convergence study: its ladder, correlations against chance and truth, explainers that do not apply."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from unmask import files
from unmask.config import ModelId
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.models.vit import Classifier

ROOT = Path(__file__).parents[2]
ARCHITECTURE = {"size": 32, "patch": 8, "width": 16, "depth": 2, "heads": 2, "classes": 3, "pooling": "avg"}


@pytest.fixture
def study(monkeypatch, tmp_path, capsys):
    """`study(*arguments)` runs the script on a tiny model: exit code, rows by explainer, errors."""
    spec = importlib.util.spec_from_file_location("convergence", ROOT / "benchmarks" / "convergence.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    layout, rng = Layout(tmp_path), np.random.default_rng(0)
    for split in ("train", "test"):
        arrays = {"images": rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8), "labels": np.arange(9) % 3}
        files.write_arrays(layout.domain("defect") / f"{split}.safetensors", arrays)
    torch.manual_seed(0)
    model = Classifier(**ARCHITECTURE)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    path = layout.model(ModelId("defect", "scratch", 0, 0)) / "model.safetensors"
    checkpoint.save(path, model.state_dict(), {"architecture": ARCHITECTURE, "mask_ratio": None})
    given = {
        "results": str(tmp_path),
        "device": "cpu",
        "domains": {"defect": {}},
        "encoders": {"scratch": {"method": "scratch"}},
        "image": {"size": 32, "patch": 8},
        "explain": {"groups": {"all": ["rise"]}, "options": {"rise": {"masks": 64}}},
        "score": {"metrics": ["pixel_flipping"], "removals": ["mean"], "options": {"pixel_flipping": {"step": 4}}},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(given))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["convergence.py", "--config", str(tmp_path / "config.yaml"), *arguments])
        code, (out, err) = module.main(), capsys.readouterr()
        table = [line.split() for line in out.splitlines()]
        return code, [cells for cells in table if cells and cells[0] in ("rise", "integrated_gradients")], err

    return run


def test_maps_come_to_agree_as_samples_grow(study):
    code, rows, _ = study("--images", "3", "--explainers", "rise", "--long", "16")
    assert code == 0
    assert [int(cells[1]) for cells in rows] == [1024, 8, 16, 32, 64, 128]
    assert [int(cells[2]) for cells in rows] == [1024, 8, 16, 32, 64, 128]
    (_, _, _, itself, nothing, area, excess, error), *rest = rows
    assert (itself, nothing, excess, error) == ("1.000", "-", "0.000", "0.000")
    long, other = ([float(cells[column]) for cells in rest] for column in (3, 4))
    assert long[0] < long[-1] < 1
    assert other[0] < other[-1] < long[-1]  # two noisy maps agree less than a noisy one with the truth
    for cells in rest:
        assert float(cells[5]) - float(area) == pytest.approx(float(cells[6]), abs=0.0011)


def test_without_draws_there_is_no_other_seed(study):
    code, rows, _ = study("--images", "2", "--explainers", "integrated_gradients")
    assert code == 0
    assert [int(cells[1]) for cells in rows] == [256, 4, 8, 16, 32, 64]
    assert {cells[4] for cells in rows} == {"-"}
    assert float(rows[-1][3]) > 0.99


def test_what_takes_no_samples_and_unknown_names_are_users_mistakes(study):
    code, rows, error = study("--explainers", "grad_cam")
    assert (code, rows) == (2, [])
    assert "grad_cam takes no number of samples" in error
    assert "'road' is not in the config; it has defect" in study("--domain", "road")[2]
