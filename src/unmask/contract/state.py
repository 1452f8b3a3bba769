"""All that an explainer could leave changed: in the model, and in the global random generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn

from unmask.contract.breach import Breach


def global_states() -> tuple[bytes, bytes, Any]:
    """The states of the global generators of torch, numpy and random."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state(legacy=False)).encode(),  # noqa: NPY002
        random.getstate(),
    )


def seed_globally(seed: int) -> None:
    """Seed every global generator that Python code draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def model_state(model: nn.Module) -> dict[str, dict[Any, Any]]:
    """All that an explainer could leave changed, by what it is called, then by where it is."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules, weights = dict(model.named_modules()), dict(model.named_parameters())
    found = {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "training mode": {name: module.training for name, module in modules.items()},
        "hooks": {name: [list(getattr(module, hook)) for hook in hooks] for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "requires_grad": {name: weight.requires_grad for name, weight in weights.items()},
        "gradient": {name: weight.grad is None for name, weight in weights.items()},
        "fused attention": {n: module.fused_attn for n, module in modules.items() if hasattr(module, "fused_attn")},
    }
    if getattr(model, "pretraining", None):
        for what, state in model_state(model.pretraining.network).items():
            found[what] |= {f"pretraining.{name}": value for name, value in state.items()}
    return found


def compare(before: dict[str, dict[Any, Any]], after: dict[str, dict[Any, Any]], when: str = "") -> None:
    advice = {
        "weights": "; work on a copy",
        "training mode": "; the model is in evaluation mode already",
        "hooks": "; remove every hook again",
        "attributes": "; patch nothing into it",
        "requires_grad": "; ask torch.autograd.grad for the gradients to the images alone",
        "gradient": "; use torch.autograd.grad instead of backward()",
        "fused attention": "; use unmask.models.rules.attention_maps",
    }
    for what, known in before.items():
        now = after[what]
        changed = [name for name in {**known, **now} if name not in known or not _same(known[name], now.get(name))]
        if changed:
            where = f"'{changed[0]}'" if changed[0] else "the model itself"
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise Breach(f"it changes the model's {what}, at {where}{more}{when or advice[what]}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    return one == other
