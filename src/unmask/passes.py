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
    """Count the images that pass through `model` inside the block."""
    passes = Passes()

    def hook(module, arguments, output):
        if output.requires_grad:
            passes.backward += len(output)
        else:
            passes.forward += len(output)

    handle = model.register_forward_hook(hook)
    try:
        yield passes
    finally:
        handle.remove()


def declared(formula: str, options: dict[str, object], patches: int) -> float:
    """What a plug-in's cost formula says: a Python expression over its options and `patches`."""
    return float(eval(formula, {"__builtins__": {}}, {**options, "patches": patches}))
