"""Removed patches become the mask token learned in pretraining: the one "absent" that the encoder has seen."""

from __future__ import annotations

import torch

from unmask.models.vit import MaskedImages

META = {
    "summary": "SimMIM's mask token in place of the patch's embedding",
    "architectures": ["vit"],
    "needs": ["mask_token"],
    "citation": "Xie et al., SimMIM: a Simple Framework for Masked Image Modeling, CVPR 2022",
}


def remove(model, images: torch.Tensor, keep: torch.Tensor) -> MaskedImages:
    """`images` [N, 3, H, W] with the mask token after patch embedding where `keep` [N, gh, gw] is False."""
    return MaskedImages(images, keep)
