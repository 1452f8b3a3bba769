"""Users' image and mask files of any size and mode, read to one size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from unmask.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
IGNORED = {"thumbs.db", "desktop.ini"}
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
        with _opened(path) as image:
            deep = image.mode.startswith(("I", "F"))
            image = ImageOps.exif_transpose(image)
            extent = image.size
            if deep:
                image = _deep(image, path)
                self._deep.append(len(self._read))
                self._largest = max(self._largest, image.getextrema()[1])
            else:
                image = _on_white(image)
            resized = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
            self._read.append(np.asarray(resized))
        return extent

    def images(self) -> np.ndarray:
        """All images in the order of reading, uint8 [N, size, size, 3]."""
        scale = 1.0 if self._largest <= 1 else 2.0 ** max(8, np.ceil(np.log2(self._largest + 1))) - 1
        images = np.zeros((len(self._read), self.size, self.size, 3), np.uint8)
        deep = set(self._deep)
        for i, pixels in enumerate(self._read):
            if i in deep:
                pixels = np.round(np.clip(pixels / scale, 0, 1) * 255)[..., None]
            images[i] = pixels
        return images


def read_mask(path: Path, size: int, extent: tuple[int, int], image: str) -> np.ndarray:
    """Evidence as bool [size, size]: palette index other than 0, or a value above half of the file's largest.

    A resized pixel is evidence where a quarter of its area is, and the fullest one always: no marked evidence
    vanishes. An empty mask stays empty. Raises `UserError` where the mask's size is not `extent`, its image's
    (width, height).
    """
    with _opened(path) as mask:
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
def _opened(path: Path) -> Iterator[Image.Image]:
    """The decoded image; whatever Pillow finds wrong with it becomes one sentence."""
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}); replace or remove it") from None


def _on_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _deep(image: Image.Image, path: Path) -> Image.Image:
    """Grey levels of more than 8 bits as Pillow's float mode."""
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all() or values.min() < 0:
        raise UserError(f"{path} has negative or undefined values; store it with values of 0 or more")
    return Image.fromarray(values)
