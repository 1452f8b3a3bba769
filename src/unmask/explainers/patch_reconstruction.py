"""Patch reconstruction: which visible patches the reconstruction of one patch, the image's centre, relies on.

That patch is masked and reconstructed from all the others; then again with one more of them masked at a time:

    S(patch) = mean over pixels and channels of |reconstruction without it - reconstruction with it|,

in units of what the network is trained to predict. 0 for the reconstructed patch itself, which is never visible.
Nearly all of the image is visible, more than in pretraining, so that one patch is the difference between two contexts
that are as full as can be.
`patch` counts along the rows from 0; -1 is the centre, on an even grid the first patch below and right of it.
"""

from __future__ import annotations

import torch

from unmask.errors import UserError
from unmask.explainers import _reconstruction

META = {
    "family": "mim",
    "class_specific": False,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit"],
    "passes": {"forward": "patches", "backward": "0"},
    "options": {"patch": -1},
    "ranges": {"patch": [-1, None]},
    "needs": ["pretraining"],
    "citation": "Xie et al., SimMIM, CVPR 2022; Zeiler & Fergus, ECCV 2014 (occlusion)",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None, patch=-1) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more, in units of the target; raises `UserError` for a patch outside the grid."""
    height, width = model.grid
    if patch >= height * width:
        where = "explain.options.patch_reconstruction.patch"
        raise UserError(
            f"{where}: {patch} is not a patch of the {height} x {width} grid; use 0 to {height * width - 1}"
        )
    place = height // 2 * width + width // 2 if patch == -1 else patch
    masks = torch.eye(height * width, dtype=torch.bool, device=images.device)
    masks[:, place] = True  # the row of the place itself masks nothing else: the reconstruction to compare with
    masks = masks.reshape(-1, height, width).expand(len(images), -1, -1, -1)
    rows, columns = (slice(i * model.patch, (i + 1) * model.patch) for i in divmod(place, width))

    def reconstruct(some: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        return model.pretraining.network.reconstruct(some, masked)[:, :, rows, columns]

    found = _reconstruction.over_masks(reconstruct, images, masks)
    return (found - found[:, [place]]).abs().mean((2, 3, 4)).reshape(-1, height, width)
