"""Gradient methods with changed rules, sampling or a baseline: against closed forms, axioms, captum, and each other."""

from __future__ import annotations

import copy

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn

from unmask.removals import blur, mean, zero

pytestmark = pytest.mark.filterwarnings("ignore:Setting .*hooks:UserWarning")  # captum says so each time
KINDS = pytest.mark.parametrize("kind", ["avg", "token", "resnet"])
POOLINGS = pytest.mark.parametrize("pooling", ["avg", "token"])
NEW = {
    "vargrad": {"samples": 3},
    "gradient_shap": {"samples": 3},
    "guided_backprop": {},
    "deconvolution": {},
    "deeplift": {},
    "guided_grad_cam": {},
}
ROWS = torch.arange(3)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(3, 3, 32, 32, generator=generator)
    images[:, :, 0, 0], images[:, :, 0, 1] = 0.0, 1.0  # so that noise of a share of the range is the share itself
    return images, torch.tensor([2, 0, 1])


@pytest.fixture(scope="module")
def large():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def references():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def resnet(network, pool):
    """A ResNet with `pool` between its stem's ReLU and the residual blocks, and thresholds that are not all 0."""
    model, generator = network("resnet"), torch.Generator().manual_seed(0)
    model.backbone.maxpool = pool
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.copy_(torch.randn(module.bias.shape, generator=generator) / 4)
    return model


def gap(one, other):
    """The largest difference of two tensors, in units of the other's largest value."""
    return ((one - other).abs().max() / other.abs().max()).item()


# VarGrad and GradientSHAP: sampling


@KINDS
def test_noisy_gradients_are_captums_with_the_same_draws(kind, network, explain, batch, monkeypatch):
    images, targets = batch
    model, generator = network(kind), torch.Generator().manual_seed(0)
    draws = torch.cat([torch.randn(8, 3, 32, 32, generator=generator) for _ in images])
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std * draws)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    for name in ("smoothgrad", "vargrad"):
        known = tunnel.attribute(images, name, nt_samples=8, stdevs=0.15, target=targets, abs=False).abs().amax(1)
        assert gap(explain(name, model, images, targets, samples=8, noise=0.15), known) < 1e-4


def test_vargrad_of_a_parabola_is_the_variance_of_the_noise(linear, explain, batch):
    """On half the squared norm of one channel the gradient is that channel of the noisy copy."""

    class Square(linear):
        def forward(self, images):
            return images[:, :1].square().sum((2, 3)).div(2)

    maps = explain("vargrad", Square(torch.zeros(1)), batch[0], torch.zeros(3).long(), samples=64, noise=0.2)
    # The variance of 64 draws is a 64th too small; its relative deviation, 18 %, is .56 % in the mean of 1024 pixels.
    torch.testing.assert_close(maps.mean((1, 2)), torch.full((3,), 0.2**2 * 63 / 64), rtol=0.03, atol=0)


def test_vargrad_of_a_linear_model_is_zero(linear, explain, batch):
    images, targets = batch
    weight = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert explain("vargrad", linear(weight), images, targets).abs().max() < 1e-12


def test_gradient_shap_of_a_linear_model(linear, explain, batch, references):
    images, targets = batch
    weight = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one = explain("gradient_shap", linear(weight), images, targets, references=references[:1])
    torch.testing.assert_close(one, (weight[targets] * (images - references[0])).sum(1), rtol=1e-4, atol=1e-5)
    many = explain("gradient_shap", linear(weight), images, targets, references=references, samples=512)
    expected = (weight[targets] * (images - references.mean(0))).sum(1)
    error = torch.einsum("nchw,rchw->rnhw", weight[targets], references).std(0, correction=0) / 512**0.5
    assert ((many - expected).abs() < 5 * error).all()


@pytest.mark.parametrize("noise", [0.0, 0.1])
@KINDS
def test_gradient_shap_is_captums_with_the_same_draws(kind, noise, network, explain, batch, references, monkeypatch):
    images, targets = batch
    model, generator = network(kind), torch.Generator().manual_seed(0)
    picks, shares, draws = [], [], []
    for _ in images:
        picks.append(torch.randint(5, (8,), generator=generator))
        shares.append(torch.rand(8, generator=generator))
        draws.append(torch.randn(8, 3, 32, 32, generator=generator) if noise else torch.zeros(8, 3, 32, 32))
    maps = explain("gradient_shap", model, images, targets, references=references, samples=8, noise=noise)
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std * torch.cat(draws))
    monkeypatch.setattr(np.random, "choice", lambda *_: torch.cat(picks).numpy())
    monkeypatch.setattr(np.random, "uniform", lambda *_: torch.cat(shares).numpy())
    method = captum.attr.GradientShap(model)
    known = method.attribute(images, references, n_samples=8, stdevs=noise, target=targets)
    assert gap(maps, known.detach().sum(1)) < 1e-4


