"""The benchmark of the leaderboards runs the stage on as many scores as it says."""

import importlib.util
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_it_times_the_stage(monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("aggregate_benchmark", ROOT / "benchmarks" / "aggregate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = {
        "domains": {"defect": {}},
        "encoders": {"scratch": {"method": "scratch"}},
        "explain": {"groups": {"one": ["saliency", "rise"], "two": ["random_patch", "oracle"]}},
        "score": {"metrics": ["pixel_flipping", "pointing_game"], "removals": ["mean", "zero"]},
        "aggregate": {"bootstrap": 100},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["aggregate.py", "--config", str(tmp_path / "config.yaml"), "--images", "12"])
    module.main()
    said = capsys.readouterr().out
    assert said.startswith(f"{12 * 4 * 3} scores")
    assert "CPU seconds" in said
