"""Your own images: `images/<class>/*`, evidence masks `masks/<class>/<same stem>.png`, groups in `meta.csv`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unmask.domains import Split, Splits
from unmask.domains._grouping import split_groups
from unmask.domains._reading import SUFFIXES, Reader, read_mask, visible
from unmask.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

META = {
    "summary": "your own images in a folder: images/<class>/*, masks/<class>/<stem>.png, meta.csv with groups",
    "options": {"path": "", "unlabelled": "", "train": 0.6, "val": 0.15, "test": 0.25},
    "ranges": {"train": [0.01, 0.98], "val": [0.01, 0.98], "test": [0.01, 0.98]},
    "folders": ["path", "unlabelled"],
    "optional": ["unlabelled"],
    "citation": "the user's data",
}


def build(options: dict[str, Any], *, size: int, seed: int) -> Splits:
    """Read the folder. A class is a folder below `images`; an image without a mask file has no marked evidence.

    `meta.csv` may give a `group` per image (a patient, an object, a photograph), joined by the column `image` (path
    below the folder) or `id` (file stem); without it each image is its own group. Images of `unlabelled` that have the
    pixels of a validation or test image are left out. Raises `UserError` for whatever is wrong, naming the file.
    """
    root = Path(options["path"])
    shares = [options[name] for name in ("train", "val", "test")]
    if abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"{root}: the shares train, val and test add up to {sum(shares):.4g}; they must add up to 1")
    classes, paths = _images(root)
    masks = _masks(root, paths)
    groups = _groups(root, paths)
    labels = np.array([classes.index(path.parent.name) for path in paths], np.int64)
    place = split_groups(groups, labels, classes, shares, seed=seed, where=str(root))

    reader = Reader(size)
    evidence = np.zeros((len(paths), size, size), bool)
    for i, path in enumerate(paths):
        extent = reader.add(path)
        if path in masks:
            evidence[i] = read_mask(masks[path], size, extent, str(path))
    extra = _unlabelled(options["unlabelled"], root)
    for path in extra:
        reader.add(path)
    read = reader.images()
    images, unlabelled = read[: len(paths)], read[len(paths) :]
    held_out = {image.tobytes() for image in images[place > 0]}
    fresh = np.array([image.tobytes() not in held_out for image in unlabelled], bool)

    def split(number: int) -> Split:
        rows = np.flatnonzero(place == number)
        ids = [f"{paths[i].parent.name}/{paths[i].stem}" for i in rows]
        shortcut = np.zeros_like(evidence[rows])
        return Split(images[rows], labels[rows], evidence[rows], shortcut, ids, [groups[i] for i in rows])

    origin = {
        "kind": "read from a folder",
        "images": len(paths),
        "masks": len(masks),
        "groups": len(set(groups)),
        "unlabelled_left_out": int((~fresh).sum()),
    }
    return Splits(classes, split(0), split(1), split(2), unlabelled[fresh], origin)


def _images(root: Path) -> tuple[list[str], list[Path]]:
    """The classes and all image files, sorted."""
    if not (root / "images").is_dir():
        raise UserError(f"{root} has no folder 'images'; put the images into {root / 'images'}/<class>/")
    folders = [entry for entry in visible(root / "images") if entry.is_dir()]
    if len(folders) < 2:
        raise UserError(f"{root / 'images'} holds {len(folders)} class folder(s); two or more are needed")
    paths: list[Path] = []
    for folder in folders:
        files = visible(folder)
        if not files:
            raise UserError(f"{folder} is empty; put the images of the class there or remove the folder")
        for path in files:
            if path.suffix.lower() not in SUFFIXES or path.is_dir():
                raise UserError(f"{path} is not an image file; keep only {', '.join(SUFFIXES)} files in {folder}")
        stems: dict[str, Path] = {}
        for path in files:
            if path.stem in stems:
                raise UserError(f"{path} and {stems[path.stem].name} have the same id '{path.stem}'; rename one")
            stems[path.stem] = path
        paths += files
    return [folder.name for folder in folders], paths


def _masks(root: Path, paths: list[Path]) -> dict[Path, Path]:
    """Mask file by image file."""
    owners = {(path.parent.name, path.stem): path for path in paths}
    found: dict[Path, Path] = {}
    folders = visible(root / "masks") if (root / "masks").is_dir() else []
    for folder in folders:
        for path in visible(folder) if folder.is_dir() else [folder]:
            if path.suffix.lower() != ".png" or path.parent == root / "masks":
                raise UserError(f"{path} is not a mask; masks are PNG files masks/<class>/<image's stem>.png")
            if (folder.name, path.stem) not in owners:
                raise UserError(f"{path} has no image; {root / 'images' / folder.name} holds no '{path.stem}'")
            found[owners[folder.name, path.stem]] = path
    return found


def _groups(root: Path, paths: list[Path]) -> list[str]:
    """The group of each image from meta.csv, or the image's own name."""
    own = [f"{path.parent.name}/{path.stem}" for path in paths]
    table = root / "meta.csv"
    if not table.is_file():
        return own
    meta = _read_meta(table)
    if "group" not in meta:
        return own
    key = "image" if "image" in meta else "id"
    if key not in meta:
        raise UserError(f"{table} has a column 'group' but neither 'id' (file stem) nor 'image' (path); add one")
    keys = [path.relative_to(root).as_posix() if key == "image" else path.stem for path in paths]
    for values, what in ((meta[key], f"{table} lists"), (keys, f"{table} joins by id, but the folder has")):
        value, times = Counter(values).most_common(1)[0] if len(values) else ("", 0)
        if times > 1:
            raise UserError(f"{what} '{value}' twice; give each image one row, with its path in a column 'image'")
    group = dict(zip(meta[key], meta["group"], strict=True))
    for value in keys:
        if not group.get(value, ""):
            raise UserError(f"{table} gives no group for '{value}'; fill in the column 'group' for every image")
    return [group[value] for value in keys]


def _read_meta(table: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{table} cannot be read as a UTF-8 table with commas ({error})") from None


def _unlabelled(folder: str, root: Path) -> list[Path]:
    """The image files anywhere below the folder of unlabelled images."""
    if not folder:
        return []
    base, labelled = Path(folder).resolve(), (root / "images").resolve()
    if base.is_relative_to(labelled) or labelled.is_relative_to(base):
        raise UserError(f"{folder} holds or is among the labelled images; unlabelled images need a folder of their own")
    found = sorted(
        path
        for path in base.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise UserError(f"{folder} holds no image; leave the option unlabelled empty or name a folder with images")
    return found
