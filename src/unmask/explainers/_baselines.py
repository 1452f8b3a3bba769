"""Whole images that stand for "nothing", where a method attributes a difference from a baseline."""

from __future__ import annotations

import torch

from unmask.errors import UserError
from unmask.removals import blur, mean, zero

_BASELINES = {
    "mean": mean.absent,  # the removals of the same names, of every patch
    "zero": zero.absent,
    "blur": blur.absent,
    "white": lambda model, images: torch.ones_like(images),
}


def baseline_images(name: str, explainer: str, model, images: torch.Tensor) -> torch.Tensor:
    """The baselines [N, 3, H, W] of `images`; raises `UserError` for an unknown name."""
    if name not in _BASELINES:
        known = ", ".join(_BASELINES)
        raise UserError(f"explain.options.{explainer}.baseline: '{name}' is not a baseline; use one of {known}")
    return _BASELINES[name](model, images).contiguous()
