"""The files of the families about concepts: their tables and arrays, and the user's folders of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.errors import UserError
from unmask.files import read_arrays, read_metadata, write_arrays, write_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.internals.describe import Described
    from unmask.internals.rendered import Shown

_WHERE = {"phase": "category", "layer": "Int16", "kind": "category", "name": "category"}
_WHAT = {"value": "float64", "status": "category", "reason": "category"}
COLUMNS = {
    "dissection": {**_WHERE, "unit": "Int32", **_WHAT},
    "tcav": {
        **_WHERE,
        "target": "category",
        "measure": "category",
        "run": "Int16",
        "fitted": "Int16",
        "held": "Int16",
        "image_id": "category",
        **_WHAT,
    },
    "factors": {
        **_WHERE,
        "measure": "category",
        "factor": "Int16",
        "target": "category",
        "image_id": "category",
        **_WHAT,
    },
}
FILE = "concepts.safetensors"
FEWEST = 20  # images of a concept: half of them are held out


class Concepts:
    """What is found of a model's phases, to be written together."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
        self.arrays: dict[str, np.ndarray] = {}
        self.about: dict[str, Any] = {}

    def add(self, one: Described) -> None:
        """Add a phase."""
        for name, rows in one.rows.items():
            self.rows[name] += rows
        self.arrays |= one.arrays
        self.about |= one.about

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name, of fixed types."""
        import pandas as pd

        made = {}
        for name, kinds in COLUMNS.items():
            table = pd.DataFrame(self.rows[name], columns=list(kinds))
            made[name] = table.assign(status=table["status"].astype(object).fillna("ok")).astype(kinds)
        return made

    def write(self, folder: Path) -> None:
        """Write tables and arrays below a model's folder."""
        write_arrays(folder / FILE, self.arrays, {"about": json.dumps(self.about)})
        for name, table in self.tables().items():
            write_table(folder / f"{name}.parquet", table)


def read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A model's arrays, and what they are of; nothing where a run has none of them."""
    path = folder / FILE
    return (read_arrays(path), json.loads(read_metadata(path)["about"])) if path.exists() else ({}, {})


def files(folder: str, where: str) -> list[Path]:
    """The images of a user's concept; raises `UserError` where they are too few. `where` begins the sentence."""
    from unmask.domains._reading import SUFFIXES, visible

    if not Path(folder).is_dir():
        raise UserError(f"{where}: the folder '{folder}' does not exist; give a folder of images that show the concept")
    found = [file for file in visible(Path(folder)) if file.is_file() and file.suffix.lower() in SUFFIXES]
    if len(found) < FEWEST:
        raise UserError(f"{where}: the folder '{folder}' holds {len(found)} images; give {FEWEST} or more")
    return found


def read_folder(name: str, folder: str, size: int, where: str) -> Shown:
    """The images of a user's concept."""
    import numpy as np

    from unmask.domains._reading import Reader
    from unmask.internals.rendered import Shown

    reader = Reader(size)
    for file in files(folder, where):
        reader.add(file)
    images = reader.images()
    return Shown("folder", (name,), images, np.zeros(len(images), np.int64))
