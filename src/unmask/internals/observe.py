"""The tokens of every layer and the attention of every head, from one pass over some images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from unmask.models.rules import attention_maps

if TYPE_CHECKING:
    from torch import nn

    from unmask.models.classifier import Classifier, ConvClassifier
    from unmask.models.vit import MaskedImages

AT_ONCE = 32  # images: what a layer holds of more does not fit into a processor's cache


@dataclass(frozen=True)
class Seen:
    """What one batch of N images left in a model.

    tokens     per layer float32 [N, P, D]: patch tokens, or the positions of a convolution. Layer 0 is what enters the
               first block (position embeddings added; a ResNet's stem), layer l what leaves block or stage l
    attention  per block float32 [N, heads, T, T] after softmax, row = query, class token first where there is one;
               empty where there is none
    logits     float32 [N, C]
    """

    tokens: list[torch.Tensor]
    attention: list[torch.Tensor]
    logits: torch.Tensor


def layers(model: Classifier | ConvClassifier) -> list[nn.Module]:
    """The modules whose outputs are the layers, from layer 0."""
    backbone = model.backbone
    if model.arch == "resnet":
        return [backbone.maxpool, backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4]
    return [model.entrance, *backbone.blocks]


def depth(model: Classifier | ConvClassifier) -> int:
    """The number of blocks or stages: the last layer."""
    return len(layers(model)) - 1


@torch.no_grad()
def observe(
    model: Classifier | ConvClassifier, inputs: torch.Tensor | MaskedImages, attention: bool = False
) -> tuple[Seen, list[tuple[int, int]]]:
    """One pass over a batch; also the grid (rows, columns) of every layer's tokens."""
    with ExitStack() as stack:
        outputs = stack.enter_context(_outputs(layers(model)))
        maps = stack.enter_context(attention_maps(model)) if attention else []
        logits = model(inputs)
    tokens, grids = zip(*(patches(model, output) for output in outputs), strict=True)
    return Seen(list(tokens), list(maps), logits), list(grids)


def batches(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Images in batches."""
    return iter(images.split(AT_ONCE))


@contextmanager
def _outputs(modules: list[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Collect the modules' outputs of a pass inside the block."""
    found: list[torch.Tensor] = []
    handles = [module.register_forward_hook(lambda module, inputs, output: found.append(output)) for module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def patches(model: Classifier | ConvClassifier, output: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """The patch tokens [N, P, D] among what a layer puts out, and their grid; a convolution's positions."""
    if output.dim() == 4:
        return output.flatten(2).transpose(1, 2), tuple(output.shape[-2:])
    return output[:, model.prefix :], model.grid
