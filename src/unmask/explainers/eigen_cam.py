"""EigenCAM: the activations' projection on their first principal component; no class, no gradient.

With the activation as a matrix [positions, D], less its mean over positions, = U S V', the map is relu(U_1 S_1). Tokens
share a large vector that is no principal component but would be the first without the centring. The sign of a
singular vector is arbitrary: here the value farthest from 0 is positive, what stands out being small (Chung & Ying,
Seg-Eigen-CAM, Applied Sciences 2025).
"""

from __future__ import annotations

import torch

from unmask.explainers import _cam, split
from unmask.models import rules

META = {
    "family": "cam",
    "class_specific": False,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "1", "backward": "0"},
    "citation": "Muhammad & Yeasin, Eigen-CAM: Class Activation Map using Principal Components, IJCNN 2020",
}


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    maps = []
    for part in split(images):
        activation, _ = _cam.activate(model, images[part])
        matrix = activation.flatten(2).transpose(1, 2)
        left, values, _ = torch.linalg.svd(matrix - matrix.mean(1, keepdim=True), full_matrices=False)
        first = left[..., 0] * values[:, :1]
        inverted = -first.amin(1, keepdim=True) > first.amax(1, keepdim=True)
        upright = torch.where(inverted, -first, first).relu()
        maps.append(rules.to_patches(model, upright.unflatten(1, activation.shape[2:])))
    return torch.cat(maps)
