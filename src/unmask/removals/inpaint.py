"""Removed patches show what the encoder's own pretraining network expects there, given the kept ones.

The absent patches are masked, SimMIM reconstructs them in one pass, and the pixels, cut to [0, 1], go into the image.
So what is left is a likely image by the model's own lights; a pass through the pretraining network comes with each.
"""

from __future__ import annotations

import torch

from unmask.models.simmim import reconstruct_pixels
from unmask.removals import blend

META = {
    "summary": "SimMIM's own reconstruction from the kept patches",
    "architectures": ["vit"],
    "needs": ["pretraining"],
    "citation": "Xie et al., SimMIM, CVPR 2022; Chang et al., Explaining Image Classifiers by Counterfactual "
    "Generation, ICLR 2019",
}


@torch.no_grad()
def remove(model, images: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`images` [N, 3, H, W] with the reconstruction where `keep` [N, gh, gw] is False."""
    return blend(images, keep, reconstruct_pixels(model.pretraining.network, images, ~keep))
