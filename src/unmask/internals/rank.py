"""In how many directions the tokens vary."""

from __future__ import annotations

import torch


def effective_rank(tokens: torch.Tensor) -> torch.Tensor:
    """The effective rank of the tokens [N, P, D], as influence values [N]: their mean is `exp H(sigma / sum sigma)`.

    sigma are the singular values of all N x P tokens, centred; H is the entropy in nats. k directions of equal
    variance give k, and D is the most there can be. Roy & Vetterli, The Effective Rank, EUSIPCO 2007; on collapse under
    masked image modelling Zhang et al., How Mask Matters, NeurIPS 2022. Tokens that do not vary have rank 0.

    An image's influence is the derivative to its weight: by first-order perturbation it adds to each variance what its
    own tokens have along that axis.
    """
    flat = tokens.double().flatten(0, 1)
    centred = flat - flat.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors
    parts = (centred @ axes).square().unflatten(0, tokens.shape[:2]).sum(1)  # [N, D], each image's part of sigma^2
    variances = parts.sum(0)
    kept = variances > variances.max() * 1e-14  # below that there is rounding only
    if not variances.max() > 0:
        return torch.zeros(len(tokens), dtype=torch.float64)
    parts, sigma = parts[:, kept], variances[kept].sqrt()
    share = sigma / sigma.sum()
    entropy = torch.special.entr(share).sum()
    slopes = -(share.log() + entropy) / sigma.sum()  # of the entropy to a singular value
    influence = (parts / (2 * sigma)) @ slopes
    return entropy.exp() * (1 + len(tokens) * influence)
