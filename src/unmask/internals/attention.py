"""How attention spreads: its reach, its evenness, how the heads differ, how much a query decides.

A is a head's attention after softmax, row = query i, column = key j; N patches. Class tokens are left out of rows and
columns and the rows made to sum to 1 again, so that all quantities but the last two speak of patches alone.
"""

from __future__ import annotations

import torch

TINY = torch.finfo(torch.float32).tiny


def patches_only(attention: torch.Tensor, prefix: int) -> torch.Tensor:
    """Attention [N, h, T, T] among the patches: float64 [N, h, P, P], rows summing to 1."""
    among = attention[..., prefix:, prefix:].double()
    return among / among.sum(-1, keepdim=True).clamp(min=TINY)


def distance(attention: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Attention distance in patches, [N, h] >= 0: `1/N sum_i sum_j A_ij ||pos_i - pos_j||`.

    How far from itself a patch looks. Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021; Xie et al.,
    Revealing the Dark Secrets of Masked Image Modeling, CVPR 2023.
    """
    return torch.einsum("nhij,ij->nh", attention, separations(grid).to(attention)) / attention.shape[-1]


def separations(grid: tuple[int, int]) -> torch.Tensor:
    """Distances between the patches of a grid, in patches: float64 [P, P]."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1)
    return torch.cdist(places, places)


def entropy(attention: torch.Tensor) -> torch.Tensor:
    """Attention entropy, [N, h] in [0, 1]: `-1/N sum_i sum_j A_ij log A_ij / log N`.

    0 = every patch looks at one patch, 1 = at all alike. Xie et al., CVPR 2023.
    """
    return torch.special.entr(attention).sum(-1).mean(-1) / _log(attention.shape[-1])


def head_divergence(attention: torch.Tensor) -> torch.Tensor:
    """How far a head's attention is from the other heads', in nats, [N, h] >= 0; needs two heads.

    `mean over h' != h of 1/N sum_i KL(A^h_i || A^h'_i)`; its mean over h is the head diversity of Xie et al., CVPR
    2023.
    """
    heads, patches = attention.shape[1], attention.shape[-1]
    if heads < 2:
        raise ValueError("head diversity needs at least two heads")
    flat = attention.flatten(2)
    logs = flat.clamp(min=TINY).log()
    crossed = flat @ logs.transpose(1, 2) / patches  # [N, h, h'], the diagonal is minus a head's own entropy
    own = crossed.diagonal(dim1=1, dim2=2)
    return own - (crossed.sum(2) - own) / (heads - 1)


def mutual_information(attention: torch.Tensor) -> torch.Tensor:
    """Normalised mutual information of queries and keys, [N, h] in [0, 1]: `I(q; k) / sqrt(H(q) H(k))`.

    With p(q) = 1/N and p(k | q) = A_qk. 0 = every query has the same map ("attention collapse"), 1 = every query has a
    key of its own. Park et al., What Do Self-Supervised Vision Transformers Learn?, ICLR 2023.
    """
    keys = torch.special.entr(attention.mean(-2)).sum(-1)
    queries = _log(attention.shape[-1])
    information = keys - torch.special.entr(attention).sum(-1).mean(-1)
    return torch.where(keys > 1e-9, information.clamp(min=0) / (queries * keys.clamp(min=1e-9)) ** 0.5, 0.0)


def class_self_attention(attention: torch.Tensor) -> torch.Tensor:
    """What the class token gives itself, [N, h] in [0, 1]: `A_00` of attention [N, h, T, T] with the class token first.

    Przewiezlikowski et al., Beyond [cls], arXiv:2412.03215, 2024.
    """
    return attention[..., 0, 0].double()


def class_entropy(attention: torch.Tensor, prefix: int) -> torch.Tensor:
    """How evenly the class token looks at the patches, [N, h] in [0, 1]: `H(A_0,1:) / log N`, the row summing to 1.

    Przewiezlikowski et al., arXiv:2412.03215, 2024.
    """
    row = attention[..., 0, prefix:].double()
    row = row / row.sum(-1, keepdim=True).clamp(min=TINY)
    return torch.special.entr(row).sum(-1) / _log(row.shape[-1])


def _log(count: int) -> float:
    return float(torch.tensor(float(count), dtype=torch.float64).log())
