"""Fundus crops with a haemorrhage, exudates, a cluster of microaneurysms, or none of them."""

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
    "summary": "fundus crops: haemorrhage, exudate, microaneurysm cluster or none (rendered on a CC0 photograph)",
    "options": {"train": 800, "val": 200, "test": 400, "unlabelled": 800, "difficulty": 0.34, "shortcut": 0.0},
    "ranges": {
        "train": [4, None],
        "val": [4, None],
        "test": [4, None],
        "unlabelled": [0, None],
        "difficulty": [0, 1],
        "shortcut": [0, 1],
    },
    "factors": 5,  # that can be changed: evidence, each kind of distractor, background
    "citation": "retina: Mikael Häggström, CC0 1.0, through scikit-image",
}
CLASSES = ("none", "haemorrhage", "exudate", "microaneurysms")
CONCEPTS = ("vessel", "shadow", "speck")
BLOOD, LIPID = np.array([0.62, 0.36, 0.42]), np.array([0.98, 0.86, 0.52])  # stain factor; colour


def background(canvas: Canvas, rng: np.random.Generator, difficulty: float) -> None:
    """A turned crop of the photograph, with vessels, soft shadows and lone specks that decide nothing."""
    side, turn, flip = rng.uniform(0.14, 0.26), rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    reach = 0.46 - side * 0.72  # keeps the crop's corners inside the fundus
    radius, angle = reach * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    dy, dx = (canvas.y - 0.5) * side, (canvas.x - 0.5) * side * flip
    y = 0.5 + radius * np.sin(angle) + np.cos(turn) * dy + np.sin(turn) * dx
    x = 0.5 + radius * np.cos(angle) - np.sin(turn) * dy + np.cos(turn) * dx
    crop = sample("retina", y, x, side / canvas.size)
    # The photograph is strongly red and dim: stretch it, or stains would vanish in the dark crops.
    canvas.pixels[:] = crop * np.clip(0.55 / max(float(crop[..., 0].mean()), 0.2), 0.9, 1.8)
    for _ in range(rng.integers(0, 2 + round(2 * difficulty))):
        path = canvas.curve(wander(rng, place(rng, 0.0), rng.uniform(0.5, 1.2), 0.25), rng.uniform(0.006, 0.014))
        vessel = canvas.coverage(path, 0.03)
        with canvas.object("vessel"):
            canvas.multiply(vessel * rng.uniform(0.5, 1), BLOOD + 0.1)
        canvas.mark("vessel", vessel)
    for _ in range(rng.integers(0, 3)):
        shadow = canvas.coverage(canvas.blob(place(rng, 0.0), rng.uniform(0.08, 0.2), rng), 0.2)
        with canvas.object("shadow"):
            canvas.multiply(shadow, 1 + rng.uniform(-0.3, 0.25) * np.array([0.8, 1, 1]))
        canvas.mark("shadow", shadow)
    for _ in range(rng.integers(0, 2 + round(3 * difficulty))):
        speck = canvas.coverage(canvas.disc(place(rng, 0.02), canvas.at_least(rng.uniform(0.008, 0.018))))
        with canvas.object("speck"):
            if rng.random() < 0.5:
                canvas.multiply(speck, BLOOD)
            else:
                canvas.paint(speck, LIPID, 0.6)
        canvas.mark("speck", speck)


def evidence(canvas: Canvas, kind: int, rng: np.random.Generator, difficulty: float) -> np.ndarray:
    """Lesions of class `kind`; returns their coverage."""
    strength = rng.uniform(0.85, 1.1) * (1.1 - 0.5 * difficulty)
    scale = 1.15 - 0.3 * difficulty
    if CLASSES[kind] == "haemorrhage":
        shape = canvas.blob(place(rng, 0.15), scale * rng.uniform(0.075, 0.125), rng, 0.45, rng.uniform(1, 1.6))
        coverage = canvas.coverage(shape)
        canvas.multiply(coverage, 1 - strength * (1 - BLOOD))
        return coverage
    if CLASSES[kind] == "exudate":
        shapes = _cluster(
            canvas,
            rng,
            int(rng.integers(6, 11)),
            0.15,
            lambda at: canvas.blob(at, canvas.at_least(scale * rng.uniform(0.025, 0.05), 1.2), rng, 0.3),
        )
        canvas.paint(shapes, LIPID, min(0.95 * strength, 0.95))
        return shapes
    dots = _cluster(
        canvas,
        rng,
        int(rng.integers(10, 18)),
        0.17,
        lambda at: canvas.disc(at, canvas.at_least(scale * rng.uniform(0.019, 0.029))),
    )
    canvas.multiply(dots, 1 - strength * (1 - BLOOD))
    return dots


def _cluster(canvas: Canvas, rng: np.random.Generator, count: int, spread: float, shape: Any) -> np.ndarray:
    """Coverage of `count` shapes scattered around one place."""
    centre = place(rng, 0.2)
    centres = np.clip(np.asarray(centre) + rng.normal(0, spread / 2, (count, 2)), 0.04, 0.96)
    return np.max([canvas.coverage(shape((float(y), float(x)))) for y, x in centres], axis=0)


PAINTER = Painter(CLASSES, ("retina",), CONCEPTS, background, evidence)


def build(options: dict[str, Any], *, size: int, seed: int) -> Splits:
    """Render the domain; see `_proxy.build`."""
    return build_proxy(PAINTER, options, size=size, seed=seed)
