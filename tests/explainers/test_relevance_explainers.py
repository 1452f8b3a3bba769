"""Relevance propagation: each rule in closed form, whole networks against explicit propagation, conservation.

`propagate` below sends relevance backwards rule by rule, from the formulas of the papers and without any gradient: the
plug-ins do the same by input x gradient of an altered pass.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unmask.explainers import _lrp, select
from unmask.models import rules

POOLINGS = pytest.mark.parametrize("pooling", ["avg", "token"])
METHODS = pytest.mark.parametrize(("name", "share"), [("attn_lrp", "uniform"), ("cp_lrp", "value")])


@pytest.fixture(scope="module")
def batch():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)).double(), torch.tensor([2, 0, 1])


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def altered(module, rule, values, output_relevance):
    """Relevance of a module's input by input x gradient, with a rule as its forward hook."""
    leaf = values.clone().requires_grad_()
    output = rule(module, (leaf,), module(leaf))
    torch.testing.assert_close(output, module(values))
    (slope,) = torch.autograd.grad(output, leaf, output_relevance / output.detach())
    return leaf.detach() * slope


# The rules of the papers: relevance of the input from that of the output.


def linear_rule(values, weight, bias, relevance, gamma=0.0):
    contributions = values.unsqueeze(-2) * weight  # [..., out, in]
    bias = torch.zeros(len(weight)).to(weight) if bias is None else bias
    output = contributions.sum(-1) + bias
    sign = output.sign().unsqueeze(-1)
    favoured = contributions + gamma * torch.where(contributions * sign > 0, contributions, 0)
    total = favoured.sum(-1) + bias + gamma * torch.where(bias * output > 0, bias, 0)
    return (favoured / total.unsqueeze(-1) * relevance.unsqueeze(-1)).sum(-2)


