"""Photographs inside scikit-image's wheel, read without a download and sampled without aliasing."""

from __future__ import annotations

from functools import cache

import numpy as np

ORIGIN = {
    "retina": "fundus photograph by Mikael Häggström, CC0 1.0, packaged with scikit-image (skimage.data.retina)",
    "brick": "brick wall, CC0Textures, CC0 1.0, packaged with scikit-image (skimage.data.brick)",
    "grass": "grass, DeviantArt, CC0 1.0, packaged with scikit-image (skimage.data.grass)",
    "gravel": "gravel, CC0Textures, CC0 1.0, packaged with scikit-image (skimage.data.gravel)",
}


@cache
def pyramid(name: str) -> tuple[np.ndarray, ...]:
    """A photograph, float32 [H, W, C] in [0, 1] with C = 3 (retina) or 1, then halved by block means down to 16 px."""
    from skimage import data

    level = getattr(data, name)().astype(np.float32) / 255
    levels = [level[..., None] if level.ndim == 2 else level]
    while min(levels[-1].shape[:2]) >= 32:
        last = levels[-1][: levels[-1].shape[0] // 2 * 2, : levels[-1].shape[1] // 2 * 2]
        levels.append((last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]) / 4)
    return tuple(levels)


def sample(name: str, y: np.ndarray, x: np.ndarray, step: float) -> np.ndarray:
    """Bilinear values of shape `[*y.shape, C]` at positions in units of the photograph's side, mirrored beyond it.

    `step` is the distance of neighbouring positions in the same unit; it picks the level of the pyramid.
    """
    levels = pyramid(name)
    depth = int(np.clip(np.floor(np.log2(max(step * levels[0].shape[0], 1))), 0, len(levels) - 1))
    level = levels[depth]
    rows, top, down = _bracket(y, level.shape[0])
    columns, left, right = _bracket(x, level.shape[1])
    upper = level[top, left] * (1 - columns) + level[top, right] * columns
    lower = level[down, left] * (1 - columns) + level[down, right] * columns
    return upper * (1 - rows) + lower * rows


def _bracket(position: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of the second of the two neighbouring samples, and both indices, for mirrored positions."""
    position = position.astype(np.float32)
    mirrored = np.abs(position - 2 * np.round(position / 2))
    place = np.clip(mirrored * length - 0.5, 0, length - 1)
    first = place.astype(np.intp)
    return (place - first)[..., None], first, np.minimum(first + 1, length - 1)
