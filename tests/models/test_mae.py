"""MAE against loops over its paper's definition, and the semantics of the official code."""

import math

import numpy as np
import pytest
import torch

from unmask.models.mae import MAE, from_patches, sincos_positions, to_patches
from unmask.models.simmim import draw_masks, transfer
from unmask.models.vit import Classifier, DroppedImages

ARCHITECTURE = {"size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3}
DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(pooling="avg", target="normalised"):
    torch.manual_seed(0)
    made = MAE(**ARCHITECTURE, **DECODER, pooling=pooling, target=target).eval()
    for name, parameter in made.named_parameters():  # away from the first state, where much is 0
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
        else:
            assert name == "encoder.backbone.pos_embed"
    return made


def batch(n=3, ratio=0.75):
    images = torch.rand(n, 3, 32, 32, generator=generator())
    return images, draw_masks(n, size=32, cell=8, patch=8, ratio=ratio, generator=generator(1))


def official(model, image, mask, order):
    """The forward pass of one image written out after the official code: shuffle, encode, unshuffle, decode, loss.

    `order` is the random order of the patches; those that are masked must come last. Returns loss and prediction.
    """
    vit, decoder, prefix = model.encoder.backbone, model.decoder, model.encoder.prefix
    keep = int((~mask).sum())
    assert not mask.flatten()[order[:keep]].any()
    tokens = vit.patch_embed(model.encoder.normalise(image[None]))[0] + vit.pos_embed[0, prefix:]
    visible = [tokens[place] for place in order[:keep]]
    front = [vit.cls_token[0, 0] + vit.pos_embed[0, 0]] if prefix else []
    encoded = vit.norm(vit.blocks(torch.stack([*front, *visible])[None]))[0]
    embedded = decoder.embed(encoded)
    shuffled = torch.cat([embedded[prefix:], decoder.mask_token[0].expand(16 - keep, -1)])
    restore = torch.empty(16, dtype=torch.long)
    restore[torch.as_tensor(order)] = torch.arange(16)
    whole = torch.cat([embedded[:prefix], shuffled[restore]]) + decoder.positions[0]
    for block in decoder.blocks:
        whole = block(whole[None])[0]
    predicted = decoder.predict(decoder.norm(whole))[prefix:]
    colours, losses = model.encoder.normalise(image[None])[0].detach().double().numpy(), []
    for place in range(16):
        row, column = divmod(place, 4)
        pixels = colours[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].transpose(1, 2, 0).reshape(-1)
        if model.normalised:
            pixels = (pixels - pixels.mean()) / math.sqrt(pixels.var(ddof=1) + 1e-6)
        if mask[row, column]:
            losses.append(np.mean((predicted[place].detach().double().numpy() - pixels) ** 2))
    return np.mean(losses), predicted


@pytest.mark.parametrize("target", ["normalised", "pixels"])
@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_equals_the_official_forward_pass_whatever_the_shuffle(pooling, target):
    model = network(pooling, target)
    images, masks = batch()
    loss, parts = model(images, masks)
    assert parts == {}
    reconstruction = model.reconstruct(images, masks)
    losses = []
    for image, mask, predicted in zip(images, masks, to_patches(reconstruction, 8), strict=True):
        for seed in (0, 1):  # two shuffles
            noise = torch.rand(16, generator=generator(seed)) + mask.flatten()
            by_hand, expected = official(model, image, mask, noise.argsort().tolist())
            torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)
        losses.append(by_hand)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_images_with_other_numbers_of_visible_patches_do_not_disturb_one_another():
    model = network()
    images = torch.rand(5, 3, 32, 32, generator=generator())
    order = torch.rand(5, 16, generator=generator(2)).argsort(1).argsort(1)
    masks = (order >= torch.tensor([1, 3, 8, 15, 16])[:, None]).reshape(5, 4, 4)
    together = model.reconstruct(images, masks)
    alone = torch.cat([model.reconstruct(images[i : i + 1], masks[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_what_is_masked_is_not_seen_and_with_nothing_visible_all_images_are_one(pooling):
    model = network(pooling, "pixels")
    images, masks = batch()
    other = torch.where(masks.repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1), 0.3, images)
    assert torch.equal(model.reconstruct(images, masks), model.reconstruct(other, masks))
    assert not torch.allclose(model.reconstruct(images, masks), model.reconstruct(other, ~masks))
    nothing = model.reconstruct(images, torch.ones_like(masks))
    assert torch.isfinite(nothing).all()
    torch.testing.assert_close(nothing, nothing[:1].expand_as(nothing))


def test_the_encoder_runs_on_the_visible_tokens_alone():
    model, seen = network(), []
    model.encoder.backbone.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    images, masks = batch(2, 0.75)
    model(images, masks)
    assert seen == [(2, 4, 24)], "a quarter of 16 patches"


def test_positions_are_those_of_the_official_code():
    # get_2d_sincos_pos_embed, written out: the first half tells the column, the second the row.
    found = sincos_positions(24, (3, 4), prefix=1)[0].double().numpy()
    assert found.shape == (13, 24)
    assert (found[0] == 0).all()
    for row in range(3):
        for column in range(4):
            for half, place in enumerate((column, row)):
                for i in range(6):
                    angle = place / 10000 ** (i / 6)
                    one = found[1 + 4 * row + column, 12 * half :]
                    assert one[i] == pytest.approx(math.sin(angle), abs=1e-6)
                    assert one[6 + i] == pytest.approx(math.cos(angle), abs=1e-6)


def test_patches_are_pixels_by_row_column_and_channel_and_back():
    images = torch.rand(2, 3, 16, 24, generator=generator())
    patches = to_patches(images, 8)
    assert patches.shape == (2, 6, 192)
    assert patches[1, 4, 3 * (8 * 2 + 5) + 1] == images[1, 1, 8 + 2, 8 + 5]
    assert torch.equal(from_patches(patches, 8, (2, 3)), images)


def test_pixels_of_normalised_patches_are_shown_with_their_own_mean_and_deviation():
    images, masks = batch()
    shown = network().pixels(images, masks)
    assert ((shown >= 0) & (shown <= 1)).all()
    assert not network().colours
    plain = network(target="pixels")
    assert plain.colours
    other = torch.where(masks.repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1), 0.3, images)
    assert torch.equal(plain.pixels(images, masks), plain.pixels(other, masks)), "colours are guessed, not looked up"
    normalise = plain.encoder.normalise
    torch.testing.assert_close(
        plain.pixels(images, masks), (plain.reconstruct(images, masks) * normalise.std + normalise.mean).clamp(0, 1)
    )


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_the_classifier_takes_the_encoder_and_trains_its_positions(pooling):
    source = network(pooling)
    model = Classifier(**ARCHITECTURE, pooling=pooling, classes=3).eval()
    transfer(source.encoder.state_dict(), model)
    assert model.mask_token is None, "MAE's encoder has never seen one"
    assert torch.equal(model.backbone.pos_embed, source.encoder.backbone.pos_embed)
    assert model.backbone.pos_embed.requires_grad
    # Its native removal: the classifier's tokens without the dropped patches are MAE's own, up to the fresh last norm.
    images, masks = batch(2, 0.5)
    model.backbone.head, model.backbone.fc_norm = torch.nn.Identity(), torch.nn.Identity()
    model.backbone.norm = source.encoder.backbone.norm
    encoded, _ = source.encode(images, ~masks.flatten(1))
    torch.testing.assert_close(
        model(DroppedImages(images, ~masks)), source.encoder.pooled(encoded), rtol=1e-4, atol=1e-5
    )


def test_features_are_of_the_whole_image():
    model = network()
    images, _ = batch()
    tokens = model.encoder.backbone.patch_embed(model.encoder.normalise(images)) + model.encoder.backbone.pos_embed
    expected = model.encoder.backbone.norm(model.encoder.backbone.blocks(tokens)).mean(1)
    torch.testing.assert_close(model.features(images), expected, rtol=1e-4, atol=1e-5)


def test_training_learns_to_fill_in():
    torch.manual_seed(0)
    model = MAE(**ARCHITECTURE, **DECODER, target="pixels")
    flat = torch.rand(64, 3, 1, 1, generator=generator()).expand(-1, -1, 32, 32).contiguous()
    mask = draw_masks(64, size=32, cell=8, patch=8, ratio=0.75, generator=generator(1))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(60):
        loss, _ = model(flat, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    # The mean of all images would leave var(u) / std^2 = .083 / .05 = 1.6; only the visible patches tell the colour.
    assert losses[-1] < 0.3 * losses[0]
    assert losses[-1] < 0.5
