"""Saliency: the largest absolute gradient over the channels (eq. 3 and section 3.1 of the paper)."""

from __future__ import annotations

import torch
from captum.attr import Saliency

from unmask.explainers import split

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Simonyan et al., Deep Inside Convolutional Networks, ICLR workshop 2014",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, H, W], 0 or more."""
    method = Saliency(model)
    return torch.cat(
        [
            method.attribute(images[part].detach().clone().requires_grad_(), target=targets[part]).amax(1)
            for part in split(images)
        ]
    )
