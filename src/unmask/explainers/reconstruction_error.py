"""Reconstruction error: how far the pretraining network's picture of a patch is off when the patch is masked.

The mean absolute error over the patch's pixels and channels, in units of what the network is trained to predict
(SimMIM: normalised colours; MAE: by default colours normalised again within each patch), averaged over those of `masks`
random masks at the encoder's own ratio (of ratios drawn from a range, its middle) that cover the patch. So that each
patch is covered, masks are drawn in rounds in which each takes the complement of those before it first: at a ratio of a
half or more the second mask of a round covers all that the first left visible. It says where an image is not what its
context leads to expect, whatever the classifier makes of that: no model was asked about a class.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from unmask.explainers import _reconstruction

META = {
    "family": "mim",
    "class_specific": False,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit"],
    "draws": True,
    "passes": {"forward": "masks", "backward": "0"},
    "options": {"masks": 16},
    "ranges": {"masks": [1, None]},
    "needs": ["pretraining"],
    "citation": "Xie et al., SimMIM, CVPR 2022 (eq. 1, per patch); as a map: Schwartz et al., MAEDAY: MAE for few- and "
    "zero-shot AnomalY-Detection, arXiv:2211.14307, 2022",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None, masks=16) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more, in units of the target."""
    network = model.pretraining.network

    def errors(some: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        off = (network.target(some) - network.reconstruct(some, masked)).abs().mean(1)
        return functional.avg_pool2d(off, model.patch) * masked

    drawn = _reconstruction.draw(model, images, masks, generator)
    return _reconstruction.over_masks(errors, images, drawn).sum(1) / drawn.sum(1)
