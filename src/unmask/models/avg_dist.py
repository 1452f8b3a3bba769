"""AvgDist: how far what is masked lies from what is visible (Xie et al., SimMIM, CVPR 2022, section 4.1.2)."""

from __future__ import annotations

import numpy as np


def average_distance(masks: np.ndarray, patch: int) -> float:
    """The mean Euclidean distance, in pixels, of masked pixels to the nearest visible ones.

    `masks` bool [N, gh, gw], True = masked, patches of `patch` pixels a side. A mean over each image's masked pixels,
    then over the images. Raises `ValueError` where an image shows or masks nothing.
    """
    from scipy.ndimage import distance_transform_edt

    if masks.all((1, 2)).any() or not masks.any((1, 2)).all():
        raise ValueError("an image has no visible or no masked patch")
    pixels = masks.repeat(patch, 1).repeat(patch, 2)
    return float(np.mean([distance_transform_edt(one)[one].mean() for one in pixels]))
