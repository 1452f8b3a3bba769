"""Batches in a random order, augmented on tensors: a random resized crop and a horizontal flip."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn import functional


class Augmented:
    """One epoch over uint8 images [N, H, W, 3]: yields (float32 [B, 3, H, W] in [0, 1], indices [B]).

    `crop_scale` is the range of the crop's share of the area (aspect ratio 3/4 to 4/3, resized back, bilinear), as in
    SimMIM's pretraining; None leaves the frame. Every draw is made at once from the generator, image by image, so an
    image's augmentation does not depend on the batch size. A single image that is left over joins the last batch:
    batch normalisation has no statistics of one.
    """

    def __init__(
        self,
        images: torch.Tensor,
        batch: int,
        generator: torch.Generator,
        crop_scale: tuple[float, float] | None = None,
    ):
        n = len(images)
        self.images = images
        self.batches = in_batches(torch.randperm(n, generator=generator), batch)
        self.flip = torch.rand(n, generator=generator) < 0.5
        self.theta = crops(n, crop_scale, generator) if crop_scale else None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in self.batches:
            images = self.images[index].permute(0, 3, 1, 2).float().div_(255)
            flip = self.flip[index]
            if self.theta is None:
                images[flip] = images[flip].flip(-1)
            else:
                theta = self.theta[index]
                theta[flip, 0, 0] *= -1  # x axis reversed: the flip costs no second resampling
                grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
                images = functional.grid_sample(
                    images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
                )
            yield images, index


def in_batches(order: torch.Tensor, batch: int) -> list[torch.Tensor]:
    """An epoch's order [N] in batches; a single image that is left over joins the last one."""
    batches = list(order.split(batch))
    if len(batches[-1]) == 1 and len(batches) > 1 < batch:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def crops(n: int, scale: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Affine matrices [n, 2, 3] that map the output frame onto a random crop inside the image."""
    area = scale[0] + (scale[1] - scale[0]) * torch.rand(n, generator=generator)
    ratio = torch.exp(math.log(3 / 4) + math.log(16 / 9) * torch.rand(n, generator=generator))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (2 * torch.rand(n, 2, generator=generator) - 1).unbind(1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width, x * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, y * (1 - height)
    return theta
