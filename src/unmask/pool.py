"""A pool of one's own to pretrain on: images in a folder tree or in WebDataset shards, which stay on disk.

Stage data reads all of them once and lists the good ones in `1_data/pool.safetensors`: where each is and what its bytes
sum to, but no pixels. Pretraining then reads an image when its turn comes (`unmask.streaming`), in any order: shards
are tars, in which every file has a place. timm's own reader of shards goes through them in turn, in an order that
depends on the number of processes, and leaves out without a word what it cannot decode or what has no label.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unmask import files
from unmask.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SHARD = ".tar"
KINDS = {"folder": "images", "webdataset": f"shards (*{SHARD})"}
# A sample of a shard is the files that share a name up to its first dot; of several images in it the first of these.
SAMPLE = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]*)")
IMAGES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp")
TOGETHER = 64  # images that a process looks at before it reports


class Place(NamedTuple):
    """An image: its name below the pool's folder, the shard it is in (-1 = a file of its own), its bytes there."""

    name: str
    shard: int
    offset: int
    length: int


class Look(NamedTuple):
    """What was seen of an image: what is wrong with it, the CRC-32 of its bytes, the largest deep grey level (0 where
    it has none), and a hash of its pixels at the pool's size, if they are known without the other images."""

    wrong: str
    checksum: int
    largest: float
    pixels: bytes


