"""Reconstruction saliency: which visible pixels the reconstruction of the masked patches is made from.

Input x gradient of the pretraining network's loss under a random mask, with its sign turned: positive where a visible
pixel lowers the loss (to first order, by how much the loss would rise were the pixel black). Summed over channels, and
averaged over those of `masks` random masks at the encoder's own ratio that leave the pixel visible; drawn in rounds, so
that each is.
What is masked enters the loss as its target only, which is no part of the explanation, and has no attribution there.
"""

from __future__ import annotations

import torch

from unmask.explainers import _reconstruction
from unmask.patches import to_pixels

META = {
    "family": "mim",
    "class_specific": False,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit"],
    "draws": True,
    "passes": {"forward": "0", "backward": "masks"},
    "options": {"masks": 64},
    "ranges": {"masks": [1, None]},
    "needs": ["pretraining"],
    "citation": "Xie et al., SimMIM, CVPR 2022 (the loss); Shrikumar et al., Not Just a Black Box, 2016",
}


@torch.enable_grad()
def explain(model, images, targets, *, generator, removal=None, masks=64) -> torch.Tensor:
    """Maps [N, H, W], signed, in units of the loss."""
    network = model.pretraining.network

    def attributions(some: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        leaf = some.detach().clone().requires_grad_()
        # Every image has as many masked pixels as the next, so this is the sum of their losses.
        loss = network.loss(network.target(some), network.reconstruct(leaf, masked), masked) * len(some)
        return -(torch.autograd.grad(loss, leaf)[0] * some).sum(1)

    drawn = _reconstruction.draw(model, images, masks, generator, visible=True)
    seen = to_pixels((~drawn).sum(1), tuple(images.shape[-2:]))
    return _reconstruction.over_masks(attributions, images, drawn).sum(1) / seen
