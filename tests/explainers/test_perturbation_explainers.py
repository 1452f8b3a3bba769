"""Occlusion and RISE against naive loops and closed forms."""

from __future__ import annotations

import pytest
import torch

from unmask.device import batch_size
from unmask.models.vit import MEAN
from unmask.patches import patch_sum


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(4)
    images, weight = torch.rand(3, 3, 32, 32, generator=generator), torch.randn(3, 3, 32, 32, generator=generator)
    return images, torch.tensor([2, 0, 1]), weight


def contributions(images, weight, targets):
    """What each patch adds to a linear model's target logit over the mean colour: [N, 4, 4]."""
    return patch_sum((weight[targets] * (images - torch.tensor(MEAN).view(1, 3, 1, 1))).sum(1), (4, 4))


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_occlusion_is_the_naive_loop(pooling, vit, explain, batch):
    images, targets, _ = batch
    model, expected = vit(pooling), torch.zeros(3, 4, 4)
    for n, (image, target) in enumerate(zip(images, targets, strict=True)):
        for row in range(4):
            for column in range(4):
                occluded = image.clone()
                occluded[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = torch.tensor(MEAN).view(3, 1, 1)
                expected[n, row, column] = (model(image[None]) - model(occluded[None]))[0, target]
    torch.testing.assert_close(explain("occlusion", model, images, targets), expected, rtol=1e-3, atol=1e-5)


def test_occlusion_of_a_linear_model_is_the_contribution(linear, explain, batch):
    images, targets, weight = batch
    maps = explain("occlusion", linear(weight), images, targets)
    torch.testing.assert_close(maps, contributions(images, weight, targets), rtol=1e-3, atol=1e-4)


def test_rise_follows_its_formula(linear, explain, batch):
    images, targets, weight = batch
    model = linear(weight)
    maps = explain("rise", model, images, targets, masks=40, keep=0.3)
    generator = torch.Generator().manual_seed(0)
    for image, target, one in zip(images, targets, maps, strict=True):
        masks = torch.rand(40, 4, 4, generator=generator) < 0.3
        scores = []
        for mask in masks:
            present = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)
            scores.append(model(torch.where(present, image, torch.tensor(MEAN).view(3, 1, 1))[None])[0, target])
        scores = torch.stack(scores)
        expected = sum((score - scores.mean()) * mask for score, mask in zip(scores, masks, strict=True)) / (40 * 0.3)
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=1e-4)


def test_rise_converges_to_the_contributions(linear, explain, batch):
    """On an additive model E[f | present] - E[f] is (1 - p) times the patch's contribution."""
    images, targets, weight = batch
    truth = contributions(images, weight, targets)
    errors = {}
    for masks in (256, 8192):
        maps = explain("rise", linear(weight), images, targets, masks=masks, keep=0.5)
        errors[masks] = (maps - truth / 2).square().mean().sqrt() / (truth / 2).std()
        for one, own in zip(maps, truth, strict=True):
            assert torch.corrcoef(torch.stack([one.flatten(), own.flatten()]))[0, 1] > (0.9 if masks == 256 else 0.995)
    assert errors[8192] < errors[256] / 3  # the error falls with the root of the number: 5.7 here


def test_passes_are_full_and_none_is_larger_than_the_device_likes(vit, explain, batch):
    images, targets, _ = batch
    model, sizes = vit("avg"), []
    handle = model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    limit = batch_size(images.device)
    explain("occlusion", model, images.repeat(8, 1, 1, 1), targets.repeat(8))
    assert sizes == [24] + [limit] * (24 * 16 // limit)  # 24 images of 16 patches
    sizes.clear()
    explain("rise", model, images, targets, masks=300)
    handle.remove()
    passes = -(-300 // limit)  # of one image
    assert sizes == [300 // passes] * 3 * passes
