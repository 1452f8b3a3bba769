"""Control: a Gaussian at the image's centre, the prior of photographers; the same map for every image."""

from __future__ import annotations

import torch

META = {
    "family": "control",
    "class_specific": False,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "0"},
    "options": {"sigma": 0.25},
    "ranges": {"sigma": [0.01, 10]},
    "citation": "none: a control",
}


def explain(model, images, targets, *, generator, removal=None, sigma=0.25) -> torch.Tensor:
    """Maps [N, H, W], 0 to 1; `sigma` is the standard deviation as a share of the side."""
    height, width = images.shape[-2:]
    rows, columns = (torch.linspace(-0.5, 0.5, n + 1).to(images.device) for n in (height, width))
    down, across = ((edges[1:] + edges[:-1]) / 2 for edges in (rows, columns))
    prior = torch.exp(-(down.unsqueeze(1) ** 2 + across**2) / (2 * sigma**2))
    return prior.expand(len(images), -1, -1).clone()
