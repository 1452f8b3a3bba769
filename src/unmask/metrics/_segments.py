"""Segments: neighbouring patches of like colour."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2lab
from sklearn.cluster import AgglomerativeClustering
from sklearn.feature_extraction.image import grid_to_graph

from unmask.case import Case

COMPACTNESS = 10.0  # SLIC's default: what a segment's width of distance is worth, in units of the Lab colour space


def segments(case: Case, count: int) -> np.ndarray:
    """Cut each image into `count` connected segments of patches: int64 [N, gh, gw], 0 to `count` - 1.

    By SLIC's distance between patches' mean colours and places, and Ward's rule, which gives exactly `count`, each in
    one piece. Raises `ValueError` where the patches are fewer.
    """
    height, width = case.model.grid
    if count > height * width:
        raise ValueError(f"{count} segments are more than the {height * width} patches")
    return case.shared.get(("segments", case.fingerprint, str(count)), lambda: _cut(case, count))


def _cut(case: Case, count: int) -> np.ndarray:
    height, width = case.model.grid
    pixels = rgb2lab(case.images.cpu().numpy().transpose(0, 2, 3, 1).astype(np.float64))
    n, rows, columns, _ = pixels.shape
    colours = pixels.reshape(n, height, rows // height, width, columns // width, 3).mean((2, 4))
    places = np.stack(np.meshgrid(range(height), range(width), indexing="ij"), axis=-1)
    scale = COMPACTNESS / np.sqrt(height * width / count)
    merge = AgglomerativeClustering(count, connectivity=grid_to_graph(height, width), linkage="ward")
    found = [merge.fit_predict(np.dstack([colour, scale * places]).reshape(-1, 5)) for colour in colours]
    return np.array(found).reshape(n, height, width)
