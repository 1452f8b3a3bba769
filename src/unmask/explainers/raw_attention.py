"""Raw attention: the last block's, as the decision reads it (see `rules.decision_row`).

`head` is the head to show, counted from 0; -1 is the mean over the heads.
"""

from __future__ import annotations

import torch

from unmask.errors import UserError
from unmask.explainers import split
from unmask.models import rules

META = {
    "family": "attention",
    "class_specific": False,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit"],
    "passes": {"forward": "1", "backward": "0"},
    "options": {"head": -1},
    "ranges": {"head": [-1, None]},
    "citation": "Jain & Wallace, Attention is not Explanation, NAACL 2019",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None, head=-1) -> torch.Tensor:
    """Maps [N, gh, gw], 0 to 1; raises `UserError` for a head that the model does not have."""
    heads = model.backbone.blocks[-1].attn.num_heads
    if not -1 <= head < heads:
        where = "explain.options.raw_attention.head"
        raise UserError(f"{where}: the model has no head {head}; use 0 to {heads - 1}, or -1 for the mean over heads")
    maps = []
    for part in split(images, 4):  # a pass holds every block's attention
        with rules.attention_maps(model) as attention:
            model(images[part])
        last = attention[-1].mean(1) if head == -1 else attention[-1][:, head]
        maps.append(rules.decision_row(model, last))
    return torch.cat(maps)
