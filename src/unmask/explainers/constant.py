"""Control: the same value everywhere, which says nothing; the suite must refuse it as 'the map is constant'."""

from __future__ import annotations

import torch

META = {
    "family": "control",
    "class_specific": False,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "0"},
    "citation": "none: a control",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw] of ones."""
    return torch.ones(len(images), *model.grid, device=images.device)
