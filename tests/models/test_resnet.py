"""The convolutional control: timm's ResNet-18 on normalised images, built from what a side-car says."""

import pytest
import timm
import torch
from torch import nn

from unmask.models import checkpoint
from unmask.models.classifier import build
from unmask.models.resnet import ConvClassifier
from unmask.models.vit import MEAN, STD, Classifier

SMALL = {"size": 64, "patch": 8, "classes": 3, "layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}


def images(count=3, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def settled(**given):
    """A network whose batch normalisation has seen images."""
    torch.manual_seed(0)
    model = ConvClassifier(**{**SMALL, **given}).train()
    for _ in range(3):
        model(images(8))
    return model.eval()


def test_is_timms_resnet18_on_normalised_images():
    torch.manual_seed(0)
    model = ConvClassifier(size=64, patch=8, classes=5).eval()
    theirs = timm.create_model("resnet18", num_classes=5).eval()
    assert {k: v.shape for k, v in model.backbone.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    theirs.load_state_dict(model.backbone.state_dict())
    normal = (images() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(model(images()), theirs(normal))
    assert model.backbone.num_features == 512


def test_what_explainers_ask_a_model():
    model = settled()
    assert (model.arch, model.pooling, model.prefix, model.grid) == ("resnet", "avg", 0, (8, 8))
    assert model.mask_token is None
    assert model.pretraining is None


def test_backward_hooks_see_every_relu():
    """On a module that writes to its input torch refuses them; guided backpropagation and its like need them."""
    model, seen = settled(), []
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    for module in relus:
        module.register_full_backward_hook(lambda module, inputs, outputs: seen.append(module))
    model(images().requires_grad_()).sum().backward()
    assert len(relus) == 9
    assert set(seen) == set(relus)


def test_an_image_does_not_depend_on_the_others_in_evaluation_mode():
    model = settled()
    torch.testing.assert_close(model(images())[:1], model(images()[:1]))
    assert not torch.equal(model(images()), model.train()(images()))


def test_build_chooses_the_network_by_its_architecture():
    vit = {"size": 32, "patch": 8, "width": 24, "depth": 1, "heads": 3, "classes": 4}
    assert isinstance(build(vit), Classifier), "side-cars from before there was another"
    assert isinstance(build({"arch": "vit", **vit}), Classifier)
    assert isinstance(build({"arch": "resnet", **SMALL}), ConvClassifier)
    with pytest.raises(KeyError, match="vgg"):
        build({"arch": "vgg", **SMALL})
    with pytest.raises(TypeError, match="width"):
        build({"arch": "resnet", **SMALL, "width": 3})


def test_checkpoint_round_trip_with_the_statistics_of_batch_normalisation(tmp_path):
    model = settled()
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, model.state_dict(), {"architecture": {"arch": "resnet", **SMALL}})
    loaded, _ = checkpoint.load_classifier(path)
    assert isinstance(loaded, ConvClassifier)
    assert torch.equal(loaded(images()), model(images()))
    assert not torch.equal(loaded.backbone.bn1.running_mean, ConvClassifier(**SMALL).backbone.bn1.running_mean)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
