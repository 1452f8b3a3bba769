"""Verdicts at the gates: the whole interval beyond the level, on the other side, or neither."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from unmask.config import Config
from unmask.tables.gates import GATES, gates

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config():
    data = yaml.safe_load((ROOT / "config.yaml").read_text())
    return Config({**data, "score": {**data["score"], "metrics": ["mprt", "efficient_mprt", "sparseness"]}})


def board(rows):
    columns = ["metric", "explainer", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(n=4, failed=0, is_control=False, family="gradient")


def test_an_explainer_passes_only_with_its_whole_interval_beyond_the_level(config):
    nan = float("nan")
    rows = [
        ("mprt", "sure", 0.2, 0.1, 0.49),  # below .5 passes
        ("mprt", "wide", 0.2, -0.1, 0.51),
        ("mprt", "blind", 1.0, 0.9, 1.0),
        ("mprt", "nothing", nan, nan, nan),
        ("efficient_mprt", "sure", 0.2, 0.01, 0.3),  # above 0 passes
        ("efficient_mprt", "wide", 0.2, 0.0, 0.3),
        ("efficient_mprt", "blind", -0.2, -0.3, -0.1),
        ("sparseness", "sure", 0.2, 0.1, 0.3),  # no gate
    ]
    some = board(rows)
    table = gates(config, {"overall": some, "by_domain": some.assign(domain="d"), "leaderboard": some[:0]})
    assert list(table.columns) == GATES
    assert set(table["metric"]) == {"mprt", "efficient_mprt"}
    assert table["scope"].value_counts().to_dict() == {"all": 7, "domain": 7}
    found = table[table["scope"] == "all"].set_index(["metric", "explainer"])
    verdicts = found["verdict"].fillna("-")
    assert verdicts["mprt"].to_dict() == {"sure": "passed", "wide": "undecided", "blind": "failed", "nothing": "-"}
    assert verdicts["efficient_mprt"].to_dict() == {"sure": "passed", "wide": "undecided", "blind": "failed"}
    assert found.loc["mprt", "rule"].unique().tolist() == ["below 0.5"]
    assert found.loc["efficient_mprt", "rule"].unique().tolist() == ["above 0"]


def test_without_gates_the_table_is_empty():
    data = yaml.safe_load((ROOT / "config.yaml").read_text())
    plain = Config({**data, "score": {**data["score"], "metrics": ["sparseness"]}})
    assert gates(plain, dict.fromkeys(("overall", "by_domain", "leaderboard"), board([]))).empty
