"""LayerCAM: relu of the activations times the positive part of their gradients, position by position."""

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
    "citation": "Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps, IEEE TIP 2021",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    return gradient_cam(model, images, targets, lambda activation, slope: slope.relu())
