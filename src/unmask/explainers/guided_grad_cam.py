"""Guided Grad-CAM: guided backpropagation where Grad-CAM is positive; abs, largest over channels.

The product of the `guided_backprop` map and the Grad-CAM one (the layer as in `unmask.models.rules`), enlarged from the
activation's size to the image's, bilinear as in the paper. On a ViT with GELU: saliency where Grad-CAM is positive.
"""

from __future__ import annotations

import torch
from captum.attr import GuidedBackprop
from torch import nn

from unmask.explainers._cam import small_gradient_cam
from unmask.explainers._relu_rules import changed_gradient

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "2"},
    "citation": "Selvaraju et al., Grad-CAM, ICCV 2017",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, H, W], 0 or more."""
    cams = small_gradient_cam(model, images, targets, lambda activation, slope: slope.mean((2, 3), keepdim=True))
    large = nn.functional.interpolate(cams.unsqueeze(1), images.shape[-2:], mode="bilinear", align_corners=False)
    return changed_gradient(GuidedBackprop, model, images, targets).abs().amax(1) * large.squeeze(1)
