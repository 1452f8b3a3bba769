"""Input x gradient, summed over the channels.

The input is in [0, 1], so black pixels get 0 whatever the model does with them.
"""

from __future__ import annotations

import torch
from captum.attr import InputXGradient

from unmask.explainers import split

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Shrikumar et al., Not Just a Black Box, arXiv:1605.01713, 2016",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, H, W], signed."""
    method = InputXGradient(model)
    return torch.cat(
        [
            method.attribute(images[part].detach().clone().requires_grad_(), target=targets[part]).detach().sum(1)
            for part in split(images)
        ]
    )
