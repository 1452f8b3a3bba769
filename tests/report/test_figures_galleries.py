"""Galleries: whose maps, on which images, on what scales, in how many parts."""

import numpy as np
import pandas as pd
import pytest
import synthetic

from unmask.figures import galleries, gallery, style
from unmask.layout import Layout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = synthetic.config(
        tmp_path_factory.mktemp("galleries"),
        domains=("rings",),
        encoders=("scratch", "m75"),
        report={"gallery_images": 2},
    )
    return synthetic.write(config)


def test_the_gallery_shows_images_with_evidence_of_the_best_model(run):
    accuracy = pd.DataFrame(
        [
            {"domain": m.domain, "encoder": m.encoder, "pretrain_seed": 0, "finetune_seed": 0, "val": 0.8}
            for m in run.models
        ]
    )
    model = galleries.best_model(accuracy, "rings")
    assert model.encoder == "scratch"  # equal in validation: the first
    columns, rows = galleries.maps(run, Layout(run.results), model)
    assert [column.name for column in columns] == ["sharp", "shifted", "weak", "random_toy", "oracle_toy"]
    assert [row["index"] for row in rows] == [1, 2]  # image 0 has the class without evidence


def test_best_model_goes_by_validation_accuracy():
    accuracy = pd.DataFrame(
        {
            "domain": "rings",
            "encoder": ["scratch", "m75"],
            "pretrain_seed": 0,
            "finetune_seed": 0,
            "val": [0.6, 0.7],
            "test": [0.9, 0.1],
        }
    )
    assert galleries.best_model(accuracy, "rings").encoder == "m75"


def test_a_gallery_is_split_between_families():
    columns = [
        gallery.Column(f"{f}{i}", False, None, family=f) for f, n in (("a", 9), ("b", 9), ("c", 33)) for i in range(n)
    ]
    parts = gallery.pages(columns)
    assert [len(part) for part in parts] == [9, 9, 11, 11, 11]
    assert [column for part in parts for column in part] == columns
    assert gallery.pages(columns[:4] + columns[-7:]) == [columns[:4] + columns[-7:]]


@pytest.mark.parametrize("label", ["hole", "microaneurysms", "a_class_with_quite_a_long_name", "m" * 60])
def test_a_full_gallery_fits_a_page(label):
    columns = [gallery.Column(f"e{i}", False, None, "skipped") for i in range(gallery.COLUMNS)]
    with style.styled():
        figure = gallery.draw(
            np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 16, 16), bool), [(label, True)] * 2, columns, "t"
        )
        figure.draw_without_rendering()
    width = figure.get_size_inches()[0]
    assert width <= style.PAGE + 1e-6
    cell = figure.axes[1].get_position()
    assert cell.width * width > 0.38, "inches"
    text = figure.axes[0].yaxis.label.get_window_extent()
    assert text.x0 >= 0, "the label is not cut"
    assert text.x1 <= figure.axes[0].get_window_extent().x0


def test_gallery_scales_and_grids():
    """A signed map is symmetric around 0, another starts at its minimum, a patch map keeps its grid."""
    rng = np.random.default_rng(0)
    signed, patch = rng.normal(1, 1, (1, 16, 16)), rng.random((1, 4, 4)) + 3
    masks = np.zeros((1, 16, 16), bool)
    masks[0, 2:5, 3:9] = True
    columns = [
        gallery.Column("a", True, signed),
        gallery.Column("b", False, patch),
        gallery.Column("c", False, None, "failed"),
    ]
    with style.styled():
        figure = gallery.draw(np.zeros((1, 16, 16, 3), np.uint8), masks, [("ring", True)], columns, "t")
    low, high = figure.axes[1].images[-1].get_clim()
    assert low == -high
    assert high == pytest.approx(np.quantile(np.abs(signed), 0.995))
    shown = figure.axes[2].images[-1]
    assert shown.get_array().shape == (4, 4)
    assert tuple(shown.get_extent()) == (-0.5, 15.5, 15.5, -0.5)
    assert shown.get_clim()[0] == patch.min()
    assert [text.get_text() for text in figure.axes[3].texts] == ["failed"]
    outline = figure.axes[0].lines[0].get_xydata()
    assert (np.nanmin(outline, 0).tolist(), np.nanmax(outline, 0).tolist()) == ([2.5, 1.5], [8.5, 4.5])
