"""Maps of the images by every network's features: which lie together before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.config import Config, ModelId
from unmask.files import read_arrays, read_metadata
from unmask.internals.planar import planar
from unmask.layout import Layout
from unmask.parallel import each
from unmask.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Part = tuple[str, np.ndarray, np.ndarray, list[str]]  # a domain, its images' features, labels and names

COLUMNS = [
    *("scope", "domain", "encoder", "phase", "method", "trustworthiness"),
    *("image_id", "label", "x", "y"),
]


def image_maps(config: Config, layout: Layout, jobs: int = 1) -> pd.DataFrame:
    """A row per map and image, of each encoder's first pair of seeds; made in `jobs` processes.

    `scope` is `domain` for the maps of a domain's images, and `all` for those of all domains together, which only
    the encoders before fine-tuning see with the same weights; there a model from scratch has none in common.
    """
    import pandas as pd

    made = each([partial(_map, config, *one) for one in _maps(config, layout)], jobs)
    return pd.DataFrame([row for rows in made for row in rows], columns=COLUMNS).astype({"label": "Int64"})


def _maps(config: Config, layout: Layout) -> Iterator[tuple[str, str, str, list[Part]]]:
    """What there is a map of: scope, encoder, phase and the images."""
    seeds = config.first_seeds
    for encoder in config["encoders"]:
        together: list[Part] = []
        for domain in config["domains"]:
            folder = layout.inside(ModelId(domain, encoder, *seeds))
            if not (folder / "pictures.safetensors").exists():
                continue
            arrays = read_arrays(folder / "pictures.safetensors")
            ids = read_metadata(folder / "grams.safetensors")["images"].split("\n")
            for phase in ("before", "after"):
                if f"features_{phase}" in arrays:
                    part = domain, arrays[f"features_{phase}"], arrays["labels"], ids
                    yield "domain", encoder, phase, [part]
                    if phase == "before" and encoder in config.pretrained:
                        together.append(part)
        if len(together) > 1:
            yield "all", encoder, "before", together


def _map(config: Config, scope: str, encoder: str, phase: str, parts: list[Part]) -> list[dict[str, Any]]:
    import numpy as np

    seed = derive(config["seed"], "aggregate", "image maps", scope, *(part[0] for part in parts), encoder, phase)
    made = planar(np.concatenate([part[1] for part in parts]), seed)
    rows = []
    for method, (points, quality) in made.items():
        places = iter(points.tolist())
        for domain, _, labels, ids in parts:
            for name, label in zip(ids, labels.tolist(), strict=True):
                x, y = next(places)
                rows.append(
                    {
                        "scope": scope,
                        "domain": domain,
                        "encoder": encoder,
                        "phase": phase,
                        "method": method,
                        "trustworthiness": quality,
                        "image_id": name,
                        "label": label,
                        "x": x,
                        "y": y,
                    }
                )
    return rows