class Pool:
    """Images on disk by number.

    `names` are bytes up to `ends` [N], one after the other; `places` int64 [N, 3] are shard, offset and length;
    `checksums` int64 [N]. Deep grey levels are divided by `scale`.
    """

    def __init__(
        self,
        root: str | Path,
        shards: list[str],
        names: np.ndarray,
        ends: np.ndarray,
        places: np.ndarray,
        checksums: np.ndarray,
        scale: float = 1.0,
    ):
        self.root, self.shards, self.scale = Path(root), shards, scale
        self.names, self.ends, self.places, self.checksums = names, ends, places, checksums

    @classmethod
    def of(cls, root: str | Path, shards: list[str], found: list[Place]) -> Pool:
        """A pool of these images, not yet looked at."""
        import numpy as np

        encoded = [os.fsencode(place.name) for place in found]
        names = np.frombuffer(b"".join(encoded), np.uint8)
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        places = np.array([place[1:] for place in found], np.int64).reshape(-1, 3)
        return cls(root, shards, names, ends, places, np.zeros(len(found), np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, i: int) -> str:
        """Its path below the pool's folder; in a shard, the shard's and then its own."""
        return os.fsdecode(self.names[self.ends[i - 1] if i else 0 : self.ends[i]].tobytes())

    def path(self, i: int) -> str:
        """What an image is called in a message."""
        return str(self.root / self.name(i))

    def read(self, i: int) -> bytes:
        """Its file's bytes; raises `UserError` where they are not there."""
        shard, offset, length = self.places[i].tolist()
        source = self.root / (self.shards[shard] if shard >= 0 else self.name(i))
        try:
            with open(source, "rb") as handle:
                handle.seek(offset)
                data = handle.read(length if shard >= 0 else -1)
        except OSError as error:
            raise UserError(f"{self.path(i)} cannot be read ({error.strerror}); replace or remove it") from None
        if len(data) != length:
            raise UserError(f"{self.path(i)} has {len(data)} bytes, not {length}, and so was changed or cut short")
        return data

    def pixels(self, i: int, size: int, frame: tuple[float, float, float, float] | None = None) -> np.ndarray:
        """An image as uint8 [size, size, 3]; `frame` is the part of it, (left, top, right, bottom) in [0, 1].

        The whole is resized as those of a folder domain are, a part bilinearly as by SimMIM's crops, both with an
        anti-aliasing filter. Raises `UserError` where it is no whole image.
        """
        from PIL.Image import Resampling

        with self._opened(i, self.read(i)) as image:
            if frame is None:
                return self._bytes(image.resize((size, size), Resampling.BICUBIC))
            (width, height), (left, top, right, bottom) = image.size, frame
            box = (left * width, top * height, right * width, bottom * height)
            return self._bytes(image.resize((size, size), Resampling.BILINEAR, box=box))

    def look(self, i: int, size: int, deep: bool = False) -> Look:
        """Whether an image is whole, and what must be known of it; pixels of deep ones only by a pool with a scale."""
        import hashlib
        import zlib

        from PIL.Image import Resampling

        from unmask.domains._reading import DEEP

        try:
            data = self.read(i)
            with self._opened(i, data) as image:
                largest = float(image.getextrema()[1]) if image.mode == DEEP else 0.0
                if image.mode == DEEP and not deep:
                    return Look("", zlib.crc32(data), largest, b"")
                pixels = self._bytes(image.resize((size, size), Resampling.BICUBIC))
        except Exception as error:
            return Look(self.wrong(i, error), 0, 0.0, b"")
        return Look("", zlib.crc32(data), largest, hashlib.sha256(pixels.tobytes()).digest())

    def wrong(self, i: int, error: Exception) -> str:
        """What an error says of an image: Pillow's decoders meet broken files with errors of any kind."""
        if isinstance(error, UserError):
            return str(error)
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return f"{self.path(i)} cannot be read as an image ({text}); replace or remove it"

    def only(self, rows: np.ndarray) -> Pool:
        """The images of these numbers [M]."""
        import numpy as np

        starts = np.concatenate([[0], self.ends[:-1]])
        names = np.concatenate([self.names[:0], *(self.names[starts[i] : self.ends[i]] for i in rows)])
        ends = np.cumsum((self.ends - starts)[rows], dtype=np.int64)
        return Pool(self.root, self.shards, names, ends, self.places[rows], self.checksums[rows], self.scale)

    def _opened(self, i: int, data: bytes):
        from unmask.domains._reading import opened

        return opened(BytesIO(data), self.path(i))

    def _bytes(self, image: Image.Image) -> np.ndarray:
        import numpy as np

        from unmask.domains._reading import DEEP, to_bytes

        values = np.asarray(image)
        return to_bytes(values, self.scale).repeat(3, 2) if image.mode == DEEP else values


@dataclass(frozen=True)
class Listing:
    """A pool's good images; what is wrong with each that was skipped, by name; and how many images there are beside
    them that a domain holds out."""

    pool: Pool
    skipped: dict[str, str]
    held_out: int


def check(path: str, kind: str) -> None:
    """Whether the folder is there and holds anything of the kind; raises `UserError`. It reads no file."""
    if not Path(path).is_dir():
        raise UserError(
            f"pretrain.pool.path: the folder '{path}' does not exist; give the folder that holds the {KINDS[kind]}"
        )
    wanted = (SHARD,) if kind == "webdataset" else _suffixes()
    if not any(name.lower().endswith(wanted) for _, _, names in os.walk(path, followlinks=True) for name in names):
        other = "folder" if kind == "webdataset" else "webdataset"
        raise UserError(
            f"pretrain.pool.path: '{path}' holds no {KINDS[kind]}; name a folder that does, or set "
            f"pretrain.pool.kind to {other} if it holds {KINDS[other]}"
        )


def build(
    path: str, kind: str, *, size: int, workers: int, on_corrupt: str, held_out: set[bytes] | None = None
) -> Listing:
    """Find the images, look at every one in `workers` processes, and keep the good ones.

    What is no whole image, and a shard that ends early, is skipped or, where `on_corrupt` is "stop", a `UserError` with
    its name. Images whose pixels at `size`, as SHA-256, are among `held_out` are left out.
    """
    import numpy as np

    from unmask.domains._reading import scale_of
    from unmask.progress import bar

    skipped: dict[str, str] = {}
    found = _in_shards(Path(path), skipped) if kind == "webdataset" else _in_folder(Path(path))
    if skipped and on_corrupt == "stop":
        raise _stopped(next(iter(skipped.values())))
    if not found.shards and not len(found):
        raise UserError(f"pretrain.pool.path: '{path}' holds no {KINDS[kind]}; name a folder that does")
    known = held_out or set()
    good, taken, deep = (np.zeros(len(found), bool) for _ in range(3))
    largest = 0.0
    with bar(len(found), "look at the pool", " images") as progress:
        for i, look in enumerate(_looks(found, size, workers, range(len(found)))):
            if look.wrong and on_corrupt == "stop":
                raise _stopped(look.wrong)
            if look.wrong:
                skipped[found.name(i)] = look.wrong
            largest = max(largest, look.largest)
            found.checksums[i] = look.checksum
            good[i], deep[i], taken[i] = not look.wrong, look.largest > 0, look.pixels in known
            progress.update()
    found.scale = float(scale_of(largest))
    if known:  # how bright the deep ones are is known only now
        again = np.flatnonzero(deep)
        for i, look in zip(again, _looks(found, size, workers, again, deep=True), strict=True):
            taken[i] = look.pixels in known
    left = int(taken.sum())
    good &= ~taken
    listing = Listing(found.only(np.flatnonzero(good)), skipped, left)
    if len(listing.pool) < 2:
        raise UserError(
            f"pretrain.pool.path: '{path}' holds {len(listing.pool)} images to pretrain on ({len(skipped)} skipped, "
            f"{left} held out by the domains); pretraining needs at least 2"
        )
    return listing


def write(listing: Listing, path: str | Path) -> None:
    """Write the list of good images."""
    pool = listing.pool
    arrays = {"names": pool.names, "ends": pool.ends, "places": pool.places, "checksums": pool.checksums}
    about = {"scale": pool.scale, "shards": pool.shards, "skipped": len(listing.skipped), "held_out": listing.held_out}
    files.write_arrays(path, arrays, {"pool": json.dumps(about)})


def load(path: str | Path, root: str | Path) -> tuple[Pool, dict[str, int]]:
    """The list that `write` left, of images below `root`, and how many were `skipped` and left out as `held_out`."""
    arrays, about = files.read_arrays(path), files.read_metadata(path).get("pool")
    if about is None:
        raise UserError(f"{path} is not the list of pretrain.pool; run `unmask data --pool` again")
    said = json.loads(about)
    pool = Pool(root, said["shards"], **arrays, scale=said["scale"])
    return pool, {key: said[key] for key in ("skipped", "held_out")}


def count(path: str, kind: str) -> int:
    """About how many images there are, without looking at them: shards are taken to be as full as the first."""
    if kind == "folder":
        return sum(name.lower().endswith(_suffixes()) for _, _, names in os.walk(path) for name in names)
    shards = _shards(Path(path))
    return len(shards) * sum(1 for _ in _images(_members(Path(path) / shards[0])[0]))


def _suffixes() -> tuple[str, ...]:
    from unmask.domains._reading import SUFFIXES

    return SUFFIXES


def _stopped(wrong: str) -> UserError:
    return UserError(f"{wrong}, or set pretrain.pool.on_corrupt to skip")


def _in_folder(root: Path) -> Pool:
    """The image files anywhere below a folder, as timm's ImageFolder reader finds them, by name."""
    from timm.data.readers.reader_image_folder import find_images_and_targets

    samples, _ = find_images_and_targets(str(root), types=_suffixes())
    names = sorted(Path(path).relative_to(root).as_posix() for path, _ in samples)
    # What macOS leaves beside a file is named as it, after a dot.
    return Pool.of(root, [], [Place(n, -1, 0, _length(root / n)) for n in names if not Path(n).name.startswith(".")])


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link to nowhere: reading it will say so
        return 0


def _shards(root: Path) -> list[str]:
    found = (Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)
    return sorted(
        path.relative_to(root).as_posix()
        for path in found
        if path.suffix.lower() == SHARD and not path.name.startswith(".")
    )


def _in_shards(root: Path, skipped: dict[str, str]) -> Pool:
    """The images of all shards; what is wrong with a shard goes into `skipped`, and what stands before it is kept."""
    shards, found = _shards(root), []
    for number, shard in enumerate(shards):
        members, wrong = _members(root / shard)
        if wrong:
            skipped[shard] = wrong
        found += [Place(f"{shard}/{name}", number, start, length) for name, start, length in _images(members)]
    return Pool.of(root, shards, found)


def _members(path: Path) -> tuple[list[tuple[str, int, int]], str]:
    """The whole files of a tar as (name, offset, length), and what is wrong with it."""
    import tarfile

    found, wrong = [], ""
    try:
        extent = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            try:
                found += [(one.name, one.offset_data, one.size) for one in tar if one.isfile()]
                if tar.offset >= extent:  # two empty blocks end a tar
                    wrong = "it ends early"
            except tarfile.TarError as error:
                found = [(one.name, one.offset_data, one.size) for one in tar.members if one.isfile()]
                wrong = f"it ends early: {error}"
        found = [one for one in found if one[1] + one[2] <= extent]
    except (OSError, tarfile.TarError) as error:
        wrong = " ".join(str(error).split())
    return found, wrong and f"{path} is not a whole, uncompressed tar ({wrong}, after {len(found)} files); replace it"


def _images(members: Iterable[tuple[str, int, int]]) -> Iterator[tuple[str, int, int]]:
    """Of each sample, files that follow one another under one key, the image."""
    from itertools import groupby

    named = [(match, member) for member in members if (match := SAMPLE.fullmatch(member[0]))]
    for _, sample in groupby(named, key=lambda one: one[0][1]):
        images = {match[2].lower(): member for match, member in sample}
        best = next((images[suffix] for suffix in IMAGES if suffix in images), None)
        if best:
            yield best


def _looks(pool: Pool, size: int, workers: int, rows: Iterable[int], deep: bool = False) -> Iterator[Look]:
    """What is seen of these images, in their order."""
    rows = [int(i) for i in rows]
    if not workers or len(rows) <= TOGETHER:
        yield from (pool.look(i, size, deep) for i in rows)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    parts = [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
    processes = ProcessPoolExecutor(workers, initializer=_hold, initargs=(pool, size, deep))
    try:
        for looks in processes.map(_look, parts):
            yield from looks
    except BrokenProcessPool:
        raise UserError(
            f"a process that read {pool.root} was killed, perhaps for want of memory; lower pretrain.pool.workers"
        ) from None
    finally:
        processes.shutdown(cancel_futures=True)


_held: tuple[Pool, int, bool]  # of a process that looks


def _hold(*given) -> None:
    global _held
    _held = given


def _look(rows: list[int]) -> list[Look]:
    pool, size, deep = _held
    return [pool.look(i, size, deep) for i in rows]
