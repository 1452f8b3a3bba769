"""Ablation-CAM: relu of the activations weighted by how far the target logit falls when a channel is set to 0.

    w_k = (logit - logit without A_k) * sign(sum(A_k)).

The paper's activations are 0 or more, and the sign is 1. A transformer's have both signs: what the logit loses with a
channel of negative values is due to them, and without the sign the map would hold it against their positions. The paper
also divides by the logit, which turns the map upside down where that is negative, and is otherwise a factor: left out.
Patch tokens alone are set to 0: the class token's channels are no part of the map. `channels` above 0 takes only that
many, those of the largest range over positions.

Counted is one pass per logit, but what lies below the layer is computed once for many channels.
"""

from __future__ import annotations

import torch

from unmask.device import batch_size
from unmask.explainers import _cam
from unmask.models import rules

META = {
    "family": "cam",
    "class_specific": True,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "(channels if 0 < channels < width else width) + 1", "backward": "0"},
    "options": {"channels": 0},
    "ranges": {"channels": [0, None]},
    "citation": "Desai & Ramaswamy, Ablation-CAM, WACV 2020",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None, channels=0) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    maps = []
    for image, target in zip(images.split(1), targets, strict=True):  # an image's channels fill a pass
        activation, logits = _cam.activate(model, image)
        chosen = _cam.widest(activation, channels)
        falls = (logits[:, target] - _logits_without(model, image, chosen[0])[:, target]).float()
        taken = _cam.take(activation, chosen)
        maps.append(_cam.combine(model, falls * taken.sum((2, 3)).sign(), taken))
    return torch.cat(maps)


def _logits_without(model, image: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """Logits [K, classes] of one image [1, 3, H, W], each with one of the channels [K] at 0."""
    return torch.cat([_pass(model, image, some) for some in channels.split(batch_size(image.device))])


def _pass(model, image: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """The batch grows from 1 to K at the layer; a residual branch around it, of 1, is added to all K."""
    rows = torch.arange(len(channels), device=image.device)

    def ablate(module, inputs, output):
        output = output.repeat(len(channels), *[1] * (output.dim() - 1))
        if output.dim() == 4:
            output[rows, channels] = 0
        else:
            output[rows, model.prefix :, channels] = 0
        return output

    handle = rules.cam_layer(model).register_forward_hook(ablate)
    try:
        return model(image)
    finally:
        handle.remove()
