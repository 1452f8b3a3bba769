"""Every registered explainer keeps the contract, with mean pooling and with a class token."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask import explainers, passes, registry
from unmask.config import ExplainerSpec
from unmask.errors import Skip
from unmask.explain import planned

KNOWN = registry.available("explainers")
SMALL = {"masks": 32, "samples": 3, "steps": 4}
EVERY = pytest.mark.parametrize("name", sorted(KNOWN))
POOLINGS = pytest.mark.parametrize("pooling", ["avg", "token"])
WITH_PASSES = sorted(name for name, plugin in KNOWN.items() if set(plugin.meta["passes"].values()) != {"0"})


def small(name):
    return {key: value for key, value in SMALL.items() if key in KNOWN[name].options}


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(5)
    images, masks = torch.rand(5, 3, 32, 32, generator=generator), torch.rand(5, 32, 32, generator=generator) > 0.5
    return images, torch.tensor([0, 1, 2, 1, 0]), masks


def state(model):
    """All that an explainer could leave changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": {(n, hook): list(getattr(module, hook)) for n, module in model.named_modules() for hook in hooks},
        "requires_grad": {name: weight.requires_grad for name, weight in model.named_parameters()},
        "grads": {name: weight.grad is None for name, weight in model.named_parameters()},
        "fused": [block.attn.fused_attn for block in model.backbone.blocks],
    }


def assert_same(before, after):
    weights = before.pop("weights"), after.pop("weights")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert before == after


@POOLINGS
@EVERY
def test_maps_are_as_declared(name, pooling, vit, explain, batch):
    model, (images, targets, masks) = vit(pooling), batch
    maps = explain(name, model, images, targets, evidence=masks, **small(name))
    assert tuple(maps.shape) == ((5, 4, 4) if KNOWN[name].meta["resolution"] == "patch" else (5, 32, 32))
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert torch.isfinite(maps).all()
    assert (maps.flatten(1).amax(1) > maps.flatten(1).amin(1)).all()
    assert (maps < 0).any() == KNOWN[name].meta["signed"]


@POOLINGS
@EVERY
def test_maps_depend_on_the_generator_alone(name, pooling, vit, explain, batch):
    model, (images, targets, masks) = vit(pooling), batch
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = explain(name, model, images, targets, evidence=masks, **small(name))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    with torch.no_grad():  # a caller's mode must not matter
        assert torch.equal(explain(name, model, images, targets, evidence=masks, **small(name)), first)
    draws = name.startswith("random") or name in ("rise", "smoothgrad")
    other = explain(name, model, images, targets, seed=1, evidence=masks, **small(name))
    assert torch.equal(other, first) != draws


@POOLINGS
@EVERY
def test_maps_do_not_depend_on_the_batch(name, pooling, vit, explain, batch):
    model, (images, targets, masks) = vit(pooling), batch
    whole = explain(name, model, images, targets, evidence=masks, **small(name))
    generator = torch.Generator().manual_seed(0)
    parts = [
        explain(name, model, images[part], targets[part], generator, masks[part], **small(name))
        for part in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())


@pytest.mark.parametrize("grads", [False, True])
@POOLINGS
@EVERY
def test_the_model_is_left_as_found(name, pooling, grads, vit, explain, batch):
    model, (images, targets, masks) = vit(pooling).requires_grad_(grads), batch
    model.backbone.blocks[0].attn.fused_attn = False  # mixed on purpose: each block has its own state to restore
    kept, before = images.clone(), state(model)
    explain(name, model, images, targets, evidence=masks, **small(name))
    assert_same(before, state(model))
    assert torch.equal(images, kept)
    assert not images.requires_grad


class Broken(nn.Module):
    def forward(self, tokens):
        raise RuntimeError("broken on purpose")


@POOLINGS
@pytest.mark.parametrize("name", WITH_PASSES)
def test_the_model_is_left_as_found_after_an_error(name, pooling, vit, explain, batch):
    model, (images, targets, masks) = vit(pooling), batch
    model.backbone.head = Broken()
    before = state(model)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        explain(name, model, images, targets, evidence=masks, **small(name))
    assert_same(before, state(model))


@POOLINGS
@EVERY
def test_declared_passes_are_the_measured_ones(name, pooling, vit, explain, batch):
    model, (images, targets, masks) = vit(pooling), batch
    spec = ExplainerSpec(name, KNOWN[name], None, {**KNOWN[name].options, **small(name)})
    declared = planned(spec, 16)
    with passes.counted(model) as measured:
        explain(name, model, images, targets, evidence=masks, **small(name))
    assert (measured.forward, measured.backward) == (5 * declared.forward, 5 * declared.backward)


@POOLINGS
@EVERY
def test_the_target_matters_exactly_where_declared(name, pooling, vit, explain, batch):
    model, (images, targets, masks) = vit(pooling), batch
    maps = explain(name, model, images, targets, evidence=masks, **small(name))
    others = explain(name, model, images, (targets + 1) % 3, evidence=masks, **small(name))
    if KNOWN[name].meta["class_specific"]:
        assert all(not torch.allclose(a, b, rtol=1e-3, atol=0) for a, b in zip(maps, others, strict=True))
    else:
        assert torch.equal(maps, others)


@pytest.mark.parametrize("removal", ["zero", "mean", "blur", "mask_token"])
@pytest.mark.parametrize("name", sorted(name for name, plugin in KNOWN.items() if "removal" in plugin.meta))
def test_perturbing_explainers_take_every_removal(name, removal, vit, explain, batch):
    model, (images, targets, _) = vit("avg"), batch
    model.mask_token = nn.Parameter(torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0)), False)
    maps = explain(name, model, images, targets, removal=removal, **small(name))
    other = explain(name, model, images, targets, removal="zero" if removal == "mean" else "mean", **small(name))
    assert torch.isfinite(maps).all()
    assert not torch.allclose(maps, other, rtol=1e-2)


def test_an_explainer_of_another_architecture_is_skipped_with_a_reason(vit):
    model = vit("avg")
    model.arch = "resnet"
    with pytest.raises(Skip, match="saliency does not apply to the architecture resnet"):
        explainers.bind(ExplainerSpec("saliency", KNOWN["saliency"], None, {}), model)
