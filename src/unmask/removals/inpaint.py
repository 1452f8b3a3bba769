"""Removed patches show what the encoder's own pretraining network expects there, given the kept ones.

The absent patches are masked, SimMIM or MAE reconstructs them in one pass, and the pixels, cut to [0, 1], go into the
image. So what is left is a likely image by the model's own lights; a pass through the pretraining network comes with
each. A network that predicts normalised pixels does not know their colours, and cannot.
"""

from __future__ import annotations

import torch

from unmask.removals import blend

META = {
    "summary": "the pretraining network's own reconstruction from the kept patches",
    "architectures": ["vit"],
    "needs": ["pretraining", "colours"],
    "citation": "Xie et al., SimMIM, CVPR 2022; He et al., MAE, CVPR 2022; Chang et al., Explaining Image Classifiers "
    "by Counterfactual Generation, ICLR 2019",
}


@torch.no_grad()
def remove(model, images: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`images` [N, 3, H, W] with the reconstruction where `keep` [N, gh, gw] is False."""
    return blend(images, keep, model.pretraining.network.pixels(images, ~keep))
