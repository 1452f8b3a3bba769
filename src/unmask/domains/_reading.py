"""Users' image and mask files of any size and mode, read to one size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unmask.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
IGNORED = {"thumbs.db", "desktop.ini"}
DEEP = "F"  # Pillow's mode of the images that have more than 8 bits
THIN = 0.25  # share of a resized pixel that must be evidence


def visible(folder: Path) -> list[Path]:
    """A folder's entries by name, without hidden ones and what file browsers leave behind."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__")) and p.name.lower() not in IGNORED)


class Reader:
    """Reads images to uint8 [size, size, 3].

    Orientation from EXIF; transparent images lie on white; of several frames the first; both sides resized to `size`
    with an anti-aliasing filter. Grey levels deeper than 8 bits (Pillow's modes I and F) share one scale over all
    files of the domain, so that brightness stays comparable: `images()` divides by the largest value that the
    smallest sufficient number of bits can hold (4095 for 12-bit data kept in 16), or by 1 for data up to 1.
    """

    def __init__(self, size: int):
        self.size = size
        self._read: list[np.ndarray] = []
        self._deep: list[int] = []
        self._largest = 0.0

    def add(self, path: Path) -> tuple[int, int]:
        """Read a file; returns its (width, height). Raises `UserError` where it is no whole image."""
        with opened(path, str(path)) as image:
            extent = image.size
            if image.mode == DEEP:
                self._deep.append(len(self._read))
                self._largest = max(self._largest, image.getextrema()[1])
            resized = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
            self._read.append(np.asarray(resized))
        return extent

    def images(self) -> np.ndarray:
        """All images in the order of reading, uint8 [N, size, size, 3]."""
        scale = scale_of(self._largest)
        images = np.zeros((len(self._read), self.size, self.size, 3), np.uint8)
        deep = set(self._deep)
        for i, pixels in enumerate(self._read):
            images[i] = to_bytes(pixels, scale) if i in deep else pixels
        return images


def scale_of(largest: float) -> float:
    """What deep grey levels are divided by, from the largest that there is."""
    return 1.0 if largest <= 1 else 2.0 ** max(8, np.ceil(np.log2(largest + 1))) - 1


def to_bytes(levels: np.ndarray, scale: float) -> np.ndarray:
    """Deep grey levels [H, W] over their scale, as uint8 [H, W, 1]."""
    return np.round(np.clip(levels / scale, 0, 1) * 255)[..., None].astype(np.uint8)


def read_mask(path: Path, size: int, extent: tuple[int, int], image: str) -> np.ndarray:
    """Evidence as bool [size, size]: palette index other than 0, or a value above half of the file's largest.

    A resized pixel is evidence where a quarter of its area is, and the fullest one always: no marked evidence
    vanishes. An empty mask stays empty. Raises `UserError` where the mask's size is not `extent`, its image's
    (width, height).
    """
    with _decoded(path, str(path)) as mask:
        mask = ImageOps.exif_transpose(mask)
        if mask.size != extent:
            raise UserError(
                f"{path} is {mask.width} x {mask.height} pixels but its image {image} is "
                f"{extent[0]} x {extent[1]}; make them equal"
            )
        plain = mask.mode == "P" or mask.mode.startswith(("I", "F"))
        values = np.asarray(mask if plain else mask.convert("L"), np.float32)
        marked = values > (0 if mask.mode == "P" else values.max() / 2)
    share = np.asarray(Image.fromarray(marked.astype(np.float32)).resize((size, size), Image.Resampling.BOX))
    return (share > 0) & (share >= min(THIN, share.max()))


@contextmanager
def opened(source: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """The image, turned upright: colours on white (RGB), or grey levels of more than 8 bits as they are (`DEEP`).

    Raises `UserError` with the file's `name` where it is no whole image.
    """
    with _decoded(source, name) as image:
        deep = image.mode.startswith(("I", "F"))
        image = ImageOps.exif_transpose(image)
        yield _deep(image, name) if deep else _on_white(image)


@contextmanager
def _decoded(source: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """The decoded image; whatever Pillow finds wrong with it becomes one sentence."""
    try:
        with Image.open(source) as image:
            image.load()
            yield image
    except UnidentifiedImageError:  # whose own words name the object that was read, not the file
        raise UserError(f"{name} cannot be read as an image (its format is not known); replace or remove it") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} cannot be read as an image ({error}); replace or remove it") from None


def _on_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _deep(image: Image.Image, name: str) -> Image.Image:
    """Grey levels of more than 8 bits as Pillow's float mode, `DEEP`."""
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all() or values.min() < 0:
        raise UserError(f"{name} has negative or undefined values; store it with values of 0 or more")
    return Image.fromarray(values)
