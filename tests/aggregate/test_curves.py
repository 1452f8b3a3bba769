"""Mean removal curves and their bands against plain means, scipy's bootstrap and planted shapes."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import synthetic

from unmask.errors import UserError
from unmask.files import write_table
from unmask.layout import Layout
from unmask.statistics.bootstrap import tails
from unmask.tables.curves import COLUMNS, DRAWS, mean_curves, read_curves

POINTS = 5


def traced(config, model, group, *, images=synthetic.IMAGES, points=POINTS, removals=("mean", "zero")):
    """A group's curves as stage 5 writes them; a curve of random orders comes with every group."""
    rng = np.random.default_rng(sum(map(ord, model.folder)))
    image = rng.normal(0.5, 0.1, images)
    rows = []
    for removal in removals:
        shape = {name: np.linspace(1, 0.1 * (i + 1), points) for i, name in enumerate(synthetic.EXPLAINERS)}
        for metric, names in (("pixel_flipping", config.groups[group]), ("random", [None])):
            for name in names:
                for i in range(images):
                    curve = image[i] * shape.get(name, np.linspace(1, 0.8, points))
                    rows.append(
                        {
                            "domain": model.domain,
                            "encoder": model.encoder,
                            "mask_ratio": None,
                            "pretrain_seed": model.pretrain_seed,
                            "finetune_seed": model.finetune_seed,
                            "explainer": name,
                            "metric": metric,
                            "removal": removal,
                            "image_id": f"test_{i:04d}",
                            "curve": curve.astype(np.float32),
                        }
                    )
    return pd.DataFrame(rows).astype({"explainer": object, "removal": object})


def write(config, **changes):
    for model in config.models:
        for group in config.groups:
            path = Layout(config.results).scores(model) / f"{group}.curves.parquet"
            write_table(path, traced(config, model, group, **changes))
    return config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write(synthetic.config(tmp_path_factory.mktemp("curves")))


@pytest.fixture(scope="module")
def table(config):
    return mean_curves(config, read_curves(config, Layout(config.results)))


def one(table, **keys):
    for name, value in keys.items():
        table = table[table[name].isna() if value is None else table[name] == value]
    return table


def test_random_orders_count_once_though_every_group_brings_them(config):
    curves = read_curves(config, Layout(config.results))
    random = curves[curves["metric"] == "random"]
    assert len(random) == len(config.models) * 2 * synthetic.IMAGES
    assert random["explainer"].isna().all()


def test_means_are_those_of_the_curves(config, table):
    curves = read_curves(config, Layout(config.results))
    assert list(table.columns) == COLUMNS
    for encoder in (None, "m25"):
        for name in ("sharp", "oracle_toy", None):
            own = one(curves, domain="rings", removal="zero", explainer=name)
            own = own if encoder is None else own[own["encoder"] == encoder]
            rows = one(table, domain="rings", removal="zero", explainer=name, encoder=encoder)
            np.testing.assert_allclose(rows["mean"], np.stack(own["curve"].to_list()).mean(0), rtol=1e-6)
            assert set(rows["n"]) == {len(own)}
            assert rows["step"].tolist() == list(range(POINTS))
            assert rows["removed"].tolist() == [0, 0.25, 0.5, 0.75, 1]
            assert set(rows["metric"]) == {"random" if name is None else "pixel_flipping"}


def test_the_band_is_the_bootstraps(config, table):
    curves = read_curves(config, Layout(config.results))
    own = one(curves, domain="bars", removal="mean", explainer="weak", encoder="scratch")
    values = np.stack(own["curve"].to_list())[:, 3].astype(float)
    level = 1 - 2 * float(tails(0.95, synthetic.IMAGES))
    expected = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=DRAWS * 20,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    row = one(table, domain="bars", removal="mean", explainer="weak", encoder="scratch", step=3).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected), abs=0.15 * (expected.high - expected.low))
    assert ((table["low"] <= table["mean"]) & (table["mean"] <= table["high"])).all()


def test_the_order_is_that_of_the_config(config, table):
    assert list(dict.fromkeys(table["domain"])) == list(config["domains"])
    first = one(table, domain="rings", metric="pixel_flipping", removal="mean")
    assert list(dict.fromkeys(first["encoder"].fillna("all"))) == ["all", *config["encoders"]]
    assert list(dict.fromkeys(first["explainer"])) == [e for group in config.groups.values() for e in group]


def test_missing_curves_are_not_averaged(config):
    curves = read_curves(config, Layout(config.results))
    gone = (curves["explainer"] == "sharp") & (curves["image_id"] < "test_0010") & (curves["encoder"] == "m25")
    nobody = (curves["explainer"] == "weak") & (curves["encoder"] == "m75")
    made = mean_curves(config, curves[~gone & ~nobody])
    rows = one(made, domain="rings", removal="mean", explainer="sharp", encoder="m25")
    assert set(rows["n"]) == {synthetic.IMAGES - 10}
    own = one(curves[~gone], domain="rings", removal="mean", explainer="sharp", encoder="m25")
    np.testing.assert_allclose(rows["mean"], np.stack(own["curve"].to_list()).mean(0), rtol=1e-6)
    assert one(made, explainer="weak", encoder="m75").empty
    assert set(one(made, domain="rings", removal="mean", explainer="weak", encoder=None)["n"]) == {2 * synthetic.IMAGES}


def test_removals_of_another_config_and_curves_that_remove_nothing_are_left_out(config):
    curves = read_curves(config, Layout(config.results))
    fewer = synthetic.Config({**config.data, "score": {**config["score"], "removals": ["zero"]}})
    assert set(mean_curves(fewer, curves)["removal"]) == {"zero"}
    layout = Layout(config.results)
    path = layout.scores(config.models[0]) / "first.curves.parquet"
    before = path.read_bytes()
    other = traced(config, config.models[0], "first", points=3).assign(metric="mprt", removal=None)
    write_table(path, pd.concat([traced(config, config.models[0], "first"), other], ignore_index=True))
    try:
        assert len(read_curves(config, layout)) == len(curves)
    finally:
        path.write_bytes(before)


def test_curves_of_two_runs_are_one_sentence(config):
    curves = read_curves(config, Layout(config.results))
    short = curves["encoder"] == "m25"
    mixed = curves.assign(curve=[c[:3] if s else c for c, s in zip(curves["curve"], short, strict=True)])
    with pytest.raises(UserError, match="have 3 and 5 points; delete 5_scores/rings"):
        mean_curves(config, mixed)


def test_without_curves_there_is_an_empty_table(tmp_path):
    empty = synthetic.config(tmp_path)
    made = mean_curves(empty, read_curves(empty, Layout(empty.results)))
    assert made.empty
    assert list(made.columns) == COLUMNS


def test_the_same_bytes_again(config, table):
    again = mean_curves(config, read_curves(config, Layout(config.results)))
    pd.testing.assert_frame_equal(table, again)
