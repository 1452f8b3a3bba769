"""Control: independent uniform noise per pixel."""

from __future__ import annotations

import torch

META = {
    "family": "control",
    "class_specific": False,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "passes": {"forward": "0", "backward": "0"},
    "citation": "none: a control",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, H, W], 0 to 1."""
    return torch.stack([torch.rand(image.shape[1:], generator=generator) for image in images]).to(images.device)
