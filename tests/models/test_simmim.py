"""SimMIM against closed forms, its official semantics, and a 2 x 2 patch image worked out by hand."""

import math

import pytest
import torch

from unmask.models.simmim import SimMIM, draw_masks, masked_l1, transfer, windowed
from unmask.models.vit import Classifier, MaskedImages

ARCHITECTURE = {"size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("size", "cell", "patch", "ratio"), [(64, 8, 8, 0.6), (64, 16, 8, 0.3), (96, 32, 16, 0.75)])
def test_masks_cover_whole_cells_and_round_up(size, cell, patch, ratio):
    masks = draw_masks(50, size=size, cell=cell, patch=patch, ratio=ratio, generator=generator())
    assert masks.shape == (50, size // patch, size // patch)
    scale, cells = cell // patch, (size // cell) ** 2
    by_cell = masks.unfold(1, scale, scale).unfold(2, scale, scale).flatten(3)
    assert ((by_cell.all(-1)) | (~by_cell.any(-1))).all(), "a cell is masked whole or not at all"
    assert (by_cell.all(-1).sum((1, 2)) == math.ceil(cells * ratio)).all()


def test_masks_are_uniform_over_cells_and_differ_between_images():
    masks = draw_masks(4000, size=64, cell=8, patch=8, ratio=0.5, generator=generator()).double()
    # Each cell is masked with probability .5; 4,000 draws have a standard error of .0079.
    assert (masks.mean(0) - 0.5).abs().max() < 5 * 0.0079
    assert not torch.equal(masks[0], masks[1])
    again = draw_masks(4000, size=64, cell=8, patch=8, ratio=0.5, generator=generator()).double()
    assert torch.equal(masks, again)


def test_loss_by_hand_on_two_by_two_patches():
    # One channel, patches of 1 pixel; the two masked pixels are off by 3 and by 1, the visible ones do not count.
    target = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    prediction = torch.tensor([[[[3.0, 100.0], [2.0, 4.0]]]])
    mask = torch.tensor([[[True, False], [False, True]]])
    assert masked_l1(target, prediction, mask).item() == pytest.approx((3 + 1) / 2, rel=1e-5)


def test_loss_is_the_mean_absolute_error_over_masked_pixels_and_channels():
    target, prediction = (
        torch.randn(5, 3, 32, 32, generator=generator()),
        torch.randn(5, 3, 32, 32, generator=generator(1)),
    )
    mask = draw_masks(5, size=32, cell=16, patch=8, ratio=0.5, generator=generator(2))
    pixels = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    picked = (target - prediction).abs().permute(0, 2, 3, 1)[pixels]
    assert masked_l1(target, prediction, mask).item() == pytest.approx(picked.mean().item(), rel=1e-6)
    # Closed form: predicting 0 for a standard normal target costs sqrt(2 / pi) on average.
    large = torch.randn(200, 3, 32, 32, generator=generator(3))
    everywhere = torch.ones(200, 4, 4, dtype=torch.bool)
    assert masked_l1(large, torch.zeros_like(large), everywhere).item() == pytest.approx(
        math.sqrt(2 / math.pi), abs=3e-3
    )


@pytest.mark.parametrize("window", [3, 5, 15])
def test_windows_have_the_mean_and_the_unbiased_deviation_of_what_they_cover(window):
    colours = torch.rand(2, 3, 9, 8, generator=generator())
    mean, deviation = windowed(colours, window)
    for row in range(9):
        for column in range(8):
            half = window // 2
            covered = colours[:, :, max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1]
            torch.testing.assert_close(mean[:, :, row, column], covered.mean((2, 3)))
            expected = (covered.var((2, 3)) + 1e-6).sqrt()
            torch.testing.assert_close(deviation[:, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_a_normalised_target_forgets_brightness_and_contrast():
    torch.manual_seed(0)
    model = SimMIM(target="normalised", target_window=9, **ARCHITECTURE).eval()
    assert not model.colours
    images = torch.rand(2, 3, 32, 32, generator=generator()) / 2
    torch.testing.assert_close(model.target(images), model.target(images * 1.5 + 0.2), rtol=1e-3, atol=1e-3)
    mask = draw_masks(2, size=32, cell=8, patch=8, ratio=0.5, generator=generator())
    loss, _ = model(images, mask)
    torch.testing.assert_close(loss, masked_l1(model.target(images), model.reconstruct(images, mask), mask))
    model.reconstruct = lambda images, mask: model.target(images)
    torch.testing.assert_close(model.pixels(images, mask), images, rtol=1e-4, atol=1e-4)


def test_agrees_with_the_masked_image_modelling_of_the_decoder_on_tokens():
    torch.manual_seed(0)
    model = SimMIM(**ARCHITECTURE).eval()
    images = torch.rand(2, 3, 32, 32, generator=generator())
    mask = draw_masks(2, size=32, cell=8, patch=8, ratio=0.5, generator=generator(1))
    loss, _ = model(images, mask)
    reconstruction = model.reconstruct(images, mask)
    # The same, written out: token i of the last layer predicts the pixels of patch i, in PixelShuffle's order.
    tokens = model.encode(MaskedImages(images, ~mask))
    weight, bias = model.decoder[0].weight[:, :, 0, 0], model.decoder[0].bias
    values = (tokens @ weight.T + bias).reshape(2, 4, 4, 3, 8, 8)
    by_hand = values.permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 32, 32)
    assert torch.allclose(reconstruction, by_hand, atol=1e-6)
    error = (model.encoder.normalise(images) - by_hand).abs().permute(0, 2, 3, 1)
    pixels = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert loss.item() == pytest.approx(error[pixels].mean().item(), rel=1e-5)


def test_a_masked_patch_is_unseen_and_a_visible_one_is_seen():
    torch.manual_seed(0)
    model = SimMIM(**ARCHITECTURE).eval()
    images = torch.rand(1, 3, 32, 32, generator=generator())
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    other = images.clone()
    other[:, :, 8:16, 16:24] = 0.5
    same = model.reconstruct(images, mask)
    assert torch.equal(same, model.reconstruct(other, mask))
    assert not torch.allclose(same, model.reconstruct(other, ~mask))


def test_mask_token_starts_small_and_learns():
    torch.manual_seed(0)
    model = SimMIM(**ARCHITECTURE)
    token = model.encoder.mask_token
    assert token.shape == (1, 1, 24)
    assert 0 < token.abs().max() <= 0.02
    mask = draw_masks(4, size=32, cell=8, patch=8, ratio=0.5, generator=generator())
    model(torch.rand(4, 3, 32, 32, generator=generator()), mask)[0].backward()
    assert token.grad.abs().sum() > 0


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_transfer_carries_the_encoder_and_leaves_the_head_fresh(pooling):
    torch.manual_seed(0)
    source = SimMIM(**ARCHITECTURE, pooling=pooling).encoder
    model = Classifier(**ARCHITECTURE, pooling=pooling, classes=3)
    head = model.backbone.head.weight.clone()
    transfer(source.state_dict(), model)
    for name, tensor in source.backbone.blocks.state_dict().items():
        assert torch.equal(model.backbone.blocks.state_dict()[name], tensor)
    assert torch.equal(model.backbone.pos_embed, source.backbone.pos_embed)
    assert torch.equal(model.mask_token, source.mask_token)
    assert not model.mask_token.requires_grad
    assert torch.equal(model.backbone.head.weight, head)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.embed(images), source.embed(images))


def test_transfer_refuses_another_architecture():
    source = SimMIM(**{**ARCHITECTURE, "depth": 1}).encoder
    with pytest.raises(ValueError, match=r"blocks\.1"):
        transfer(source.state_dict(), Classifier(**ARCHITECTURE, classes=3))


def test_training_learns_to_fill_in():
    torch.manual_seed(0)
    model = SimMIM(**ARCHITECTURE)
    flat = torch.rand(64, 3, 1, 1, generator=generator()).expand(-1, -1, 32, 32).contiguous()
    mask = draw_masks(64, size=32, cell=8, patch=8, ratio=0.5, generator=generator(1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, _ = model(flat, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    # The mean of all images would leave E|u - 1/2| / std = .25 / .226 = 1.1; only the visible patches tell the colour.
    assert losses[-1] < 0.5 * losses[0]
    assert losses[-1] < 0.5
