"""The benchmark of scoring: its tables, on the tiny model of the stage's tests."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from test_score_stage import config, prepared  # noqa: F401

from unmask.device import batch_size
from unmask.files import write_json

ROOT = Path(__file__).parents[2]
BATCH = batch_size(torch.device("cpu"))


@pytest.fixture
def benchmark(monkeypatch):
    """The module `benchmarks/score.py`, as when it is run from the root."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("score_benchmark", ROOT / "benchmarks" / "score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("stages.REPEATS", 1)
    return module


def output(benchmark, monkeypatch, capsys, folder, tmp_path, *arguments, **changes):
    write_json(tmp_path / "config.json", config(folder, **changes).data)
    monkeypatch.setattr(sys, "argv", ["score.py", "--config", str(tmp_path / "config.json"), *arguments])
    return benchmark.main(), capsys.readouterr()


def test_it_compares_with_quantus_and_shows_the_line(benchmark, monkeypatch, capsys, prepared, tmp_path):  # noqa: F811
    arguments = ["--explainers", "saliency", "oracle", "--images", "4", "--lengths", "2", "4"]
    metrics = ["pixel_flipping", "srg", "max_sensitivity", "pointing_game"]
    code, printed = output(benchmark, monkeypatch, capsys, prepared, tmp_path, *arguments, metrics=metrics)
    assert code == 0
    spent = re.search(r"for (\d+) scores, (\d+) forward and (\d+) backward", printed.out)
    scores, forward, backward = map(int, spent.groups())
    assert scores == 2 * 4 * 3 + 2 * 3  # the pointing game not on the misclassified image
    assert backward == 5 * 4
    forward -= 2 * BATCH  # the stage's forecast
    assert 0.7 * 2 * 2 * 4 * 4 < forward <= 2 * 2 * 4 * 4  # two explainers, two orders, four patches, four images
    rows = {line.split()[0]: line.split()[1:] for line in printed.out.splitlines() if line.strip()}
    assert rows["pixel_flipping"][0] == "2"
    assert int(rows["pixel_flipping"][2]) == 2 * 4 * (4 + 1)  # the plain loop's, from the whole image on
    assert float(rows["pixel_flipping"][-1]) < 1e-6
    assert float(rows["pointing_game"][-1]) == 0
    assert "Quantus has none that is sound: srg\n" in printed.out
    assert int(rows["4"][1]) - 2 * BATCH == pytest.approx(2 * (int(rows["2"][1]) - 2 * BATCH), rel=0.1)


def test_what_the_run_has_not_is_one_sentence(benchmark, monkeypatch, capsys, prepared, tmp_path):  # noqa: F811
    code, printed = output(benchmark, monkeypatch, capsys, prepared, tmp_path, "--explainers", "rise")
    assert code == 2
    assert "has no maps of 'rise'; it has saliency, oracle" in printed.err
    code, printed = output(benchmark, monkeypatch, capsys, prepared, tmp_path, "--domain", "medical")
    assert code == 2
    assert "no model of domain 'medical'" in printed.err
