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
    image's augmentation does not depend on the batch size; whoever replaces `batches` by others changes no draw. A
    single image that is left over joins the last batch: batch normalisation has no statistics of one. Images go to
    `device` as bytes and are augmented there.
    """

    def __init__(
        self,
        images: torch.Tensor,
        batch: int,
        generator: torch.Generator,
        crop_scale: tuple[float, float] | None = None,
        device: torch.device | None = None,
    ):
        n = len(images)
        self.images, self.device = images, device or images.device
        self.batches = in_batches(torch.randperm(n, generator=generator), batch)
        self.flip = torch.rand(n, generator=generator) < 0.5
        self.theta = crops(n, crop_scale, generator) if crop_scale else None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in self.batches:
            images = self._moved(self.images[index]).permute(0, 3, 1, 2).float().div_(255)
            if self.theta is None:
                images = torch.where(self._moved(self.flip[index]).view(-1, 1, 1, 1), images.flip(-1), images)
            else:
                theta = self.theta[index]
                theta[self.flip[index], 0, 0] *= -1  # x axis reversed: the flip costs no second resampling
                grid = functional.affine_grid(self._moved(theta), list(images.shape), align_corners=False)
                images = functional.grid_sample(
                    images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
                )
            yield images, index

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        """On the device; a GPU that has work need not wait for it."""
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)


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
