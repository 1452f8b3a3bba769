"""Noisy linear imputation against Quantus's, a dense solve and what the equations say."""

import numpy as np
import pytest
import torch
from quantus.functions.perturb_func import noisy_linear_imputation

from unmask import registry, removals
from unmask.models.resnet import ConvClassifier
from unmask.models.vit import MEAN, Classifier
from unmask.removals.noisy_linear import NOISE, impute

NEIGHBOURS = {(dy, dx): 1 / 6 if 0 in (dy, dx) else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}


def masked(grid, patch, share, seed):
    """An image of noise and a mask of removed patches, float64 [3, H, W] and bool [H, W]."""
    rng = np.random.default_rng(seed)
    keep = rng.random(grid) >= share
    keep[rng.integers(grid[0]), rng.integers(grid[1])] = True
    return rng.random((3, grid[0] * patch, grid[1] * patch)), ~np.kron(keep, np.ones((patch, patch), bool))


def classifier(name):
    if name == "resnet":
        return ConvClassifier(size=32, patch=8, classes=3, layers=(1, 1, 1, 1), channels=(8, 8, 16, 16)).eval()
    return Classifier(size=32, patch=8, width=16, depth=1, heads=2, classes=3).eval().requires_grad_(False)


def bound(model):
    return removals.bind(registry.find("removals", "noisy_linear"), model)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_imputation_of_quantus_on_the_same_pixels(share, seed):
    image, missing = masked((4, 6), 8, share, seed)
    theirs = noisy_linear_imputation(image, np.flatnonzero(missing), noise=0.0) if missing.any() else image
    np.testing.assert_allclose(impute(image, missing), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_a_dense_solve_of_one_equation_for_each_pixel(seed):
    rng = np.random.default_rng(seed)
    image, missing = rng.random((2, 7, 5)), rng.random((7, 5)) < 0.6  # any mask, not only whole patches
    system, right = np.zeros((35, 35)), np.zeros((35, 2))
    for y in range(7):
        for x in range(5):
            i = 5 * y + x
            system[i, i] = 1
            if not missing[y, x]:
                right[i] = image[:, y, x]
                continue
            near = {(y + dy, x + dx): w for (dy, dx), w in NEIGHBOURS.items() if 0 <= y + dy < 7 and 0 <= x + dx < 5}
            for (v, u), weight in near.items():
                system[i, 5 * v + u] -= weight / sum(near.values())
    expected = np.linalg.solve(system, right).T.reshape(2, 7, 5)
    np.testing.assert_allclose(impute(image, missing), expected, rtol=0, atol=1e-12)


def test_a_slope_is_filled_with_itself_and_no_pixel_leaves_the_range_of_the_known():
    image, missing = masked((4, 4), 8, 0.5, 0)
    slope = np.linspace(0, 1, 32)[None, None] * np.ones((1, 32, 1))
    inner = np.zeros((32, 32), bool)
    inner[8:24, 8:16] = True  # away from the border, where neighbours lack
    np.testing.assert_allclose(impute(slope, inner), slope, rtol=0, atol=1e-12)
    filled = impute(image, missing)
    assert filled.min() >= image[:, ~missing].min()
    assert filled.max() <= image[:, ~missing].max()


@pytest.mark.parametrize("arch", ["vit", "resnet"])
def test_kept_pixels_are_untouched_and_the_rest_is_the_imputation_with_noise(arch):
    model, images = classifier(arch), torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    keep = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.4
    removed = bound(model).remove(images, keep).numpy()
    missing = np.kron(~keep.numpy(), np.ones((8, 8), bool))
    noise = []
    for i in range(4):
        exact = impute(images[i].double().numpy(), missing[i])
        np.testing.assert_array_equal(removed[i][:, ~missing[i]], images[i].numpy()[:, ~missing[i]])
        noise.append(np.where(missing[i], removed[i] - exact, np.nan))
    assert np.nanstd(noise) == pytest.approx(NOISE, rel=0.03)
    assert abs(np.nanmean(noise)) < 4 * NOISE / np.isfinite(noise).sum() ** 0.5
    # The same pattern everywhere: no draw tells two masks or images apart.
    np.testing.assert_allclose(np.nanmin(noise, axis=0), np.nanmax(noise, axis=0), rtol=0, atol=1e-6)


def test_an_image_does_not_depend_on_the_others_or_on_the_number_of_subsets():
    model, images = classifier("vit"), torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    keep = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    removal = bound(model)
    together = removal.remove(images, keep).reshape(3, 5, 3, 32, 32)
    for i in range(3):
        for k in range(5):
            assert torch.equal(removal.remove(images[i : i + 1], keep[i : i + 1, k])[0], together[i, k])


def test_an_image_of_which_nothing_is_kept_has_the_mean_colour_and_says_nothing_of_what_it_was():
    model, images = classifier("vit"), torch.rand(2, 3, 32, 32)
    nothing = bound(model).remove(images, torch.zeros(2, 4, 4, dtype=torch.bool))
    assert torch.equal(nothing[0], nothing[1])
    assert (nothing[0].mean((1, 2)) - torch.tensor(MEAN)).abs().max() < 4 * NOISE / 32
