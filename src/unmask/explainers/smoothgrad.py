"""SmoothGrad: the mean gradient over noisy copies of the image; then as saliency, largest absolute value over channels.

The noise is Gaussian, its standard deviation a share (`noise`) of the image's range of values; copies are not clipped.
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
    "ranges": {"samples": [1, None], "noise": [0, None]},
    "citation": "Smilkov et al., SmoothGrad: removing noise by adding noise, arXiv:1706.03825, 2017",
}


def explain(model, images, targets, *, generator, removal=None, samples=16, noise=0.15) -> torch.Tensor:
    """Maps [N, H, W], 0 or more."""
    parts = noisy_gradients(model, images, targets, samples, noise, generator)
    return torch.cat([slopes.mean(1).abs().amax(1) for slopes in parts])
