"""A classifier with the network that its encoder was pretrained in."""

import pytest
import torch

from unmask.errors import UserError
from unmask.files import read_json, sha256, write_json
from unmask.models import checkpoint
from unmask.models.simmim import SimMIM, transfer
from unmask.models.vit import Classifier

ARCHITECTURE = {"size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3}
SIDECAR = {"architecture": ARCHITECTURE, "nominal_mask_ratio": 0.6, "mask_cell": 16}


@pytest.fixture(params=["avg", "token"])
def saved(tmp_path, request):
    """The paths of a model and of its encoder, and the networks in them."""
    torch.manual_seed(0)
    network = SimMIM(**ARCHITECTURE, pooling=request.param).eval()
    model = Classifier(**ARCHITECTURE, pooling=request.param, classes=4).eval()
    transfer(network.encoder.state_dict(), model)
    decoder = {f"decoder.{name}": tensor for name, tensor in network.decoder.state_dict().items()}
    paths = tmp_path / "model.safetensors", tmp_path / "encoder.safetensors"
    pooling = {"pooling": request.param}
    checkpoint.save(paths[0], model.state_dict(), {"architecture": {**ARCHITECTURE, **pooling, "classes": 4}})
    sidecar = {**SIDECAR, "architecture": {**ARCHITECTURE, **pooling}}
    checkpoint.save(paths[1], {**network.encoder.state_dict(), **decoder}, sidecar)
    return *paths, model, network


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 32, 32, generator=generator), torch.rand(2, 4, 4, generator=generator) < 0.5


def test_the_pretraining_network_is_as_it_was_left(saved):
    _, path, _, network = saved
    loaded = checkpoint.load_network(path)
    assert torch.equal(loaded(*batch())[0], network(*batch())[0])
    assert torch.equal(loaded.reconstruct(*batch()), network.reconstruct(*batch()))
    assert not any(module.training for module in loaded.modules())
    assert not any(p.requires_grad for p in loaded.parameters())


def test_it_stands_beside_the_model_and_is_no_part_of_it(saved):
    path, encoder, model, network = saved
    loaded, _ = checkpoint.load_classifier(path, encoder=encoder)
    assert torch.equal(loaded(batch()[0]), model(batch()[0]))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert {name for name, _ in loaded.named_modules()} == {name for name, _ in model.named_modules()}
    assert torch.equal(loaded.pretraining.network.reconstruct(*batch()), network.reconstruct(*batch()))
    assert (loaded.pretraining.mask_ratio, loaded.pretraining.mask_cell) == (0.6, 16)
    assert torch.equal(loaded.mask_token, loaded.pretraining.network.encoder.mask_token)
    assert checkpoint.load_classifier(path)[0].pretraining is None


def test_another_encoder_than_the_models_own_is_refused(saved):
    path, encoder, _, network = saved
    sidecar = read_json(path.with_suffix(".json"))
    write_json(path.with_suffix(".json"), {**sidecar, "encoder_sha256": sha256(encoder)})
    assert checkpoint.load_classifier(path, encoder=encoder)[0].pretraining is not None
    torch.nn.init.zeros_(network.decoder[0].bias)
    weights = {f"decoder.{name}": tensor for name, tensor in network.decoder.state_dict().items()}
    sidecar = read_json(encoder.with_suffix(".json"))
    checkpoint.save(encoder, {**network.encoder.state_dict(), **weights}, sidecar)
    with pytest.raises(UserError, match=r"encoder\.safetensors is not the encoder that the model was fine-tuned from"):
        checkpoint.load_classifier(path, encoder=encoder)


def test_broken_encoders_are_named(saved):
    path, encoder, _, network = saved
    sidecar = read_json(encoder.with_suffix(".json"))
    write_json(encoder.with_suffix(".json"), {k: v for k, v in sidecar.items() if k != "mask_cell"})
    with pytest.raises(UserError, match=r"encoder\.json lacks 'mask_cell'; run the stage pretrain again"):
        checkpoint.load_classifier(path, encoder=encoder)
    checkpoint.save(encoder, network.encoder.state_dict(), sidecar)
    with pytest.raises(UserError, match=r"encoder\.safetensors does not fit .* lacks decoder\.0\.weight"):
        checkpoint.load_classifier(path, encoder=encoder)
    write_json(encoder.with_suffix(".json"), {**sidecar, "architecture": {"size": 32}})
    with pytest.raises(UserError, match=r"encoder\.json: 'architecture' does not describe a model"):
        checkpoint.load_classifier(path, encoder=encoder)
    encoder.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"encoder\.json does not exist"):
        checkpoint.load_classifier(path, encoder=encoder)
