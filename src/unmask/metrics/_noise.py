"""Perturbed images of the robustness metrics: one set of them, explained and classified once for all of these.

Metrics of the same `images`, `samples` and `radius` share it. The noise depends on the model and the category alone,
so that every explainer meets the same perturbed images, and their logits are computed for the first one only.
"""

from __future__ import annotations

import numpy as np
import torch
from quantus.functions.normalise_func import normalise_by_max
from quantus.metrics.base import Metric

from unmask.case import Case
from unmask.quantus_bridge import COMMON, re_explaining


def perturbed(case: Case, samples: int, radius: float) -> torch.Tensor:
    """The images with noise, float32 [samples, N, 3, H, W]: uniform in [-radius, radius] for each value.

    Not clipped to [0, 1]: that would give dark and bright images less noise. Sample k of image i is the same however
    many samples and images there are, and another radius only scales it.
    """
    images = case.images.cpu().numpy()

    def draw() -> torch.Tensor:
        noise = np.stack([case.rng("noise", k).uniform(-radius, radius, images.shape) for k in range(samples)])
        return torch.from_numpy((images + noise).astype(np.float32)).to(case.images.device)

    return case.shared.get(("noise", case.fingerprint, case.seed, samples, radius), draw)


def judge(
    metric: type[Metric], case: Case, samples: int, radius: float, *, patches: bool = False, **options: object
) -> np.ndarray:
    """Scores float64 [N] of a Quantus metric that explains perturbed images anew; `options` are the metric's own.

    A perturbed image counts whatever it is classified as. The maps explain the same class throughout, and Quantus's
    other choice has no score for an image that a single sample has moved over the border.
    """
    inputs = perturbed(case, samples, radius)
    steps = iter(inputs.flatten(2).cpu().numpy())
    made = metric(
        nr_samples=samples,
        perturb_func=lambda arr, **_: next(steps).reshape(arr.shape).copy(),
        abs=False,
        return_nan_when_prediction_changes=False,
        **{**COMMON, **options},
    )
    return re_explaining(made, case, inputs, patches=patches)


def relative(metric: type[Metric], case: Case, samples: int, radius: float, **options: object) -> np.ndarray:
    """As `judge`, for a metric that divides each value of the map by itself: by patches, and 0 counts as 1 %.

    Of a pixel or of the largest patch, that is. With Quantus's 1e-6, a patch that a ReLU has left at 0 and that noise
    moves at all decides the score; so does a pixel next to 0 among the thousands of a map that is not summed.
    """
    own = {"normalise": True, "normalise_func": normalise_by_max, "eps_min": 0.01, **options}
    scores = judge(metric, case, samples, radius, patches=True, **own)
    repeats = case.images[0, 0].numel() / np.prod(case.model.grid)
    return scores / np.sqrt(repeats)  # in Quantus's norm each patch is there as often as it has pixels
