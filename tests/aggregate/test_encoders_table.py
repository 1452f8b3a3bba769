"""The table of encoders: means, intervals over seeds, and what stands in other tables."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from scipy import stats

from unmask import aggregate
from unmask.config import Config
from unmask.files import read_table, write_json
from unmask.layout import Layout
from unmask.tables import encoders
from unmask.tables.columns import BOARDS


def rows(values, pretrain, finetune):
    return pd.DataFrame({"pretrain_seed": pretrain, "finetune_seed": finetune, "test": values})


def test_the_interval_over_seeds_is_students():
    values = [0.7, 0.8, 0.75, 0.9]
    found = encoders.over_seeds(rows(values, [0] * 4, [0, 1, 2, 3]), 0.95)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found["accuracy"], found["seeds"]) == (pytest.approx(np.mean(values)), 4)
    assert (found["accuracy_low"], found["accuracy_high"]) == (pytest.approx(low), pytest.approx(high))


def test_models_of_one_pretraining_are_one_unit():
    found = encoders.over_seeds(rows([0.6, 0.8, 0.8, 1.0], [0, 0, 1, 1], [0, 1, 0, 1]), 0.9)
    low, high = stats.t.interval(0.9, 1, 0.8, stats.sem([0.7, 0.9]))
    assert (found["seeds"], found["accuracy_low"], found["accuracy_high"]) == (
        2,
        pytest.approx(low),
        pytest.approx(high),
    )


def test_one_seed_has_no_interval():
    assert encoders.over_seeds(rows([0.6, 0.8], [0, 0], [0, 0]), 0.95) == {"accuracy": 0.7, "seeds": 1}


def test_it_says_what_the_other_tables_and_the_side_cars_say(tmp_path):
    config = synthetic.config(tmp_path)
    drawn = {"drawn": {"method": "simmim", "mask_ratio": [0.2, 0.9]}}
    config = synthetic.write(Config({**config.data, "encoders": {**config["encoders"], **drawn}}))
    layout, facts = Layout(config.results), {"average_distance": 4.5, "effective_rank": 17.0}
    write_json(layout.encoder("drawn", 0) / "encoder.json", facts)
    aggregate.run(config)
    table = read_table(layout.leaderboards / "encoders.csv")
    assert list(table) == encoders.COLUMNS
    names = list(config["encoders"])
    assert table["encoder"].tolist() == names * (1 + len(config["domains"]))
    assert table["domain"].isna().sum() == len(names)
    row = table[table["domain"].isna()].set_index("encoder").loc["drawn"]
    assert (row["ratio_low"], row["ratio_high"], row["mask_ratio"]) == (
        0.2,
        0.9,
        pytest.approx(config.mask_ratio("drawn")),
    )
    assert (row["average_distance"], row["held_out_rank"]) == (4.5, 17)
    assert table.loc[table["encoder"] == "scratch", "average_distance"].isna().all()
    accuracy = read_table(layout.leaderboards / "accuracy.csv")
    domain = next(iter(config["domains"]))
    own = accuracy[(accuracy["encoder"] == "drawn") & (accuracy["domain"] == domain)]
    found = table[(table["encoder"] == "drawn") & (table["domain"] == domain)].iloc[0]
    assert found["accuracy"] == pytest.approx(own["test"].mean())
    # The table of scores over the mask ratio says of which encoders it is a mean.
    ratios = read_table(layout.leaderboards / "mask_ratio.csv")
    assert list(ratios) == BOARDS["mask_ratio"]
    assert (ratios.loc[ratios["encoder"] == "drawn", "ratio_high"] == 0.9).all()
    assert ratios.loc[ratios["encoder"] != "drawn", ["ratio_low", "ratio_high"]].isna().all(axis=None)


def test_probes_and_rank_are_those_of_the_last_layer():
    inside = pd.DataFrame(
        [("d", "e", "before", "linear_probe_accuracy", layer, None, 0.1 * layer, 0.0, 1.0, "ok") for layer in (0, 1, 2)]
        + [
            (None, "e", "after", "effective_rank", 2, None, 30.0, 28.0, 32.0, "ok"),
            (None, "e", "after", "effective_rank", 1, None, 99.0, 98.0, 100.0, "ok"),
            ("d", "e", "after", "knn_accuracy", None, None, np.nan, np.nan, np.nan, "skipped"),
        ],
        columns=["domain", "encoder", "phase", "quantity", "layer", "head", "value", "low", "high", "status"],
    )
    found = encoders._last_layers(inside)
    assert found["d", "e"] == {
        "linear_probe_before": 0.2,
        "linear_probe_before_low": 0.0,
        "linear_probe_before_high": 1.0,
    }
    assert found[None, "e"]["effective_rank_after"] == 30