@POOLINGS
def test_gradient_shap_is_integrated_gradients_averaged_over_the_references(
    pooling, network, explain, batch, references
):
    images, targets = batch
    model = network(pooling)
    method = captum.attr.IntegratedGradients(model)
    paths = torch.stack([method.attribute(images, one[None], targets).detach().sum(1) for one in references])
    maps = explain("gradient_shap", model, images, targets, references=references, samples=1024)
    assert gap(maps, paths.mean(0).float()) < 0.1
    # Complete in expectation: within five standard errors of the mean over the references drawn, and .01 for the path.
    change = model(images)[ROWS, targets] - model(references)[:, targets].mean(0)
    error = 5 * model(references)[:, targets].std(0) / 1024**0.5
    assert ((maps.sum((1, 2)) - change).abs() < error + 0.01).all()


# Guided backpropagation, deconvolution, DeepLIFT: changed rules


class Hidden(nn.Module):
    """One hidden layer: logits V relu(W x), W [16, 3 * 32 * 32], V [3, 16]."""

    arch, pooling, prefix, grid, patch, mask_token, pretraining = "resnet", "avg", 0, (4, 4), 8, None, None

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("first", torch.randn(16, 3 * 32 * 32, generator=generator))
        self.register_buffer("last", torch.randn(3, 16, generator=generator))
        self.relu = nn.ReLU()

    def forward(self, images):
        return self.relu(images.flatten(1) @ self.first.T) @ self.last.T


def test_closed_forms_on_one_hidden_layer(explain, batch):
    images, targets = batch
    model = Hidden()
    before, back = images.flatten(1) @ model.first.T, model.last[targets]
    slopes = {
        "guided_backprop": back.relu() * (before > 0),
        "deconvolution": back.relu(),
        "deeplift": back * before.relu() / before,  # the change from a black image is the value itself
    }
    maps = {name: (slope @ model.first).view_as(images) for name, slope in slopes.items()}
    for name in ("guided_backprop", "deconvolution"):
        assert gap(explain(name, model, images, targets), maps[name].abs().amax(1)) < 1e-5
    assert gap(explain("deeplift", model, images, targets), (images * maps["deeplift"]).sum(1)) < 1e-5


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        ctx.save_for_backward(inputs)
        return inputs.relu()

    @staticmethod
    def backward(ctx, slope):
        return slope.relu() * (ctx.saved_tensors[0] > 0)


class Deconvolved(Guided):
    @staticmethod
    def backward(ctx, slope):
        return slope.relu()


class Rule(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function.apply(inputs)


@pytest.mark.parametrize(("name", "function"), [("guided_backprop", Guided), ("deconvolution", Deconvolved)])
def test_changed_rules_on_a_resnet_are_those_of_a_resnet_with_other_relus(
    name, function, network, explain, large, batch
):
    model, targets = resnet(network, nn.MaxPool2d(3, 2, 1)), batch[1]
    other = copy.deepcopy(model)
    for path, module in model.named_modules():
        if isinstance(module, nn.ReLU):
            other.set_submodule(path, Rule(function))
    leaf = large.clone().requires_grad_()
    (slope,) = torch.autograd.grad(other(leaf)[ROWS, targets].sum(), leaf)
    assert gap(explain(name, model, large, targets), slope.abs().amax(1)) < 1e-5


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 2), nn.MaxPool2d(3, 1, 1, 2)])
@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", "white"])
def test_deeplift_is_complete_on_a_resnet(baseline, pool, network, explain, large, batch):
    model, targets = resnet(network, pool), batch[1]
    white = torch.ones_like(large)
    start = white if baseline == "white" else {"zero": zero, "mean": mean, "blur": blur}[baseline].absent(model, large)
    change = (model(large) - model(start))[ROWS, targets]
    assert change.abs().max() > 0.1
    sums = explain("deeplift", model, large, targets, baseline=baseline).sum((1, 2))
    torch.testing.assert_close(sums, change, rtol=1e-4, atol=1e-5)


class Copy(nn.Module):
    def forward(self, inputs):
        return inputs * 1.0


@pytest.mark.parametrize("baseline", ["zero", "mean", "white"])
def test_deeplift_is_captums_where_captum_is_complete(baseline, network, explain, large, batch):
    """That is: without overlapping windows, and with something between a ReLU and the pool behind it.

    captum reads the gradient behind the ReLU before the pool's rule has changed it (its issue 1104).
    """
    model, targets = resnet(network, nn.Sequential(Copy(), nn.MaxPool2d(2, 2))), batch[1]
    start = {"zero": 0.0, "white": 1.0, "mean": mean.absent(model, large)}[baseline]
    known, left = captum.attr.DeepLift(model).attribute(
        large.clone().requires_grad_(), start, targets, return_convergence_delta=True
    )
    assert left.abs().max() < 1e-4
    assert gap(explain("deeplift", model, large, targets, baseline=baseline), known.detach().sum(1)) < 1e-4


