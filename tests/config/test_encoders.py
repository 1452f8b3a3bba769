"""What each method of pretraining takes, and the mask ratios that are drawn from a range."""

import copy
from pathlib import Path

import numpy as np
import pytest
import yaml

from unmask.config import Config
from unmask.encoders import effective_ratio, series
from unmask.errors import UserError

BASE = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())


def with_encoders(**given) -> dict:
    data = copy.deepcopy(BASE)
    data["encoders"] = {"scratch": {"method": "scratch"}, **given}
    return data


@pytest.mark.parametrize(
    ("cells", "low", "high"), [(64, 0.2, 0.8), (16, 0.1, 0.9), (49, 0.3, 0.31), (4, 0.25, 0.75), (36, 1 / 3, 2 / 3)]
)
def test_the_effective_ratio_of_a_range_is_the_mean_share_of_masked_cells(cells, low, high):
    ratios = low + (high - low) * (np.arange(1_000_000) + 0.5) / 1_000_000
    expected = np.ceil(cells * ratios).mean() / cells
    assert effective_ratio(cells, [low, high]) == pytest.approx(expected, abs=1e-6)


def test_the_effective_ratio_of_a_range_by_hand():
    # Four cells, from 1 to 3 of them: half of the draws mask two, half of them three.
    assert effective_ratio(4, [0.25, 0.75]) == (2 + 3) / 2 / 4


def test_a_range_stands_beside_fixed_ratios():
    middle = effective_ratio(64, [0.25, 0.75])
    config = Config(
        with_encoders(
            drawn={"method": "simmim", "mask_ratio": [0.25, 0.75]},
            same={"method": "simmim", "mask_ratio": middle},
            other={"method": "mae", "mask_ratio": 0.75},
            third={"method": "simmim", "mask_ratio": 0.75},
            fourth={"method": "simmim_siamese", "mask_ratio": 0.75},
        )
    )
    assert config.mask_ratio("drawn") == middle == 0.5078125
    assert config.ratio_range("drawn") == (0.25, 0.75)
    assert config.ratio_range("same") is None
    words = "mask ratio drawn per image from 0.25 to 0.75, effective mean 0.508"
    assert config.ratio_words("drawn") == words
    assert config.ratio_words("third") == "effective mask ratio 0.75"
    assert config.ratio_words("scratch") == "no mask"
    doses = {name: series(spec) for name, spec in config["encoders"].items()}
    assert doses == {
        "scratch": None,
        "drawn": None,
        "same": "simmim",
        "other": "mae",
        "third": "simmim",
        "fourth": "simmim_siamese",
    }


def test_mae_masks_patches_where_simmim_masks_cells():
    data = with_encoders(
        mae={"method": "mae", "mask_ratio": 0.6},
        simmim={"method": "simmim", "mask_ratio": 0.6},
    )
    data["pretrain"]["mask_cell"] = 16
    config = Config(data)
    assert (config.mask_cell("mae"), config.mask_ratio("mae")) == (8, 39 / 64)
    assert (config.mask_cell("simmim"), config.mask_ratio("simmim")) == (16, 10 / 16)


def test_other_options_make_another_series():
    config = Config(
        with_encoders(
            a={"method": "mae", "mask_ratio": 0.5},
            b={"method": "mae", "mask_ratio": 0.5, "target": "pixels"},
            c={"method": "simmim_siamese", "mask_ratio": 0.5, "temperature": 0.5},
        )
    )
    assert [series(config["encoders"][name]) for name in "abc"] == [
        "mae",
        "mae target=pixels",
        "simmim_siamese temperature=0.5",
    ]


def test_defaults_are_filled_in_and_may_be_read_again(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    given = with_encoders(
        mae={"method": "mae", "mask_ratio": 0.75},
        brought={"method": "imported", "weights": str(weights), "architecture": "test_vit"},
        labels={"method": "supervised"},
    )
    config = Config(given)
    assert config["encoders"]["mae"]["decoder_depth"] == 2
    assert Config(config.data).data == config.data
    assert config.pretrained == ["mae", "brought", "labels"]
    assert config.masked == ["mae"]
    assert config.mask_ratio("labels") is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"method": "simmim", "mask_ratio": [0.8, 0.2]}, ["encoders.it.mask_ratio", "[0.8, 0.2]", "smaller one first"]),
        ({"method": "simmim", "mask_ratio": [0.8]}, ["encoders.it.mask_ratio", "not a range"]),
        ({"method": "simmim", "mask_ratio": [0, 0.8]}, ["encoders.it.mask_ratio", "between 0 and 1"]),
        ({"method": "simmim", "mask_ratio": [0.2, 0.5, 0.8]}, ["encoders.it.mask_ratio", "give two"]),
        ({"method": "simmim", "mask_ratio": ["a", "b"]}, ["encoders.it.mask_ratio", "'a'", "number"]),
        ({"method": "simmim", "mask_ratio": [0.5, 0.99]}, ["encoders.it.mask_ratio", "0.99", "masks all 64"]),
        ({"method": "simmim", "mask_ratio": [0.61, 0.62]}, ["encoders.it.mask_ratio", "40 of 64", "0.61"]),
        ({"method": "simmim", "mask_ratio": [0.1, 0.9]}, ["encoders.it.mask_ratio", "encoders.range", "too"]),
        ({"method": "mae", "mask_ratio": 0.999}, ["encoders.it.mask_ratio", "masks all 64"]),
        ({"method": "mae", "mask_ratio": 0.5, "decoder_width": 30}, ["encoders.it.decoder_width", "30", "28"]),
        ({"method": "mae", "mask_ratio": 0.5, "decoder_heads": 3}, ["encoders.it.decoder_width", "decoder_heads 3"]),
        ({"method": "mae", "mask_ratio": 0.5, "target": "pixel"}, ["encoders.it.target", "did you mean 'pixels'"]),
        ({"method": "mae"}, ["encoders.it", "mask_ratio", "missing"]),
        ({"method": "simmim", "mask_ratio": 0.5, "temperature": 1}, ["encoders.it.temperature", "simmim_siamese"]),
        ({"method": "simmim_siamese", "mask_ratio": 0.5, "temperature": 0}, ["encoders.it.temperature", "0"]),
        ({"method": "supervised", "mask_ratio": 0.5}, ["encoders.it.mask_ratio", "not to supervised", "remove"]),
        ({"method": "imported", "weights": "a.pth"}, ["encoders.it", "'architecture' is missing", "timm"]),
        (
            {"method": "imported", "weights": "no/such.pth", "architecture": "test_vit"},
            ["encoders.it.weights", "'no/such.pth' does not exist"],
        ),
        (
            {"method": "imported", "weights": "a.pth", "architecture": "test_vit", "pooling": "max"},
            ["encoders.it.pooling", "'max'"],
        ),
    ],
)
def test_each_mistake_is_one_sentence(spec, words):
    given = with_encoders(range={"method": "simmim", "mask_ratio": [0.1, 0.9]}, it=spec)
    with pytest.raises(UserError) as caught:
        Config(given)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_width_that_has_no_sines_and_cosines_is_refused_for_mae_alone():
    data = with_encoders(it={"method": "simmim", "mask_ratio": 0.5})
    data["model"] |= {"width": 30, "heads": 3}
    Config(data)
    data["encoders"]["it"]["method"] = "mae"
    with pytest.raises(UserError, match=r"model\.width: 30 is not a multiple of 4.*try 28"):
        Config(data)
