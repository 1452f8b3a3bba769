"""Pretraining on labels: the control that tells what masking adds from what any pretraining does."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from unmask.models.vit import Classifier


class Supervised(nn.Module):
    """A classifier of the classes of all domains: `forward(images, labels)` gives cross-entropy, and the accuracy."""

    betas = (0.9, 0.999)  # of AdamW

    def __init__(self, *, classes: int, **architecture):
        super().__init__()
        self.encoder = Classifier(classes=classes, **architecture)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = self.encoder(images)
        return functional.cross_entropy(logits, labels), {"accuracy": (logits.argmax(1) == labels).float().mean()}

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the encoder makes of images: its tokens pooled, [N, width]."""
        encoder = self.encoder
        tokens = encoder.through(encoder.enter(encoder.embed(images)))
        return encoder.pooled(encoder.backbone.norm(tokens))
