"""Activation maximisation: images that drive a class's logit, or a unit, as high as natural-looking pixels can.

Olah, Mordvintsev & Schubert, Feature Visualization, Distill 2017. Gradient ascent (Adam) on the pixels, from grey with
a little noise. What is maximised is the objective of the picture, shifted at random each step (jitter), less two
penalties: the total variation, which forbids the high frequencies that networks answer to and eyes do not see, and the
squared distance from grey (L2). The picture is a logistic function of its Fourier coefficients, each divided by its
frequency: pixels stay in [0, 1], and all frequencies are learned alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from unmask.internals import observe

if TYPE_CHECKING:
    from unmask.models.classifier import Classifier, ConvClassifier

RATE, START = 0.05, 0.05  # of the coefficients: the step size, and the deviation of the first ones
VARIATION, DISTANCE = 0.15, 0.05  # weights of the penalties, in standard deviations of the objective over images
JITTER = 4  # pixels to each side, of 64; in proportion at other sizes


@dataclass(frozen=True)
class Goal:
    """What is maximised: the logit of class `index`, or (with a `layer`) the mean over the patches of unit `index`."""

    index: int
    layer: int | None = None


@dataclass(frozen=True)
class Made:
    """Images float32 [G, 3, H, W] in [0, 1]; objectives [G] of these, and the largest of some natural images."""

    images: torch.Tensor
    reached: torch.Tensor
    natural: torch.Tensor


def objectives(model: Classifier | ConvClassifier, images: torch.Tensor, goals: Sequence[Goal]) -> torch.Tensor:
    """Every goal's objective on every image [n, 3, H, W]: [n, G]."""
    modules, kept = observe.layers(model), {}
    wanted = sorted({goal.layer for goal in goals if goal.layer is not None})
    handles = [
        modules[layer].register_forward_hook(lambda module, inputs, output, layer=layer: kept.update({layer: output}))
        for layer in wanted
    ]
    try:
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    means = {layer: observe.patches(model, kept[layer])[0].mean(1) for layer in wanted}
    return torch.stack([(logits if goal.layer is None else means[goal.layer])[:, goal.index] for goal in goals], 1)


def maximise(
    model: Classifier | ConvClassifier,
    goals: Sequence[Goal],
    natural: torch.Tensor,
    *,
    steps: int,
    generator: torch.Generator,
) -> Made:
    """One image per goal. `natural` [n, 3, H, W] give the objectives' scale, and what is to be beaten."""
    with torch.no_grad():
        known = torch.cat([objectives(model, batch, goals) for batch in observe.batches(natural)])
    scale = known.std(0).clamp(min=1e-6)
    size = natural.shape[-1]
    reach = max(1, round(JITTER * size / 64))
    shifts = torch.randint(-reach, reach + 1, (steps, 2), generator=generator).tolist()
    shape = (len(goals), natural.shape[1], size, size // 2 + 1, 2)
    drawn = (START * torch.randn(shape, generator=generator)).to(natural.device).requires_grad_()
    optimiser = torch.optim.Adam([drawn], lr=RATE)
    with torch.enable_grad():
        for shift in shifts:
            images = picture(drawn, size)
            asked = objectives(model, images.roll(shift, (-2, -1)), goals).diagonal() / scale
            penalty = VARIATION * size * variation(images) + DISTANCE * size * (images - 0.5).square().mean((1, 2, 3))
            optimiser.zero_grad()
            (penalty - asked).sum().backward()
            optimiser.step()
    with torch.no_grad():
        images = picture(drawn, size)
        reached = objectives(model, images, goals).diagonal()
    return Made(images, reached, known.amax(0))


def picture(coefficients: torch.Tensor, size: int) -> torch.Tensor:
    """Images [n, c, size, size] in (0, 1) from Fourier coefficients [n, c, size, size // 2 + 1, 2] in two parts."""
    down, across = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    frequency = (down[:, None].square() + across.square()).sqrt().clamp(min=1 / size).to(coefficients.device)
    spectrum = torch.view_as_complex(coefficients) / frequency
    return (torch.fft.irfft2(spectrum, s=(size, size), norm="ortho") / 4).sigmoid()


def variation(images: torch.Tensor) -> torch.Tensor:
    """Total variation of images [n, 3, H, W], anisotropic, a mean over pixels and channels: [n].

    Rudin, Osher & Fatemi 1992.
    """
    down, across = images.diff(dim=-2).abs().mean((1, 2, 3)), images.diff(dim=-1).abs().mean((1, 2, 3))
    return down + across
