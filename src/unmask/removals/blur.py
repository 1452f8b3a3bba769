"""Removed patches show a blurred copy of the image, so coarse colour stays and detail goes.

Gaussian of standard deviation half a patch, borders reflected. The blur is of the whole image, so kept neighbours
bleed in: less is removed than by a flat colour.
"""

from __future__ import annotations

import torch
from torchvision.transforms.functional import gaussian_blur

from unmask.removals import blend

META = {
    "summary": "a blurred copy of the image (sigma: half a patch)",
    "architectures": ["vit", "resnet"],
    "citation": "Fong & Vedaldi, Interpretable Explanations of Black Boxes by Meaningful Perturbation, ICCV 2017",
}


def absent(model, images: torch.Tensor) -> torch.Tensor:
    """The blurred images [N, 3, H, W]."""
    sigma = images.shape[-1] / model.grid[1] / 2
    reach = min(round(3 * sigma), min(images.shape[-2:]) - 1)  # reflection needs a border shorter than the image
    return gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2)


def remove(model, images: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`images` [N, 3, H, W], blurred where `keep` [N, gh, gw] is False."""
    return blend(images, keep, absent(model, images))
