"""Patch effect: how far the target logit falls when a patch is swapped with the same place of training images.

The mean over `samples` training images: an intervention on one patch whose new value is drawn from what that place
shows in the data, whatever the rest of the image shows (the marginal expectation). No colour stands for absence, so it
serves as the reference effect beside the removals. Each image draws its own training images, none twice before all were
used.
The falls have a heavy tail: most swaps do nothing, and the few whose training image shows evidence at that place decide
the mean. On the proxies the map of 16 images has a rank correlation of .6 with that of 64, the map of one .1 to .2
(benchmarks/README.md).
"""

from __future__ import annotations

import torch

from unmask.explainers import masked_logits, select, split
from unmask.removals import blend

META = {
    "family": "perturbation",
    "class_specific": True,
    "signed": True,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "passes": {"forward": "samples * patches + 1", "backward": "0"},
    "options": {"samples": 16},
    "ranges": {"samples": [1, None]},
    "needs": ["references"],
    "citation": "Janzing et al., Feature relevance quantification in explainable AI: A causal problem, AISTATS 2020",
}


class _Swap:
    """As a removal: of pairs [N, 2, 3, H, W], the first image with the second's patches where `keep` is False."""

    def remove(self, pairs: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return blend(pairs[:, :1], keep, pairs[:, 1:]).flatten(0, 1)


@torch.no_grad()
def explain(model, images, targets, *, generator, references, removal=None, samples=16) -> torch.Tensor:
    """Maps [N, gh, gw], signed, in logits; `references` float32 [R, 3, H, W]."""
    height, width = model.grid
    patches = height * width
    others = ~torch.eye(patches, dtype=torch.bool, device=images.device).reshape(1, patches, height, width)
    maps = []
    for part in split(images, samples):
        some, goal = images[part], targets[part]
        rows = torch.stack([_rows(samples, len(references), generator) for _ in some]).to(references.device)
        pairs = torch.stack([some.unsqueeze(1).expand(-1, samples, -1, -1, -1), references[rows].to(some)], 2)
        keep = others.expand(len(some) * samples, -1, -1, -1)
        swapped = masked_logits(model, _Swap(), pairs.flatten(0, 1), goal.repeat_interleave(samples), keep)
        whole = select(model(some), goal)
        maps.append(whole.unsqueeze(1) - swapped.unflatten(0, (-1, samples)).mean(1))
    return torch.cat(maps).reshape(-1, height, width)


def _rows(samples: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Which of `count` training images to use, int64 [samples]; in turns of a random order."""
    return torch.randperm(count, generator=generator)[torch.arange(samples) % count]
