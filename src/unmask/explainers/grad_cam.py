"""Grad-CAM on the last activations: relu of the activations weighted by their mean gradient (eqs. 1 and 2).

The layer depends on the pooling, see `unmask.models.rules`.
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
    "citation": "Selvaraju et al., Grad-CAM, ICCV 2017",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    return gradient_cam(model, images, targets, lambda activation, slope: slope.mean((2, 3), keepdim=True))
