"""Every registered explainer keeps the contract on each architecture that it names: ViT (both poolings), ResNet."""

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
KINDS = {"vit": ["avg", "token"], "resnet": ["resnet"]}
CASES = [
    (name, kind)
    for name in sorted(KNOWN)
    for kind in ("avg", "token", "resnet")
    if any(kind in KINDS[arch] for arch in KNOWN[name].meta["architectures"])
]
EVERY = pytest.mark.parametrize(("name", "kind"), CASES)
WITH_PASSES = [(name, kind) for name, kind in CASES if set(KNOWN[name].meta["passes"].values()) != {"0"}]


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
        "fused": [block.attn.fused_attn for block in getattr(model.backbone, "blocks", [])],
        "pretraining": state(model.pretraining.network.encoder) if model.pretraining else None,
    }


def assert_same(before, after):
    if before["pretraining"]:
        assert_same(before.pop("pretraining"), after.pop("pretraining"))
    weights = before.pop("weights"), after.pop("weights")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert before == after


@EVERY
def test_maps_are_as_declared(name, kind, network, explain, batch):
    model, (images, targets, masks) = network(kind), batch
    maps = explain(name, model, images, targets, evidence=masks, **small(name))
    assert tuple(maps.shape) == ((5, 4, 4) if KNOWN[name].meta["resolution"] == "patch" else (5, 32, 32))
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert torch.isfinite(maps).all()
    # The constant control is there for the stage to refuse it.
    assert (maps.flatten(1).amax(1) > maps.flatten(1).amin(1)).all() == (name != "constant")
    assert (maps < 0).any() == KNOWN[name].meta["signed"]


@EVERY
def test_maps_depend_on_the_generator_alone(name, kind, network, explain, batch):
    model, (images, targets, masks) = network(kind), batch
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = explain(name, model, images, targets, evidence=masks, **small(name))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    with torch.no_grad():  # a caller's mode must not matter
        assert torch.equal(explain(name, model, images, targets, evidence=masks, **small(name)), first)
    draws = KNOWN[name].meta.get("draws", False)
    other = explain(name, model, images, targets, seed=1, evidence=masks, **small(name))
    assert torch.equal(other, first) != draws


@EVERY
def test_maps_do_not_depend_on_the_batch(name, kind, network, explain, batch):
    model, (images, targets, masks) = network(kind), batch
    whole = explain(name, model, images, targets, evidence=masks, **small(name))
    generator = torch.Generator().manual_seed(0)
    parts = [
        explain(name, model, images[part], targets[part], generator, masks[part], **small(name))
        for part in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())


@pytest.mark.parametrize("grads", [False, True])
@EVERY
def test_the_model_is_left_as_found(name, kind, grads, network, explain, batch):
    model, (images, targets, masks) = network(kind).requires_grad_(grads), batch
    if kind != "resnet":
        model.backbone.blocks[0].attn.fused_attn = False  # mixed on purpose: each block has its own state to restore
    kept, before = images.clone(), state(model)
    explain(name, model, images, targets, evidence=masks, **small(name))
    assert_same(before, state(model))
    assert torch.equal(images, kept)
    assert not images.requires_grad


class Broken(nn.Module):
    def forward(self, tokens):
        raise RuntimeError("broken on purpose")


@pytest.mark.parametrize(("name", "kind"), WITH_PASSES)
def test_the_model_is_left_as_found_after_an_error(name, kind, network, explain, batch):
    model, (images, targets, masks) = network(kind), batch
    setattr(model.backbone, "fc" if kind == "resnet" else "head", Broken())
    if model.pretraining:
        model.pretraining.network.decoder = Broken()
    before = state(model)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        explain(name, model, images, targets, evidence=masks, **small(name))
    assert_same(before, state(model))


@EVERY
def test_declared_passes_are_the_measured_ones(name, kind, network, explain, batch):
    model, (images, targets, masks) = network(kind), batch
    spec = ExplainerSpec(name, KNOWN[name], None, {**KNOWN[name].options, **small(name)})
    declared = planned(spec, 16, model.backbone.num_features)
    with passes.counted(model) as measured:
        explain(name, model, images, targets, evidence=masks, **small(name))
    assert (measured.forward, measured.backward) == (5 * declared.forward, 5 * declared.backward)


@EVERY
def test_the_target_matters_exactly_where_declared(name, kind, network, explain, batch):
    model, (images, targets, masks) = network(kind), batch
    maps = explain(name, model, images, targets, evidence=masks, **small(name))
    others = explain(name, model, images, (targets + 1) % 3, evidence=masks, **small(name))
    if KNOWN[name].meta["class_specific"]:
        assert all(not torch.allclose(a, b, rtol=1e-3, atol=0) for a, b in zip(maps, others, strict=True))
    else:
        assert torch.equal(maps, others)


@pytest.mark.parametrize("removal", ["zero", "mean", "blur", "mask_token", "token_drop", "inpaint"])
@pytest.mark.parametrize("name", sorted(name for name, plugin in KNOWN.items() if "removal" in plugin.meta))
def test_perturbing_explainers_take_every_removal(name, removal, network, explain, batch):
    model, (images, targets, _) = network("avg"), batch
    maps = explain(name, model, images, targets, removal=removal, **small(name))
    other = explain(name, model, images, targets, removal="zero" if removal == "mean" else "mean", **small(name))
    assert torch.isfinite(maps).all()
    assert not torch.allclose(maps, other, rtol=1e-2)


def test_an_explainer_of_another_architecture_is_skipped_with_a_reason(vit):
    model = vit("avg")
    model.arch = "resnet"
    with pytest.raises(Skip, match="chefer does not apply to the architecture resnet"):
        explainers.bind(ExplainerSpec("chefer", KNOWN["chefer"], None, {}), model)
