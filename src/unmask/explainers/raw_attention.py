"""Raw attention: the last block's, mean over heads, as the decision reads it (see `rules.decision_row`)."""

from __future__ import annotations

import torch

from unmask.explainers import split
from unmask.models import rules

META = {
    "family": "attention",
    "class_specific": False,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit"],
    "passes": {"forward": "1", "backward": "0"},
    "citation": "Jain & Wallace, Attention is not Explanation, NAACL 2019",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 to 1."""
    maps = []
    for part in split(images, 4):  # a pass holds every block's attention
        with rules.attention_maps(model) as attention:
            model(images[part])
        maps.append(rules.decision_row(model, attention[-1].mean(1)))
    return torch.cat(maps)
