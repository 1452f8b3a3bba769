"""RISE on the patch grid: which patches were present when the target logit was high.

Each of M masks keeps every patch with probability p. With f_i the target logit under mask m_i and f its mean,

    S(patch) = sum_i (f_i - f) m_i(patch) / (M p),

an estimate of E[f | patch present] - E[f]: eq. 6 of the paper less the mean, which takes out the noise that the number
of times a patch was kept brings in and moves no patch before another in expectation. Unlike the paper: masks are binary
and whole patches (soft ones blend patches), through any removal, and the score is the logit (the softmax saturates).
With 512 masks the patch-flipping area on the proxies is at most .02 above that of 4,096, with 64 up to .05
(benchmarks/README.md).
"""

from __future__ import annotations

import torch

from unmask.explainers import masked_logits

META = {
    "family": "perturbation",
    "class_specific": True,
    "signed": True,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "passes": {"forward": "masks", "backward": "0"},
    "options": {"masks": 512, "keep": 0.5},
    "ranges": {"masks": [2, None], "keep": [0.01, 0.99]},
    "removal": "mean",
    "citation": "Petsiuk et al., RISE: Randomized Input Sampling for Explanation, BMVC 2018",
}


def explain(model, images, targets, *, generator, removal=None, masks=512, keep=0.5) -> torch.Tensor:
    """Maps [N, gh, gw], signed, in logits."""
    shape = (masks, *model.grid)
    drawn = torch.stack([torch.rand(shape, generator=generator) < keep for _ in images]).to(images.device)
    logits = masked_logits(model, removal, images, targets, drawn)
    centred = logits - logits.mean(1, keepdim=True)
    return (centred[..., None, None] * drawn).sum(1) / (masks * keep)
