"""Grad-CAM++: relu of the activations weighted by the sum of alpha times the positive gradients (eq. 19).

For a score exp(logit), whose higher derivatives are powers of the logit's slope,

    alpha = slope^2 / (2 slope^2 + slope^3 sum(A_k)) = 1 / (2 + slope sum(A_k)),

written without the powers, which vanish against any epsilon where a mean over many positions makes slopes small. The
score's slope is the logit's times a factor per image, left out. The paper's activations are 0 or more, which keeps
alpha within 0 to 1/2 where the slope is positive. A transformer's have both signs, and alpha has a pole at
slope sum(A_k) = -2: more than one channel usually takes from a logit.
"""

from __future__ import annotations

import torch

from unmask.explainers._cam import gradient_cam

META = {
    "family": "cam",
    "class_specific": True,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Chattopadhay et al., Grad-CAM++, WACV 2018",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    return gradient_cam(model, images, targets, _weights)


def _weights(activation: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """[N, D, 1, 1]."""
    alpha = 1 / (2 + slope * activation.sum((2, 3), keepdim=True))
    return (alpha * slope.relu()).sum((2, 3), keepdim=True)
