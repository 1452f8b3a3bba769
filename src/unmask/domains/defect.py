"""Brick, grass and gravel surfaces with a scratch, a hole, a stain, or none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unmask.domains._proxy import Painter
from unmask.domains._proxy import build as build_proxy
from unmask.domains._scene import Canvas, place, wander
from unmask.domains._textures import sample

if TYPE_CHECKING:
    from unmask.domains import Splits

META = {
    "summary": "brick, grass and gravel surfaces: scratch, hole, stain or none (rendered on CC0 photographs)",
    "options": {"train": 800, "val": 200, "test": 400, "unlabelled": 800, "difficulty": 0.12, "shortcut": 0.0},
    "ranges": {
        "train": [4, None],
        "val": [4, None],
        "test": [4, None],
        "unlabelled": [0, None],
        "difficulty": [0, 1],
        "shortcut": [0, 1],
    },
    "factors": 5,  # that can be changed: evidence, each kind of distractor, background
    "citation": "brick, gravel: CC0Textures, grass: DeviantArt, CC0 1.0, through scikit-image",
}
CLASSES = ("none", "scratch", "hole", "stain")
CONCEPTS = ("seam", "shadow", "pit")
SURFACES = ("brick", "grass", "gravel")


def background(canvas: Canvas, rng: np.random.Generator, difficulty: float) -> None:
    """A turned, tinted crop of a surface, with soft seams, soft shadows and small pits that decide nothing."""
    name = SURFACES[rng.integers(len(SURFACES))]
    side, turn = rng.uniform(0.3, 0.6), rng.uniform(0, 2 * np.pi)
    middle = rng.uniform(0, 2, 2)
    dy, dx = (canvas.y - 0.5) * side, (canvas.x - 0.5) * side
    y = middle[0] + np.cos(turn) * dy + np.sin(turn) * dx
    x = middle[1] - np.sin(turn) * dy + np.cos(turn) * dx
    grain = sample(name, y, x, side / canvas.size)
    # Equal mean and contrast for the three surfaces, so that brightness does not tell them (or a defect) apart.
    grain = 0.5 + (grain - grain.mean()) / (grain.std() + 1e-3) * (0.05 + 0.05 * difficulty) * rng.uniform(0.7, 1.2)
    canvas.pixels[:] = grain * rng.uniform(0.8, 1.15) * (1 + rng.uniform(-0.1, 0.1, 3))
    for _ in range(rng.integers(0, 2 + round(2 * difficulty))):
        path = canvas.curve(wander(rng, place(rng, 0.1), rng.uniform(0.8, 1.4), 0.02, 3), rng.uniform(0.01, 0.03))
        seam = canvas.coverage(path, 0.09)
        with canvas.object("seam"):
            canvas.multiply(seam, 1 + rng.choice([-1, 1]) * rng.uniform(0.08, 0.22) * np.ones(3))
        canvas.mark("seam", seam)
    for _ in range(rng.integers(0, 3)):
        shadow = canvas.coverage(canvas.blob(place(rng, 0.0), rng.uniform(0.1, 0.2), rng), 0.2)
        with canvas.object("shadow"):
            canvas.multiply(shadow, 1 + rng.uniform(-0.3, 0.3) * np.ones(3))
        canvas.mark("shadow", shadow)
    for _ in range(rng.integers(0, 2 + round(3 * difficulty))):
        shape = canvas.blob(place(rng, 0.02), canvas.at_least(rng.uniform(0.012, 0.03)), rng, 0.3, rng.uniform(1, 2))
        pit = canvas.coverage(shape)
        with canvas.object("pit"):
            canvas.multiply(pit, rng.choice([0.6, 1.35]) * np.ones(3))
        canvas.mark("pit", pit)


def evidence(canvas: Canvas, kind: int, rng: np.random.Generator, difficulty: float) -> np.ndarray:
    """The defect of class `kind`; returns its coverage."""
    strength = rng.uniform(0.85, 1.1) * (1.1 - 0.5 * difficulty)
    scale = 1.15 - 0.3 * difficulty
    if CLASSES[kind] == "scratch":
        line = wander(rng, place(rng, 0.3), scale * rng.uniform(0.5, 0.9), 0.12)
        coverage = canvas.coverage(canvas.curve(line, canvas.at_least(rng.uniform(0.015, 0.023), 0.75)))
        sign = rng.choice([-1, 1])
        canvas.multiply(coverage, 1 + sign * strength * 0.6 * np.ones(3))
        return coverage
    if CLASSES[kind] == "hole":
        shape = canvas.blob(place(rng, 0.15), scale * rng.uniform(0.09, 0.135), rng, 0.2, rng.uniform(1, 1.5))
        coverage = canvas.coverage(shape)
        floor = canvas.pixels.mean((0, 1)) * (1 - 0.75 * strength)
        # Opaque: the surface's grain ends at its edge, and one wall catches the light.
        angle = rng.uniform(0, 2 * np.pi)
        down, across = np.gradient(shape)
        lit = np.clip((np.cos(angle) * across + np.sin(angle) * down) * canvas.size, 0, 1)
        wall = np.clip(1 + shape / 0.05, 0, 1) * lit
        canvas.paint(coverage, floor * (1 + 1.2 * wall[..., None]), 0.95)
        return coverage
    shape = canvas.blob(place(rng, 0.2), scale * rng.uniform(0.125, 0.175), rng, 0.5, rng.uniform(1, 1.8))
    coverage = canvas.coverage(shape)
    tint = 1 + strength * rng.choice([-0.55, 0.45]) * rng.uniform(0.7, 1.2, 3)
    # Translucent: the grain stays visible, and the stain is strongest at its rim, as dried liquid is.
    canvas.multiply(coverage * (0.7 + 0.3 * np.clip(1 + shape / 0.04, 0, 1)), tint)
    return coverage


PAINTER = Painter(CLASSES, SURFACES, CONCEPTS, background, evidence)


def build(options: dict[str, Any], *, size: int, seed: int) -> Splits:
    """Render the domain; see `_proxy.build`."""
    return build_proxy(PAINTER, options, size=size, seed=seed)
