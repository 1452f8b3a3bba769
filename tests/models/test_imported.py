"""Weights from files: what is taken, what is refused, and that the network decides as timm's own."""

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.beit import Beit

from unmask.errors import UserError
from unmask.models import imported
from unmask.models.classifier import build
from unmask.models.resnet import ConvClassifier
from unmask.models.simmim import transfer
from unmask.models.vit import Classifier

IMAGE = {"size": 32, "patch": 16}
VIT, RESNET = "test_vit", "test_resnet"


@pytest.fixture(scope="module")
def vit():
    """timm's own network, at the size that its weights were trained at."""
    torch.manual_seed(0)
    made = timm.create_model(VIT, pretrained=False).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return made


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return timm.create_model(RESNET, pretrained=False).eval()


def spec(path, architecture=VIT, **given):
    return {"method": "imported", "weights": str(path), "architecture": architecture, **given}


def bring(path, architecture=VIT, image=IMAGE, **given):
    """The network with the weights in a file, and what was left out."""
    model, sizes, left_out = imported.bring(spec(path, architecture, **given), image)
    assert build(sizes).state_dict().keys() == model.state_dict().keys()
    return model.eval(), left_out


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_a_vit_gives_the_tokens_that_timm_gives(vit, tmp_path, pooling):
    save_file(vit.state_dict(), tmp_path / "w.safetensors")
    side = vit.patch_embed.img_size[0]
    model, left_out = bring(tmp_path / "w.safetensors", image={"size": side, "patch": 16}, pooling=pooling)
    assert isinstance(model, Classifier)
    assert (model.pooling, model.prefix, model.grid) == (pooling, 1, (side // 16, side // 16))
    assert {name.split(".")[0] for name in left_out} <= {"head", "norm"}
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(vit.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    tokens = vit.blocks(vit.norm_pre(vit._pos_embed(vit.patch_embed((images - mean) / std))))
    own = model.backbone
    torch.testing.assert_close(own.blocks(own.norm_pre(own._pos_embed(model.embed(images)))), tokens)


@pytest.fixture(scope="module")
def beit():
    """The name of a Beit among timm's models that is small enough for a test: `beit_base_patch16_224` in all else."""

    @timm.models.register_model
    def test_beit_of_unmask(pretrained=False, **given):
        sizes = {"patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3}
        biases = {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1}
        return timm.models.beit._create_beit("beit_base_patch16_224", pretrained, **sizes, **biases, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(imported.FAMILIES, __name__, Beit)
        yield "test_beit_of_unmask"


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # timm's, of its own tables
@pytest.mark.parametrize("size", [32, 64])
def test_a_beit_gives_the_tokens_that_timm_gives(beit, tmp_path, size):
    torch.manual_seed(0)
    own = timm.create_model(beit, img_size=64).eval()
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    own.fc_norm = torch.nn.Identity()
    save_file(own.state_dict() | {"norm.weight": torch.ones(24)}, tmp_path / "w.safetensors")
    model, left_out = bring(tmp_path / "w.safetensors", beit, image={"size": size, "patch": 16})
    assert (model.pooling, model.prefix, model.grid) == ("avg", 1, (size // 16, size // 16))
    assert set(left_out) == {"head.weight", "head.bias", "norm.weight"}
    own.set_input_size(size)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    tokens = own.forward_features((images - 0.5) / 0.5)  # the colours that its weights expect
    torch.testing.assert_close(model.through(model.enter(model.embed(images))), tokens)
    imported.check("encoders.it", spec(tmp_path / "w.safetensors", beit, pooling="token"), {"size": 32, "patch": 16})


def test_positions_are_resampled_to_the_grid(vit, tmp_path):
    from timm.models.vision_transformer import checkpoint_filter_fn

    save_file(vit.state_dict(), tmp_path / "w.safetensors")
    model, _ = bring(tmp_path / "w.safetensors")
    assert model.grid == (2, 2)
    small = timm.create_model(VIT, pretrained=False, img_size=32)
    expected = checkpoint_filter_fn(vit.state_dict(), small)["pos_embed"]
    torch.testing.assert_close(model.backbone.pos_embed.data, expected)


def test_a_resnet_gives_the_features_that_timm_gives(resnet, tmp_path):
    torch.save({"state_dict": {f"module.{k}": v for k, v in resnet.state_dict().items()}}, tmp_path / "w.pth")
    model, left_out = bring(tmp_path / "w.pth", RESNET)
    assert isinstance(model, ConvClassifier)
    assert model.grid == (2, 2)
    assert left_out == ["fc.weight", "fc.bias"]
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(resnet.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = resnet.forward_features((images - mean) / std)
    torch.testing.assert_close(model.backbone.forward_features(model.normalise(images)), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {f"encoder.{k}": v for k, v in state.items()} | {"decoder.0.weight": torch.zeros(3)},
        lambda state: {k: v.half() for k, v in state.items()},
        lambda state: {k: v for k, v in state.items() if not k.startswith(("head.", "norm."))},
        lambda state: state | {"decoder_embed.weight": torch.zeros(2, 2), "mask_token": torch.zeros(1, 1, 9)},
    ],
)
def test_checkpoints_of_usual_layouts_are_read(vit, tmp_path, wrap):
    torch.save(wrap(vit.state_dict()), tmp_path / "w.pth")
    model, _ = bring(tmp_path / "w.pth")
    wanted = vit.state_dict()["blocks.0.mlp.fc1.weight"]
    torch.testing.assert_close(model.backbone.blocks[0].mlp.fc1.weight.data, wanted, atol=1e-3, rtol=1e-3)
    assert model.backbone.blocks[0].mlp.fc1.weight.dtype == torch.float32
    imported.check("encoders.it", spec(tmp_path / "w.pth"), IMAGE)


def test_the_classifier_takes_all_but_head_and_last_norm(vit, tmp_path):
    save_file(vit.state_dict(), tmp_path / "w.safetensors")
    source, sizes, _ = imported.bring(spec(tmp_path / "w.safetensors"), IMAGE)
    model = build({**sizes, "classes": 5, "drop_path": 0.1})
    head = model.backbone.head.weight.clone()
    transfer(source.state_dict(), model)
    assert model.classes == 5
    assert torch.equal(model.backbone.head.weight, head)
    assert torch.equal(model.backbone.blocks[1].attn.qkv.weight, vit.blocks[1].attn.qkv.weight)
    assert torch.equal(model.normalise.mean, source.normalise.mean)


class Evil:
    """What a pickle can do: this one would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_is_never_run(vit, tmp_path):
    trap = tmp_path / "trap"
    torch.save({"model": vit.state_dict(), "evil": Evil(trap)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth holds more than tensors, and unmask runs no code from a file; save"):
        imported.read(tmp_path / "w.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(UserError, match=r"raw\.pth"):
        imported.read(tmp_path / "raw.pth")
    torch.save(vit, tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"whole\.pth holds more than tensors"):
        imported.read(tmp_path / "whole.pth")
    assert not trap.exists()


def test_files_that_are_no_weights_are_named(vit, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(vit.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"w\.safetensors is not a whole safetensors file"):
        imported.read(path)
    torch.save(vit.state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:-900])
    with pytest.raises(UserError, match=r"w\.pth is not a whole"):
        imported.read(tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list\.pth holds no named tensors"):
        imported.read(tmp_path / "list.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.pth is not a whole"):
        imported.read(tmp_path / "empty.pth")
    with pytest.raises(UserError, match=r"absent\.pth does not exist"):
        imported.read(tmp_path / "absent.pth")


def changed(state, kind):
    if kind == "lacks":
        return {k: v for k, v in state.items() if not k.startswith("blocks.1.")}
    if kind == "unknown":
        return state | {"blocks.0.attn.rel_pos_bias_table": torch.zeros(3)}
    if kind == "shape":
        return state | {"blocks.0.norm1.weight": torch.zeros(7)}
    if kind == "positions":
        return state | {"pos_embed": state["pos_embed"][:, :-1]}
    return {f"{one}.{k}": v for one in ("student", "teacher") for k, v in state.items()}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lacks", r"lacks blocks\.1\.norm1\.weight, blocks\.1\.norm1\.bias, .* \.\.\."),
        ("unknown", r"has unknown blocks\.0\.attn\.rel_pos_bias_table"),
        ("shape", r"has shapes blocks\.0\.norm1\.weight \(7,\) for \(64,\)"),
        ("positions", r"has shapes pos_embed"),
        ("two", r"holds several networks \(student\., teacher\.\); save the weights of one alone"),
    ],
)
def test_a_mismatch_names_the_keys(vit, tmp_path, kind, words):
    save_file({k: v.clone() for k, v in changed(vit.state_dict(), kind).items()}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=rf"^encoders\.it\.weights: .*{words}"):
        imported.check("encoders.it", spec(tmp_path / "w.safetensors"), IMAGE)


@pytest.mark.parametrize(
    ("architecture", "given", "image", "words"),
    [
        ("vit_tiny_patch16_22", {}, IMAGE, "is no model of timm .*did you mean 'vit_tiny_patch16_224'"),
        ("simmim_vitt", {}, IMAGE, "did you mean 'simmim_vit'"),
        ("convnext_atto", {}, IMAGE, "neither a ViT nor a ResNet"),
        (VIT, {}, {"size": 32, "patch": 8}, r"patches of 16 pixels, but image\.patch is 8; set image\.patch: 16"),
        ("test_vit2", {}, IMAGE, "not a plain ViT"),
        (RESNET, {"pooling": "token"}, IMAGE, "no class token"),
        ("vit_base_patch16_siglip_224", {"pooling": "token"}, IMAGE, "cannot be read by pooling 'token' .*class token"),
        ("vit_small_patch16_18x2_224", {}, IMAGE, "not a plain ViT .its blocks are of another kind"),
    ],
)
def test_architectures_that_cannot_be_explained_are_refused(tmp_path, architecture, given, image, words):
    with pytest.raises(UserError, match=rf"^encoders\.it\.architecture: .*{words}"):
        imported.check("encoders.it", spec(tmp_path / "w.pth", architecture, **given), image)


def test_weights_of_another_family_name_what_they_have(resnet, tmp_path):
    save_file(resnet.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"lacks patch_embed\.proj\.weight, and has bn1\.weight"):
        imported.check("encoders.it", spec(tmp_path / "w.safetensors"), IMAGE)
