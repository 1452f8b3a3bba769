"""Encoders of other methods, and ratios that each image draws, beside the fixed mask ratios of SimMIM."""

import numpy as np
import pandas as pd
import planted
import pytest

from unmask import questions
from unmask.config import Config

DOSES = ["simmim_30", "simmim_60", "simmim_75"]
MORE = {
    "range": {"method": "simmim", "mask_ratio": [0.2, 0.9]},
    "mae_50": {"method": "mae", "mask_ratio": 0.5},
    "mae_75": {"method": "mae", "mask_ratio": 0.75},
    "siamese": {"method": "simmim_siamese", "mask_ratio": 0.6},
    "labels": {"method": "supervised"},
    "conv": {"method": "resnet18"},
}


def effect(domain, encoder, explainer, metric, removal):
    """Goodness grows with the ratio of SimMIM, by 1 per unit; everything else is far off that line."""
    if encoder in DOSES:
        return planted.ENCODERS[encoder]
    return {"range": 9.0, "siamese": -9.0, "labels": 5.0, "mae_50": 3.0, "mae_75": 2.5}.get(encoder, 0.0)


def asked(config):
    accuracy = planted.accuracy(config, lambda domain, encoder: 0.5 + 0.04 * len(encoder))
    return questions.tables(config, planted.scores(config, effect), accuracy, {})


@pytest.fixture(scope="module")
def both():
    """The answers with SimMIM's fixed ratios alone, and with all other encoders beside them."""
    plain = planted.config()
    before = dict(planted.ENCODERS)
    planted.ENCODERS.update(dict.fromkeys(MORE, np.nan))
    whole = Config({**plain.data, "encoders": {**plain["encoders"], **MORE}})
    try:
        yield asked(plain), asked(whole), whole
    finally:
        planted.ENCODERS.clear()
        planted.ENCODERS.update(before)


def test_the_slope_of_simmim_is_over_its_fixed_ratios_alone(both):
    plain, whole, _ = both
    keys = ["scope", "domain", "metric", "removal", "images", "encoder"]
    numbers = ["estimate", "low", "high", "effect", "p", "n", "explainers", "accuracy"]
    found = [t["ratio_effects"].query("contrast == 'slope'") for t in (plain, whole)]
    own = found[1][found[1]["encoder"] == "simmim"]
    pd.testing.assert_frame_equal(
        found[0][[*keys, *numbers]].reset_index(drop=True), own[[*keys, *numbers]].reset_index(drop=True)
    )
    row = own.query("metric == 'sparseness' and scope == 'all' and images == 'all'").iloc[0]
    assert row["estimate"] == pytest.approx(0.1, abs=0.02), "1 per unit of the ratio, per .1"


def test_other_methods_have_slopes_of_their_own_where_they_have_two_fixed_ratios(both):
    _, whole, config = both
    table = whole["ratio_effects"]
    assert set(table.loc[table["contrast"] == "slope", "encoder"]) == {"simmim", "mae"}
    row = table.query("encoder == 'mae' and metric == 'sparseness' and scope == 'all' and images == 'all'").iloc[0]
    step = (config.mask_ratio("mae_75") - config.mask_ratio("mae_50")) / 0.1
    assert row["estimate"] == pytest.approx(-0.5 / step, abs=0.03)


def test_every_pretrained_encoder_is_set_against_scratch_as_a_condition_of_its_own(both):
    _, whole, _ = both
    rows = whole["ratio_effects"].query("contrast == 'difference' and metric == 'sparseness' and scope == 'all'")
    assert set(rows["encoder"]) == {*DOSES, *MORE} - {"conv"}, "a ResNet from scratch is not pretrained"
    assert set(rows["reference"]) == {"scratch"}
    by_encoder = rows[rows["images"] == "all"].set_index("encoder")["estimate"]
    assert by_encoder["range"] == pytest.approx(9, abs=0.1)
    assert by_encoder["siamese"] == pytest.approx(-9, abs=0.1)
    assert by_encoder["labels"] == pytest.approx(5, abs=0.1)


def test_hypotheses_about_the_dose_are_not_moved_by_other_encoders(both):
    plain, whole, _ = both
    tables = [t["hypotheses"].set_index("hypothesis") for t in (plain, whole)]
    doses = ["H7", "H11"]
    assert tables[0].loc[doses, "verdict"].ne("not measured").all()
    pd.testing.assert_frame_equal(tables[0].loc[doses], tables[1].loc[doses])
