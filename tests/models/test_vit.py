"""The classifier: [0, 1] in, timm's numbers out, patches that can be absent."""

import pytest
import torch

from unmask.errors import UserError
from unmask.models import checkpoint
from unmask.models.vit import MEAN, STD, Classifier, MaskedImages

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