def layer_norm_rule(values, module, relevance):
    """(x - mean) / sigma * w + b with sigma fixed is linear: token by token, a matrix times x."""
    width = values.shape[-1]
    deviation = (values.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt()
    rows = []
    for token, sigma, given in zip(values, deviation, relevance, strict=True):
        matrix = (torch.eye(width).to(values) - 1 / width) * (module.weight / sigma).unsqueeze(1)
        rows.append(linear_rule(token, matrix, module.bias, given))
    return torch.stack(rows)


def product_rule(left, right, relevance):
    share = relevance / (2 * (left @ right))
    return left * (share @ right.mT), right * (left.mT @ share)


def softmax_rule(scores, output, relevance):
    return scores * (relevance - output * relevance.sum(-1, keepdim=True))


def propagate(model, image, target, share, gamma=0.0):
    """Relevance of the pixels of one image, [3, H, W], and of each block's attention, [heads, T, T]."""
    vit, (height, width), patch = model.backbone, model.grid, model.patch
    pixels = model.normalise(image).squeeze(0)
    columns = pixels.reshape(3, height, patch, width, patch).permute(1, 3, 0, 2, 4).reshape(height * width, -1)
    kernel = vit.patch_embed.proj
    embedded = nn.functional.linear(columns, kernel.weight.flatten(1), kernel.bias)
    entry = embedded if vit.cls_token is None else torch.cat([vit.cls_token[0], embedded])
    tokens, kept = entry + vit.pos_embed[0], []
    for block in vit.blocks:
        saved = _run(block, tokens)
        kept.append(saved)
        tokens = saved.output
    token, norm = model.pooling == "token", vit.norm if model.pooling == "token" else vit.fc_norm
    pooled = tokens[:1] if token else tokens.mean(0, keepdim=True)
    normed, row = norm(pooled), slice(target, target + 1)
    logit = nn.functional.linear(normed, vit.head.weight[row], vit.head.bias[row])
    relevance = linear_rule(normed, vit.head.weight[row], vit.head.bias[row], logit, gamma)
    relevance = layer_norm_rule(pooled, norm, relevance)
    relevance = torch.cat([relevance, 0 * tokens[1:]]) if token else tokens / tokens.sum(0) * relevance
    maps = []
    for saved in reversed(kept):
        relevance, of_attention = _back(saved, relevance, share, gamma)
        maps.insert(0, of_attention)
    relevance = (entry / (entry + vit.pos_embed[0]) * relevance)[model.prefix :]
    relevance = linear_rule(columns, kernel.weight.flatten(1), kernel.bias, relevance, gamma)
    relevance = relevance.reshape(height, width, 3, patch, patch).permute(2, 0, 3, 1, 4).reshape(pixels.shape)
    return relevance, maps


def _run(block, tokens):
    """All that the way back needs of one block, [T, D] tokens in and out."""
    attn = block.attn
    normed = block.norm1(tokens)
    stacked = attn.qkv(normed)
    query, key, value = stacked.reshape(len(tokens), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    scores = query @ key.mT / query.shape[-1] ** 0.5
    attention = scores.softmax(-1)
    mixed = (attention @ value).transpose(0, 1).reshape(tokens.shape)
    projected = attn.proj(mixed)
    middle = tokens + projected
    hidden = block.norm2(middle)
    before = block.mlp.fc1(hidden)
    after = block.mlp.act(before)
    written = block.mlp.fc2(after)
    return SimpleNamespace(**locals(), output=middle + written)


def _back(s, relevance, share, gamma):
    mlp, attn = s.block.mlp, s.block.attn
    of_mlp = linear_rule(s.after, mlp.fc2.weight, mlp.fc2.bias, s.written / s.output * relevance, gamma)
    of_mlp = linear_rule(s.hidden, mlp.fc1.weight, mlp.fc1.bias, of_mlp, gamma)  # the activation passes it on
    relevance = s.middle / s.output * relevance + layer_norm_rule(s.middle, s.block.norm2, of_mlp)
    of_mixed = linear_rule(s.mixed, attn.proj.weight, attn.proj.bias, s.projected / s.middle * relevance, gamma)
    of_mixed = of_mixed.reshape(len(s.tokens), attn.num_heads, -1).transpose(0, 1)
    of_attention, of_value = product_rule(s.attention, s.value, of_mixed)
    if share == "value":
        of_query = of_key = torch.zeros_like(of_value)
        of_value = of_value * 2
    else:
        of_scores = softmax_rule(s.scores, s.attention, of_attention)
        of_query, of_key = product_rule(s.query, s.key.mT, of_scores)
        of_key = of_key.mT
    stacked = torch.stack([of_query, of_key, of_value]).permute(2, 0, 1, 3).reshape(s.stacked.shape)
    of_normed = linear_rule(s.normed, attn.qkv.weight, attn.qkv.bias, stacked, gamma)
    return s.tokens / s.middle * relevance + layer_norm_rule(s.tokens, s.block.norm1, of_normed), of_attention


# Each rule alone.


def test_layer_norm_keeps_the_deviation_fixed():
    module = nn.LayerNorm(6).double().requires_grad_(False)
    module.weight.copy_(draw(6, seed=1))
    module.bias.copy_(draw(6, seed=2))
    values, given = draw(4, 6), draw(4, 6, seed=3)
    torch.testing.assert_close(altered(module, _lrp.layer_norm, values, given), layer_norm_rule(values, module, given))


def test_layer_norm_without_bias_conserves():
    module = nn.LayerNorm(6, bias=False, eps=0).double().requires_grad_(False)
    values, given = draw(4, 6), draw(4, 6, seed=3)
    torch.testing.assert_close(altered(module, _lrp.layer_norm, values, given).sum(), given.sum())


@pytest.mark.parametrize("module", [nn.GELU(), nn.SiLU(), nn.Tanh()])
def test_activations_pass_relevance_on(module):
    values, given = draw(4, 6), draw(4, 6, seed=3)
    torch.testing.assert_close(altered(module, _lrp.activation, values, given), given)


def test_an_activation_of_zero_has_no_relevance_and_no_nan():
    leaf = torch.tensor([0.0, 1.0, -40.0], requires_grad=True)
    output = _lrp.activation(nn.GELU(), (leaf,), nn.functional.gelu(leaf))
    (slope,) = torch.autograd.grad(output.sum(), leaf)
    assert torch.isfinite(slope).all()
    assert slope[0] == 0
    assert (output[0], output[2]) == (0, 0)


@pytest.mark.parametrize("gamma", [0.1, 2.0])
def test_gamma_rule_of_a_linear_layer(gamma):
    module = nn.Linear(6, 5).double().requires_grad_(False)
    module.weight.copy_(draw(5, 6, seed=1))
    module.bias.copy_(draw(5, seed=2))
    values, given = draw(4, 6), draw(4, 5, seed=3)
    found = altered(module, lambda m, i, o: _lrp.linear(m, i, o, gamma), values, given)
    torch.testing.assert_close(found, linear_rule(values, module.weight, module.bias, given, gamma))


def test_gamma_rule_of_non_negative_inputs_is_that_of_the_literature():
    """R_i = sum_j a_i (w_ij + gamma w_ij+) / sum_i a_i (w_ij + gamma w_ij+) R_j, for outputs that are positive."""
    module = nn.Linear(6, 5, bias=False).double().requires_grad_(False)
    module.weight.copy_(draw(5, 6, seed=1) + 1)
    values, given = draw(4, 6).abs(), draw(4, 5, seed=3)
    assert (module(values) > 0).all()
    weight = module.weight + 0.3 * module.weight.clamp(min=0)
    expected = values * ((given / (values @ weight.T)) @ weight)
    found = altered(module, lambda m, i, o: _lrp.linear(m, i, o, 0.3), values, given)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(), given.sum())


def test_gamma_rule_of_a_patch_embedding_is_that_of_its_matrix():
    module = nn.Conv2d(3, 5, 4, stride=4).double().requires_grad_(False)
    values, given = draw(1, 3, 8, 8), draw(1, 5, 2, 2, seed=3)
    found = altered(module, lambda m, i, o: _lrp.linear(m, i, o, 0.5), values, given)
    columns = nn.functional.unfold(values, 4, stride=4)[0].T
    rows = linear_rule(columns, module.weight.flatten(1), module.bias, given[0].flatten(1).T, 0.5)
    torch.testing.assert_close(found, nn.functional.fold(rows.T.unsqueeze(0), (8, 8), 4, stride=4))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("share", ["uniform", "value"])
def test_attention_splits_relevance_as_the_product_and_softmax_rules_say(share, fused):
    """One head: out = softmax(q k' / sqrt(d)) v, relevance of the stacked queries, keys and values."""
    stacked, given = draw(5, 3 * 4), draw(5, 4, seed=3)
    leaf = stacked.clone().requires_grad_()
    query, key, value = _lrp.attention(leaf.unsqueeze(0), _lrp.SHARES[share]).chunk(3, -1)
    if fused:
        output = nn.functional.scaled_dot_product_attention(query, key, value)[0]
    else:
        output = ((query @ key.mT / 2).softmax(-1) @ value)[0]
    (slope,) = torch.autograd.grad(output, leaf, given / output.detach())

    query, key, value = stacked.chunk(3, -1)
    scores = query @ key.T / 2
    of_attention, of_value = product_rule(scores.softmax(-1), value, given)
    of_query, of_key = product_rule(query, key.T, softmax_rule(scores, scores.softmax(-1), of_attention))
    expected = [of_query, of_key.T, of_value]
    if share == "value":
        expected = [torch.zeros(5, 4).double(), torch.zeros(5, 4).double(), 2 * of_value]
    torch.testing.assert_close(stacked * slope, torch.cat(expected, -1))


# Whole networks.


@METHODS
@POOLINGS
@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_maps_are_those_of_explicit_propagation(name, share, pooling, gamma, vit, explain, batch):
    (images, targets), model = batch, vit(pooling).double()
    maps = explain(name, model, images, targets, gamma=gamma)
    expected = torch.stack(
        [propagate(model, images[i : i + 1], targets[i], share, gamma)[0].sum(0) for i in range(len(images))]
    )
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-9)


