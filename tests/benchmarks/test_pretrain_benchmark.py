"""The benchmark of pretraining: its loops do what the stage does, and its lines add up."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    """The module `benchmarks/pretrain.py`, as when it is run from the root."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("pretrain_benchmark", ROOT / "benchmarks" / "pretrain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_both_throughputs_and_where_the_rest_goes(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pretrain.py", "--config", "config/smoke.yaml", "--steps", "2", "--repeats", "2"])
    assert benchmark.main() == 0
    head, _, *lines, last = capsys.readouterr().out.splitlines()
    assert "2 steps of 32 images, fp32" in head
    rows = {line[:12].strip(): line[12:].split() for line in lines}
    assert list(rows) == ["training", "bare loop", "draws", "images", "clip", "losses", "rest"]
    seconds = {name: float(cells[-2]) for name, cells in rows.items()}
    assert float(rows["training"][0]) == pytest.approx(64 / seconds["training"], rel=0.02)
    assert sum(seconds.values()) - seconds["training"] == pytest.approx(seconds["training"], abs=0.01)
    assert rows["training"][-1] == "100.0%"
    assert last.startswith("training runs at ")
    assert last.endswith("over 2 runs; goal: 90%)")


def test_an_encoder_without_masks_is_refused(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pretrain.py", "--config", "config/smoke.yaml", "--encoder", "scratch"])
    assert benchmark.main() == 2
    assert "--encoder: 'scratch' fills in no masks; it must be one of" in capsys.readouterr().err
