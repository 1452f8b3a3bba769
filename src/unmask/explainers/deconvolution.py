"""Deconvolution: the gradient, with the ReLU itself in place of a ReLU's slope; abs, largest over channels.

A ReLU passes on the positive part of what comes back, whether it was active or not (section 2.1 of the paper). Reduced
over the channels as `saliency`, which it equals on a network without ReLU modules, such as a ViT with GELU.
"""

from __future__ import annotations

import torch
from captum.attr import Deconvolution

from unmask.explainers._relu_rules import changed_gradient

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, H, W], 0 or more."""
    return changed_gradient(Deconvolution, model, images, targets).abs().amax(1)
