"""Checkpoints: safetensors beside a JSON side-car that says how to build the network they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unmask.errors import UserError
from unmask.files import atomic, read_json, sha256, write_json
from unmask.models import pretraining
from unmask.models.classifier import Classifier, ConvClassifier, build
from unmask.models.vit import Pretraining


def save(path: str | Path, state: dict[str, torch.Tensor], sidecar: dict[str, Any]) -> None:
    """Write `path` (.safetensors) and the side-car of the same stem; the weights come last, so they vouch for both."""
    path = Path(path)
    write_json(path.with_suffix(".json"), sidecar)
    with atomic(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)


def load_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint; raises `UserError` where the file is missing or truncated."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it first") from None
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors checkpoint ({error}); delete it and train again") from None


def load_into(module: torch.nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load `state` into `module`; a mismatch is a `UserError` that names the first keys."""
    own = module.state_dict()
    missing = [k for k in own if k not in state]
    extra = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in state and own[k].shape != state[k].shape
    ]
    problems = [
        f"{what} {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}"
        for what, keys in (("lacks", missing), ("has unknown", extra), ("has shapes", shapes))
        if keys
    ]
    if problems:
        raise UserError(f"{path} does not fit the architecture in its side-car: it {'; it '.join(problems)}")
    module.load_state_dict(state)


def load_classifier(
    path: str | Path, device: torch.device | str = "cpu", encoder: str | Path | None = None
) -> tuple[Classifier | ConvClassifier, dict[str, Any]]:
    """A fine-tuned model in evaluation mode with gradients to its weights off, and its side-car.

    With `encoder`, the checkpoint of the stage pretrain that it came from, its pretraining network stands beside it.
    """
    sidecar = read_json(Path(path).with_suffix(".json"))
    state = load_state(path)
    model = _classifier(path, sidecar, state)
    model.eval().requires_grad_(False).to(device)
    if encoder is not None:
        model.pretraining = load_pretraining(encoder, device, sidecar.get("encoder_sha256"))
    return model, sidecar


def load_pretraining(path: str | Path, device: torch.device | str = "cpu", expected: str | None = None) -> Pretraining:
    """What stands beside a classifier: the network of `load_network`, and the masks that it was trained with.

    Raises `UserError` where the file's SHA-256 is not `expected`, the one that the classifier's side-car names.
    """
    where = Path(path).with_suffix(".json")
    sidecar = read_json(where)
    try:
        ratio, cell = sidecar["nominal_mask_ratio"], sidecar["mask_cell"]
    except KeyError as error:
        raise UserError(f"{where} lacks {error}; run the stage pretrain again") from None
    if expected is not None and Path(path).is_file() and sha256(path) != expected:
        raise UserError(
            f"{path} is not the encoder that the model was fine-tuned from; run the stages pretrain and finetune again"
        )
    # A network that drew its ratios from a range is asked at the middle of it.
    return Pretraining(load_network(path, device), sum(ratio) / 2 if isinstance(ratio, list) else ratio, cell)


def load_network(path: str | Path, device: torch.device | str = "cpu") -> torch.nn.Module:
    """The network that an encoder was pretrained in, in evaluation mode with gradients to its weights off."""
    sidecar = read_json(Path(path).with_suffix(".json"))
    method, options = sidecar.get("method", "simmim"), sidecar.get("network", {})
    network = _built(lambda sizes: pretraining.build(method, sizes, options), path, sidecar)
    load_into(network, _whole(load_state(path)), path)
    return network.eval().requires_grad_(False).to(device)


def network_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A pretraining network's weights as its checkpoint has them: those of the encoder by their own names."""
    return {name.removeprefix("encoder."): tensor for name, tensor in network.state_dict().items()}


def _whole(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that `network_state` took from the encoder's weights, given back."""
    beside = ("decoder.", "projection.")
    return {name if name.startswith(beside) else f"encoder.{name}": tensor for name, tensor in state.items()}


def load_encoder(path: str | Path, device: torch.device | str = "cpu") -> Classifier | ConvClassifier:
    """An encoder of the stage pretrain, of any method, as `load_network`; it makes no decisions."""
    sidecar = read_json(Path(path).with_suffix(".json"))
    if sidecar.get("method") != "imported":
        return load_network(path, device).encoder
    return _classifier(path, sidecar, load_state(path)).eval().requires_grad_(False).to(device)


def _classifier(path: str | Path, sidecar: dict[str, Any], state: dict[str, torch.Tensor]):
    """The classifier that a side-car describes, with these weights and the mask token among them, if any."""
    model = _built(build, path, sidecar)
    if "mask_token" in state:
        model.mask_token = torch.nn.Parameter(torch.empty_like(state["mask_token"]))
    load_into(model, state, path)
    return model


def _built(builder: Callable[[dict[str, Any]], torch.nn.Module], path: str | Path, sidecar: dict[str, Any]):
    try:
        return builder(sidecar["architecture"])
    except (KeyError, TypeError) as error:
        where = Path(path).with_suffix(".json")
        raise UserError(f"{where}: 'architecture' does not describe a model ({error})") from None
