"""Removed patches are not there at all: the encoder works on the other tokens alone, as in MAE's pretraining."""

from __future__ import annotations

import torch

from unmask.models.vit import DroppedImages

META = {
    "summary": "the patch's token left out of attention and pooling",
    "architectures": ["vit"],
    "citation": "Jain et al., Missingness Bias in Model Debugging, ICLR 2022",
}


def remove(model, images: torch.Tensor, keep: torch.Tensor) -> DroppedImages:
    """`images` [N, 3, H, W] without the tokens where `keep` [N, gh, gw] is False."""
    return DroppedImages(images, keep)
