"""Shortcut detection: where a prediction truly hangs on the planted tag, does the map show it?

Only for domains with `shortcut` above 0. A model that has learned to read the tag predicts from it; that it does so on
an image is known, not guessed, by making the image again without the tag. The mean of this score is the share of such
decisions that an explainer catches.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.domains import TAG
from unmask.metrics._factors import effects

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["tag"],
    "passes": {"forward": "2", "explanations": "0"},
    "draws": {"as it is": "1", "changed": "1"},
    "options": {"threshold": 0.2, "share": 0.05},
    "ranges": {"threshold": [0, 1], "share": [0, 1]},
    "chance": "about the share, .05",
    "citation": "after Adebayo et al., Post hoc Explanations may be Ineffective for Detecting Unknown Spurious "
    "Correlation, ICLR 2022; Geirhos et al., Shortcut Learning in Deep Neural Networks, Nature Machine Intelligence "
    "2020",
}


def score(case: Case, *, threshold: float = 0.2, share: float = 0.05) -> np.ndarray:
    """1 where the map's mean over the tag exceeds that of all but a `share` of like places, else 0: float64 [N].

    Like places are the tag's pixels moved by whole patches, everywhere in the image where they touch neither the tag
    nor the evidence, which may well be what the map shows besides. So a map on the patch grid is compared with whole
    patches, and one on pixels with places that lie alike in theirs. A tie is no excess.

    Skipped where the image carries no tag, where the predicted class's probability without the tag is not lower by more
    than `threshold`, and where there is no like place.
    """
    maps, pixels = case.pixel_maps.astype(np.float64), case.factors[TAG].pixels
    case.skip(
        effects(case, [TAG], softmax=True)[0] <= threshold,
        f"the prediction does not hang on the tag: without it the probability falls by {threshold:g} at most",
    )
    patch = [side // count for side, count in zip(maps.shape[1:], case.model.grid, strict=True)]
    found = np.zeros(len(case))
    for i, tag in enumerate(pixels):
        places = _like_places(_box(tag), tag | case.masks[i], patch)
        if len(places):
            others = np.array([maps[i][place].mean() for place in places])
            found[i] = (others >= maps[i][_box(tag)].mean()).mean() <= share
        else:
            case.skip(np.arange(len(case)) == i, "no place in the image is like the tag's")
    return found


def _box(tag: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of the tag, bool [H, W]; a colour that a pixel had before leaves no gap."""
    ends = [np.flatnonzero(tag.any(axis)) for axis in (1, 0)]
    return tuple(slice(int(some[0]), int(some[-1]) + 1) if len(some) else slice(0, 0) for some in ends)


def _like_places(box: tuple[slice, slice], taken: np.ndarray, patch: list[int]) -> list[tuple[slice, slice]]:
    """The box moved by whole patches, wherever it lies within the image and on nothing `taken`."""
    ways = []
    for side, length, step in zip(box, taken.shape, patch, strict=True):
        size = side.stop - side.start
        ways.append([slice(at, at + size) for at in range(side.start % step, length - size + 1, step)] if size else [])
    return [(rows, columns) for rows in ways[0] for columns in ways[1] if not taken[rows, columns].any()]
