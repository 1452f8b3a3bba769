"""Continuity: how far the map moves, at worst, for how far the image moved when it is shifted by a pixel or two.

A map that goes with an object is charged for it as one that jumps, which is why the shifts are small. Quantus shifts by
up to a whole image, one of whose steps is no shift at all, and fills up with what it calls black.
"""

from __future__ import annotations

import numpy as np
import torch

from unmask.case import Case

META = {
    "category": "robustness",
    "direction": "lower",
    "bounds": [0.0, None],
    "needs": ["explainer"],
    "passes": {"forward": "0", "explanations": "2 * reach"},
    "options": {"reach": 2},
    "ranges": {"reach": [1, None]},
    "quantus": "Continuity",
    "undefined": "no shift changes the image",
    "chance": "2 / the images' distance, for maps that share nothing",
    "citation": "Montavon et al., Methods for interpreting and understanding deep neural networks, Digital Signal "
    "Processing 2018, section 7.1",
}


def score(case: Case, reach: int) -> np.ndarray:
    """Largest ||map(x) - map(x')||_1 / ||x - x'||_2, x' shifted by 1 to `reach` pixels to either side: float64 [N].

    Each map is divided by the sum of its magnitudes first, so that neither units nor resolution matter. Shifts that
    leave an image as it is do not count; NaN where all do.
    """
    shifts = [step for step in range(-reach, reach + 1) if step]
    inputs = torch.stack([translated(case.images, step) for step in shifts])
    maps = case.explain(inputs.flatten(0, 1), case.targets.repeat(len(shifts)))
    own, others = _shares(case.pixel_maps), _shares(maps).reshape(len(shifts), len(case), -1)
    moved = (inputs - case.images).flatten(2).cpu().numpy().astype(np.float64)
    distance = np.sqrt((moved**2).sum(2))  # [shifts, N]
    ratio = np.abs(others - own).sum(2) / np.where(distance == 0, 1, distance)
    return np.where((distance > 0).any(0), np.where(distance > 0, ratio, 0).max(0), np.nan)


def translated(images: torch.Tensor, step: int) -> torch.Tensor:
    """Images [N, 3, H, W] moved right by `step` pixels (left where negative); the border is repeated behind them."""
    width = images.shape[-1]
    return images[..., (torch.arange(width, device=images.device) - step).clamp(0, width - 1)]


def _shares(maps: np.ndarray) -> np.ndarray:
    """Maps [N, H, W] as [N, H * W], magnitudes adding up to 1; a map of zeros stays."""
    values = maps.reshape(len(maps), -1).astype(np.float64)
    size = np.abs(values).sum(1, keepdims=True)
    return values / np.where(size == 0, 1, size)
