"""Attention and CAM explainers against computations by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask.explainers.attention_rollout import rollout
from unmask.explainers.chefer import relevance
from unmask.models import rules

POOLINGS = pytest.mark.parametrize("pooling", ["avg", "token"])


@pytest.fixture(scope="module")
def batch():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.tensor([2, 0, 1])


def attention_by_hand(block, tokens):
    """softmax(q k / sqrt(d)) of a block, from its weights."""
    attn, hidden = block.attn, block.norm1(tokens)
    n, t, width = hidden.shape
    both = (hidden @ attn.qkv.weight.T + attn.qkv.bias)[..., : 2 * width]
    query, key = both.reshape(n, t, 2, 2, -1).permute(2, 0, 3, 1, 4)
    return (query @ key.transpose(-1, -2) / (width // 2) ** 0.5).softmax(-1)


@POOLINGS
def test_collected_attention_is_that_of_the_weights(pooling, vit, batch):
    model, images = vit(pooling), batch[0]
    tokens = model.backbone._pos_embed(model.embed(images))
    with rules.attention_maps(model) as maps:
        logits = model(images)
    assert len(maps) == 2
    for block, collected in zip(model.backbone.blocks, maps, strict=True):
        torch.testing.assert_close(collected, attention_by_hand(block, tokens), rtol=1e-4, atol=1e-6)
        tokens = block(tokens)
    torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-5)


def test_raw_attention_is_the_last_blocks_row(vit, explain, batch):
    images, targets = batch
    for pooling in ("avg", "token"):
        model = vit(pooling)
        tokens = model.backbone.blocks[0](model.backbone._pos_embed(model.embed(images)))
        last = attention_by_hand(model.backbone.blocks[1], tokens).mean(1)
        row = last[:, 0, 1:] if pooling == "token" else last.mean(1)
        maps = explain("raw_attention", model, images, targets)
        torch.testing.assert_close(maps.flatten(1), row, rtol=1e-4, atol=1e-6)


def test_rollout_of_uniform_and_of_identity_attention():
    uniform, identity = torch.full((1, 2, 5, 5), 0.2), torch.eye(5).expand(1, 2, 5, 5)
    expected = torch.eye(5) / 8 + (1 - 1 / 8) / 5  # (I + U)^3 / 8 with U U = U
    torch.testing.assert_close(rollout([uniform] * 3)[0], expected)
    torch.testing.assert_close(rollout([identity] * 3)[0], torch.eye(5))


def test_rollout_and_relevance_against_numpy():
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(5), size=(3, 2, 4, 5))  # blocks, images, heads, queries
    slopes = rng.normal(size=attention.shape)
    product = np.stack([np.eye(5)] * 2)
    total = np.stack([np.eye(5)] * 2)
    for block, slope in zip(attention, slopes, strict=True):
        for i in range(2):
            mixed = block[i].mean(0) + np.eye(5)
            product[i] = mixed / mixed.sum(1, keepdims=True) @ product[i]
            total[i] = total[i] + np.maximum(slope[i] * block[i], 0).mean(0) @ total[i]
    torch.testing.assert_close(rollout(list(torch.tensor(attention))), torch.tensor(product))
    relevances = relevance(list(torch.tensor(attention)), list(torch.tensor(slopes)))
    torch.testing.assert_close(relevances, torch.tensor(total - np.eye(5)))


def test_decision_row_reads_what_the_pooling_reads(vit):
    matrix = torch.arange(17.0 * 17).reshape(1, 17, 17)
    torch.testing.assert_close(rules.decision_row(vit("token"), matrix).flatten(), matrix[0, 0, 1:])
    torch.testing.assert_close(rules.decision_row(vit("avg"), matrix[:, 1:, 1:]).flatten(), matrix[0, 1:, 1:].mean(0))


def test_chefer_of_one_block_with_finite_differences(vit, explain, batch):
    """One block: the map is E_h[(dy/dA * A)+], the slope taken by moving single entries of the attention."""
    images, targets = batch
    model = vit("token", depth=1, heads=1).double()
    image, target = images[:1].double(), targets[:1]
    with rules.attention_maps(model) as maps:
        model(image)
    clean, step, row = maps[0], 1e-6, torch.zeros(16, dtype=torch.float64)
    model.backbone.blocks[0].attn.fused_attn = False
    for patch in range(16):
        moved = clean.clone()
        moved[0, 0, 0, patch + 1] += step
        handle = model.backbone.blocks[0].attn.attn_drop.register_forward_hook(lambda m, i, o, moved=moved: moved)
        row[patch] = (model(image)[0, target] - _unmoved(model, image, target, handle)) / step
    expected = (row * clean[0, 0, 0, 1:]).clamp(min=0)
    maps = explain("chefer", model, image, target)
    torch.testing.assert_close(maps.flatten(), expected, rtol=1e-3, atol=1e-9)


def _unmoved(model, image, target, handle):
    handle.remove()
    return model(image)[0, target]


def test_grad_cam_with_mean_pooling_in_closed_form(vit, explain, batch):
    """The logit is head(norm(mean of tokens)), whose gradient is written out here."""
    images, targets = batch
    model = vit("avg")
    vit_ = model.backbone
    tokens = vit_.blocks(vit_._pos_embed(model.embed(images)))
    mean = tokens.mean(1)
    centred, deviation = mean - mean.mean(1, keepdim=True), (mean.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    hat, pull = centred / deviation, vit_.head.weight[targets] * vit_.fc_norm.weight
    slope = (pull - pull.mean(1, keepdim=True) - hat * (pull * hat).mean(1, keepdim=True)) / deviation
    expected = (tokens * slope.unsqueeze(1)).sum(2).div(16).relu().reshape(3, 4, 4)
    torch.testing.assert_close(explain("grad_cam", model, images, targets), expected, rtol=1e-3, atol=1e-6)


def test_grad_cam_with_a_class_token_by_hand(vit, explain, batch):
    images, targets = batch
    model = vit("token")
    vit_, last = model.backbone, model.backbone.blocks[-1]
    before = vit_.blocks[0](vit_._pos_embed(model.embed(images)))
    hidden = last.norm1(before).requires_grad_()
    after = before + last.attn(hidden)
    after = after + last.mlp(last.norm2(after))
    logits = vit_.head(vit_.norm(after)[:, 0])
    (slope,) = torch.autograd.grad(logits[torch.arange(3), targets].sum(), hidden)
    expected = (hidden[:, 1:] * slope[:, 1:].mean(1, keepdim=True)).sum(2).relu().reshape(3, 4, 4).detach()
    assert expected.any()
    torch.testing.assert_close(explain("grad_cam", model, images, targets), expected, rtol=1e-3, atol=1e-6)
