"""What both trainings share: the schedule, resuming after a kill, stopping at a loss that is not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from unmask.errors import UserError
from unmask.files import atomic


def cosine(step: int, *, steps: int, warmup: int) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up over `warmup` steps, then half a cosine down to 0 at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set every group to `rate` times its layer's `lr_scale`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def scaled_rate(base: float, batch: int) -> float:
    """The published rule of SimMIM and MAE, `base * batch / 512` (SimMIM's divisor)."""
    return base * batch / 512


def train_step(
    loss: torch.Tensor, module: nn.Module, optimiser: torch.optim.Optimizer, clip: float, where: str
) -> float:
    """Backward, clip and step; returns the loss. A loss that is not finite is a `UserError` before any weight moves."""
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(
            f"{where}: the loss is {value}; lower the base_learning_rate, or look for broken images in the data"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimiser.step()
    return value


class Resume:
    """The state after the last finished epoch, in one file that is there whole or not at all.

    Random draws are keyed by epoch, so weights, optimiser moments and the history so far are all there is to keep.
    A file written under other settings (another `key`) or cut short is not resumed from.
    """

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key

    def save(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        progress: dict[str, Any],
        extra: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Write weights, moments, `progress` (JSON) and extra tensors."""
        tensors = {f"module.{k}": v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v.detach().cpu().contiguous() for k, v in moments.items()}
        tensors |= {f"extra.{k}": v.detach().cpu().contiguous() for k, v in (extra or {}).items()}
        with atomic(self.path) as temporary:
            save_file(tensors, temporary, metadata={"key": self.key, "progress": json.dumps(progress)})

    def load(
        self, module: nn.Module, optimiser: torch.optim.Optimizer
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """Restore in place and return (progress, extra tensors), or None where there is nothing to resume from."""
        try:
            with safe_open(self.path, framework="pt") as handle:
                metadata = handle.metadata() or {}
                if metadata.get("key") != self.key:
                    return None
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):
            return None
        parts: dict[str, dict[str, torch.Tensor]] = {"module": {}, "optimiser": {}, "extra": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        module.load_state_dict(parts["module"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, moment = name.partition(".")
            state.setdefault(int(index), {})[moment] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        return json.loads(metadata["progress"]), parts["extra"]

    def clear(self) -> None:
        """Delete the file, once the finished checkpoint is written."""
        self.path.unlink(missing_ok=True)
