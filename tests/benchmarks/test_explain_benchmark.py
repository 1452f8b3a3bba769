"""The benchmark of explainers: counted passes, its columns, an explainer that does not apply."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from unmask import config as configs
from unmask import passes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    """The module `benchmarks/explain.py`, as when it is run from the root."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("explain_benchmark", ROOT / "benchmarks" / "explain.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr("stages.REPEATS", 1)
    monkeypatch.setattr(module, "SHORTEST", 0)
    return module


def rows(benchmark, monkeypatch, capsys, *arguments):
    """The printed rows by explainer, each a list of its cells."""
    given = ["--config", "config/smoke.yaml", "--images", "2", "--repeats", "1", *arguments]
    monkeypatch.setattr(sys, "argv", ["explain.py", *given])
    assert benchmark.main() == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("explainer"))
    return {line.split()[0]: line.split()[1:] for line in lines[head + 1 :]}


def test_it_prints_passes_efficiency_and_the_library_ratio(benchmark, monkeypatch, capsys):
    printed = rows(benchmark, monkeypatch, capsys, "--explainers", "saliency", "occlusion", "centre", "rise@token_drop")
    assert list(printed) == ["saliency", "occlusion", "centre", "rise@token_drop"]
    config = configs.load("config/smoke.yaml")
    patches = (config["image"]["size"] // config["image"]["patch"]) ** 2
    assert printed["saliency"][:3] == ["gradient", "0", "1"]
    assert printed["occlusion"][:3] == ["perturbation", str(patches + 1), "0"]
    assert printed["rise@token_drop"][1] == str(config.explainer("rise").options["masks"])
    for name in ("saliency", "occlusion"):  # captum is always there
        wall, seconds, best, efficiency, library, share = map(float, printed[name][3:])
        assert efficiency == pytest.approx(best / seconds, abs=0.1)
        assert share == pytest.approx(seconds / library, abs=0.1)
        assert wall > 0
    assert printed["centre"][1:3] == ["0", "0"]
    assert printed["centre"][6:] == ["-", "-", "-"]
    assert printed["rise@token_drop"][7:] == ["-", "-"]


def test_an_explainer_that_does_not_apply_costs_its_row(benchmark, monkeypatch, capsys):
    printed = rows(benchmark, monkeypatch, capsys, "--arch", "resnet", "--explainers", "chefer", "centre")
    assert "does not apply to the architecture resnet" in " ".join(printed["chefer"])
    assert printed["centre"][0] == "control"


def test_the_model_is_as_the_stage_loads_it(benchmark):
    given = benchmark.inputs(configs.load("config/smoke.yaml"), "vit", 3)
    assert not given.model.training
    assert not any(weight.requires_grad for weight in given.model.parameters())
    assert given.model.mask_token is not None
    assert (len(given.images), len(given.targets), len(given.masks)) == (3, 3, 3)
    assert not torch.equal(given.images[0], given.references[0])
    with passes.counted(given.model) as spent, torch.no_grad():
        given.model.pretraining.network.reconstruct(given.images, torch.ones(3, *given.model.grid, dtype=torch.bool))
    assert spent.forward == 3


def test_an_unknown_explainer_is_named(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["explain.py", "--config", "config/smoke.yaml", "--explainers", "salience"])
    assert benchmark.main() == 2
    assert "did you mean 'saliency'?" in capsys.readouterr().err
