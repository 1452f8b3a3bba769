"""Score-CAM: relu of the activations weighted by the softmax, over channels, of the target logit under each as a mask.

A channel as a mask is enlarged to the image, scaled to 0 to 1 (a constant channel: 0), and multiplies the normalised
image, which blends the image with the mean colour. The baseline that the paper subtracts from each logit cancels in
the softmax. `channels` above 0 takes only that many, those of the largest range over positions.
"""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from unmask.device import batch_size
from unmask.explainers import _cam, select, split

META = {
    "family": "cam",
    "class_specific": True,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "(channels if 0 < channels < width else width) + 1", "backward": "0"},
    "options": {"channels": 0},
    "ranges": {"channels": [0, None]},
    "citation": "Wang et al., Score-CAM, CVPR Workshops 2020",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None, channels=0) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    maps = []
    for part in split(images):
        activation, _ = _cam.activate(model, images[part])
        activation = _cam.take(activation, _cam.widest(activation, channels))
        weights = _logits(model, images[part], targets[part], activation).float().softmax(1)
        maps.append(_cam.combine(model, weights, activation))
    return torch.cat(maps)


def _logits(model, images: torch.Tensor, targets: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """Target logits [N, K] of the images under each channel of `activation` [N, K, h, w]."""
    count, limit = activation.shape[1], batch_size(images.device)
    size = -(-count // -(-count // limit))  # equal parts of one image's channels where they overflow a pass
    rows = []
    for part in split(images, count):
        columns = [_masked(model, images[part], targets[part], some) for some in activation[part].split(size, 1)]
        rows.append(torch.cat(columns, 1))
    return torch.cat(rows)


def _masked(model, images: torch.Tensor, targets: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    masks = interpolate(channels, images.shape[-2:], mode="bilinear", align_corners=False)
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    masks = torch.where(high > low, (masks - low) / (high - low), 0)
    mean = model.normalise.mean
    inputs = mean + masks.unsqueeze(2) * (images - mean).unsqueeze(1)
    logits = model(inputs.flatten(0, 1))
    return select(logits, targets.repeat_interleave(masks.shape[1])).unflatten(0, masks.shape[:2])
