"""Continuity: how far the map moves, at worst, for how far the image moved when it is shifted by a pixel or two.

A map that goes with an object is charged for it as one that jumps, which is why the shifts are small. Quantus shifts by
up to a whole image, one of whose steps is no shift at all, and fills up with what it calls black.
"""

from __future__ import annotations

import numpy as np
import torch
from quantus.functions.normalise_func import normalise_by_max

from unmask.case import Case

META = {
    "category": "robustness",
    "direction": "lower",
    "needs": ["explainer"],
    "passes": {"forward": "0", "explanations": "2 * reach"},
    "options": {"reach": 2},
    "ranges": {"reach": [1, None]},
    "quantus": "Continuity",
    "chance": "depends on the image size",
    "citation": "Montavon et al., Methods for interpreting and understanding deep neural networks, Digital Signal "
    "Processing 2018, section 7.1",
}


def score(case: Case, reach: int) -> np.ndarray:
    """Largest ||map(x) - map(x')||_1 / ||x - x'||_2, x' shifted by 1 to `reach` pixels to either side: float64 [N].

    Each map is divided by its largest magnitude first. Shifts that leave an image as it is do not count; NaN where all
    do.
    """
    shifts = [step for step in range(-reach, reach + 1) if step]
    inputs = torch.stack([translated(case.images, step) for step in shifts])
    maps = case.explain(inputs.flatten(0, 1), case.targets.repeat(len(shifts)))
    own, others = _scaled(case.pixel_maps), _scaled(maps).reshape(len(shifts), len(case), -1)
    moved = (inputs - case.images).cpu().numpy().astype(np.float64)
    distance = np.sqrt((moved**2).sum((2, 3, 4)))  # [shifts, N]
    ratio = np.abs(others - own.reshape(len(case), -1)).sum(2) / np.where(distance == 0, np.nan, distance)
    return np.where(np.isnan(ratio), -np.inf, ratio).max(0, where=distance > 0, initial=-np.inf)


def translated(images: torch.Tensor, step: int) -> torch.Tensor:
    """Images [N, 3, H, W] moved right by `step` pixels (left where negative); the border is repeated behind them."""
    width = images.shape[-1]
    return images[..., (torch.arange(width, device=images.device) - step).clamp(0, width - 1)]


def _scaled(maps: np.ndarray) -> np.ndarray:
    return np.nan_to_num(normalise_by_max(maps.astype(np.float64), normalise_axes=[1, 2]))
