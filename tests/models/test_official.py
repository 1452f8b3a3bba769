"""SimMIM's official ViT checkpoints: their layout, their forward pass, what is refused."""

import sys
from types import ModuleType

import numpy as np
import pytest
import relative_by_hand as by_hand
import torch
from safetensors.torch import save_file
from scipy.interpolate import RegularGridInterpolator
from torch.nn import functional

from unmask import encoders
from unmask.errors import UserError
from unmask.models import checkpoint, imported
from unmask.models.classifier import build
from unmask.models.simmim import SimMIM, transfer
from unmask.models.vit import MEAN, STD, Classifier

WIDTH, DEPTH, HEADS, PATCH, GRID = 24, 2, 3, 8, 4
IMAGE = {"size": PATCH * GRID, "patch": PATCH}
TABLE = "relative_position_bias_table"


def official(finetuned=False, grid=GRID) -> dict[str, torch.Tensor]:
    """What the official code's `model.state_dict()` holds, in its order, with random values.

    models/vision_transformer.py and models/simmim.py of microsoft/SimMIM: pretraining has one table, fine-tuning one in
    each block; indices are saved beside either.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    table, count = ((2 * grid - 1) ** 2 + 3, HEADS), grid**2 + 1
    index = torch.zeros(count, count, dtype=torch.long)
    state = {"cls_token": draw(1, 1, WIDTH)}
    if not finetuned:
        state["mask_token"] = draw(1, 1, WIDTH)
    state |= {"patch_embed.proj.weight": draw(WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": draw(WIDTH)}
    if not finetuned:
        state |= {f"rel_pos_bias.{TABLE}": draw(*table), "rel_pos_bias.relative_position_index": index}
    for number in range(DEPTH):
        own = {"gamma_1": draw(WIDTH), "gamma_2": draw(WIDTH), "norm1.weight": draw(WIDTH), "norm1.bias": draw(WIDTH)}
        own |= {"attn.q_bias": draw(WIDTH), "attn.v_bias": draw(WIDTH)}
        if finetuned:
            own |= {f"attn.{TABLE}": draw(*table), "attn.relative_position_index": index}
        own |= {"attn.qkv.weight": draw(3 * WIDTH, WIDTH)}
        own |= {"attn.proj.weight": draw(WIDTH, WIDTH), "attn.proj.bias": draw(WIDTH)}
        own |= {"norm2.weight": draw(WIDTH), "norm2.bias": draw(WIDTH)}
        own |= {"mlp.fc1.weight": draw(2 * WIDTH, WIDTH), "mlp.fc1.bias": draw(2 * WIDTH)}
        own |= {"mlp.fc2.weight": draw(WIDTH, 2 * WIDTH), "mlp.fc2.bias": draw(WIDTH)}
        state |= {f"blocks.{number}.{name}": tensor for name, tensor in own.items()}
    if finetuned:
        state |= {"fc_norm.weight": draw(WIDTH), "fc_norm.bias": draw(WIDTH)}
        return state | {"head.weight": draw(10, WIDTH), "head.bias": draw(10)}
    state |= {"norm.weight": draw(WIDTH), "norm.bias": draw(WIDTH)}
    state = {f"encoder.{name}": tensor for name, tensor in state.items()}
    return state | {"decoder.0.weight": draw(3 * PATCH**2, WIDTH, 1, 1), "decoder.0.bias": draw(3 * PATCH**2)}


def encoder_of(state):
    return {name.removeprefix("encoder."): tensor for name, tensor in state.items() if name.startswith("encoder.")}


def spec(path, **given):
    return {"method": "imported", "weights": str(path), "architecture": "simmim_vit", **given}


@pytest.fixture
def pretrained(tmp_path):
    torch.save({"model": official(), "epoch": 799, "max_accuracy": 0.0}, tmp_path / "pretrained.pth")
    return tmp_path / "pretrained.pth"


@pytest.fixture
def finetuned(tmp_path):
    torch.save({"model": official(finetuned=True)}, tmp_path / "finetuned.pth")
    return tmp_path / "finetuned.pth"


def pictures():
    """Images, and as the official code normalises them."""
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return images, (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def fused(model, on):
    for block in getattr(model, "encoder", model).backbone.blocks:
        block.attn.fused_attn = on
    return model.eval()


def close(given, expected, on):
    """To the last bit where the attention is computed in the official order; fused, up to rounding."""
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if on else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(given, expected, **tolerance)


@pytest.mark.parametrize("on", [True, False])
def test_a_pretrained_checkpoint_is_the_official_network(pretrained, on):
    model, sizes, left_out = imported.bring(spec(pretrained, mask_ratio=0.6), IMAGE)
    assert isinstance(fused(model, on), SimMIM)
    assert left_out == []
    assert sizes == {
        **IMAGE,
        **{"width": WIDTH, "depth": DEPTH, "heads": HEADS, "mlp_ratio": 2.0, "pooling": "avg", "position": "relative"},
    }
    # VisionTransformerForSimMIM.forward and SimMIM.forward of the official code.
    images, x = pictures()
    mask = torch.rand(3, GRID, GRID, generator=torch.Generator().manual_seed(2)) > 0.4
    state, whole = encoder_of(official()), official()
    w = mask.flatten(1).unsqueeze(-1).float()
    tokens = by_hand.embed(state, x, PATCH) * (1 - w) + state["mask_token"] * w
    tokens, _ = by_hand.blocks(state, tokens, HEADS, GRID)
    tokens = functional.layer_norm(tokens, (WIDTH,), state["norm.weight"], state["norm.bias"], 1e-6)
    z = tokens[:, 1:].permute(0, 2, 1).reshape(3, WIDTH, GRID, GRID)
    x_rec = functional.pixel_shuffle(functional.conv2d(z, whole["decoder.0.weight"], whole["decoder.0.bias"]), PATCH)
    pixels = mask.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2).unsqueeze(1)
    loss = (functional.l1_loss(x, x_rec, reduction="none") * pixels).sum() / (pixels.sum() + 1e-5) / 3
    close(model.reconstruct(images, mask), x_rec, on)
    torch.testing.assert_close(model(images, mask)[0], loss)


@pytest.mark.parametrize("on", [True, False])
def test_a_classifier_of_it_decides_as_the_official_fine_tuning_does(pretrained, on):
    model, sizes, _ = imported.bring(spec(pretrained, mask_ratio=0.6), IMAGE)
    torch.manual_seed(3)
    classifier = fused(build({**sizes, "classes": 4, "drop_path": 0.1}), on)
    transfer(checkpoint.network_state(model), classifier)
    assert torch.equal(classifier.mask_token, official()["encoder.mask_token"])
    head = {name: torch.randn(4, *shape) for name, shape in (("head.weight", (WIDTH,)), ("head.bias", ()))}
    classifier.backbone.head.load_state_dict({name[5:]: tensor for name, tensor in head.items()})
    # remap_pretrained_keys_vit: every block gets a copy of the one table; fc_norm is new, norm is not used.
    state = encoder_of(official())
    table = state.pop(f"rel_pos_bias.{TABLE}")
    state |= {f"blocks.{number}.attn.{TABLE}": table.clone() for number in range(DEPTH)}
    state |= head | {"fc_norm.weight": torch.ones(WIDTH), "fc_norm.bias": torch.zeros(WIDTH)}
    images, x = pictures()
    tokens, _ = by_hand.blocks(state, by_hand.embed(state, x, PATCH), HEADS, GRID)
    close(classifier(images), by_hand.decide(state, tokens), on)


@pytest.mark.parametrize("on", [True, False])
def test_a_fine_tuned_checkpoint_has_a_table_in_every_block(finetuned, on):
    model, sizes, left_out = imported.bring(spec(finetuned, mask_ratio=0.6), IMAGE)
    assert sizes["position"] == "relative_per_block"
    assert left_out == ["head.weight", "head.bias"]
    classifier = fused(build({**sizes, "classes": 10}), on)
    transfer(model.state_dict(), classifier)
    state = official(finetuned=True)
    parts = {name: tensor for name, tensor in state.items() if name.startswith(("head.", "fc_norm."))}
    classifier.backbone.load_state_dict(parts, strict=False)
    images, x = pictures()
    tokens, _ = by_hand.blocks(state, by_hand.embed(state, x, PATCH), HEADS, GRID)
    close(classifier(images), by_hand.decide(state, tokens), on)


def test_either_is_measured_as_it_is(pretrained, finetuned):
    images, x = pictures()
    model, classes, size = imported.alone(finetuned, "simmim_vit")
    assert (classes, size) == (10, 32)
    state = official(finetuned=True)
    expected = by_hand.decide(state, by_hand.blocks(state, by_hand.embed(state, x, PATCH), HEADS, GRID)[0])
    close(model(images), expected, on=True)
    encoder, classes, size = imported.alone(pretrained, "simmim_vit", 64)
    assert (classes, size, encoder.grid) == (0, 64, (8, 8))
    assert torch.equal(encoder.backbone.norm.weight, official()["encoder.norm.weight"])
    with pytest.raises(UserError, match=r"^--size: 30 is not a multiple of the patches' 8 pixels"):
        imported.alone(pretrained, "simmim_vit", 30)


def test_without_a_mask_ratio_the_encoder_comes_alone_with_its_mask_token(pretrained, tmp_path):
    model, sizes, left_out = imported.bring(spec(pretrained, pooling="token"), IMAGE)
    assert isinstance(model, Classifier)
    assert (model.pooling, sizes["classes"]) == ("token", 0)
    assert left_out == ["decoder.0.weight", "decoder.0.bias"]
    assert torch.equal(model.mask_token, official()["encoder.mask_token"])
    path = tmp_path / "encoder.safetensors"
    checkpoint.save(path, checkpoint.network_state(model), {"architecture": sizes, "method": "imported"})
    read = checkpoint.load_encoder(path)
    assert read.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(read.mask_token, model.mask_token)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
        lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("_index")},
    ],
)
def test_usual_wrappings_are_read(tmp_path, wrap):
    torch.save(wrap(official()), tmp_path / "w.pth")
    model, _, left_out = imported.bring(spec(tmp_path / "w.pth", mask_ratio=0.6), IMAGE)
    assert isinstance(model, SimMIM)
    assert left_out == []
    torch.testing.assert_close(model.decoder[0].weight.data, official()["decoder.0.weight"], atol=1e-3, rtol=1e-3)
    assert model.decoder[0].weight.dtype == model.encoder.mask_token.dtype == torch.float32


def test_the_official_codes_settings_are_read_as_a_dictionary(tmp_path, monkeypatch):
    """`save_checkpoint` stores its yacs configuration beside the weights; the class need not be there to read it."""

    class CfgNode(dict):
        def __init__(self):
            super().__init__(MODEL={"TYPE": "vit"})
            self.__dict__["__immutable__"] = True

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    for name in ("yacs", "yacs.config"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["yacs.config"].CfgNode = CfgNode
    torch.save({"model": official(), "config": CfgNode(), "lr_scheduler": {"milestones": [7]}}, tmp_path / "w.pth")
    for name in ("yacs", "yacs.config"):
        monkeypatch.delitem(sys.modules, name)
    assert imported.read(tmp_path / "w.pth").keys() == official().keys()


def interpolated(table, grid):
    """`remap_pretrained_keys_vit` for a table of the grid 4 x 4, but linear between its points instead of cubic."""
    source, target = 2 * GRID - 1, 2 * grid - 1
    left, right = 1.01, 1.5
    while right - left > 1e-6:
        q = (left + right) / 2
        left, right = (left, q) if (1 - q ** (source // 2)) / (1 - q) > target // 2 else (q, right)
    places = np.cumsum([q**power for power in range(source // 2)])
    places = np.concatenate([-places[::-1], [0], places])
    wanted = np.stack(np.meshgrid(*[np.arange(target) - target // 2] * 2, indexing="ij"), -1)
    given = table[:-3].reshape(source, source, -1).double().numpy()
    # Beyond the outermost point scipy's interp2d has that point's value.
    found = RegularGridInterpolator((places, places), given)(wanted.clip(places[0], places[-1]))
    return torch.cat([torch.from_numpy(found).float().flatten(0, 1), table[-3:]])


@pytest.mark.parametrize("kind", ["pretrained", "finetuned"])
@pytest.mark.parametrize("grid", [2, 6])
def test_tables_are_interpolated_to_the_grid(kind, grid, request):
    path, state = request.getfixturevalue(kind), official(finetuned=kind == "finetuned")
    image = {"size": grid * PATCH, "patch": PATCH}
    imported.check("encoders.it", spec(path), image)
    model, _, _ = imported.bring(spec(path), image)
    assert model.grid == (grid, grid)
    own = model.backbone.state_dict()
    names = [name for name in own if name.endswith(TABLE)]
    assert len(names) == (1 if kind == "pretrained" else DEPTH)
    for name in names:
        table = state[name if kind == "finetuned" else f"encoder.{name}"]
        expected = interpolated(table, grid)
        torch.testing.assert_close(own[name], expected, rtol=1e-3, atol=1e-3)
        assert torch.equal(own[name][-3:], table[-3:])  # those of the class token are of no distance
        middle = len(expected) // 2 - 1
        torch.testing.assert_close(expected[middle], table[len(table) // 2 - 1])  # distance 0
    assert model.eval()(torch.rand(2, 3, grid * PATCH, grid * PATCH)).isfinite().all()


def changed(state, kind):
    if kind == "swin":
        return {"encoder.patch_embed.proj.weight": torch.zeros(8, 3, 4, 4), "encoder.layers.0.x": torch.zeros(1)}
    if kind == "patch":
        return state | {"encoder.patch_embed.proj.weight": torch.zeros(WIDTH, 3, 16, 16)}
    if kind == "table":
        return state | {f"encoder.rel_pos_bias.{TABLE}": torch.zeros(50, HEADS)}
    if kind == "block":
        return {name: tensor for name, tensor in state.items() if not name.startswith("encoder.blocks.0.attn.proj")}
    if kind == "bias":
        return {name: tensor for name, tensor in state.items() if not name.endswith("q_bias")}
    if kind == "absolute":
        return state | {"encoder.pos_embed": torch.zeros(1, 17, WIDTH)}
    if kind == "token":
        return state | {"encoder.mask_token": torch.zeros(1, 1, 9)}
    return state | {"decoder.0.weight": torch.zeros(3072, WIDTH, 1, 1)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "swin",
            r"no ViT of SimMIM's official code: it lacks rel_pos_bias\.relative_position_bias_table and blocks\.0",
        ),
        ("patch", r"patches of 16 pixels, but image\.patch is 8; set image\.patch: 16"),
        ("table", r"it has shapes patch_embed\.proj\.weight .*, relative_position_bias_table \(50, 3\)"),
        ("block", r"lacks blocks\.0\.attn\.proj\.weight, blocks\.0\.attn\.proj\.bias"),
        ("bias", r"lacks blocks\.0\.attn\.q_bias, blocks\.1\.attn\.q_bias"),
        ("absolute", r"has unknown pos_embed"),
        ("token", r"has shapes mask_token \(1, 1, 9\) for \(1, 1, 24\)"),
        ("decoder", r"has shapes decoder\.0\.weight \(3072, 24, 1, 1\) for \(192, 24, 1, 1\)"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, kind, words):
    save_file({name: tensor.clone() for name, tensor in changed(official(), kind).items()}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=rf"^encoders\.it\.weights: .*w\.safetensors .*{words}"):
        imported.check("encoders.it", spec(tmp_path / "w.safetensors", mask_ratio=0.6), IMAGE)


def test_an_entry_states_the_masks_of_its_pretraining(pretrained):
    sizes = {"size": 32, "patch": 8, "cell": 8, "width": 24}
    encoders.check({"it": spec(pretrained, mask_ratio=0.6, mask_cell=16)}, **sizes)
    for given, words in (
        ({"mask_cell": 16}, r"^encoders\.it\.mask_cell: it goes with a mask ratio; give the key 'mask_ratio'"),
        ({"mask_ratio": 0.6, "mask_cell": 12}, r"mask_cell: 12 is not a multiple of image\.patch 8 that divides"),
        ({"mask_ratio": 0.9, "mask_cell": 16}, r"mask_ratio: 0\.9 masks all 4 cells"),
    ):
        with pytest.raises(UserError, match=words):
            encoders.check({"it": spec(pretrained, **given)}, **sizes)
