"""Attention per head, patch filters and maps of the images."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from unmask import inside
from unmask.config import ModelId
from unmask.errors import Skip
from unmask.figures import heads as head_figures
from unmask.figures import image_maps as map_figures
from unmask.figures import style
from unmask.figures.source import Source
from unmask.files import read_arrays
from unmask.internals import pictures
from unmask.internals.planar import METHODS, planar
from unmask.layout import Layout
from unmask.models.resnet import ConvClassifier
from unmask.models.rules import attention_maps
from unmask.models.vit import Classifier
from unmask.tables.image_maps import COLUMNS, image_maps


def network(pooling="avg"):
    torch.manual_seed(0)
    model = Classifier(size=32, patch=8, width=12, depth=2, heads=3, classes=3, pooling=pooling).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.requires_grad_(False)


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_heads_are_what_the_decision_reads(pooling):
    model, images = network(pooling), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = pictures.heads(model, images)
    assert found.shape == (2, 2, 3, 4, 4)
    assert found.sum((-1, -2)) == pytest.approx(1)
    with attention_maps(model) as maps:
        model(images)
    row = maps[1][0, 2, 0, 1:] if pooling == "token" else maps[1][0, 2].mean(0)
    assert found[0, 1, 2].ravel() == pytest.approx((row / row.sum()).numpy(), abs=1e-6)
    with pytest.raises(Skip, match="no attention"):
        pictures.heads(ConvClassifier(size=32, patch=8, classes=2), images)


def test_filters_are_the_principal_components_of_the_first_layer():
    model = network()
    planted = torch.zeros(3, 8, 8)
    planted[0, :4] = 1  # the upper half, in red
    weight = model.backbone.patch_embed.proj.weight
    weight.data = 0.01 * weight + torch.linspace(-3, 3, 12).view(-1, 1, 1, 1) * planted
    found = pictures.filters(model, 5)
    assert found.shape == (5, 8, 8, 3)
    assert np.abs(found).max((1, 2, 3)) == pytest.approx(1)
    assert found.max((1, 2, 3)) == pytest.approx(1)
    assert found[0, :4, :, 0] == pytest.approx(1, abs=0.1)
    assert np.abs(found[0, 4:]).max() < 0.1
    assert pictures.filters(ConvClassifier(size=32, patch=8, classes=2)).shape == (12, 7, 7, 3)


def trustworthiness(high, low, k):
    """Venna & Kaski (2001), rank by rank."""
    n = len(high)
    ranks = cdist(high, high).argsort(1).argsort(1)
    near = cdist(low, low).argsort(1)[:, 1 : k + 1]
    penalty = sum(max(0, ranks[i, j] - k) for i in range(n) for j in near[i])
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * penalty


def test_maps_keep_groups_together_and_say_how_far_they_can_be_trusted():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = rng.normal(size=(60, 20)) + 9 * np.eye(20)[labels]
    made = planar(features, 1)
    assert list(made) == list(METHODS)
    for points, quality in made.values():
        assert points.shape == (60, 2)
        assert quality == pytest.approx(trustworthiness(features, points.astype(float), 5), abs=1e-3)
        apart = cdist(points, points)
        same = labels[:, None] == labels[None]
        assert apart[same].mean() < 0.5 * apart[~same].mean()
    again = planar(features, 1)
    assert all(np.array_equal(made[name][0], again[name][0]) for name in METHODS)


def test_pca_is_numpys():
    features = np.random.default_rng(1).normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1]
    centred = features - features.mean(0)
    left, sigma, _ = np.linalg.svd(centred, full_matrices=False)
    points = planar(features, 0)["PCA"][0]
    assert np.abs(points) == pytest.approx(np.abs(left[:, :2] * sigma[:2]), rel=1e-4)


@pytest.fixture(scope="module")
def config(made):
    found = made(encoders=("half", "scratch", "convolution"))
    for encoder in found["encoders"]:
        inside.run(found, domain="defect", encoder=encoder, pretrain_seed=0, finetune_seed=0)
    return found


def stored(config, encoder):
    return read_arrays(Layout(config.results).inside(ModelId("defect", encoder, 0, 0)) / "pictures.safetensors")


def test_the_stage_keeps_them(config):
    arrays = stored(config, "half")
    names = {f"{name}_{phase}" for name in ("heads", "filters", "features") for phase in ("before", "after")}
    assert set(arrays) == {*names, "labels"}
    assert arrays["heads_after"].shape == (4, 2, 2, 4, 4)
    assert arrays["features_before"].shape == (12, 12)
    assert not any(name.startswith("heads") for name in stored(config, "convolution"))


def test_the_table_has_a_map_per_network_method_and_image(config):
    table = image_maps(config, Layout(config.results))
    assert list(table.columns) == COLUMNS
    assert set(table["scope"]) == {"domain"}, "of one domain there is nothing to join"
    sizes = table.groupby(["encoder", "phase", "method"]).size()
    assert len(sizes) == 3 * 2 * 2
    assert set(sizes) == {12}
    assert table.to_csv() == image_maps(config, Layout(config.results)).to_csv()


def test_without_the_stage_there_are_no_maps(tmp_path, config):
    assert image_maps(config, Layout(tmp_path)).empty


def test_domains_are_joined_before_fine_tuning(tmp_path, config):
    from shutil import copytree

    from unmask.config import Config

    two = Config({**config.data, "results": str(tmp_path), "domains": {"defect": {}, "medical": {}}})
    for domain in two["domains"]:
        for encoder in two["encoders"]:
            source = Layout(config.results).inside(ModelId("defect", encoder, 0, 0))
            copytree(source, Layout(tmp_path).inside(ModelId(domain, encoder, 0, 0)))
    table = image_maps(two, Layout(tmp_path))
    together = table[table["scope"] == "all"]
    assert set(together["encoder"]) == {"half"}, "models from scratch have no encoder in common"
    assert set(together["phase"]) == {"before"}
    assert together.groupby(["method", "domain"]).size().tolist() == [12] * 4
    drawn = [one.name for one in map_figures.pictures(Source(two, Layout(tmp_path), {"image_maps": table}))]
    assert drawn == ["image_maps_defect", "image_maps_medical", "image_maps"]


def test_figures_fit_a_page_and_show_the_encoders_that_have_attention(config):
    layout = Layout(config.results)
    arrays = read_arrays(layout.domain("defect") / "test.safetensors")
    from unmask.files import write_arrays

    masks = np.zeros(arrays["images"].shape[:3], bool)
    write_arrays(layout.domain("defect") / "test.safetensors", {**arrays, "masks": masks})
    tables = {"image_maps": image_maps(config, layout), "accuracy": pd.DataFrame()}
    source = Source(config, layout, tables)
    found = {one.name: one for kind in (head_figures, map_figures) for one in kind.pictures(source)}
    assert list(found) == ["heads_defect", "filters", "image_maps_defect"]
    with style.styled():
        for one in found.values():
            assert one.draw().get_size_inches()[0] <= style.PAGE + 1e-6
        figure = found["heads_defect"].draw()
        assert [text.get_text() for text in figure.texts if text is not figure._suptitle] == ["half", "scratch"]
        assert len(figure.axes) == 2 * (1 + 2 * 2)


def test_of_many_blocks_and_heads_some_are_shown():
    many = head_figures._chosen(np.zeros((12, 12, 4, 4)))
    assert len(many) <= head_figures.TILES
    assert many[0][0] == "1.1"
    assert many[-1][0].startswith("12.")
    assert [label for label, _ in head_figures._chosen(np.zeros((4, 3, 4, 4)))][:4] == ["1.1", "1.2", "1.3", "2.1"]
