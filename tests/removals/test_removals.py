"""Removals: kept patches untouched, removed ones as declared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask import registry, removals
from unmask.errors import Skip
from unmask.models.vit import MEAN, Classifier
from unmask.patches import to_pixels

torch.set_num_threads(1)
KNOWN = registry.available("removals")
PIXELS = ["blur", "mean", "zero"]


@pytest.fixture(scope="module", params=["avg", "token"])
def model(request):
    torch.manual_seed(0)
    model = Classifier(size=32, patch=8, width=16, depth=1, heads=2, classes=3, pooling=request.param)
    model.mask_token = nn.Parameter(torch.randn(1, 1, 16))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, 32, 32, generator=generator), torch.rand(3, 4, 4, generator=generator) < 0.5


def bind(name, model):
    return removals.bind(KNOWN[name], model)


def test_what_is_known():
    assert sorted(KNOWN) == ["blur", "mask_token", "mean", "zero"]


@pytest.mark.parametrize("name", PIXELS)
def test_kept_pixels_are_bit_identical_and_removed_ones_as_declared(name, model, batch):
    images, keep = batch
    kept = to_pixels(keep, (32, 32)).unsqueeze(1).expand_as(images)
    removed = bind(name, model).remove(images, keep)
    assert torch.equal(removed[kept], images[kept])
    if name == "zero":
        assert (removed[~kept] == 0).all()
    elif name == "mean":
        assert torch.equal(removed[~kept], torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(images)[~kept])
        assert (model.normalise(removed)[~kept] == 0).all()
    else:
        assert removed[~kept].std() < images[~kept].std() / 3


def test_blur_is_a_gaussian_of_half_a_patch(model):
    point = torch.zeros(1, 3, 32, 32)
    point[..., 16, 16] = 1
    spread = bind("blur", model).remove(point, torch.zeros(1, 4, 4, dtype=torch.bool))[0, 0]
    offsets = torch.arange(32.0) - 16
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    # sigma 4 pixels, the kernel cut at three of them
    assert (spread.sum(0) * offsets**2).sum().sqrt() == pytest.approx(4, rel=0.03)
    flat = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(bind("blur", model).remove(flat, torch.zeros(1, 4, 4, dtype=torch.bool)), flat)


def test_the_mask_token_replaces_exactly_the_removed_embeddings(model, batch):
    images, keep = batch
    masked = bind("mask_token", model).remove(images, keep)
    tokens, clean = model.replace(model.embed(masked.images), masked.keep), model.embed(images)
    kept = keep.flatten(1)
    assert torch.equal(tokens[kept], clean[kept])
    assert torch.equal(tokens[~kept], model.mask_token[0].expand(int((~kept).sum()), -1))
    torch.testing.assert_close(model(masked), model.decide(tokens))
    assert not torch.allclose(model(masked), model(images), rtol=1e-2)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_all_kept_is_the_plain_model(name, model, batch):
    images, _ = batch
    inputs = bind(name, model).remove(images, torch.ones(3, 4, 4, dtype=torch.bool))
    assert torch.equal(model(inputs), model(images))


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_removing_does_not_change_its_arguments(name, model, batch):
    images, keep = batch
    before = images.clone(), keep.clone()
    model(bind(name, model).remove(images, keep))
    assert torch.equal(images, before[0])
    assert torch.equal(keep, before[1])


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_many_subsets_are_the_same_as_one_by_one(name, model, batch):
    images, _ = batch
    keep = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    removal = bind(name, model)
    together = model(removal.remove(images, keep)).reshape(3, 5, -1)
    for k in range(5):
        torch.testing.assert_close(model(KNOWN[name].load().remove(model, images, keep[:, k])), together[:, k])


@pytest.mark.parametrize("name", PIXELS)
def test_a_removal_sees_that_images_were_written_to(name, model, batch):
    images, keep = batch[0].clone(), batch[1]
    removal = bind(name, model)
    removal.remove(images, keep)
    images.mul_(0.5)
    assert torch.equal(removal.remove(images, keep), KNOWN[name].load().remove(model, images, keep))


def test_what_the_model_cannot_use_is_skipped_with_a_reason():
    model = Classifier(size=16, patch=8, width=8, depth=1, heads=1, classes=2)
    with pytest.raises(Skip, match="the removal mask_token needs a mask token"):
        bind("mask_token", model)
    model.arch = "resnet"
    with pytest.raises(Skip, match="does not apply to the architecture resnet"):
        bind("mean", model)
