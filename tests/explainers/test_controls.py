"""Control explainers: what they know and what they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def batch():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(6)), torch.zeros(4, dtype=torch.int64)


def test_sobel_of_a_ramp_and_against_scikit_image(vit, explain, batch):
    from skimage.color import rgb2gray
    from skimage.filters import sobel_h, sobel_v

    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert explain("sobel", vit("avg"), ramp, batch[1][:1])[0, :, 1:-1] == pytest.approx(1 / 31, rel=1e-4)
    images, targets = batch
    for image, one in zip(images, explain("sobel", vit("avg"), images, targets), strict=True):
        grey = rgb2gray(image.permute(1, 2, 0).numpy())
        expected = np.hypot(sobel_h(grey), sobel_v(grey)) / 2  # scikit-image's is per two pixels
        np.testing.assert_allclose(one[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=1e-3, atol=1e-5)


def test_centre_is_a_centred_gaussian(vit, explain, batch):
    one = explain("centre", vit("avg"), *batch, sigma=0.25)[0]
    torch.testing.assert_close(one, one.flip(0))
    torch.testing.assert_close(one, one.T)
    # One standard deviation is 8 pixels: from the middle (15.5) to 7.5 the density falls by exp(-1/2).
    assert (one[15, 7] * one[15, 8]).sqrt() / one[15, 15] == pytest.approx(np.exp(-0.5), rel=0.02)


def test_oracle_is_the_mask(vit, explain, batch):
    masks = torch.zeros(4, 32, 32, dtype=torch.bool)
    masks[:, 3:9, 5:7] = True
    assert torch.equal(explain("oracle", vit("avg"), *batch, evidence=masks) == 1, masks)


def test_random_controls_know_nothing_of_the_image(vit, explain, batch):
    images, targets = batch
    for name in ("random_pixel", "random_patch", "random_smooth"):
        maps = explain(name, vit("avg"), images, targets)
        assert torch.equal(explain(name, vit("avg"), images.flip(0), targets), maps)
        correlations = torch.corrcoef(maps.flatten(1)) - torch.eye(4)
        assert correlations.abs().max() < 0.75
        assert not torch.equal(maps[0], maps[1])


def test_smooth_noise_is_smooth_and_pixel_noise_is_not(vit, explain, batch):
    def neighbours(name):
        maps = explain(name, vit("avg"), *batch)
        return torch.corrcoef(torch.stack([maps[:, :, 1:].flatten(), maps[:, :, :-1].flatten()]))[0, 1]

    assert neighbours("random_smooth") > 0.9
    assert abs(neighbours("random_pixel")) < 0.1
