"""Control: smoothed noise, as blob-shaped as a heat map that means something.

Independent normal noise per pixel under a Gaussian of `sigma` times the image's side, borders reflected, moved and
scaled to 0 to 1.
"""

from __future__ import annotations

import torch
from torchvision.transforms.functional import gaussian_blur

META = {
    "family": "control",
    "class_specific": False,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "passes": {"forward": "0", "backward": "0"},
    "options": {"sigma": 0.1},
    "ranges": {"sigma": [0.01, 1]},
    "citation": "none: a control",
}


def explain(model, images, targets, *, generator, removal=None, sigma=0.1) -> torch.Tensor:
    """Maps [N, H, W], 0 to 1."""
    size = tuple(images.shape[-2:])
    noise = torch.stack([torch.randn(size, generator=generator) for _ in images])
    spread = sigma * max(size)
    reach = max(1, min(round(3 * spread), min(size) - 1))  # reflection needs a border shorter than the image
    smooth = gaussian_blur(noise.unsqueeze(1), [2 * reach + 1] * 2, [spread] * 2).squeeze(1)
    low, high = smooth.amin((1, 2), keepdim=True), smooth.amax((1, 2), keepdim=True)
    return ((smooth - low) / (high - low)).to(images.device)
