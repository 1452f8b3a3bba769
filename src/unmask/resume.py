"""The state of a training that is not finished, kept in a file to go on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from unmask.files import atomic


class Resume:
    """The state after an epoch or a step, in one file that is there whole or not at all.

    Random draws are keyed by epoch, so weights, optimiser moments, the history so far and the place within the epoch
    are all there is to keep. A file written under other settings (another `key`) or cut short is not resumed from,
    and a line says so.
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
                    return self._afresh("is of other settings, data or code")
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            return self._afresh(f"is not a whole safetensors file ({error})")
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

    def _afresh(self, reason: str) -> None:
        print(f"{self.path} {reason}: training starts afresh")
