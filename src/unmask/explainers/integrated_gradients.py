"""Integrated gradients along the straight line from a baseline, summed over the channels.

Gauss-Legendre quadrature. A map's sum is the target logit of the image less that of the baseline (completeness).
Which baseline is "nothing" changes the map; they are the removals of the same names, of the whole image.
"""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients

from unmask.device import batch_size
from unmask.errors import UserError
from unmask.explainers import split
from unmask.removals import blur, mean, zero

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "steps"},
    "options": {"steps": 32, "baseline": "mean"},
    "ranges": {"steps": [1, None]},
    "choices": {"baseline": ["mean", "zero", "blur"]},
    "citation": "Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017",
}
_BASELINES = {"mean": mean.absent, "zero": zero.absent, "blur": blur.absent}


def explain(model, images, targets, *, generator, removal=None, steps=32, baseline="mean") -> torch.Tensor:
    """Maps [N, H, W], signed; raises `UserError` for an unknown baseline."""
    if baseline not in _BASELINES:
        where = "explain.options.integrated_gradients.baseline"
        raise UserError(f"{where}: '{baseline}' is not a baseline; use mean, zero or blur")
    method = IntegratedGradients(model)
    maps = []
    for part in split(images):
        some = images[part].detach().clone().requires_grad_()
        start = _BASELINES[baseline](model, images[part]).contiguous()
        attributions = method.attribute(
            some, start, targets[part], n_steps=steps, internal_batch_size=batch_size(images.device)
        )
        maps.append(attributions.detach().sum(1).float())
    return torch.cat(maps)
