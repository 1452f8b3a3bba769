"""KernelSHAP on the patch grid: Shapley values of the patches by weighted least squares over coalitions.

The players are the P patches, a coalition's worth the target logit with all other patches removed. The Shapley values
are the additive model that fits all coalitions best, weighted by the Shapley kernel (P - 1) / (C(P, s) s (P - s)) for
size s (theorem 2). As in the authors' package, sizes from the outermost inwards are taken whole while the `samples`
last, and the rest is drawn by the kernel's mass, each coalition with its complement: then no interaction of two patches
adds noise, only those of three and more. With samples for all 2^P - 2 coalitions the values are exact.
A map's sum is the logit of the image less that of no patches (efficiency), exactly: it is a constraint of the fit.
Where the samples leave the fit open, the one nearest to equal shares is taken.
640 samples are ten a patch on the default grid: on the proxies the patch-flipping area is then within .006 of that of
5,120 samples, and with 80 it is up to .12 above (benchmarks/README.md).
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import torch

from unmask.explainers import masked_logits, split

META = {
    "family": "perturbation",
    "class_specific": True,
    "signed": True,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "draws": True,
    "passes": {"forward": "(samples if samples < 2 ** patches - 2 else 2 ** patches - 2) + 2", "backward": "0"},
    "options": {"samples": 640},
    "ranges": {"samples": [2, None]},
    "removal": "mean",
    "citation": "Lundberg & Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017; Covert & Lee, "
    "Improving KernelSHAP: Practical Shapley Value Estimation via Linear Regression, AISTATS 2021",
}


def explain(model, images, targets, *, generator, removal=None, samples=640) -> torch.Tensor:
    """Maps [N, gh, gw], signed, in logits."""
    patches = model.grid[0] * model.grid[1]
    whole, weight, mass = _whole_sizes(patches, samples)
    count = min(samples, 2**patches - 2) - len(whole)  # of coalitions to draw
    weights = torch.cat([weight, mass.sum().expand(count) / max(count, 1)])
    ends = torch.tensor([[False], [True]]).expand(2, patches)
    maps = []
    for part in split(images, samples):
        keep = torch.stack([torch.cat([ends, whole, _draw(count, mass, generator)]) for _ in images[part]])
        asked = keep.unflatten(2, model.grid).to(images.device)
        worth = masked_logits(model, removal, images[part], targets[part], asked).cpu().double()
        maps.append(_fit(keep[:, 2:].double(), worth[:, 2:] - worth[:, :1], weights, worth[:, 1] - worth[:, 0]))
    return torch.cat(maps).unflatten(1, model.grid).to(images)


def _whole_sizes(patches: int, samples: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The coalitions of the sizes that are taken whole, and what the kernel leaves to the other sizes.

    bool [K, P], their weights float64 [K], and the mass of each size from 1 to P - 1, float64 [P - 1], 0 where taken.
    A size and its complement are taken where drawing would be expected to give each of their coalitions once.
    """
    sizes = torch.arange(1, patches, dtype=torch.float64)
    mass = 1 / (sizes * (patches - sizes))
    mass /= mass.sum()
    keep, weights = [torch.zeros(0, patches, dtype=torch.bool)], [torch.zeros(0, dtype=torch.float64)]
    for size in range(1, patches // 2 + 1):
        number, share = comb(patches, size), mass[size - 1] / mass.sum()
        if number > samples * share * (1 + 1e-9):
            break
        members = torch.tensor(list(combinations(range(patches), size)))
        ones = torch.zeros(number, patches, dtype=torch.bool).scatter_(1, members, True)
        for one, coalitions in {size: ones, patches - size: ~ones}.items():  # half of all patches are their own pair
            keep.append(coalitions)
            weights.append(mass[one - 1].expand(number) / number)
            mass[one - 1] = 0
            samples -= number
    return torch.cat(keep), torch.cat(weights), mass


def _draw(count: int, mass: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """`count` coalitions bool [count, P], each followed by its complement, of sizes drawn in proportion to `mass`."""
    patches, pairs = len(mass) + 1, -(-count // 2)
    if not count:
        return torch.zeros(0, patches, dtype=torch.bool)
    sizes = 1 + torch.multinomial(mass, pairs, replacement=True, generator=generator)
    half = torch.rand(pairs, patches, generator=generator).argsort(1) < sizes.unsqueeze(1)
    return torch.stack([half, ~half], 1).flatten(0, 1)[:count]


def _fit(keep: torch.Tensor, worth: torch.Tensor, weights: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Values [N, P] that sum to `total` [N] and fit `worth` [N, K] of coalitions [N, K, P] best under weights [K].

    They are equal shares plus a vector of sum zero, which only sees the coalitions less their mean over the patches.
    """
    equal = total.unsqueeze(1) / keep.shape[2]
    centred = keep - keep.mean(2, keepdim=True)
    weighted = weights.unsqueeze(1) * centred
    rest = (worth - keep.sum(2) * equal).unsqueeze(2)
    # The sum's direction has eigenvalue 0 but for rounding, which torch's own threshold does not always cover.
    inverse = torch.linalg.pinv(weighted.mT @ centred, hermitian=True, rtol=1e-10)
    return equal + (inverse @ (weighted.mT @ rest)).squeeze(2)
