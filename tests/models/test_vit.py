"""The classifier: [0, 1] in, timm's numbers out, patches that can be absent."""

import pytest
import torch

from unmask.errors import UserError
from unmask.models import checkpoint
from unmask.models.vit import MEAN, STD, Classifier, DroppedImages, MaskedImages

ARCHITECTURE = {"size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3, "classes": 4}


def model(pooling="avg", token=True):
    torch.manual_seed(0)
    built = Classifier(**ARCHITECTURE, pooling=pooling)
    if token:
        built.mask_token = torch.nn.Parameter(torch.randn(1, 1, 24))
    return built.eval()


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_equals_timm_on_normalised_images(pooling):
    images = torch.rand(3, 3, 32, 32)
    normal = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    net = model(pooling)
    assert torch.allclose(net(images), net.backbone(normal), atol=1e-6)
    assert net.prefix == (pooling == "token")


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_masked_images(pooling):
    net, images = model(pooling), torch.rand(2, 3, 32, 32)
    keep = torch.ones(2, 4, 4, dtype=torch.bool)
    assert torch.equal(net(MaskedImages(images, keep)), net(images))
    keep[:, 2, 3] = False
    other = images.clone()
    other[:, :, 16:24, 24:32] = 0
    assert torch.equal(net(MaskedImages(images, keep)), net(MaskedImages(other, keep)))
    tokens = net.replace(net.embed(images), keep)
    assert torch.equal(tokens[:, 11], net.mask_token[0].expand(2, -1))
    assert torch.equal(tokens[:, :11], net.embed(images)[:, :11])


def without(net, images, keep):
    """Logits of the encoder on the kept tokens alone, an image at a time."""
    rows, vit = [], net.backbone
    for image, present in zip(images, keep, strict=True):
        tokens = vit.norm_pre(vit._pos_embed(net.embed(image.unsqueeze(0))))
        kept = [*range(net.prefix), *(net.prefix + i for i, one in enumerate(present.flatten().tolist()) if one)]
        rows.append(vit.forward_head(vit.norm(vit.blocks(tokens[:, kept]))))
    return torch.cat(rows)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_dropped_images_are_the_encoder_on_the_kept_tokens_alone(pooling, fused):
    net, images = model(pooling), torch.rand(8, 3, 32, 32)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # so that attention is far from even
    for block in net.backbone.blocks:
        block.attn.fused_attn = fused
    order = torch.rand(8, 16, generator=torch.Generator().manual_seed(0)).argsort(1).argsort(1)
    keep = (order < torch.tensor([1, 2, 5, 8, 11, 14, 15, 16]).unsqueeze(1)).reshape(8, 4, 4)
    expected = without(net, images, keep)
    torch.testing.assert_close(net(DroppedImages(images, keep)), expected, rtol=1e-4, atol=1e-4)
    assert (net(images)[:7] - expected[:7]).abs().amax(1).min() > 1e-2, "what is dropped matters"


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_dropping_nothing_is_the_plain_model(pooling):
    net, images = model(pooling), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(net(DroppedImages(images, torch.ones(3, 4, 4, dtype=torch.bool))), net(images))


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_dropping_everything_leaves_what_does_not_depend_on_the_image(pooling):
    net, images = model(pooling), torch.rand(3, 3, 32, 32)
    logits = net(DroppedImages(images, torch.zeros(3, 4, 4, dtype=torch.bool)))
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits, logits[:1].expand(3, -1))
    if pooling == "token":
        torch.testing.assert_close(logits, without(net, images, torch.zeros(3, 4, 4, dtype=torch.bool)))
    else:  # the mean of no tokens is 0
        vit = net.backbone
        torch.testing.assert_close(logits[0], vit.head(vit.fc_norm(torch.zeros(24))))


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_gradients_reach_the_kept_pixels_alone(pooling):
    net, images = model(pooling), torch.rand(2, 3, 32, 32).requires_grad_()
    keep = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    net(DroppedImages(images, keep)).square().sum().backward()
    kept = keep.repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1).expand_as(images)
    assert torch.isfinite(images.grad).all()
    assert (images.grad[~kept] == 0).all()
    assert (images.grad[kept] != 0).float().mean() > 0.99


def test_no_mask_token_is_said():
    with pytest.raises(ValueError, match="no mask token"):
        model(token=False)(MaskedImages(torch.rand(1, 3, 32, 32), torch.zeros(1, 4, 4, dtype=torch.bool)))


@pytest.mark.parametrize("token", [True, False])
def test_checkpoint_round_trip(tmp_path, token):
    net, images = model(token=token), torch.rand(2, 3, 32, 32)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, net.state_dict(), {"architecture": ARCHITECTURE, "classes": list("abcd")})
    loaded, sidecar = checkpoint.load_classifier(path)
    assert torch.equal(loaded(images), net(images))
    assert sidecar["classes"] == list("abcd")
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert (loaded.mask_token is not None) == token


def test_broken_checkpoints_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, model().state_dict(), {"architecture": {**ARCHITECTURE, "depth": 3}})
    with pytest.raises(UserError, match=r"model\.safetensors does not fit .* lacks backbone\.blocks\.2"):
        checkpoint.load_classifier(path)
    checkpoint.save(path, model().state_dict(), {"architecture": {**ARCHITECTURE, "classes": 5}})
    with pytest.raises(UserError, match=r"has shapes backbone\.head\.weight \(4, 24\) for \(5, 24\)"):
        checkpoint.load_classifier(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is not a whole safetensors checkpoint"):
        checkpoint.load_classifier(path)
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        checkpoint.load_classifier(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        checkpoint.load_classifier(path)
