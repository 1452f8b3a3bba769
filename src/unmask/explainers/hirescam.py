"""HiResCAM: relu of the activations times their gradients, position by position, without the mean in between.

The map before the relu sums to the logit, less a constant, where the rest of the network is linear (a ResNet's, not a
ViT's). The same map as Grad-CAM under mean pooling, see `unmask.explainers._cam`.
"""

from __future__ import annotations

import torch

from unmask.explainers._cam import gradient_cam

META = {
    "family": "cam",
    "class_specific": True,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Draelos & Carin, Use HiResCAM instead of Grad-CAM, arXiv:2011.08891, 2020",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    return gradient_cam(model, images, targets, lambda activation, slope: slope)
