"""What the CAM methods share: activations, their gradients, and the way from channels to a map.

With A_k [h, w] the channels of the activation (layer: `unmask.models.rules`), every method is

    map = relu(sum_k W_k * A_k),

W_k a number or a map, brought to the patch grid where the activation is smaller. Under mean pooling the layer is
followed by the mean over its positions, and norm and head come after that, so a logit's gradient is the same at every
position: Grad-CAM, HiResCAM and XGrad-CAM are then one map. With a class token they are three. A ViT's norm behind the
mean does not see its scale, so that this one map sums to 0 before the relu, whatever the logit is; CAM's sums to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from unmask.explainers import select, split
from unmask.models import rules
from unmask.models.classifier import Classifier, ConvClassifier

Weights = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def gradient_cam(
    model: Classifier | ConvClassifier, images: torch.Tensor, targets: torch.Tensor, weights: Weights
) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more, one pass with gradient.

    `weights(activation, slope)`, both [N, D, h, w], gives W: [N, D, h, w] or [N, D, 1, 1].
    """
    return rules.to_patches(model, small_gradient_cam(model, images, targets, weights))


def small_gradient_cam(
    model: Classifier | ConvClassifier, images: torch.Tensor, targets: torch.Tensor, weights: Weights
) -> torch.Tensor:
    """As `gradient_cam`, at the activation's own size [N, h, w]."""
    maps = []
    for part in split(images):
        with torch.enable_grad(), rules.leaf_output(rules.cam_layer(model)) as outputs:
            logits = model(images[part])
            slope = torch.autograd.grad(select(logits, targets[part]).sum(), outputs)[0]
        activation, slope = (_float_grid(model, each) for each in (outputs[0], slope))
        maps.append((weights(activation, slope) * activation).sum(1).relu())
    return torch.cat(maps)


def combine(model: Classifier | ConvClassifier, weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more, of weights [N, D] and an activation [N, D, h, w]."""
    return rules.to_patches(model, (weights[..., None, None] * activation).sum(1).relu())


@torch.no_grad()
def activate(model: Classifier | ConvClassifier, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The activation [N, D, h, w] and the logits [N, classes], one forward pass."""
    with rules.leaf_output(rules.cam_layer(model)) as outputs:
        logits = model(images)
    return _float_grid(model, outputs[0]), logits


def _float_grid(model: Classifier | ConvClassifier, tokens: torch.Tensor) -> torch.Tensor:
    # Sums over hundreds of channels and a decomposition are no work for the half precision of an autocast pass.
    return rules.tokens_to_grid(model, tokens.detach()).float()


def widest(activation: torch.Tensor, channels: int) -> torch.Tensor:
    """Indices int64 [N, K] of the channels with the largest range over positions; of all D where `channels` is 0."""
    ranges = activation.amax((2, 3)) - activation.amin((2, 3))
    return ranges.topk(min(channels or ranges.shape[1], ranges.shape[1]), 1).indices


def take(activation: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Channels `chosen` int64 [N, K] of an activation [N, D, h, w]: [N, K, h, w]."""
    return activation.gather(1, chosen[..., None, None].expand(-1, -1, *activation.shape[2:]))
