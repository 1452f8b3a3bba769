"""The network that each method pretrains an encoder in, from the config's sizes and the method's own keys."""

from __future__ import annotations

from typing import Any

from torch import nn

from unmask.models.mae import MAE
from unmask.models.siamese import SiameseSimMIM
from unmask.models.simmim import SimMIM
from unmask.models.supervised import Supervised

NETWORKS: dict[str, type[nn.Module]] = {
    "simmim": SimMIM,
    "simmim_siamese": SiameseSimMIM,
    "mae": MAE,
    "supervised": Supervised,
}


def build(method: str, architecture: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    """The network with fresh weights; raises `KeyError` for an unknown method, `TypeError` for unknown sizes."""
    return NETWORKS[method](**architecture, **options)
