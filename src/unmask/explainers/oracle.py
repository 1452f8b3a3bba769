"""Control: the evidence mask itself, the best that localisation can reward; undefined without evidence."""

from __future__ import annotations

import torch

META = {
    "family": "control",
    "class_specific": False,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "0"},
    "needs": ["masks"],
    "citation": "none: a control",
}


def explain(model, images, targets, *, generator, removal=None, masks) -> torch.Tensor:
    """Maps [N, H, W], 1 on evidence and 0 elsewhere, from `masks` bool [N, H, W]."""
    return masks.to(images.device, torch.float32)
