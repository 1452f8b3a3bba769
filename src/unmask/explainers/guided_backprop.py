"""Guided backpropagation: the gradient, of which a ReLU passes on only what is positive; abs, largest over channels.

Reduced over the channels as `saliency`, which it equals on a network without ReLU modules, such as a ViT with GELU.
"""

from __future__ import annotations

import torch
from captum.attr import GuidedBackprop

from unmask.explainers._relu_rules import changed_gradient

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Springenberg et al., Striving for Simplicity: The All Convolutional Net, ICLR workshop 2015",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, H, W], 0 or more."""
    return changed_gradient(GuidedBackprop, model, images, targets).abs().amax(1)