def without_biases(model):
    """No biases, positions or epsilons: nothing but the image may carry relevance."""
    for name, weight in model.named_parameters():
        if name.endswith("bias") or name.endswith("pos_embed"):
            weight.zero_()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 0.0
    return model


def kept_share(model, name, images, targets, explain, **options):
    """Sum of each map over the target logit."""
    return explain(name, model, images, targets, **options).sum((1, 2)) / select(model(images), targets)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_cp_lrp_conserves_the_logit_without_biases(dtype, gamma, vit, explain, batch):
    model, (images, targets) = without_biases(vit("avg", depth=4, width=48, heads=3).to(dtype)), batch
    found = kept_share(model, "cp_lrp", images.to(dtype), targets, explain, gamma=gamma)
    torch.testing.assert_close(found, torch.ones(3, dtype=dtype), rtol=0, atol=1e-4)


def test_attn_lrp_conserves_the_logit_up_to_the_bias_of_the_softmax(vit, explain):
    """The softmax's expansion has a bias, of either sign. Six random networks at three sizes: median .96 to 1.00 of the
    logit, the middle 80 % of the images .84 to 1.08, and anything where the logit is near 0; so the largest is taken.
    """
    model = without_biases(vit("avg", depth=4, width=48, heads=3).double())
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(3)).double()
    found = kept_share(model, "attn_lrp", images, model(images).abs().argmax(1), explain)
    assert ((found > 0.8) & (found < 1.2)).all()
    assert ((found - 1).abs() > 1e-3).any()


