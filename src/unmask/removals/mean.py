"""Removed patches have the normalisation's mean colour: 0 after the model's first layer."""

from __future__ import annotations

import torch

from unmask.removals import blend

META = {
    "summary": "the normalisation's mean colour",
    "architectures": ["vit", "resnet"],
    "citation": "Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
}


def absent(model, images: torch.Tensor) -> torch.Tensor:
    """Images [N, 3, H, W] of the mean colour."""
    return model.normalise.mean.to(images).expand_as(images)


def remove(model, images: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`images` [N, 3, H, W] with the mean colour where `keep` [N, gh, gw] is False."""
    return blend(images, keep, absent(model, images))
