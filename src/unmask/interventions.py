"""A split's images with one factor changed, as a file: written by the stage data, read by those that ask models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.files import read_arrays, read_metadata, write_arrays

if TYPE_CHECKING:
    import numpy as np

    from unmask.domains import Split


@dataclass(frozen=True)
class Factor:
    """A factor in N images, K of which have it.

    present  bool [N]: whether changing it changes a pixel of the image
    changed  uint8 [K, H, W, 3]: those images with the factor changed, in their order
    classes  int64 [N]: the class that it speaks for in an image, -1 for none; None for a factor that never does
    """

    present: np.ndarray
    changed: np.ndarray
    classes: np.ndarray | None

    def of(self, rows: Sequence[int]) -> Factor:
        """The factor in the images `rows`, in that order."""
        import numpy as np

        chosen = np.asarray(rows, np.int64)
        present = self.present[chosen]
        places = (np.cumsum(self.present) - 1)[chosen[present]]
        return Factor(present, self.changed[places], None if self.classes is None else self.classes[chosen])


def write(path: Path, split: Split) -> None:
    """Write the interventions of a split; a file without arrays where it has none."""
    arrays: dict[str, np.ndarray] = {}
    for name, one in split.interventions.items():
        present = (one.images != split.images).any((1, 2, 3))
        arrays |= {f"present/{name}": present, f"changed/{name}": one.images[present]}
        if one.classes is not None:
            arrays[f"classes/{name}"] = one.classes
    write_arrays(path, arrays, {"factors": "\n".join(split.interventions)})


def read(path: Path) -> dict[str, Factor]:
    """The factors by name, in the order of the domain; raises `UserError` where the file is missing or broken."""
    arrays, names = read_arrays(path), read_metadata(path).get("factors", "")
    return {
        name: Factor(arrays[f"present/{name}"], arrays[f"changed/{name}"], arrays.get(f"classes/{name}"))
        for name in names.split("\n")
        if name
    }


def choose(factors: Mapping[str, Factor], rows: Sequence[int]) -> dict[str, Factor]:
    """Every factor in the images `rows`."""
    return {name: factor.of(rows) for name, factor in factors.items()}
