"""Counting what a stage costs, in images that went through a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Passes:
    """Images through the model: `forward` without a graph, `backward` with one (forward and backward together)."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """Forward-pass equivalents, a backward pass counted as two forward passes."""
        return self.forward + 3 * self.backward


@contextmanager
def counted(model: nn.Module) -> Iterator[Passes]:
    """Count the images that pass through `model`, and the pretraining network beside it, inside the block."""
    passes = Passes()

    def hook(module, arguments, output):
        if output.requires_grad:
            passes.backward += len(output)
        else:
            passes.forward += len(output)

    handles = [model.register_forward_hook(hook)]
    if getattr(model, "pretraining", None) is not None:
        handles.append(model.pretraining.network.decoder.register_forward_hook(hook))  # each reconstruction ends there
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def declared(formula: str, options: dict[str, object], patches: int, width: int = 0) -> float:
    """What a plug-in's cost formula says: a Python expression over its options, `patches` and `width`.

    `width` is the number of channels of the activation that CAM methods read: the model's width, for a transformer.
    """
    return float(eval(formula, {"__builtins__": {}}, {**options, "patches": patches, "width": width}))
