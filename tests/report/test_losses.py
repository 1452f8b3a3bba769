"""The figure of the losses: every encoder's curves, as its histories have them, units apart."""

import numpy as np
import pandas as pd
import pytest

from unmask.config import Config
from unmask.figures import catalogue, losses, style
from unmask.figures.source import Source
from unmask.files import write_table
from unmask.layout import Layout

MASKED = {"mask_ratio": 0.5}


@pytest.fixture
def source(tmp_path):
    encoders = {"a": {"method": "simmim", **MASKED}, "b": {"method": "simmim", "mask_ratio": 0.75}}
    encoders |= {"mae": {"method": "mae", **MASKED}, "labels": {"method": "supervised"}, "none": {"method": "scratch"}}
    config = Config(
        {
            "results": str(tmp_path),
            "domains": {"defect": {}, "medical": {}},
            "encoders": encoders,
            "seeds": {"pretrain": [0, 1]},
            "explain": {"groups": {"one": ["saliency"]}},
            "score": {"metrics": ["sparseness"]},
        }
    )
    layout, draw = Layout(config.results), np.random.default_rng(0)
    folders = {layout.encoder(name, seed): "held_out_loss" for name in config.pretrained for seed in (0, 1)}
    folders |= {layout.model(model): "val_loss" for model in config.models if model.domain == "defect"}
    for folder, column in folders.items():
        table = pd.DataFrame({"epoch": range(1, 5), "loss": draw.random(4), column: draw.random(4)})
        write_table(folder / "history.csv", table)
    return Source(config, layout, {"accuracy": pd.DataFrame({"domain": ["defect"]})})


def drawn(source):
    (picture,) = losses.pictures(source)
    with style.styled():
        return picture.name, picture.draw()


def test_every_encoder_has_its_curves_in_the_panel_of_its_unit(source):
    name, figure = drawn(source)
    assert name == "losses"
    panels = {axes.get_title(loc="left").partition("\n")[0]: axes for axes in figure.axes}
    assert list(panels) == ["SimMIM", "MAE", "pretraining on labels", "fine-tuning, defect"], "medical has no histories"
    # An encoder has a line of what it trained on, and a dashed one of what was held out.
    assert [len(axes.lines) for axes in panels.values()] == [4, 2, 2, 10]
    tables = [pd.read_csv(source.layout.encoder("b", seed) / "history.csv") for seed in (0, 1)]
    for line, column in zip(panels["SimMIM"].lines[2:], ("loss", "held_out_loss"), strict=True):
        assert list(line.get_xdata()) == [1, 2, 3, 4]
        assert line.get_ydata() == pytest.approx((tables[0][column] + tables[1][column]) / 2)
    assert [text.get_text() for text in figure.legends[0].texts] == [
        *("a", "b", "mae", "labels", "none", "trained on", "held out")
    ]
    assert "the band of their range" in figure.get_suptitle()


def test_a_run_without_histories_has_no_such_figure(source):
    empty = Source(source.config, Layout(source.config.results / "elsewhere"), source.tables)
    assert list(losses.pictures(empty)) == []
    assert losses in catalogue.KINDS
