"""XGrad-CAM: relu of the activations weighted by their gradient's mean, taken with the activation as its measure.

    w_k = sum(slope_k * A_k) / sum(A_k),

sums over positions, so that the weighted activations sum to sum(slope * A) (conservation). The paper's networks end in
a ReLU. Where activations have both signs, as a transformer's, sum(A_k) comes near 0 for some channel and that one can
take over the map. The same map as Grad-CAM under mean pooling, see `unmask.explainers._cam`.
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
    "citation": "Fu et al., Axiom-based Grad-CAM, BMVC 2020",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    return gradient_cam(model, images, targets, _weights)


def _weights(activation: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """[N, D, 1, 1]; 0 for a channel that sums to nothing, as a dead one does."""
    total = activation.sum((2, 3), keepdim=True)
    return torch.where(total == 0, 0, (slope * activation).sum((2, 3), keepdim=True) / total)
