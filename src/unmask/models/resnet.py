"""The convolutional control: a timm ResNet on images in [0, 1], the network that CAM methods were made for."""

from __future__ import annotations

import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from unmask.models.vit import MEAN, STD, Normalise, Pretraining, in_full_precision


class ConvClassifier(nn.Module):
    """A ResNet of basic blocks with its normalisation: float32 [N, 3, H, W] in [0, 1] to logits [N, classes].

    The default `layers` are ResNet-18's. `patch` only sets the grid on which images are perturbed and maps are
    compared: the network has no patches, no attention and no mask token.
    """

    arch, pooling, prefix, mask_token = "resnet", "avg", 0, None
    pretraining: Pretraining | None = None

    def __init__(
        self,
        *,
        size: int,
        patch: int,
        classes: int,
        layers: tuple[int, ...] = (2, 2, 2, 2),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        drop_path: float = 0.0,
    ):
        super().__init__()
        backbone = ResNet(
            BasicBlock, list(layers), num_classes=classes, channels=tuple(channels), drop_path_rate=drop_path
        )
        self._hold(backbone, size, patch, Normalise())

    @classmethod
    def around(
        cls,
        backbone: ResNet,
        *,
        size: int,
        patch: int,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
    ) -> ConvClassifier:
        """A classifier of a backbone that is there already."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._hold(backbone, size, patch, Normalise(mean, std))
        return made

    def _hold(self, backbone: ResNet, size: int, patch: int, normalise: Normalise) -> None:
        self.size, self.patch, self.classes = size, patch, backbone.num_classes
        self.normalise, self.backbone = normalise, backbone
        for module in backbone.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # backward hooks cannot see through a module that writes to its input

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.size // self.patch, self.size // self.patch

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone.forward_features(self.normalise(images))
        return in_full_precision(self.backbone.forward_head, features)