def test_both_are_epsilon_lrp_on_a_linear_network(vit, explain, batch):
    """Blocks that add nothing and no norm: the logit is z W, and the relevance of a pixel z_i W_i."""
    (images, targets), model = batch, vit("avg").double()
    vit_ = model.backbone
    vit_.fc_norm = nn.Identity()
    for block in vit_.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
    kernels = torch.einsum("kd,dcij->kcij", vit_.head.weight, vit_.patch_embed.proj.weight) / 16
    expected = (model.normalise(images) * kernels[targets].tile(1, 1, 4, 4)).sum(1)
    for name in ("attn_lrp", "cp_lrp"):
        torch.testing.assert_close(explain(name, model, images, targets), expected)


@POOLINGS
def test_transformer_attribution_of_explicit_relevances(pooling, vit, explain, batch):
    (images, targets), model = batch, vit(pooling).double()
    with torch.enable_grad(), rules.attention_maps(model) as attention:
        logits = model(images.clone().requires_grad_())
    slopes = torch.autograd.grad(select(logits, targets).sum(), attention)
    size, expected = 16 + model.prefix, []
    for i in range(3):
        product = torch.eye(size, dtype=torch.float64)
        for relevance, slope in zip(propagate(model, images[i : i + 1], targets[i], "uniform")[1], slopes, strict=True):
            product = (torch.eye(size) + (slope[i] * relevance).clamp(min=0).mean(0)) @ product
        product = product - torch.eye(size)
        expected.append(product[0, 1:] if pooling == "token" else product.mean(0))
    maps = explain("transformer_attribution", model, images, targets)
    torch.testing.assert_close(maps.flatten(1), torch.stack(expected), rtol=1e-6, atol=1e-12)


def gradient(model, images):
    with torch.enable_grad():
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad(model(leaf).sum(), leaf)[0]


def test_the_rules_reach_one_model_and_end_with_the_block(vit, batch):
    images, model, other = batch[0], vit("avg").double(), vit("avg").double()
    plain = gradient(model, images)
    with _lrp.propagation(model, "uniform", 0.5):
        assert not torch.allclose(gradient(model, images), plain, rtol=1e-2)
        assert torch.equal(gradient(other, images), plain)
        assert torch.equal(gradient(vit("avg").double(), images), plain)
        torch.testing.assert_close(model(images), other(images))
    assert torch.equal(gradient(model, images), plain)
    with pytest.raises(RuntimeError), _lrp.propagation(model, "uniform", 0.5):
        model(images[:, :2])
    assert torch.equal(gradient(model, images), plain)


