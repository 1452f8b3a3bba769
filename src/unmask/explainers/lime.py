"""LIME on the patch grid: the weights of a linear model of the target logit in which patches are present.

Around the image, `samples` subsets (the first is the whole image, in the others each patch stays with probability 1/2)
are weighted by their nearness to it, exp(-(D / kernel_width)^2 / 2), D the cosine distance of the subset to all
patches; the map is the coefficients of a ridge regression with a free intercept and penalty `alpha` (section 3.4;
draws, kernel, width and penalty are those of the authors' package). Unlike there: patches instead of superpixels, any
removal instead of a colour, and the logit instead of the probability (the softmax saturates).
With many patches nearly half of them stay in every subset, so the kernel hardly tells subsets apart, and the
coefficients come close to Banzhaf values: the mean effect of the patch over all subsets of the others.
640 samples are ten a patch on the default grid: on the proxies the patch-flipping area is then within .004 of that of
5,120 samples, and with 80 it is up to .05 above (benchmarks/README.md).
"""

from __future__ import annotations

import torch

from unmask.explainers import masked_logits, split

META = {
    "family": "perturbation",
    "class_specific": True,
    "signed": True,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "passes": {"forward": "samples", "backward": "0"},
    "options": {"samples": 640, "alpha": 1.0, "kernel_width": 0.25},
    "ranges": {"samples": [2, None], "alpha": [1e-6, None], "kernel_width": [1e-3, None]},
    "removal": "mean",
    "citation": "Ribeiro et al., Why Should I Trust You? Explaining the Predictions of Any Classifier, KDD 2016",
}


def explain(
    model, images, targets, *, generator, removal=None, samples=640, alpha=1.0, kernel_width=0.25
) -> torch.Tensor:
    """Maps [N, gh, gw], signed, in logits."""
    maps = []
    for part in split(images, samples):
        keep = torch.stack([_draw(samples, model.grid, generator) for _ in images[part]])
        logits = masked_logits(model, removal, images[part], targets[part], keep.to(images.device))
        present = keep.flatten(2).double()
        distance = 1 - present.mean(2).sqrt()
        weights = (-((distance / kernel_width) ** 2) / 2).exp()
        maps.append(_ridge(present, logits.cpu().double(), weights, alpha))
    return torch.cat(maps).unflatten(1, model.grid).to(images)


def _draw(samples: int, grid: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    keep = torch.rand(samples, *grid, generator=generator) < 0.5
    keep[0] = True
    return keep


def _ridge(inputs: torch.Tensor, outputs: torch.Tensor, weights: torch.Tensor, alpha: float) -> torch.Tensor:
    """Coefficients [N, P] of ridge regressions of [N, K] on [N, K, P] with a free intercept under weights [N, K]."""
    shares = (weights / weights.sum(1, keepdim=True)).unsqueeze(2)
    centred = inputs - (shares * inputs).sum(1, keepdim=True)  # which settles the intercept
    weighted = weights.unsqueeze(2) * centred
    penalty = alpha * torch.eye(inputs.shape[2]).to(inputs)
    return torch.linalg.solve(weighted.mT @ centred + penalty, (weighted.mT @ outputs.unsqueeze(2)).squeeze(2))
