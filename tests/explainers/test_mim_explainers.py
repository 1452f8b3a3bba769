"""Explainers of the pretraining network and of the embedding: closed forms, planted answers, one mask at a time."""

from __future__ import annotations

import pytest
import torch
from captum.attr import InputXGradient
from torch import nn

from unmask import explainers, passes, registry
from unmask.config import ExplainerSpec
from unmask.device import batch_size
from unmask.errors import Skip, UserError
from unmask.explainers import _reconstruction
from unmask.models.simmim import SimMIM, masked_l1
from unmask.models.vit import Pretraining
from unmask.patches import patch_sum, to_pixels

MIM = ["patch_reconstruction", "reconstruction_error", "reconstruction_saliency"]


class Planted(nn.Module):
    """A pretraining network that reconstructs by a `rule(images, mask)`, in colours that are not normalised."""

    def __init__(self, rule):
        super().__init__()
        self.decoder, self.rule = nn.Identity(), rule

    def target(self, images):
        return images

    def loss(self, target, prediction, mask):
        return masked_l1(target, prediction, mask)

    def reconstruct(self, images, mask):
        return self.decoder(self.rule(images, to_pixels(mask, (32, 32)).unsqueeze(1)))


@pytest.fixture
def planted_network(linear):
    """`planted_network(rule, ratio)`: a model with such a network beside it, masked patch by patch."""

    def make(rule, ratio=0.5):
        model = linear(torch.zeros(2, 3, 32, 32))
        model.pretraining = Pretraining(Planted(rule), ratio, 8)
        return model

    return make


def at_ratio(model, ratio, cell=8):
    model.pretraining = Pretraining(model.pretraining.network, ratio, cell)
    return model


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=3, seed=1):
    return torch.rand(count, 3, 32, 32, generator=generator(seed))


def classes(count=3):
    return torch.zeros(count, dtype=torch.int64)


def patch_of(some, place):
    """The pixels [N, 3, 8, 8] of a patch, of images of 4 x 4."""
    row, column = place // 4 * 8, place % 4 * 8
    return some[:, :, row : row + 8, column : column + 8]


# Masks


