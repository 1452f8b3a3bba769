"""Gradient explainers against closed forms on a linear model and plain autograd on a transformer."""

from __future__ import annotations

import pytest
import torch

from unmask.errors import UserError
from unmask.models.vit import MEAN

POOLINGS = pytest.mark.parametrize("pooling", ["avg", "token"])


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(3, 3, 32, 32, generator=generator)
    return images, torch.tensor([2, 0, 1]), torch.randn(3, 3, 32, 32, generator=generator)


def autograd(model, images, targets):
    images = images.clone().requires_grad_()
    chosen = sum(logits[target] for logits, target in zip(model(images), targets, strict=True))
    return torch.autograd.grad(chosen, images)[0]


def test_closed_forms_on_a_linear_model(linear, explain, batch):
    images, targets, weight = batch
    model, own = linear(weight), weight[targets]
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    cases = {
        ("saliency",): own.abs().amax(1),
        ("input_x_gradient",): (own * images).sum(1),
        ("smoothgrad",): own.abs().amax(1),
        ("integrated_gradients", "mean"): (own * (images - mean)).sum(1),
        ("integrated_gradients", "zero"): (own * images).sum(1),
    }
    for (name, *baseline), expected in cases.items():
        maps = explain(name, model, images, targets, **({"baseline": baseline[0]} if baseline else {}))
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


@POOLINGS
def test_saliency_and_input_x_gradient_are_plain_gradients(pooling, vit, explain, batch):
    images, targets, _ = batch
    model = vit(pooling)
    slopes = autograd(model, images, targets)
    for name, expected in (("saliency", slopes.abs().amax(1)), ("input_x_gradient", (slopes * images).sum(1))):
        maps = explain(name, model, images, targets)
        torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@POOLINGS
@pytest.mark.parametrize("baseline", ["mean", "zero", "blur", "white"])
def test_integrated_gradients_are_complete(pooling, baseline, vit, explain, batch):
    from unmask.removals import blur, mean, zero

    images, targets, _ = batch
    model = vit(pooling)
    white = torch.ones_like(images)
    start = white if baseline == "white" else {"mean": mean, "zero": zero, "blur": blur}[baseline].absent(model, images)
    rows = torch.arange(3)
    gap = model(images)[rows, targets] - model(start)[rows, targets]
    sums = explain("integrated_gradients", model, images, targets, baseline=baseline).sum((1, 2))
    torch.testing.assert_close(sums, gap, rtol=1e-3, atol=1e-4)


def test_integrated_gradients_are_the_path_integral(vit, explain, batch):
    images, targets, _ = batch
    model = vit("avg")
    shares = (torch.arange(100) + 0.5) / 100  # midpoint rule
    expected = sum(autograd(model, images * share, targets) for share in shares) / 100 * images
    maps = explain("integrated_gradients", model, images, targets, baseline="zero")
    torch.testing.assert_close(maps, expected.sum(1), rtol=1e-2, atol=1e-3 * maps.abs().max().item())


def test_an_unknown_baseline_is_a_users_mistake(vit, explain, batch):
    images, targets, _ = batch
    for name in ("integrated_gradients", "deeplift"):
        with pytest.raises(UserError, match=f"{name}.baseline: 'grey' is not a baseline; use one of mean, zero, blur"):
            explain(name, vit("avg"), images, targets, baseline="grey")


def test_smoothgrad_without_noise_is_saliency(vit, explain, batch):
    images, targets, _ = batch
    maps = [
        explain(name, vit("avg"), images, targets, **given)
        for name, given in (("smoothgrad", {"samples": 2, "noise": 0.0}), ("saliency", {}))
    ]
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-3 * maps[1].max().item())


def test_smoothgrad_noise_is_a_share_of_each_images_range(linear, explain):
    """On half the squared norm the gradient is the input, so the map is the mean noisy copy."""

    class Square(linear):
        def forward(self, images):
            return images.square().sum((1, 2, 3)).div(2).unsqueeze(1)

    model, targets = Square(torch.zeros(1, 3, 32, 32)), torch.zeros(2, dtype=torch.int64)
    images = torch.full((2, 3, 32, 32), 0.0)
    images[0, :, 0, 0], images[1, :, 0, 0] = 1.0, 0.5  # ranges 1 and .5
    maps = explain("smoothgrad", model, images, targets, samples=4, noise=0.2)[:, 1:]
    spread = maps.square().mean((1, 2)).sqrt()
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.1)
    # E[max of three |normals|^2] is about 2.10; the mean of four draws halves the deviation.
    assert spread[0].item() == pytest.approx(0.2 / 2 * 2.10**0.5, rel=0.1)
