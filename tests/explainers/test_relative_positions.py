"""Every explainer reads a transformer with relative positions as it reads any: held to timm's ViT of the same weights.

timm's VisionTransformer adds a given mask to its attention's logits. With the biases as that mask, a class token, layer
scale, and no positions, it computes what Beit does, through other modules: their maps must be the same.
"""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from unmask import contract, registry
from unmask.contract.trial import CLASSES, PATCH, SIZE
from unmask.errors import Skip
from unmask.models import relative
from unmask.models.simmim import SimMIM
from unmask.models.vit import Classifier, Pretraining

KNOWN = registry.available("explainers")
SHAPE = {"size": SIZE, "patch": PATCH, "width": 32, "depth": 2, "heads": 2}
EVERY = [(name, kind) for name in sorted(KNOWN) for kind in contract.kinds(KNOWN[name]) if kind in ("avg", "token")]
INSIDE = [(name, kind) for name, kind in EVERY if KNOWN[name].meta["family"] in ("attention", "relevance")]


class Biased(Classifier):
    """timm's VisionTransformer with biases [1, heads, T, T] added to the logits of all its blocks; None = none."""

    biases = None

    def through(self, tokens, start=0, *, attend=None, places=None):
        mask = self.biases
        if attend is not None and mask is not None:
            mask = mask.masked_fill(~attend, -torch.inf)
        for block in self.backbone.blocks[start:]:
            tokens = block(tokens, attn_mask=attend if mask is None else mask)
        return tokens


def twin(model: Classifier, biased: bool) -> Classifier:
    """A ViT with a Beit's weights. Without biases it has no layer scale either, since both are then left out there."""
    beit = model.backbone
    vit = VisionTransformer(
        **{"img_size": SIZE, "patch_size": PATCH, "embed_dim": 32, "depth": 2, "num_heads": 2, "class_token": True},
        **{"num_classes": model.classes, "global_pool": model.pooling, "init_values": 1.0 if biased else None},
    )
    state = dict(beit.state_dict())
    for number in range(2):
        own = f"blocks.{number}."
        queries, values = (state.pop(f"{own}attn.{one}_bias") for one in "qv")
        state[f"{own}attn.qkv.bias"] = torch.cat([queries, torch.zeros(32), values])
        for place in "12":
            gamma = state.pop(f"{own}gamma_{place}")
            if biased:
                state[f"{own}ls{place}.gamma"] = gamma
    del state["rel_pos_bias.relative_position_bias_table"]
    state["pos_embed"] = torch.zeros_like(vit.pos_embed)
    vit.norm, vit.fc_norm = copy.deepcopy(beit.norm), copy.deepcopy(beit.fc_norm)
    vit.load_state_dict(state)
    made = Biased.around(vit)
    made.biases = relative.bias(beit).detach() if biased else None
    if model.mask_token is not None:
        made.mask_token = nn.Parameter(model.mask_token.clone())
    return made.eval().requires_grad_(False)


@cache
def pair(pooling: str, biased: bool) -> tuple[Classifier, Classifier]:
    """A classifier with relative positions and its twin, both with their pretraining networks."""
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        model = Classifier(**SHAPE, classes=CLASSES, pooling=pooling, position="relative")
        network = SimMIM(**SHAPE, pooling=pooling, position="relative")
        for parameter in (*model.parameters(), *network.parameters()):
            nn.init.normal_(parameter, std=0.15)
    for one in (model, network.encoder):
        if not biased:
            nn.init.zeros_(one.backbone.rel_pos_bias.relative_position_bias_table)
        for block in one.backbone.blocks:
            for gamma in (block.gamma_1, block.gamma_2):
                nn.init.uniform_(gamma, 0.5, 1.5) if biased else nn.init.ones_(gamma)
    model.mask_token = nn.Parameter(network.encoder.mask_token.clone())
    for part in (model, network):
        part.eval().requires_grad_(False)
    other, its = twin(model, biased), copy.deepcopy(network)
    its.encoder = twin(network.encoder, biased)
    model.pretraining, other.pretraining = Pretraining(network, 0.5, PATCH), Pretraining(its, 0.5, PATCH)
    return model, other


def maps(name: str, model: Classifier, **options):
    trial = contract.Trial(KNOWN[name], model.pooling)
    trial.spec.options.update(options)
    return trial.run(model)


def same(name: str, kind: str, biased: bool, **options) -> None:
    model, other = pair(kind, biased)
    given, expected = maps(name, model, **options), maps(name, other, **options)
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max().clamp(min=1e-6)))


@pytest.mark.parametrize("pooling", ["avg", "token"])
@pytest.mark.parametrize("biased", [True, False])
def test_the_twins_decide_alike(pooling, biased):
    model, other = pair(pooling, biased)
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images), other(images), rtol=1e-4, atol=1e-5)
    assert (model(images) - model(images).mean(0)).abs().max() > 0.01


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_maps_are_those_of_a_vit_with_the_biases_as_its_mask(name, kind):
    same(name, kind, biased=True)


@pytest.mark.parametrize(("name", "kind"), INSIDE)
def test_without_biases_maps_are_those_of_a_plain_vit(name, kind):
    same(name, kind, biased=False)


@pytest.mark.parametrize("name", ["attn_lrp", "cp_lrp"])
def test_the_gamma_rule_counts_the_biases_of_queries_and_values(name):
    same(name, "avg", biased=True, gamma=0.25)


@pytest.mark.parametrize("removal", ["mask_token", "token_drop", "inpaint"])
def test_removals_are_those_of_a_vit_with_the_biases_as_its_mask(removal):
    model, other = pair("avg", True)
    given, expected = (contract.Trial(KNOWN["occlusion"], "avg").run(one, removal=removal) for one in (model, other))
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert expected.abs().max() > 0


def test_relevance_is_refused_where_an_mlp_has_a_gate():
    from timm.layers import SwiGLU

    model = Classifier(**SHAPE, classes=CLASSES)
    model.backbone.blocks[1].mlp = SwiGLU(32)
    with pytest.raises(Skip, match="no rule for the gated MLPs"):
        maps("attn_lrp", model)
