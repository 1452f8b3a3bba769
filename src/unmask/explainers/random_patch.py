"""Control: independent uniform noise per patch."""

from __future__ import annotations

import torch

META = {
    "family": "control",
    "class_specific": False,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "passes": {"forward": "0", "backward": "0"},
    "citation": "none: a control",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 to 1."""
    return torch.stack([torch.rand(model.grid, generator=generator) for _ in images]).to(images.device)
