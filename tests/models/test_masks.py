"""Masks whose ratio each image draws, and how far the masked pixels lie from the visible ones."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from unmask.encoders import effective_ratio
from unmask.models.avg_dist import average_distance
from unmask.models.simmim import draw_masks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(n, ratio, seed=0, **sizes):
    sizes = {"size": 64, "cell": 8, "patch": 8, **sizes}
    return draw_masks(n, **sizes, ratio=ratio, generator=generator(seed))


def test_every_image_draws_its_own_ratio_uniformly():
    masks = draw(20_000, [0.2, 0.8])
    counts = masks.sum((1, 2)).numpy()
    # ceil(64 u) of u in (.2, .8): 13 to 52; the smallest and largest have .2 of a whole step, the others one each.
    assert (counts.min(), counts.max()) == (13, 52)
    expected = np.array([0.2, *[1.0] * 38, 0.2]) / 38.4
    observed = np.bincount(counts, minlength=53)[13:] / len(counts)
    error = np.sqrt(expected * (1 - expected) / len(counts))
    assert (np.abs(observed - expected) < 5 * error).all()
    assert observed @ np.arange(13, 53) / 64 == pytest.approx(effective_ratio(64, [0.2, 0.8]), abs=5 * 0.0012)
    # Smeared evenly over its cell, a count is a draw from the range itself.
    smeared = (counts - np.random.default_rng(0).random(len(counts))) / 64
    assert kstest(smeared[(counts > 13) & (counts < 52)], "uniform", args=(13 / 64, 38 / 64)).pvalue > 1e-3


def test_whatever_the_ratio_all_cells_are_alike():
    masks = draw(20_000, [0.2, 0.8]).double()
    share = effective_ratio(64, [0.2, 0.8])
    assert (masks.mean(0) - share).abs().max() < 5 * math.sqrt(share * (1 - share) / 20_000)


def test_cells_are_masked_whole_at_a_drawn_ratio_too():
    masks = draw(50, [0.3, 0.9], cell=16)
    by_cell = masks.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    assert (by_cell.all(-1) == by_cell.any(-1)).all()
    assert len(set(masks.sum((1, 2)).tolist())) > 5
    assert not masks.all((1, 2)).any()


def test_a_fixed_ratio_draws_as_it_always_did():
    # The official generator's way, cell by cell: the first ceil(n r) of a random order are masked.
    masks = draw(7, 0.3)
    order = torch.rand(7, 64, generator=generator()).argsort(1)
    for mask, places in zip(masks, order.tolist(), strict=True):
        assert set(mask.flatten().nonzero().flatten().tolist()) == set(places[: math.ceil(64 * 0.3)])


def by_hand(mask, patch):
    """The mean distance of masked pixels, by a loop over pairs of pixels."""
    pixels = mask.repeat(patch, 0).repeat(patch, 1)
    places = list(itertools.product(range(len(pixels)), repeat=2))
    visible = [place for place in places if not pixels[place]]
    return np.mean([min(math.dist(place, other) for other in visible) for place in places if pixels[place]])


def test_average_distance_by_a_loop():
    masks = np.random.default_rng(1).random((3, 4, 4)) < [[[0.3]], [[0.6]], [[0.8]]]
    assert average_distance(masks, 3) == pytest.approx(np.mean([by_hand(mask, 3) for mask in masks]))


def test_average_distance_of_one_masked_pixel_and_of_a_half():
    one = np.zeros((1, 4, 4), bool)
    one[0, 1, 2] = True
    assert average_distance(one, 1) == 1
    half = np.zeros((1, 2, 2), bool)
    half[0, 0] = True
    assert average_distance(half, 5) == (1 + 2 + 3 + 4 + 5) / 5


@pytest.mark.parametrize(
    ("size", "cell", "ratio", "expected"),
    # Measured with the official generator and a Euclidean distance transform, means over 60 masks.
    [(64, 8, 0.1, 2.2), (64, 8, 0.6, 4.1), (64, 8, 0.75, 5.7), (64, 16, 0.6, 8.4), (192, 32, 0.6, 15.8)],
)
def test_average_distance_agrees_with_the_official_generator(size, cell, ratio, expected):
    masks = draw(60, ratio, size=size, cell=cell, patch=8)
    assert average_distance(masks.numpy(), 8) == pytest.approx(expected, rel=0.06)


def test_a_mask_without_an_end_is_refused():
    for masks in (np.ones((1, 2, 2), bool), np.zeros((1, 2, 2), bool)):
        with pytest.raises(ValueError, match="no visible or no masked"):
            average_distance(masks, 2)
