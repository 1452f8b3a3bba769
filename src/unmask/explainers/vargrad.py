"""VarGrad: the variance of the gradient over noisy copies of the image, largest over the channels.

The copies are SmoothGrad's, draw for draw. A model whose gradient does not change near the image gets zeros: the map
says where the model's answer bends, not where it leans.
"""

from __future__ import annotations

import torch

from unmask.explainers._sampling import noisy_gradients

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "passes": {"forward": "0", "backward": "samples"},
    "options": {"samples": 16, "noise": 0.15},
    "ranges": {"samples": [2, None], "noise": [0.001, None]},
    "citation": "Adebayo et al., Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter "
    "Values, ICLR workshop 2018",
}


def explain(model, images, targets, *, generator, removal=None, samples=16, noise=0.15) -> torch.Tensor:
    """Maps [N, H, W], 0 or more."""
    parts = noisy_gradients(model, images, targets, samples, noise, generator)
    return torch.cat([slopes.var(1, correction=0).amax(1) for slopes in parts])
