"""Maps of the images by every network's features: which lie together before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unmask.config import Config, ModelId
from unmask.files import read_arrays, read_metadata
from unmask.internals.planar import planar
from unmask.layout import Layout
from unmask.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = [
    *("scope", "domain", "encoder", "phase", "method", "trustworthiness"),
    *("image_id", "label", "x", "y"),
]


def image_maps(config: Config, layout: Layout) -> pd.DataFrame:
    """A row per map and image, of each encoder's first pair of seeds.

    `scope` is `domain` for the maps of a domain's images, and `all` for those of all domains together, which only
    the encoders before fine-tuning see with the same weights; there a model from scratch has none in common.
    """
    import pandas as pd

    return pd.DataFrame(list(_rows(config, layout)), columns=COLUMNS).astype({"label": "Int64"})


def _rows(config: Config, layout: Layout) -> Iterator[dict[str, Any]]:
    seeds = config.first_seeds
    for encoder in config["encoders"]:
        together: list[tuple[str, np.ndarray, np.ndarray, list[str]]] = []
        for domain in config["domains"]:
            folder = layout.inside(ModelId(domain, encoder, *seeds))
            if not (folder / "pictures.safetensors").exists():
                continue
            arrays = read_arrays(folder / "pictures.safetensors")
            ids = read_metadata(folder / "grams.safetensors")["images"].split("\n")
            for phase in ("before", "after"):
                if f"features_{phase}" in arrays:
                    part = domain, arrays[f"features_{phase}"], arrays["labels"], ids
                    yield from _map(config, "domain", encoder, phase, [part])
                    if phase == "before" and encoder in config.pretrained:
                        together.append(part)
        if len(together) > 1:
            yield from _map(config, "all", encoder, "before", together)


def _map(
    config: Config,
    scope: str,
    encoder: str,
    phase: str,
    parts: list[tuple[str, np.ndarray, np.ndarray, list[str]]],
) -> Iterator[dict[str, Any]]:
    import numpy as np

    seed = derive(config["seed"], "aggregate", "image maps", scope, *(part[0] for part in parts), encoder, phase)
    made = planar(np.concatenate([part[1] for part in parts]), seed)
    for method, (points, quality) in made.items():
        places = iter(points.tolist())
        for domain, _, labels, ids in parts:
            for name, label in zip(ids, labels.tolist(), strict=True):
                x, y = next(places)
                yield {
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
