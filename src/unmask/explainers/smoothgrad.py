"""SmoothGrad: the mean gradient over noisy copies of the image; then as saliency, largest absolute value over channels.

The noise is Gaussian, its standard deviation a share (`noise`) of the image's range of values; copies are not clipped.
"""

from __future__ import annotations

import torch

from unmask.explainers import gradient, split

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
    maps = []
    for part in split(images, samples):
        some, goal = images[part], targets[part]
        draws = torch.stack([torch.randn(samples, *image.shape, generator=generator) for image in some])
        spread = noise * (some.amax((1, 2, 3)) - some.amin((1, 2, 3)))
        noisy = some.unsqueeze(1) + spread.view(-1, 1, 1, 1, 1) * draws.to(some)
        gradients = _gradients(model, noisy.flatten(0, 1), goal.repeat_interleave(samples))
        maps.append(gradients.unflatten(0, (len(some), samples)).mean(1).abs().amax(1))
    return torch.cat(maps)


def _gradients(model, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.cat([gradient(model, inputs[part], targets[part]) for part in split(inputs)])