def test_evidence_through_the_deviation_of_a_norm_is_misread():
    """A limit of the rule, in numbers: tokens (10, -10, 1, -1) of which the evidence takes most of the first pair.

    What is read is the second pair, 1 before and .8 after. The evidence lifts it from .14 to 1.20, by making it
    large against the rest, and has negative relevance, since with a fixed deviation it only lowers it.
    """
    norm, without = (
        nn.LayerNorm(4, bias=False).double().requires_grad_(False),
        torch.tensor([[10.0, -10, 1, -1]]).double(),
    )
    evidence = torch.tensor([[-9.5, 9.5, -0.2, 0.2]]).double()
    read = [norm(tokens)[0, 2] for tokens in (without, without + evidence)]
    assert read[1] > 5 * read[0]
    tokens = (without + evidence).requires_grad_()
    (slope,) = torch.autograd.grad(_lrp.layer_norm(norm, (tokens,), norm(tokens))[0, 2], tokens)
    assert (evidence * slope).sum() < 0
    torch.testing.assert_close((tokens * slope).sum().detach(), read[1])


@POOLINGS
def test_attn_lrp_agrees_with_lxt(pooling, vit, explain, batch):
    """lxt's explicit rules, function by function; it needs transformers below 5 and is no dependency of ours."""
    lxt = pytest.importorskip("lxt.explicit.functional")
    (images, targets), model = batch, vit(pooling).double()
    vit_ = model.backbone
    identity = pytest.importorskip("lxt.explicit.rules").identity

    def linear(module, values):
        return lxt.linear_epsilon(values, module.weight.flatten(1), module.bias, 1e-12)

    def norm(module, values):
        return lxt.layer_norm(values, module.weight, module.bias, module.eps)

    pixels = model.normalise(images).requires_grad_()
    columns = nn.functional.unfold(pixels, model.patch, stride=model.patch).mT
    tokens = linear(vit_.patch_embed.proj, columns)
    if pooling == "token":
        tokens = torch.cat([vit_.cls_token.expand(3, -1, -1), tokens], 1)
    tokens = lxt.add2(tokens, vit_.pos_embed.expand_as(tokens).clone(), False, 1e-12)
    for block in vit_.blocks:
        attn = block.attn
        stacked = linear(attn.qkv, norm(block.norm1, tokens))
        query, key, value = stacked.reshape(*stacked.shape[:2], 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = lxt.mul2(lxt.matmul(query, key.mT, False, 1e-12), attn.scale)
        mixed = lxt.matmul(lxt.softmax(scores, -1), value, False, 1e-12).transpose(1, 2).reshape(tokens.shape)
        tokens = lxt.add2(tokens, linear(attn.proj, mixed), False, 1e-12)
        hidden = identity(block.mlp.act, linear(block.mlp.fc1, norm(block.norm2, tokens)))
        tokens = lxt.add2(tokens, linear(block.mlp.fc2, hidden), False, 1e-12)
    pooled = (
        norm(vit_.norm, tokens)[:, 0] if pooling == "token" else norm(vit_.fc_norm, lxt.mean(tokens, 1, False, 1e-12))
    )
    logits = select(linear(vit_.head, pooled), targets)
    (expected,) = torch.autograd.grad(logits, pixels, logits.detach())
    maps = explain("attn_lrp", model, images, targets)
    assert (maps - expected.sum(1)).abs().max() < 1e-3 * maps.abs().max()


def test_what_is_not_finite_in_the_model_is_not_hidden():
    values = torch.tensor([0.0, 1.0, float("nan"), float("inf")], requires_grad=True)
    gelu = nn.GELU()
    output = _lrp.activation(gelu, (values,), gelu(values))
    (slope,) = torch.autograd.grad(output, values, torch.ones(4))
    assert slope.isfinite().tolist() == [True, True, False, False]
    assert slope[0] == 0
