"""The classifier: a timm vision transformer that takes images in [0, 1] and can see patches as absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from unmask.models import relative

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in the SimMIM recipe


class Normalise(nn.Module):
    """`(x - mean) / std` per channel, as the model's first layer: everyone outside it sees [0, 1]."""

    def __init__(self, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def in_full_precision(head: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    """`head(features)` in float32 (or what is finer), also under autocast.

    A logit in bfloat16 has three digits, and the removal of a patch often moves only the fourth.
    """
    with torch.autocast(features.device.type, enabled=False):
        return head(features.to(torch.promote_types(features.dtype, torch.float32)))


@dataclass(frozen=True)
class Pretraining:
    """The network that an encoder was pretrained in, and how its images were masked.

    Held beside a classifier and not as a part of it: a module's submodules are its weights. `mask_ratio` is the nominal
    share of the cells, of `mask_cell` pixels a side, that are masked; where it was drawn from a range, its middle.
    """

    network: nn.Module
    mask_ratio: float
    mask_cell: int


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


@dataclass(frozen=True)
class DroppedImages:
    """Images of which the removed patches' tokens are left out, as if the encoder had never been given them.

    `images` float32 [N, 3, H, W] in [0, 1]; `keep` bool [N, gh, gw], True = present. Equal to running the encoder on
    the kept tokens alone, as MAE does; under mean pooling, dropped tokens leave the mean too.
    """

    images: torch.Tensor
    keep: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


class Classifier(nn.Module):
    """A timm ViT with its normalisation: float32 [N, 3, H, W] in [0, 1] to logits [N, classes].

    It also takes `MaskedImages` and `DroppedImages`. `pooling` is timm's `global_pool`: "avg" (mean over patch tokens,
    as in SimMIM's fine-tuning) or "token" (the class token). `position` is "absolute" (a learned embedding; under mean
    pooling there is no class token) or one of `relative.POSITIONS` (biases of the attention; always a class token).
    `mask_token` [1, 1, width] is the one learned in pretraining, or None for an encoder that never saw one.
    `pretraining` is the network that the encoder was pretrained in, where a checkpoint was loaded with it, else None.
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
        position: str = "absolute",
    ):
        super().__init__()
        sizes = {
            "img_size": size,
            "patch_size": patch,
            "embed_dim": width,
            "depth": depth,
            "num_heads": heads,
            "mlp_ratio": mlp_ratio,
            "num_classes": classes,
            "global_pool": pooling,
            "drop_path_rate": drop_path,
        }
        if position == "absolute":
            backbone: VisionTransformer | Beit = VisionTransformer(class_token=pooling == "token", **sizes)
        else:
            backbone = relative.build(shared=position == "relative", **sizes)
        self._hold(backbone, Normalise())

    @classmethod
    def around(
        cls, backbone: VisionTransformer | Beit, *, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
    ) -> Classifier:
        """A classifier of a backbone that is there already; it decides as that does."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._hold(backbone, Normalise(mean, std))
        return made

    def _hold(self, backbone: VisionTransformer | Beit, normalise: Normalise) -> None:
        if isinstance(backbone, Beit):
            backbone = relative.hookable(backbone)
        self.pooling, self.classes = backbone.global_pool, backbone.num_classes
        self.patch = backbone.patch_embed.patch_size[0]
        self.normalise, self.backbone = normalise, backbone
        self.register_parameter("mask_token", None)
        self.pretraining: Pretraining | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.backbone.patch_embed.grid_size

    @property
    def prefix(self) -> int:
        """Tokens before the patch tokens (1 with a class token)."""
        return self.backbone.num_prefix_tokens

    def forward(self, inputs: torch.Tensor | MaskedImages | DroppedImages) -> torch.Tensor:
        if isinstance(inputs, DroppedImages):
            return self.decide_without(self.embed(inputs.images), inputs.keep)
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
            raise ValueError("this model has no mask token: none went through its encoder in pretraining")
        return torch.where(keep.flatten(1).unsqueeze(-1), tokens, self.mask_token)

    @property
    def entrance(self) -> nn.Module:
        """The module whose output enters the first block."""
        vit = self.backbone
        return vit.pos_drop if isinstance(vit, Beit) else vit.norm_pre

    def enter(self, tokens: torch.Tensor) -> torch.Tensor:
        """From patch embeddings [N, gh * gw, width] to what enters the first block, [N, prefix + gh * gw, width]."""
        vit = self.backbone
        if not isinstance(vit, Beit):
            return vit.norm_pre(vit._pos_embed(tokens))
        tokens = torch.cat([vit.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        return vit.pos_drop(tokens if vit.pos_embed is None else tokens + vit.pos_embed)

    def through(
        self,
        tokens: torch.Tensor,
        start: int = 0,
        *,
        attend: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens [N, T, width] after the blocks from `start` on.

        `attend` bool, to broadcast with [N, heads, T, T], says which tokens (columns) a token (row) attends to.
        `places` int64 [N, K] says which patches the tokens after the prefix are, where they are not all in order.
        """
        vit = self.backbone
        if isinstance(vit, Beit):
            given = {"shared_rel_pos_bias": relative.bias(vit, attend, places)}
        else:
            given = {"attn_mask": attend}
        for block in vit.blocks[start:]:
            tokens = block(tokens, **given)
        return tokens

    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        """What is read of encoded tokens [N, prefix + gh * gw, width]: class token or mean patch token, [N, width]."""
        return tokens[:, 0] if self.pooling == "token" else tokens[:, self.prefix :].mean(1)

    def decide(self, tokens: torch.Tensor) -> torch.Tensor:
        """From patch embeddings [N, gh * gw, width] to logits [N, classes]."""
        vit = self.backbone
        return in_full_precision(vit.forward_head, vit.norm(self.through(self.enter(tokens))))

    def decide_without(self, tokens: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """As `decide`, without the patch tokens where `keep` [N, gh, gw] is False; the mean of no tokens is 0.

        A key that nobody attends to is as good as absent, and one shape serves every number of kept tokens.
        """
        vit, patches = self.backbone, keep.flatten(1)
        tokens = self.enter(tokens)
        present = torch.cat([patches.new_ones(len(patches), self.prefix), patches], 1)
        # A dropped query attends to itself, since a row without any key is not a number; nothing reads what it gives.
        attend = (present.unsqueeze(1) | torch.eye(tokens.shape[1], dtype=torch.bool, device=keep.device)).unsqueeze(1)
        tokens = vit.norm(self.through(tokens, attend=attend))
        if self.pooling == "token":
            return in_full_precision(vit.forward_head, tokens)
        weights = patches.to(tokens) / patches.sum(1, keepdim=True).clamp(min=1)
        pooled = torch.einsum("nt,ntd->nd", weights, tokens[:, self.prefix :])
        return in_full_precision(lambda pooled: vit.head(vit.head_drop(vit.fc_norm(pooled))), pooled)
