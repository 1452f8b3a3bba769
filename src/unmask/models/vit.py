"""The classifier: a timm vision transformer that takes images in [0, 1] and can see patches as absent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in the SimMIM recipe


class Normalise(nn.Module):
    """`(x - mean) / std` per channel, as the model's first layer: everyone outside it sees [0, 1]."""

    def __init__(self, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


@dataclass(frozen=True)
class MaskedImages:
    """Images with patches removed after patch embedding.

    `images` float32 [N, 3, H, W] in [0, 1]; `keep` bool [N, gh, gw], True = present. A removed patch's embedding is
    replaced by the model's mask token (its position embedding stays), as in SimMIM's pretraining.
    """

    images: torch.Tensor
    keep: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


class Classifier(nn.Module):
    """A timm ViT with its normalisation: float32 [N, 3, H, W] in [0, 1], or `MaskedImages`, to logits [N, classes].

    `pooling` is timm's `global_pool`: "avg" (mean over patch tokens, no class token; SimMIM's fine-tuning) or "token".
    `mask_token` [1, 1, width] is the one learned in pretraining, or None for an encoder that never saw one.
    """

    arch = "vit"

    def __init__(
        self,
        *,
        size: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        classes: int,
        mlp_ratio: float = 4.0,
        pooling: str = "avg",
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.pooling, self.patch, self.classes = pooling, patch, classes
        self.normalise = Normalise()
        self.backbone = VisionTransformer(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            num_classes=classes,
            class_token=pooling == "token",
            global_pool=pooling,
            drop_path_rate=drop_path,
        )
        self.register_parameter("mask_token", None)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.backbone.patch_embed.grid_size

    @property
    def prefix(self) -> int:
        """Tokens before the patch tokens (1 with a class token)."""
        return self.backbone.num_prefix_tokens

    def forward(self, inputs: torch.Tensor | MaskedImages) -> torch.Tensor:
        if isinstance(inputs, MaskedImages):
            tokens = self.replace(self.embed(inputs.images), inputs.keep)
        else:
            tokens = self.embed(inputs)
        return self.decide(tokens)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Patch embeddings before position: [N, gh * gw, width]."""
        return self.backbone.patch_embed(self.normalise(images))

    def replace(self, tokens: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Put the mask token where `keep` [N, gh, gw] is False."""
        if self.mask_token is None:
            raise ValueError("this model has no mask token: its encoder was not pretrained by masked image modelling")
        return torch.where(keep.flatten(1).unsqueeze(-1), tokens, self.mask_token)

    def decide(self, tokens: torch.Tensor) -> torch.Tensor:
        """From patch embeddings [N, gh * gw, width] to logits [N, classes]."""
        vit = self.backbone
        tokens = vit.norm_pre(vit._pos_embed(tokens))
        return vit.forward_head(vit.norm(vit.blocks(tokens)))
