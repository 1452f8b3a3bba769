"""Removed patches are black: 0 in [0, 1]."""

from __future__ import annotations

import torch

from unmask.removals import blend

META = {
    "summary": "black pixels",
    "architectures": ["vit", "resnet"],
    "citation": "Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
}


def absent(model, images: torch.Tensor) -> torch.Tensor:
    """Black images [N, 3, H, W]."""
    return torch.zeros_like(images)


def remove(model, images: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`images` [N, 3, H, W] with the patches black where `keep` [N, gh, gw] is False."""
    return blend(images, keep, absent(model, images))
