"""Removals: kept patches untouched, removed ones as declared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask import registry, removals
from unmask.errors import Skip
from unmask.models.resnet import ConvClassifier
from unmask.models.simmim import SimMIM, transfer
from unmask.models.vit import MEAN, STD, Classifier, DroppedImages, Pretraining
from unmask.patches import to_pixels

torch.set_num_threads(1)
KNOWN = registry.available("removals")
PIXELS = ["blur", "mean", "zero"]


@pytest.fixture(scope="module", params=["avg", "token"])
def model(request):
    torch.manual_seed(0)
    architecture = {"size": 32, "patch": 8, "width": 16, "depth": 1, "heads": 2, "pooling": request.param}
    network = SimMIM(**architecture)
    network.encoder.mask_token = nn.Parameter(torch.randn(1, 1, 16))
    nn.init.normal_(network.decoder[0].bias, std=1.5)  # so that some of the reconstruction lies outside [0, 1]
    model = Classifier(**architecture, classes=3)
    transfer(network.encoder.state_dict(), model)
    model.pretraining = Pretraining(network.eval().requires_grad_(False), 0.5, 8)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, 32, 32, generator=generator), torch.rand(3, 4, 4, generator=generator) < 0.5


def bind(name, model):
    return removals.bind(KNOWN[name], model)


def test_what_is_known():
    assert sorted(KNOWN) == ["blur", "inpaint", "mask_token", "mean", "noisy_linear", "token_drop", "zero"]


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


def test_inpainting_shows_the_networks_reconstruction_cut_to_colours(model, batch):
    images, keep = batch
    kept = to_pixels(keep, (32, 32)).unsqueeze(1).expand_as(images)
    removed = bind("inpaint", model).remove(images, keep)
    assert torch.equal(removed[kept], images[kept])
    normal = model.pretraining.network.reconstruct(images, ~keep)
    colours = normal * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(removed[~kept], colours.clamp(0, 1)[~kept])
    assert (colours[~kept] < 0).any()
    assert (colours[~kept] > 1).any()
    assert not removed.requires_grad


def test_inpainting_sees_the_kept_patches_only(model, batch):
    images, keep = batch
    other = torch.where(to_pixels(keep, (32, 32)).unsqueeze(1), images, 1 - images)
    removal = bind("inpaint", model)
    assert torch.equal(removal.remove(images, keep), removal.remove(other, keep))
    assert torch.equal(removal.remove(images, torch.ones_like(keep)), images)


def test_dropped_tokens_are_left_to_the_model(model, batch):
    images, keep = batch
    dropped = bind("token_drop", model).remove(images, keep)
    assert isinstance(dropped, DroppedImages)
    assert torch.equal(dropped.images, images)
    assert torch.equal(dropped.keep, keep)
    other = torch.where(to_pixels(keep, (32, 32)).unsqueeze(1), images, 1 - images)
    assert torch.equal(model(dropped), model(DroppedImages(other, keep)))
    assert not torch.allclose(model(dropped), model(images), rtol=1e-2)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_all_kept_is_the_plain_model(name, model, batch):
    images, _ = batch
    inputs = bind(name, model).remove(images, torch.ones(3, 4, 4, dtype=torch.bool))
    if name == "token_drop":  # attention under a mask, though of nothing, sums in another order
        torch.testing.assert_close(model(inputs), model(images))
    else:
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
    with pytest.raises(Skip, match="the removal inpaint needs the encoder's pretraining network"):
        bind("inpaint", model)
    bind("token_drop", model)
    model.arch = "cat"
    with pytest.raises(Skip, match="does not apply to the architecture cat"):
        bind("mean", model)


def test_a_resnet_has_pixels_only():
    model = ConvClassifier(size=32, patch=8, classes=3, layers=(1, 1, 1, 1), channels=(8, 8, 16, 16)).eval()
    images, keep = torch.rand(2, 3, 32, 32), torch.rand(2, 5, 4, 4) < 0.5
    for name in ["inpaint", "mask_token", "token_drop"]:
        with pytest.raises(Skip, match=f"the removal {name} does not apply to the architecture resnet"):
            bind(name, model)
    for name in [*PIXELS, "noisy_linear"]:
        assert torch.isfinite(model(bind(name, model).remove(images, keep))).all()
