"""Turns a painter of scenes into a domain: splits, seeds per image, exact masks and the planted shortcut."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from unmask.domains import BACKGROUND, EVIDENCE, TAG, Intervention, Split, Splits
from unmask.domains._scene import Canvas, finish
from unmask.domains._textures import ORIGIN
from unmask.errors import UserError
from unmask.seeds import derive, numpy_generator


@dataclass(frozen=True)
class Painter:
    """A domain's scene. Class 0 has no evidence.

    `background(canvas, rng, difficulty)` paints what every class may show, and marks the distractors, the `concepts`,
    each painted as a `canvas.object` of that name;
    `evidence(canvas, kind, rng, difficulty)` paints class `kind` > 0 and returns its coverage [size, size] in [0, 1].
    """

    classes: Sequence[str]
    textures: Sequence[str]
    concepts: Sequence[str]
    background: Callable[[Canvas, np.random.Generator, float], None]
    evidence: Callable[[Canvas, int, np.random.Generator, float], np.ndarray]


class Rendered(NamedTuple):
    """One image, uint8 [size, size, 3], its evidence and its concepts, bool [size, size]: pixels covered by half; and
    by the name of a factor the image with that factor changed, for those factors that it has."""

    image: np.ndarray
    mask: np.ndarray
    concepts: dict[str, np.ndarray]
    changed: dict[str, np.ndarray]


def render(
    painter: Painter, kind: int, *, size: int, seed: int, difficulty: float, intervene: bool = False
) -> Rendered:
    """One image; with `intervene` also what it would be without its evidence, without each kind of distractor, and
    with all of these on another backdrop, in the same light and noise.

    The same seed with another kind gives the same scene: the images differ only where evidence is painted.
    """
    backdrop = None
    if intervene:
        other = Canvas(size, bare=True)
        painter.background(other, numpy_generator(seed, "other background"), difficulty)
        backdrop = other.pixels
    canvas = Canvas(size, backdrop=backdrop)
    painter.background(canvas, numpy_generator(seed, "background"), difficulty)
    mask = np.zeros((size, size), bool)
    if kind:
        with canvas.object(EVIDENCE):
            mask = painter.evidence(canvas, kind, numpy_generator(seed, "evidence"), difficulty) >= 0.5
    concepts = {name: (canvas.marked.get(name, np.zeros_like(canvas.x)) >= 0.5) & ~mask for name in painter.concepts}
    image, *changed = (
        finish(canvas, painted, numpy_generator(seed, "finish"), difficulty)
        for painted in (canvas.pixels, *canvas.changed.values())
    )
    return Rendered(image, mask, concepts, dict(zip(canvas.changed, changed, strict=True)))


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
    tags = np.full(count, -1)
    colours = tag_colours(classes)
    intervene = name == "test"  # models are asked there
    factors = [EVIDENCE, *painter.concepts, *([TAG] if options["shortcut"] else []), BACKGROUND] if intervene else []
    changed = {factor: np.zeros_like(images) for factor in factors}
    for i in range(count):
        own = derive(seed, name, i)
        one = render(
            painter,
            int(labels[i]),
            size=size,
            seed=own,
            difficulty=options["difficulty"],
            intervene=intervene,
        )
        images[i], masks[i] = one.image, one.mask
        rng = numpy_generator(own, "shortcut")
        tagged, other, corner = rng.random() < options["shortcut"], rng.integers(classes), rng.integers(4)
        if tagged:
            tags[i] = labels[i] if name == "train" else other
            shortcut[i] = plant(images[i], colours[tags[i]], int(corner))
            masks[i] &= ~shortcut[i]
        for factor in factors:
            changed[factor][i] = one.changed.get(factor, one.image)
            if factor != TAG:
                changed[factor][i, shortcut[i]] = images[i, shortcut[i]]
        for concept, pixels in one.concepts.items():
            concepts[concept][i] = pixels & ~shortcut[i]
    speaks = {EVIDENCE: np.where(labels > 0, labels, -1), TAG: tags}
    interventions = {factor: Intervention(pixels, speaks.get(factor)) for factor, pixels in changed.items()}
    ids = [f"{name}-{i:05d}" for i in range(count)]
    return Split(images, labels, masks, shortcut, ids, list(ids), concepts, interventions)