class Pooled(nn.Module):
    """The sum of the maxima in windows of three pixels, two apart, in a row that lies on top of a fixed one."""

    arch, pooling, prefix, grid, patch, mask_token, pretraining = "resnet", "avg", 0, (1, 1), 5, None, None

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d((1, 3), (1, 2))
        self.register_buffer("row", torch.tensor([0.1, 0.2, 0.1, 0.3, 0.1]))

    def forward(self, images):
        return self.pool(self.row + images[:, :1]).sum((2, 3))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.0, 0.0, 0.8, 0.0, 0.0], [0.0, 0.0, 1.3, 0.0, 0.0]),  # wins both windows, .7 in one and .6 in the other
        ([0.2, -0.1, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0, 0.0]),  # a new maximum, .1 above the old one's place
        ([0.05, -0.15, 0.0, 0.0, 0.0], [0.0, -0.05, 0.0, 0.0, 0.0]),  # below it: the old maximum is what was lost
        ([0.0, -0.15, 0.0, -0.1, 0.0], [0.0, -0.1, 0.0, -0.1, 0.0]),
    ],
)
def test_deeplift_shares_out_the_change_of_a_maximum(row, expected, explain):
    images = torch.zeros(1, 3, 1, 5)
    images[0, 0, 0] = torch.tensor(row)
    maps = explain("deeplift", Pooled(), images, torch.zeros(1).long())
    torch.testing.assert_close(maps[0, 0], torch.tensor(expected))


# What coincides on a network with GELU, and does not on one with ReLU


@POOLINGS
def test_on_a_transformer_changed_rules_change_nothing(pooling, network, explain, batch):
    images, targets = batch
    model = network(pooling)
    plain = explain("saliency", model, images, targets)
    for name in ("guided_backprop", "deconvolution"):
        assert torch.equal(explain(name, model, images, targets), plain)
    assert gap(explain("deeplift", model, images, targets), explain("input_x_gradient", model, images, targets)) < 1e-6


def test_on_a_resnet_changed_rules_change_the_map(network, explain, large, batch):
    model, targets = resnet(network, nn.MaxPool2d(3, 2, 1)), batch[1]
    maps = {
        name: explain(name, model, large, targets)
        for name in ("saliency", "guided_backprop", "deconvolution", "input_x_gradient", "deeplift")
    }
    for name, other in (
        ("guided_backprop", "saliency"),
        ("deconvolution", "saliency"),
        ("deconvolution", "guided_backprop"),
        ("deeplift", "input_x_gradient"),
    ):
        assert gap(maps[name], maps[other]) > 0.1


@POOLINGS
def test_deeplift_on_a_transformer_is_gradient_times_change(pooling, network, explain, batch):
    images, targets = batch
    model = network(pooling)
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf)[ROWS, targets].sum(), leaf)
    expected = ((images - mean.absent(model, images)) * slope).sum(1)
    assert gap(explain("deeplift", model, images, targets, baseline="mean"), expected) < 1e-5


# Guided Grad-CAM


def test_guided_grad_cam_on_a_resnet_is_captums(network, explain, large, batch):
    model, targets = resnet(network, nn.MaxPool2d(3, 2, 1)), batch[1]
    method = captum.attr.GuidedGradCam(model, model.backbone.layer4)  # 4 by 4
    leaf = large.clone().requires_grad_()
    known = method.attribute(leaf, targets, interpolate_mode="bilinear").detach().abs().amax(1)
    assert gap(explain("guided_grad_cam", model, large, targets), known) < 1e-5


@POOLINGS
def test_guided_grad_cam_on_a_transformer_is_saliency_times_grad_cam(pooling, network, explain, batch):
    images, targets = batch
    model = network(pooling)
    saliency, cam = (explain(name, model, images, targets) for name in ("saliency", "grad_cam"))
    large = nn.functional.interpolate(cam.unsqueeze(1), (32, 32), mode="bilinear", align_corners=False).squeeze(1)
    assert gap(explain("guided_grad_cam", model, images, targets), saliency * large) < 1e-5


# What the contract test does not reach


class BreaksBackward(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        output = self.inner(inputs)
        if output.requires_grad:
            output.register_hook(self.fail)
        return output

    def fail(self, slope):
        raise RuntimeError("broken on the way back")


@pytest.mark.parametrize("kind", ["avg", "resnet"])
@pytest.mark.parametrize("name", sorted(NEW))
def test_an_error_on_the_way_back_leaves_nothing_behind(name, kind, network, explain, batch):
    model = network(kind)
    place = "patch_embed" if kind == "avg" else "bn1"
    setattr(model.backbone, place, BreaksBackward(getattr(model.backbone, place)))
    if kind == "avg":
        model.backbone.patch_embed.grid_size = (4, 4)
    before = {path: [*vars(module)] for path, module in model.named_modules()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    with pytest.raises(RuntimeError, match="broken on the way back"):
        explain(name, model, *batch, **NEW[name])
    assert {path: [*vars(module)] for path, module in model.named_modules()} == before
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()] == hooks
