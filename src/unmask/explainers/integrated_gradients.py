"""Integrated gradients along the straight line from a baseline, summed over the channels.

Gauss-Legendre quadrature. A map's sum is the target logit of the image less that of the baseline (completeness).
Which baseline is "nothing" changes the map. The average over training images as baselines is `gradient_shap`.
"""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients

from unmask.device import batch_size
from unmask.explainers import split
from unmask.explainers._baselines import baseline_images

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "steps"},
    "options": {"steps": 32, "baseline": "mean"},
    "ranges": {"steps": [1, None]},
    "choices": {"baseline": ["mean", "zero", "blur", "white"]},
    "citation": "Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017",
}


def explain(model, images, targets, *, generator, removal=None, steps=32, baseline="mean") -> torch.Tensor:
    """Maps [N, H, W], signed; raises `UserError` for an unknown baseline."""
    method = IntegratedGradients(model)
    maps = []
    for part in split(images):
        some = images[part].detach().clone().requires_grad_()
        start = baseline_images(baseline, "integrated_gradients", model, images[part])
        attributions = method.attribute(
            some, start, targets[part], n_steps=steps, internal_batch_size=batch_size(images.device)
        )
        maps.append(attributions.detach().sum(1).float())
    return torch.cat(maps)
