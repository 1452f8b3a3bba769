"""What is looked at rather than counted: attention head by head, and the filters that describe a patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from unmask.errors import Skip
from unmask.internals.observe import observe

if TYPE_CHECKING:
    import numpy as np

    from unmask.models.classifier import Classifier, ConvClassifier

FILTERS = 12


def heads(model: Classifier | ConvClassifier, images: torch.Tensor) -> np.ndarray:
    """What the decision reads of every head's attention, float32 [N, blocks, heads, gh, gw], each summing to 1.

    The class token's row, or under mean pooling the mean over the queries. Raises `Skip` where there is no attention.
    """
    from unmask.models.rules import decision_row

    if model.arch != "vit":
        raise Skip(f"the architecture {model.arch} has no attention")
    seen, _ = observe(model, images, attention=True)
    rows = torch.stack(
        [torch.stack([decision_row(model, head) for head in block.unbind(1)], 1) for block in seen.attention], 1
    )
    return (rows / rows.sum((-1, -2), keepdim=True)).float().cpu().numpy()


def filters(model: Classifier | ConvClassifier, count: int = FILTERS) -> np.ndarray:
    """The leading principal components of the first layer's filters, float32 [count, p, p, 3] in [-1, 1].

    What patches are described by; noise where nothing was learned. Each is scaled to its largest value, which is
    positive. Dosovitskiy et al., ICLR 2021, figure 7.
    """
    stem = model.backbone.conv1 if model.arch == "resnet" else model.backbone.patch_embed.proj
    first = next(module for module in stem.modules() if isinstance(module, torch.nn.Conv2d))  # of a deep stem
    kernels = first.weight.detach().double()  # [D, 3, p, p]
    flat = kernels.flatten(1) - kernels.flatten(1).mean(0)
    axes = torch.linalg.svd(flat, full_matrices=False).Vh[:count]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (axes / largest).unflatten(1, kernels.shape[1:]).permute(0, 2, 3, 1).float().cpu().numpy()
