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
from unmask.models.classifier import Classifier, ConvClassifier, build
from unmask.models.simmim import SimMIM
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
    model = _built(build, path, sidecar)
    if "mask_token" in state:
        model.mask_token = torch.nn.Parameter(torch.empty_like(state["mask_token"]))
    load_into(model, state, path)
    model.eval().requires_grad_(False).to(device)
    if encoder is not None:
        model.pretraining = load_pretraining(encoder, device, sidecar.get("encoder_sha256"))
    return model, sidecar


def load_pretraining(path: str | Path, device: torch.device | str = "cpu", expected: str | None = None) -> Pretraining:
    """What stands beside a classifier: the network of `load_simmim`, and the masks that it was trained with.

    Raises `UserError` where the file's SHA-256 is not `expected`, the one that the classifier's side-car names.
    """
    where = Path(path).with_suffix(".json")
    sidecar = read_json(where)
    try:
        masks = sidecar["nominal_mask_ratio"], sidecar["mask_cell"]
    except KeyError as error:
        raise UserError(f"{where} lacks {error}; run the stage pretrain again") from None
    if expected is not None and Path(path).is_file() and sha256(path) != expected:
        raise UserError(
            f"{path} is not the encoder that the model was fine-tuned from; run the stages pretrain and finetune again"
        )
    return Pretraining(load_simmim(path, device), *masks)


def load_simmim(path: str | Path, device: torch.device | str = "cpu") -> SimMIM:
    """A pretraining network with its decoder, in evaluation mode with gradients to its weights off."""
    network = _built(lambda sizes: SimMIM(**sizes), path, read_json(Path(path).with_suffix(".json")))
    state = load_state(path)
    whole = {name if name.startswith("decoder.") else f"encoder.{name}": tensor for name, tensor in state.items()}
    load_into(network, whole, path)
    return network.eval().requires_grad_(False).to(device)


def _built(builder: Callable[[dict[str, Any]], torch.nn.Module], path: str | Path, sidecar: dict[str, Any]):
    try:
        return builder(sidecar["architecture"])
    except (KeyError, TypeError) as error:
        where = Path(path).with_suffix(".json")
        raise UserError(f"{where}: 'architecture' does not describe a model ({error})") from None
