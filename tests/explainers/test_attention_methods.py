"""Raw attention by head, attention flow and LeGrad against computations by hand and networkx."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import maximum_flow

from unmask.errors import Skip, UserError
from unmask.explainers import attention_flow
from unmask.explainers.attention_flow import flows

POOLINGS = pytest.mark.parametrize("pooling", ["avg", "token"])


@pytest.fixture(scope="module")
def batch():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.tensor([2, 0, 1])


def attend(block, tokens):
    """Attention and output of a block's attention layer, [N, heads, T, T] and [N, T, D], from its weights."""
    attn, hidden = block.attn, block.norm1(tokens)
    n, t, width = hidden.shape
    query, key, value = (hidden @ attn.qkv.weight.T + attn.qkv.bias).reshape(n, t, 3, attn.num_heads, -1).unbind(2)
    scores = torch.einsum("nqhd,nkhd->nhqk", query, key) / (width // attn.num_heads) ** 0.5
    weights = scores.softmax(-1).detach().requires_grad_()
    mixed = torch.einsum("nhqk,nkhd->nqhd", weights, value).reshape(n, t, width)
    return weights, mixed @ attn.proj.weight.T + attn.proj.bias


@POOLINGS
@pytest.mark.parametrize("head", [0, 1])
def test_raw_attention_of_one_head(pooling, head, vit, explain, batch):
    images, targets = batch
    model = vit(pooling)
    tokens = model.backbone.blocks[0](model.backbone._pos_embed(model.embed(images)))
    last = attend(model.backbone.blocks[1], tokens)[0].detach()[:, head]
    row = last[:, 0, 1:] if pooling == "token" else last.mean(1)
    maps = explain("raw_attention", model, images, targets, head=head)
    torch.testing.assert_close(maps.flatten(1), row, rtol=1e-4, atol=1e-6)


def test_raw_attention_is_the_mean_of_its_heads(vit, explain, batch):
    model = vit("avg")
    heads = torch.stack([explain("raw_attention", model, *batch, head=head) for head in (0, 1)])
    assert not torch.allclose(heads[0], heads[1], rtol=1e-2)
    torch.testing.assert_close(explain("raw_attention", model, *batch), heads.mean(0))


@pytest.mark.parametrize("head", [2, -2])
def test_a_head_that_the_model_lacks_is_named_with_its_key(head, vit, explain, batch):
    with pytest.raises(UserError, match=rf"explain\.options\.raw_attention\.head: .*{head}; use 0 to 1, or -1"):
        explain("raw_attention", vit("avg"), *batch, head=head)


def network(attention, prefix, token):
    """The graph of attention flow, built edge by edge from the paper's words."""
    graph = networkx.DiGraph()
    blocks, size, _ = attention.shape
    for block in range(blocks):
        for query in range(size):
            for key in range(size):
                capacity = 0.5 * attention[block, query, key] + 0.5 * (query == key)
                graph.add_edge((block + 1, query), (block, key), capacity=capacity)
    if token:
        graph.add_edge("decision", (blocks, 0), capacity=1.0)
    else:
        for query in range(prefix, size):
            graph.add_edge("decision", (blocks, query), capacity=1 / (size - prefix))
    return graph


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("token", [False, True])
def test_flows_are_those_of_networkx(blocks, token):
    rng = np.random.default_rng(blocks)
    attention = rng.dirichlet(np.full(7, 0.4), size=(blocks, 7))
    graph = network(attention, int(token), token)
    expected = [networkx.maximum_flow_value(graph, "decision", (0, sink)) for sink in range(int(token), 7)]
    assert len(set(np.round(expected, 3))) > 1
    np.testing.assert_allclose(flows(attention, int(token), token), expected, atol=1e-6)


def test_flow_of_two_blocks_in_closed_form():
    """Each path from the class token to a patch has two edges of its own, and the narrower one decides."""
    attention = np.random.default_rng(0).dirichlet(np.full(10, 0.5), size=(2, 10))
    first, second = (attention + np.eye(10)) / 2
    expected = np.minimum(second[0, :, None], first).sum(0)[1:]
    np.testing.assert_allclose(flows(attention, 1, True), expected, atol=1e-6)


@POOLINGS
def test_attention_flow_takes_the_models_attention(pooling, vit, explain, batch):
    images, targets = batch
    model = vit(pooling)
    tokens, kept = model.backbone._pos_embed(model.embed(images)), []
    for block in model.backbone.blocks:
        kept.append(attend(block, tokens)[0].detach().mean(1))
        tokens = block(tokens)
    graph = network(torch.stack([block[1] for block in kept]).double().numpy(), model.prefix, pooling == "token")
    sinks = range(model.prefix, 16 + model.prefix)
    expected = torch.tensor([networkx.maximum_flow_value(graph, "decision", (0, sink)) for sink in sinks])
    maps = explain("attention_flow", model, images, targets)
    torch.testing.assert_close(maps[1].flatten().double(), expected.double(), rtol=0, atol=1e-5)


def test_attention_flow_solves_one_flow_for_each_patch_and_no_more(vit, explain, batch, monkeypatch):
    solved = []

    def counting(*given):
        solved.append(given)
        return maximum_flow(*given)

    monkeypatch.setattr(attention_flow, "maximum_flow", counting)
    explain("attention_flow", vit("avg"), *batch, largest=16)
    assert len(solved) == 3 * 16
    with pytest.raises(Skip, match=r"16 patches, more than the 15 that explain\.options\.attention_flow\.largest"):
        explain("attention_flow", vit("avg"), *batch, largest=15)
    assert len(solved) == 3 * 16


@POOLINGS
def test_legrad_by_hand(pooling, vit, explain, batch):
    """Block by block, each with its own forward pass from tokens that are numbers, not part of a graph."""
    images, targets = batch
    model = vit(pooling)
    vit_, tokens, expected = model.backbone, model.backbone._pos_embed(model.embed(images)).detach(), 0
    norm = vit_.norm if pooling == "token" else vit_.fc_norm
    for block in vit_.blocks:
        weights, mixed = attend(block, tokens)
        after = tokens + mixed
        after = after + block.mlp(block.norm2(after))
        logits = norm(after.mean(1)) @ vit_.head.weight.T + vit_.head.bias
        (slope,) = torch.autograd.grad(logits[torch.arange(3), targets].sum(), weights)
        expected = expected + slope.clamp(min=0).mean(1).mean(1)[:, model.prefix :] / 2
        tokens = after.detach()
    maps = explain("legrad", model, images, targets)
    torch.testing.assert_close(maps.flatten(1), expected, rtol=1e-3, atol=1e-8)


def test_legrad_of_the_last_block_with_finite_differences(vit, explain, batch):
    """One block and mean pooling: the block's logit is the model's, and its slope is seen by moving the attention."""
    images, targets = batch
    model = vit("avg", depth=1, heads=1).double()
    image, target = images[:1].double(), targets[:1]
    attn, step = model.backbone.blocks[0].attn, 1e-6
    attn.fused_attn = False
    slopes = torch.zeros(16, 16, dtype=torch.float64)
    clean = model(image)[0, target]
    for query in range(16):
        for key in range(16):
            move = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
            move[0, 0, query, key] = step
            handle = attn.attn_drop.register_forward_hook(lambda m, i, o, move=move: o + move)
            slopes[query, key] = (model(image)[0, target] - clean) / step
            handle.remove()
    maps = explain("legrad", model, image, target)
    torch.testing.assert_close(maps.flatten(), slopes.clamp(min=0).mean(0), rtol=1e-4, atol=1e-9)
