"""Occlusion: how far the target logit falls when one patch is removed."""

from __future__ import annotations

import torch

from unmask.explainers import masked_logits, select, split

META = {
    "family": "perturbation",
    "class_specific": True,
    "signed": True,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "patches + 1", "backward": "0"},
    "removal": "mean",
    "citation": "Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], signed, in logits."""
    height, width = model.grid
    others = ~torch.eye(height * width, dtype=torch.bool, device=images.device)
    keep = others.reshape(1, -1, height, width).expand(len(images), -1, -1, -1)
    whole = torch.cat([select(model(images[part]), targets[part]) for part in split(images)])
    without = masked_logits(model, removal, images, targets, keep)
    return (whole.unsqueeze(1) - without).reshape(-1, height, width)
