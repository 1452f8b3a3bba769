"""Grad-CAM on the last activations: relu of the activations weighted by their mean gradient (eqs. 1 and 2).

The layer depends on the pooling, see `unmask.models.rules`.
"""

from __future__ import annotations

import torch

from unmask.explainers import select, split
from unmask.models import rules

META = {
    "family": "cam",
    "class_specific": True,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Selvaraju et al., Grad-CAM, ICCV 2017",
}


@torch.enable_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    return torch.cat([_cam(model, images[part], targets[part]) for part in split(images)])


def _cam(model, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    with rules.leaf_output(rules.cam_layer(model)) as outputs:
        logits = model(images)
    (tokens,) = outputs
    (slope,) = torch.autograd.grad(select(logits, targets).sum(), tokens)
    weights = rules.tokens_to_grid(model, slope).mean((2, 3), keepdim=True)
    cam = (weights * rules.tokens_to_grid(model, tokens.detach())).sum(1).relu()
    return rules.to_patches(model, cam)
