"""CAM: the last activations weighted by the class's weights in the head that reads their mean; signed.

The mean of the map over positions is the target logit less a constant. A ResNet's head is linear in the mean, as in the
paper. A ViT with mean pooling has a LayerNorm between mean and head. Subtracting the mean over channels is linear, and
the deviation that it divides by is one number per image, so the same sum holds exactly with weights that contain it
(see `unmask.models.rules.class_weights`). A class token is no mean over positions: not applicable.
"""

from __future__ import annotations

import torch

from unmask.explainers import _cam, split
from unmask.models import rules

META = {
    "family": "cam",
    "class_specific": True,
    "signed": True,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "poolings": ["avg"],
    "passes": {"forward": "1", "backward": "0"},
    "citation": "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], signed, in logits."""
    maps = []
    for part in split(images):
        activation, _ = _cam.activate(model, images[part])
        weights = rules.class_weights(model, activation.mean((2, 3)), targets[part])
        maps.append(rules.to_patches(model, (weights[..., None, None] * activation).sum(1)))
    return torch.cat(maps)
