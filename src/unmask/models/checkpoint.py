"""Checkpoints: safetensors beside a JSON side-car that says how to build the network they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unmask.errors import UserError
from unmask.files import atomic, read_json, write_json
from unmask.models.vit import Classifier


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


def load_classifier(path: str | Path, device: torch.device | str = "cpu") -> tuple[Classifier, dict[str, Any]]:
    """A fine-tuned model in evaluation mode with gradients to its weights off, and its side-car."""
    sidecar = read_json(Path(path).with_suffix(".json"))
    state = load_state(path)
    try:
        model = Classifier(**sidecar["architecture"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{Path(path).with_suffix('.json')}: 'architecture' does not describe a model ({error})"
        ) from None
    if "mask_token" in state:
        model.mask_token = torch.nn.Parameter(torch.empty_like(state["mask_token"]))
    load_into(model, state, path)
    return model.eval().requires_grad_(False).to(device), sidecar
