"""What the gradient methods that sample share: gradients at many points in full passes, and noisy copies of images."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from unmask.explainers import gradient, split


def gradients(model, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Gradient of the target logits [M] to the inputs [M, 3, H, W], in as many passes as it takes."""
    return torch.cat([gradient(model, inputs[part], targets[part]) for part in split(inputs)])


def spread(images: torch.Tensor, noise: float) -> torch.Tensor:
    """The noise's standard deviation for each image, [N, 1, 1, 1, 1]: a share `noise` of the image's range."""
    return (noise * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))).view(-1, 1, 1, 1, 1)


def noisy_gradients(
    model, images: torch.Tensor, targets: torch.Tensor, samples: int, noise: float, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Gradients [n, samples, 3, H, W] at noisy copies of each image (not clipped), a slice of the images at a time."""
    for part in split(images, samples):
        some, goal = images[part], targets[part]
        draws = torch.stack([torch.randn(samples, *image.shape, generator=generator) for image in some])
        noisy = some.unsqueeze(1) + spread(some, noise) * draws.to(some)
        slopes = gradients(model, noisy.flatten(0, 1), goal.repeat_interleave(samples))
        yield slopes.unflatten(0, (len(some), samples))