@pytest.mark.parametrize(("ratio", "cell", "masked"), [(0.5, 8, 8), (0.6, 8, 10), (0.3, 8, 5), (0.75, 16, 3)])
@pytest.mark.parametrize("visible", [False, True])
def test_a_round_of_masks_covers_every_patch_at_the_ratio_of_pretraining(ratio, cell, masked, visible, network):
    model, cells = at_ratio(network("avg"), ratio, cell), (32 // cell) ** 2
    dealt = cells - masked if visible else masked
    per_round = -(-cells // dealt)
    masks = _reconstruction.draw(model, images(50), 2 * per_round, generator(), visible=visible)
    assert masks.shape == (50, 2 * per_round, 4, 4)
    assert (masks.sum((2, 3)) == masked * (cell // 8) ** 2).all(), "every mask is at the ratio"
    for part in masks.split(per_round, 1):
        assert ((~part if visible else part).any(1)).all(), "every round covers every patch"
    assert not torch.equal(masks[:, :per_round], masks[:, per_round:])
    if cell == 16:
        by_cell = masks.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        assert (by_cell.all(-1) | ~by_cell.any(-1)).all(), "a cell is masked whole or not at all"


def test_masks_are_uniform(network):
    masks = _reconstruction.draw(at_ratio(network("avg"), 0.3), images(800), 5, generator()).double()
    # The last mask of a round is filled up from the round's start; still each patch is as likely in it as any other,
    # 5 of 16, with a standard error over 800 images of .0164.
    assert (masks.mean(0) - 5 / 16).abs().max() < 4.5 * 0.0164


def test_too_few_masks_to_cover_every_patch_are_a_reason_to_skip(network, explain):
    model = at_ratio(network("avg"), 0.1)
    with pytest.raises(Skip, match="4 masks of 2 of 16 cells cannot have every patch masked; it takes 8"):
        explain("reconstruction_error", model, images(), classes(), masks=4)
    with pytest.raises(Skip, match="cannot have every patch shown; it takes 8"):
        explain("reconstruction_saliency", at_ratio(model, 0.875), images(), classes(), masks=4)


def test_more_masks_than_a_pass_holds_are_split(network):
    model = network("avg")
    masks = _reconstruction.draw(model, images(2), 130, generator())
    seen = []

    def share(some, masked):
        seen.append(len(some))
        return torch.stack([some.mean((1, 2, 3)), masked.double().mean((1, 2)).float()], 1)

    found = _reconstruction.over_masks(share, images(2), masks)
    limit = batch_size(torch.device("cpu"))
    assert sum(seen) == 2 * 130
    assert max(seen) <= limit
    assert len(seen) == 2 * -(-130 // limit)
    assert found.shape == (2, 130, 2)
    torch.testing.assert_close(found[..., 0], images(2).mean((1, 2, 3)).unsqueeze(1).expand(2, 130))
    torch.testing.assert_close(found[..., 1], torch.full((2, 130), 0.5))


# Reconstruction error


def test_the_error_counts_where_the_patch_was_masked_and_only_there(planted_network, explain):
    wrong = torch.rand(1, 1, 4, 4, generator=generator(4))
    far = to_pixels(wrong[:, 0], (32, 32)).unsqueeze(1)
    model = planted_network(lambda some, mask: torch.where(mask, some + far, some - 100), 0.6)
    maps = explain("reconstruction_error", model, images(), classes(), masks=7)
    torch.testing.assert_close(maps, wrong[:, 0].expand(3, -1, -1), atol=1e-5, rtol=1e-5)


def test_a_network_that_reconstructs_nothing_leaves_the_image(planted_network, explain):
    model = planted_network(lambda some, mask: torch.zeros_like(some))
    maps = explain("reconstruction_error", model, images(), classes(), masks=9)
    torch.testing.assert_close(maps, patch_sum(images().sum(1), (4, 4)) / (3 * 64))


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_the_error_is_simmims_loss_where_one_patch_is_masked(pooling, network, explain):
    """At a ratio of 1/16 a round masks each patch once and alone, so the loss of that mask is its error."""
    model = at_ratio(network(pooling), 1 / 16)
    maps = explain("reconstruction_error", model, images(), classes(), masks=16).flatten(1)
    for place in range(16):
        mask = (torch.arange(16) == place).reshape(1, 4, 4)
        for image, value in zip(images(), maps[:, place], strict=True):
            loss, _ = model.pretraining.network(image.unsqueeze(0), mask)
            assert value.item() == pytest.approx(loss.item(), rel=1e-5)


def test_a_patch_that_its_context_does_not_lead_to_expect_stands_out(network, explain):
    torch.manual_seed(0)
    trained = SimMIM(size=32, patch=8, width=24, depth=2, heads=3)
    flat = torch.rand(64, 3, 1, 1, generator=generator()).expand(-1, -1, 32, 32).contiguous()
    optimiser = torch.optim.AdamW(trained.parameters(), lr=3e-3)
    for _ in range(60):
        masks = torch.rand(64, 16, generator=generator(1)).argsort(1).reshape(64, 4, 4) < 8
        optimiser.zero_grad()
        trained(flat, masks)[0].backward()
        optimiser.step()
    model = network("avg")
    model.pretraining = Pretraining(trained.eval().requires_grad_(False), 0.5, 8)
    odd = flat[:16].clone()
    for place, image in enumerate(odd):
        patch_of(image.unsqueeze(0), place)[:] = 1 - image[:, :1, :1].round()
    maps = explain("reconstruction_error", model, odd, classes(16)).flatten(1)
    assert (maps.argmax(1) == torch.arange(16)).float().mean() > 0.9


# Reconstruction saliency


def test_what_lowers_the_loss_is_positive_and_of_the_size_of_its_effect(planted_network, explain):
    """Masked pixels become the sum over patch 6 times a weight, and are still too dark: d loss / d pixel = -weight."""

    def rule(some, mask, weight=1e-3):
        source = patch_of(some * ~mask, 6).sum((1, 2, 3)).reshape(-1, 1, 1, 1)
        return weight * source * torch.ones_like(some)

    bright = 0.5 + images() / 2
    for sign in (1, -1):
        model = planted_network(lambda some, mask, sign=sign: sign * rule(some, mask))
        maps = explain("reconstruction_saliency", model, bright, classes(), masks=6)
        expected = torch.zeros_like(bright)
        patch_of(expected, 6)[:] = sign * 1e-3 * patch_of(bright, 6)
        torch.testing.assert_close(maps, expected.sum(1))


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_is_captums_input_x_gradient_of_the_loss_where_one_patch_is_visible(pooling, network, explain):
    """At a ratio of 15/16 a round shows each patch once and alone."""
    model = at_ratio(network(pooling), 15 / 16)
    maps = explain("reconstruction_saliency", model, images(), classes(), masks=16)
    expected = torch.zeros(3, 32, 32)
    for place in range(16):
        shown = (torch.arange(16) == place).reshape(1, 4, 4)

        def loss(some, masked=~shown):
            fixed = model.pretraining.network.encoder.normalise(some.detach())
            pictures = model.pretraining.network.reconstruct(some, masked.expand(len(some), -1, -1))
            return torch.stack(
                [masked_l1(*pair, masked) for pair in zip(fixed.split(1), pictures.split(1), strict=True)]
            )

        attributions = InputXGradient(loss).attribute(images().requires_grad_()).sum(1).detach()
        expected -= attributions * to_pixels(shown, (32, 32))
        assert (attributions * ~to_pixels(shown, (32, 32)) == 0).all(), "a masked patch cannot be read"
    torch.testing.assert_close(maps, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)


# Reconstruction of one patch


@pytest.mark.parametrize("option", [{}, {"patch": 10}, {"patch": 0}, {"patch": 15}])
def test_a_patch_that_is_reconstructed_from_another_names_it(option, planted_network, explain):
    source, place = 6, option.get("patch", 10)  # of 4 x 4 patches, 10 is the centre

    def rule(some, mask):
        mean = patch_of(some * ~mask, source).mean((1, 2, 3)).reshape(-1, 1, 1, 1)
        here = to_pixels((torch.arange(16) == place).reshape(1, 4, 4), (32, 32))
        return torch.where(here, -2 * mean, some + mask)  # other patches change with every mask, and do not count

    maps = explain("patch_reconstruction", planted_network(rule), images(), classes(), **option)
    expected = torch.zeros(3, 16)
    expected[:, source] = 2 * patch_of(images(), source).mean((1, 2, 3))
    torch.testing.assert_close(maps.flatten(1), expected)


def test_one_masked_patch_at_a_time(network, explain):
    model = network("avg")
    reconstruct = model.pretraining.network.reconstruct
    maps = explain("patch_reconstruction", model, images(), classes(), patch=5).flatten(1)
    for image, found in zip(images().split(1), maps, strict=True):
        alone = torch.zeros(1, 16, dtype=torch.bool)
        alone[0, 5] = True
        whole = patch_of(reconstruct(image, alone.reshape(1, 4, 4)), 5)
        for place in range(16):
            mask = alone.clone()
            mask[0, place] = True
            change = patch_of(reconstruct(image, mask.reshape(1, 4, 4)), 5) - whole
            assert found[place].item() == pytest.approx(change.abs().mean().item(), rel=1e-3, abs=1e-8)
    assert (maps[:, 5] == 0).all()


def test_a_patch_outside_the_grid_is_named(network, explain):
    words = r"patch_reconstruction\.patch: 16 is not a patch of the 4 x 4 grid; use 0 to 15"
    with pytest.raises(UserError, match=words):
        explain("patch_reconstruction", network("avg"), images(), classes(), patch=16)


# What they share


@pytest.mark.parametrize("name", MIM)
def test_passes_are_counted_at_the_decoder(name, network, explain):
    model, plugin = network("avg"), registry.find("explainers", name)
    counted = []
    hook = model.pretraining.network.decoder.register_forward_hook(lambda *given: counted.append(len(given[2])))
    options = {"masks": 70} if "masks" in plugin.options else {}
    with passes.counted(model) as measured:
        explain(name, model, images(), classes(), **options)
    hook.remove()
    assert measured.forward + measured.backward == sum(counted) == 3 * (70 if options else 16)
    assert max(counted) <= 64
    assert bool(measured.backward) == (name == "reconstruction_saliency")


@pytest.mark.parametrize("name", MIM)
def test_an_encoder_without_a_pretraining_network_is_skipped(name, vit):
    plugin = registry.find("explainers", name)
    with pytest.raises(Skip, match=f"the explainer {name} needs the encoder's pretraining network"):
        explainers.bind(ExplainerSpec(name, plugin, None, {}), vit("avg"))


# Embedding


class Embedded(nn.Module):
    """A linear embedding [width, 3, H, W] and a head on it."""

    arch, pooling, pretraining = "vit", "avg", None

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight)
        self.backbone = nn.Module()
        self.backbone.head = nn.Linear(len(weight), 2)
        self.backbone.get_classifier = lambda: self.backbone.head

    def forward(self, some):
        return self.backbone.head(torch.einsum("nchw,kchw->nk", some, self.weight))


def test_a_linear_embedding_by_hand(explain):
    weight = torch.randn(5, 3, 32, 32, generator=generator())
    maps = explain("embedding", Embedded(weight), images(), classes())
    rows = torch.einsum("nchw,kchw->nk", images(), weight)
    torch.testing.assert_close(maps, (images() * torch.einsum("nk,kchw->nchw", rows, weight)).sum(1))
    torch.testing.assert_close(maps.sum((1, 2)), rows.square().sum(1), rtol=1e-4, atol=1e-3)


def test_an_embedding_that_reads_one_patch(explain):
    weight = torch.zeros(4, 3, 32, 32)
    patch_of(weight, 9)[:] = torch.rand(4, 3, 8, 8, generator=generator())
    maps = patch_sum(explain("embedding", Embedded(weight), images(), classes()), (4, 4)).flatten(1)
    assert (maps.argmax(1) == 9).all()
    assert (maps.index_fill(1, torch.tensor([9]), 0) == 0).all()


@pytest.mark.parametrize("kind", ["avg", "token", "resnet"])
def test_is_captums_input_x_gradient_of_the_product_of_embeddings(kind, network, explain):
    model = network(kind)

    def embed(some):
        features = model.backbone.forward_features(model.normalise(some))
        return model.backbone.forward_head(features, pre_logits=True)

    fixed = embed(images())

    def product(some):
        return (embed(some) * fixed).sum(1)

    expected = InputXGradient(product).attribute(images().requires_grad_()).sum(1).detach()
    maps = explain("embedding", model, images(), classes())
    torch.testing.assert_close(maps, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize("kind", ["avg", "token", "resnet"])
def test_the_head_has_no_part_in_it(kind, network, explain):
    model = network(kind)
    before = explain("embedding", model, images(), classes())
    model.backbone.get_classifier().weight.mul_(-3)
    assert torch.equal(explain("embedding", model, images(), classes()), before)
