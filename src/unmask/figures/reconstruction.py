"""What a pretrained encoder fills in: input, masked input, reconstruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmask.files import atomic


def draw(path: Path, images: np.ndarray, reconstruction: np.ndarray, mask: np.ndarray, *, title: str) -> None:
    """One column per image; `images` and `reconstruction` float [N, H, W, 3] in [0, 1], `mask` bool [N, gh, gw].

    The third row keeps the visible patches: only what the model had to guess is the model's.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scale = images.shape[1] // mask.shape[1]
    hidden = mask.repeat(scale, 1).repeat(scale, 2)[..., None]
    rows = {
        "input": images,
        "masked": np.where(hidden, 0.5, images),
        "reconstruction": np.where(hidden, reconstruction.clip(0, 1), images),
    }
    n = len(images)
    figure, axes = plt.subplots(3, n, figsize=(1.1 * n + 0.4, 3.7), squeeze=False, layout="constrained")
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": None})
    plt.close(figure)
