"""Smooth MPRT: as MPRT, of maps averaged over noisy versions of the image.

A gate. Noise within a map makes it unlike any other, and so helps an explainer through MPRT; an average over noise has
less of it. The random network is that of `mprt`; both networks see the same noise.
"""

from __future__ import annotations

import numpy as np
import torch

from unmask.case import Case
from unmask.metrics import _alike, _networks

META = {
    "category": "randomisation",
    "direction": "lower",
    "bounds": [-1.0, 1.0],
    "gate": True,
    "pass": {"below": 0.5},
    "needs": ["explainer"],
    "passes": {"forward": "0", "explanations": "2 * samples"},
    "options": {"samples": 4, "noise": 0.1},
    "ranges": {"samples": [1, None], "noise": [0.0, None]},
    "quantus": "SmoothMPRT",
    "chance": "1 for a map that does not depend on the network",
    "citation": "Hedström et al., Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation "
    "Test, XAI in Action at NeurIPS 2023, eq. 4",
}


def score(case: Case, samples: int, noise: float) -> np.ndarray:
    """Rank correlation of the averaged maps' magnitudes over patches: float64 [N] in [-1, 1].

    Normal noise with a deviation of `noise` times the image's range; the last of the `samples` is without, as in
    SmoothGrad's code and in Quantus.
    """
    images = case.images.cpu().numpy()
    spread = noise * np.ptp(images, axis=(1, 2, 3), keepdims=True)
    draws = [spread * case.rng("smooth", k).standard_normal(images.shape) for k in range(samples - 1)]
    noisy = np.stack([images + draw for draw in (*draws, np.zeros_like(images))]).astype(np.float32)
    inputs = torch.from_numpy(noisy).to(case.images.device).flatten(0, 1)
    targets = case.targets.repeat(samples)

    def smooth(model: torch.nn.Module | None = None) -> np.ndarray:
        maps = case.explain(inputs, targets, model, paired=True)
        return maps.reshape(samples, len(case), *maps.shape[1:]).mean(0)

    return _alike.rank_correlation(smooth(), smooth(_networks.cascade(case, 1)[-1]), case.model.grid, magnitude=True)
