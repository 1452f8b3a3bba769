"""A classifier of any architecture from the description in a checkpoint's side-car."""

from __future__ import annotations

from typing import Any

from unmask.models import imported
from unmask.models.resnet import ConvClassifier
from unmask.models.vit import Classifier

ARCHITECTURES = {"vit": Classifier, "resnet": ConvClassifier, "timm": imported.network}


def build(architecture: dict[str, Any]) -> Classifier | ConvClassifier:
    """The network with fresh weights; raises `KeyError` for an unknown `arch`, `TypeError` for unknown sizes."""
    sizes = {name: value for name, value in architecture.items() if name != "arch"}
    return ARCHITECTURES[architecture.get("arch", "vit")](**sizes)
