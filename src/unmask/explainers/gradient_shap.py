"""GradientSHAP, or expected gradients: integrated gradients averaged over training images as baselines, by sampling.

    phi = E[(x - r) * grad f(r + a (x - r))],  r a training image, a uniform in [0, 1],

from `samples` draws of (r, a), summed over the channels. In expectation a map's sum is the target logit of the image
less the mean target logit of the references. `noise` above 0 adds Gaussian noise to x in each draw, as in SmoothGrad.
"""

from __future__ import annotations

import torch

from unmask.explainers import split
from unmask.explainers._sampling import gradients, spread

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "needs": ["references"],
    "passes": {"forward": "0", "backward": "samples"},
    "options": {"samples": 16, "noise": 0.0},
    "ranges": {"samples": [1, None], "noise": [0, None]},
    "citation": "Erion et al., Improving performance of deep learning models with axiomatic attribution priors and "
    "expected gradients, Nature Machine Intelligence 2021; Lundberg & Lee, NeurIPS 2017",
}


def explain(model, images, targets, *, generator, removal=None, references, samples=16, noise=0.0) -> torch.Tensor:
    """Maps [N, H, W], signed, in logits."""
    maps = []
    for part in split(images, samples):
        some, goal = images[part], targets[part]
        drawn = [_draw(len(references), samples, image.shape, noise, generator) for image in some]
        picks, shares, draws = (torch.stack(rows) for rows in zip(*drawn, strict=True))
        ends = some.unsqueeze(1) + spread(some, noise) * draws.to(some)
        starts = references[picks.to(references.device)].to(some)
        points = torch.lerp(starts, ends.expand_as(starts), shares.to(some))
        slopes = gradients(model, points.flatten(0, 1), goal.repeat_interleave(samples))
        maps.append(((ends - starts) * slopes.view_as(starts)).mean(1).sum(1))
    return torch.cat(maps)


def _draw(count: int, samples: int, shape: tuple[int, ...], noise: float, generator: torch.Generator):
    """One image's references (of `count`), shares of the way from them to the image, and normal noise if any."""
    picks = torch.randint(count, (samples,), generator=generator)
    shares = torch.rand(samples, 1, 1, 1, generator=generator)
    return picks, shares, torch.randn(samples, *shape, generator=generator) if noise else torch.zeros(1, 1, 1, 1)
