"""What explainers must know of an architecture, in one table: hook layer, attention row, grid.

Keys are (arch, pooling). Why these layers: with a class token the patch tokens of the last block's output are off the
decision's path, so a CAM there is silently all zero, and the last block's first norm is hooked; with mean pooling
that place is live but below chance (AUROC .36-.43 on a planted patch), and the last block's output finds it (.99).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unmask.models.classifier import Classifier, ConvClassifier

_CAM_LAYER = {
    ("vit", "avg"): lambda model: model.backbone.blocks[-1],
    ("vit", "token"): lambda model: model.backbone.blocks[-1].norm1,
    ("resnet", "avg"): lambda model: model.backbone.layer4,
}


def cam_layer(model: Classifier | ConvClassifier) -> nn.Module:
    """The module whose output is the activation of CAM methods."""
    return _CAM_LAYER[model.arch, model.pooling](model)


def class_weights(model: Classifier | ConvClassifier, pooled: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Weights [N, D] such that (weights * pooled).sum(1) is the target logits [N] less a constant of the class.

    `pooled` [N, D] is the mean over positions of the activation of `cam_layer`, int64 `targets` [N]. For mean pooling.
    """
    return _CLASS_WEIGHTS[model.arch, model.pooling](model.backbone, pooled, targets)


def _through_layer_norm(vit: nn.Module, pooled: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    # A product with a centred vector is the product of the centred one; the deviation is a number per image.
    weights = vit.head.weight[targets] * vit.fc_norm.weight
    deviation = (pooled.var(1, unbiased=False, keepdim=True) + vit.fc_norm.eps).sqrt()
    return (weights - weights.mean(1, keepdim=True)) / deviation


_CLASS_WEIGHTS = {
    ("vit", "avg"): _through_layer_norm,
    ("resnet", "avg"): lambda resnet, pooled, targets: resnet.fc.weight[targets],
}


def tokens_to_grid(model: Classifier | ConvClassifier, tokens: torch.Tensor) -> torch.Tensor:
    """Patch tokens of [N, prefix + gh * gw, D] as [N, D, gh, gw]; a convolution's [N, D, h, w] is returned as it is."""
    if tokens.dim() == 4:
        return tokens
    height, width = model.grid
    return tokens[:, model.prefix :].transpose(1, 2).reshape(len(tokens), -1, height, width)


def to_patches(model: Classifier | ConvClassifier, maps: torch.Tensor) -> torch.Tensor:
    """Maps [N, h, w] of an activation's size on the patch grid, [N, gh, gw]: bilinear, as CAMs are usually enlarged."""
    if tuple(maps.shape[-2:]) == tuple(model.grid):
        return maps
    return nn.functional.interpolate(maps.unsqueeze(1), model.grid, mode="bilinear", align_corners=False).squeeze(1)


def decision_row(model: Classifier, matrix: torch.Tensor) -> torch.Tensor:
    """What the decision reads of a token-to-token matrix [N, T, T] (row = query), as [N, gh, gw].

    The class token's row where there is one, else the mean over the patch queries (mean pooling reads them all).
    """
    prefix = model.prefix
    rows = matrix[:, 0, prefix:] if model.pooling == "token" else matrix[:, prefix:, prefix:].mean(1)
    return rows.reshape(len(matrix), *model.grid)


@contextmanager
def leaf_output(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Cut the graph at a module: its outputs of passes inside the block are collected as leaves that need gradients.

    So a backward pass stops there, and weights and inputs need no gradients.
    """
    outputs: list[torch.Tensor] = []

    def hook(module, inputs, output):
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    handle = module.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def attention_maps(model: Classifier) -> Iterator[list[torch.Tensor]]:
    """Collect the softmaxed attention of every block, [N, heads, T, T] in block order, of passes inside the block.

    timm's fused attention never forms the matrix, so it is switched off inside (per block: the global switch only
    reaches models built later) and back on after. Inside the block all is in full precision, whatever autocast says:
    where a model attends to all tokens nearly alike, bfloat16 would round off what sets them apart.
    """
    maps: list[torch.Tensor] = []
    blocks = model.backbone.blocks
    fused = [block.attn.fused_attn for block in blocks]
    handles = []
    try:
        for block in blocks:
            block.attn.fused_attn = False
            handles.append(
                block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: maps.append(output))
            )
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield maps
    finally:
        for block, was in zip(blocks, fused, strict=True):
            block.attn.fused_attn = was
        for handle in handles:
            handle.remove()
