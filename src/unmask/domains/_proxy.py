"""Turns a painter of scenes into a domain: splits, seeds per image, exact masks and the planted shortcut."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unmask.domains import Split, Splits
from unmask.domains._scene import Canvas, finish
from unmask.domains._textures import ORIGIN
from unmask.errors import UserError
from unmask.seeds import derive, numpy_generator


@dataclass(frozen=True)
class Painter:
    """A domain's scene. Class 0 has no evidence.

    `background(canvas, rng, difficulty)` paints what every class may show, and marks the distractors, the `concepts`;
    `evidence(canvas, kind, rng, difficulty)` paints class `kind` > 0 and returns its coverage [size, size] in [0, 1].
    """

    classes: Sequence[str]
    textures: Sequence[str]
    concepts: Sequence[str]
    background: Callable[[Canvas, np.random.Generator, float], None]
    evidence: Callable[[Canvas, int, np.random.Generator, float], np.ndarray]


def render(
    painter: Painter, kind: int, *, size: int, seed: int, difficulty: float
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """One image, uint8 [size, size, 3], its evidence and its concepts, bool [size, size]: pixels covered by half.

    The same seed with another kind gives the same scene: the images differ only where evidence is painted.
    """
    canvas = Canvas(size)
    painter.background(canvas, numpy_generator(seed, "background"), difficulty)
    mask = np.zeros((size, size), bool)
    if kind:
        mask = painter.evidence(canvas, kind, numpy_generator(seed, "evidence"), difficulty) >= 0.5
    concepts = {name: (canvas.marked.get(name, np.zeros_like(canvas.x)) >= 0.5) & ~mask for name in painter.concepts}
    return finish(canvas, numpy_generator(seed, "finish"), difficulty), mask, concepts


def tag_colours(classes: int) -> np.ndarray:
    """The shortcut's colour for each class: hues evenly apart, uint8 [classes, 3]."""
    hues = [colorsys.hsv_to_rgb((i + 0.5) / classes, 0.9, 0.95) for i in range(classes)]
    return np.round(np.array(hues) * 255).astype(np.uint8)


def plant(image: np.ndarray, colour: np.ndarray, corner: int) -> np.ndarray:
    """Paint the tag, a square a tenth of the side wide one pixel off a corner, in place; returns its pixels."""
    size = len(image)
    side = max(3, round(size / 10))
    top = slice(1, 1 + side) if corner < 2 else slice(size - 1 - side, size - 1)
    left = slice(1, 1 + side) if corner % 2 == 0 else slice(size - 1 - side, size - 1)
    pixels = np.zeros((size, size), bool)
    pixels[top, left] = True
    image[pixels] = colour
    return pixels


def build(painter: Painter, options: dict[str, Any], *, size: int, seed: int) -> Splits:
    """Render every split. Image i of a split depends on (seed, split, i) only, not on how many there are.

    Labels go round the classes, so splits are balanced. With `shortcut` = p, a share p of the training images carries
    the tag in its class's colour; elsewhere the tag is as frequent, but its colour is drawn independently of the class.
    """
    if size < 32:
        raise UserError(f"image.size: {size} is too small for the embedded domains' evidence; use 32 or more")
    for split in ("train", "val", "test"):
        if options[split] < len(painter.classes):
            raise UserError(
                f"domains: option {split} = {options[split]} leaves some class without an image; "
                f"use {len(painter.classes)} or more"
            )
    splits = {name: _split(painter, options, name, size, seed) for name in ("train", "val", "test", "unlabelled")}
    return Splits(
        classes=list(painter.classes),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        unlabelled=splits["unlabelled"].images,
        origin={
            "kind": "rendered: evidence and distractors planted on photographs",
            "textures": {name: ORIGIN[name] for name in painter.textures},
        },
    )


def _split(painter: Painter, options: dict[str, Any], name: str, size: int, seed: int) -> Split:
    count, classes = options[name], len(painter.classes)
    images = np.zeros((count, size, size, 3), np.uint8)
    masks, shortcut = np.zeros((2, count, size, size), bool)
    concepts = {concept: np.zeros((count, size, size), bool) for concept in painter.concepts}
    labels = np.arange(count, dtype=np.int64) % classes
    colours = tag_colours(classes)
    for i in range(count):
        own = derive(seed, name, i)
        images[i], masks[i], seen = render(
            painter, int(labels[i]), size=size, seed=own, difficulty=options["difficulty"]
        )
        rng = numpy_generator(own, "shortcut")
        tagged, other, corner = rng.random() < options["shortcut"], rng.integers(classes), rng.integers(4)
        if tagged:
            shortcut[i] = plant(images[i], colours[labels[i] if name == "train" else other], int(corner))
            masks[i] &= ~shortcut[i]
        for concept, pixels in seen.items():
            concepts[concept][i] = pixels & ~shortcut[i]
    ids = [f"{name}-{i:05d}" for i in range(count)]
    return Split(images, labels, masks, shortcut, ids, list(ids), concepts)
