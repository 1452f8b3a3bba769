"""Relative positions: timm's Beit to the last bit, and absent patches against the formulas written out."""

import pytest
import relative_by_hand as by_hand
import torch
from timm.models.beit import Beit

from unmask.internals import factors, observe
from unmask.models import checkpoint, pretraining, relative, rules
from unmask.models.classifier import build
from unmask.models.vit import Classifier, DroppedImages, MaskedImages

SIZES = {"size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3}
GRID, HEADS = 4, 3
SCHEMES = pytest.mark.parametrize("position", relative.POSITIONS)
POOLINGS = pytest.mark.parametrize("pooling", ["avg", "token"])


def scattered(module):
    """Weights far from their initial ones, so that attention is far from even and every part matters."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    return module.eval().requires_grad_(False)


def model(position="relative", pooling="avg", **given):
    return scattered(Classifier(**SIZES, classes=5, position=position, pooling=pooling, **given))


def pictures(n=3, seed=1):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@SCHEMES
@POOLINGS
@pytest.mark.parametrize("fused", [True, False])
def test_equals_timms_own_beit(position, pooling, fused):
    net, shared = model(position, pooling), position == "relative"
    timms = (
        Beit(
            **{"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5},
            **{"init_values": 0.1, "use_abs_pos_emb": False, "global_pool": pooling},
            **{"use_shared_rel_pos_bias": shared, "use_rel_pos_bias": not shared},
        )
        .eval()
        .requires_grad_(False)
    )
    timms.load_state_dict(net.backbone.state_dict())
    for module in (*timms.blocks, *net.backbone.blocks):
        module.attn.fused_attn = fused
    images = pictures()
    expected, tolerance = timms(net.normalise(images)), 1e-5 if fused else 0  # a mask's shape decides the fused kernel
    torch.testing.assert_close(net(images), expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(net.backbone(net.normalise(images)), expected)
    assert (net.prefix, net.grid, net.pooling) == (1, (4, 4), pooling)


@SCHEMES
@POOLINGS
def test_equals_the_formulas_and_so_does_its_attention(position, pooling):
    net = model(position, pooling).double()
    images, state = pictures().double(), net.backbone.state_dict()
    tokens, maps = by_hand.blocks(state, by_hand.embed(state, net.normalise(images), 8), HEADS, GRID)
    torch.testing.assert_close(net(images), by_hand.decide(state, tokens, pooling))
    with rules.attention_maps(net) as seen:
        net(images)
    for one, expected in zip(seen, maps, strict=True):
        torch.testing.assert_close(one, expected)
    assert all(block.attn.fused_attn for block in net.backbone.blocks)
    assert (maps[0] - maps[0].mean(-1, keepdim=True)).abs().max() > 0.1


@SCHEMES
@POOLINGS
@pytest.mark.parametrize("fused", [True, False])
def test_dropped_patches_leave_the_biases_of_those_that_stay(position, pooling, fused):
    net, images = model(position, pooling).double(), pictures(6).double()
    for block in net.backbone.blocks:
        block.attn.fused_attn = fused
    order = torch.rand(6, 16, generator=torch.Generator().manual_seed(0)).argsort(1).argsort(1)
    keep = order < torch.tensor([1, 2, 6, 11, 15, 16]).unsqueeze(1)
    state = net.backbone.state_dict()
    embedded = by_hand.embed(state, net.normalise(images), 8)
    rows = []
    for tokens, one in zip(embedded, keep, strict=True):
        kept = one.nonzero().flatten().tolist()
        rows.append(by_hand.decide(state, by_hand.blocks(state, tokens[None, kept], HEADS, GRID, kept)[0], pooling))
    expected = torch.cat(rows)
    torch.testing.assert_close(net(DroppedImages(images, keep.reshape(6, 4, 4))), expected)
    assert (net(images)[:5] - expected[:5]).abs().amax(1).min() > 1e-2, "what is dropped matters"


@POOLINGS
def test_masked_patches_are_the_mask_token_where_only_attention_tells_the_place(pooling):
    net, images = model(pooling=pooling), pictures()
    net.mask_token = torch.nn.Parameter(torch.randn(1, 1, 24), requires_grad=False)
    keep = torch.rand(3, 4, 4) > 0.4
    state = net.backbone.state_dict()
    tokens = by_hand.embed(state, net.normalise(images), 8)
    tokens[~keep.flatten(1)] = net.mask_token[0, 0]
    expected = by_hand.decide(state, by_hand.blocks(state, tokens, HEADS, GRID)[0], pooling)
    torch.testing.assert_close(net(MaskedImages(images, keep)), expected, rtol=1e-4, atol=1e-4)


def test_maes_encoder_works_on_the_visible_patches_and_their_biases():
    options = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    net = scattered(pretraining.build("mae", {**SIZES, "position": "relative"}, options)).double()
    images, visible = pictures().double(), torch.zeros(3, 16, dtype=torch.bool)
    for row, kept in enumerate(([1, 4, 5, 15], [0, 3], [2, 7, 9, 10])):
        visible[row, kept] = True
    tokens, places = net.encode(images, visible)
    vit = net.encoder.backbone
    state = vit.state_dict()
    embedded = by_hand.embed(state, net.encoder.normalise(images), 8)
    for row in range(3):
        kept = visible[row].nonzero().flatten().tolist()
        expected = vit.norm(by_hand.blocks(state, embedded[row : row + 1][:, kept], HEADS, GRID, kept)[0])[0]
        assert places[row, : len(kept)].tolist() == kept
        torch.testing.assert_close(tokens[row, : 1 + len(kept)], expected)
    assert "pos_embed" not in state
    assert net(images, ~visible.reshape(3, 4, 4))[0].isfinite()
    with pytest.raises(ValueError, match="biases of their own"):
        relative.bias(model("relative_per_block").backbone, places=places)


def test_fresh_weights_are_those_of_the_official_code():
    torch.manual_seed(0)
    sizes = {**SIZES, "width": 48, "position": "relative"}
    scratch, simmim = Classifier(**sizes, classes=5).backbone, pretraining.build("simmim", sizes, {}).encoder.backbone
    for vit, bound in ((scratch, 2.0), (simmim, 0.02)):
        for depth, block in enumerate(vit.blocks, 1):
            shrunk = (2 * depth) ** 0.5
            for layer, times in (
                *((block.attn.qkv, 1), (block.mlp.fc1, 1)),
                *((block.attn.proj, shrunk), (block.mlp.fc2, shrunk)),
            ):
                values = layer.weight.detach() * times
                assert values.abs().max() <= bound * 1.000001
                # A normal cut off at one deviation deviates by .54 of it.
                assert values.std().item() == pytest.approx(0.02 * (1 if bound == 2 else 0.54), rel=0.1)
            assert all((gamma == 0.1).all() for gamma in (block.gamma_1, block.gamma_2))
            assert not any(given.any() for given in (block.attn.q_bias, block.attn.v_bias))
        assert not vit.rel_pos_bias.relative_position_bias_table.any()
        assert not vit.patch_embed.proj.bias.any()
        assert vit.patch_embed.proj.weight.abs().max() <= bound
        assert vit.cls_token.abs().max() <= bound
    assert scratch.head.weight.abs().max() < 1e-4


@pytest.mark.parametrize("method", ["simmim", "simmim_siamese", "mae", "supervised"])
def test_every_pretraining_network_trains_and_is_read_back(method, tmp_path):
    torch.manual_seed(0)
    options = {
        "simmim": {},
        "simmim_siamese": {"temperature": 0.2, "contrast_weight": 0.1},
        "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
        "supervised": {"classes": 4},
    }[method]
    sizes = {**SIZES, "position": "relative"}
    net = pretraining.build(method, sizes, options).train()
    given = torch.tensor([0, 1, 3]) if method == "supervised" else torch.rand(3, 4, 4) > 0.5
    net(pictures(), given)[0].backward()
    table = net.encoder.backbone.rel_pos_bias.relative_position_bias_table
    if method == "supervised":
        return
    assert table.grad.abs().max() > 0
    path = tmp_path / "encoder.safetensors"
    sidecar = {"architecture": sizes, "method": method, "network": options}
    checkpoint.save(path, checkpoint.network_state(net), sidecar)
    read, net = checkpoint.load_network(path), net.eval().requires_grad_(False)
    assert torch.equal(read.features(pictures()), net.features(pictures()))


def test_layers_are_seen_and_rejoined():
    net, images = model().double(), pictures().double()
    seen, grids = observe.observe(net, images, attention=True)
    assert [tuple(one.shape) for one in seen.tokens] == [(3, 16, 24)] * 3
    assert grids == [(4, 4)] * 3
    for layer in range(3):
        logits = factors.rest(net, layer, seen.tokens[layer], factors.before(net, layer, images))
        torch.testing.assert_close(logits, net(images))


def test_autocast_keeps_the_logits():
    net, images = model(), pictures()
    keep = torch.rand(3, 4, 4) > 0.3
    for inputs in (images, DroppedImages(images, keep)):
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(inputs)
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough, net(inputs), rtol=0.2, atol=0.2)


def test_a_checkpoint_says_which_scheme_it_has(tmp_path):
    for position in relative.POSITIONS:
        net = model(position)
        sidecar = {"architecture": {**SIZES, "classes": 5, "position": position}}
        checkpoint.save(tmp_path / "model.safetensors", net.state_dict(), sidecar)
        read, _ = checkpoint.load_classifier(tmp_path / "model.safetensors")
        assert torch.equal(read(pictures()), net(pictures()))
    assert build({**SIZES, "classes": 5}).backbone.pos_embed is not None
