"""Whether heads attend to what the decision depends on."""

from __future__ import annotations

import torch


def agreement(attention: torch.Tensor, maps: torch.Tensor, model) -> torch.Tensor:
    """The input-attribution and attention score (IAV) of every head, [N, h] in [-1, 1].

    Pearson's correlation over the patches between what the decision reads of a head's attention [N, h, T, T] (the class
    token's row, or under mean pooling the mean over the queries) and the size of the attribution, `maps` [N, gh, gw],
    signed. 0 where either is the same for all patches. Park & Choi, Explanation on Pretraining Bias of Finetuned Vision
    Transformer, arXiv:2211.15428, 2022: the similarity of a head's attention and an input attribution; that it is a
    correlation is our choice.
    """
    from unmask.models.rules import decision_row

    rows = torch.stack([decision_row(model, head).flatten(1) for head in attention.double().unbind(1)], 1)
    sizes = maps.double().abs().flatten(1).unsqueeze(1)
    return _correlation(rows, sizes)


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    centred = [x - x.mean(-1, keepdim=True) for x in (a, b)]
    norms = [x.norm(dim=-1) for x in centred]
    # A spread of rounding errors is none.
    varies = torch.stack(
        torch.broadcast_tensors(*(n > 1e-7 * x.norm(dim=-1) for n, x in zip(norms, (a, b), strict=True)))
    )
    product = (centred[0] * centred[1]).sum(-1)
    return torch.where(varies.all(0), product / (norms[0] * norms[1]).clamp(min=1e-300), 0.0).clamp(-1, 1)
