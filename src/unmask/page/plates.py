"""The gallery browser's data: images with their evidence, and every explainer's map of them, a character a value.

A plate is what one model and image show. They come in order of interest until they fill `BUDGET`: the images of each
domain's most accurate model, then image by image the best model of every other encoder, to compare mask ratios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.config import Config, ModelId
from unmask.files import read_arrays, read_json
from unmask.layout import Layout
from unmask.page.embed import picture_uri

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.figures.gallery import Column

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+"  # an odd number: 0 has a level of its own
SIDE = 64  # values a side: larger maps are averaged, larger images shrunk to twice this
BUDGET = 3_000_000  # characters of maps


def plates(config: Config, layout: Layout, accuracy: pd.DataFrame) -> dict[str, Any] | None:
    """What `index.gallery.js` draws from; None where no domain has maps.

    A plate maps an explainer to its map: side * side characters row by row, `-` for an empty map, `!` and the reason
    where there is none.
    """
    from unmask.figures import style

    domains = {name: _Domain(config, layout, accuracy, name) for name in config["domains"]}
    shown = [domain for domain in domains.values() if domain.models]
    if not shown:
        return None
    left = BUDGET
    for domain, encoder, place in _order(shown):
        left -= domain.add(encoder, place) if left > 0 else 0
    for domain in shown:
        domain.data["images"] = domain.data["images"][: len(domain.data["models"][0]["plates"])]
    explainers = {
        column.name: column for domain in shown for columns, _ in domain.models.values() for column in columns
    }
    return {
        "alphabet": ALPHABET,
        "colours": {kind: _colours(name) for kind, name in (("signed", style.SIGNED), ("other", style.SEQUENTIAL))},
        "explainers": [{"name": c.name, "family": c.family, "signed": bool(c.signed)} for c in explainers.values()],
        "domains": [domain.data for domain in shown],
    }


class _Domain:
    """A domain's images, its models' maps and what of them goes into the page."""

    def __init__(self, config: Config, layout: Layout, accuracy: pd.DataFrame, name: str):
        from unmask.figures.galleries import best_model, maps

        self.models: dict[str, tuple[list[Column], list[dict[str, Any]]]] = {}
        found: list[dict[str, Any]] = []
        rows = accuracy[accuracy["domain"] == name]
        best = best_model(rows, name)
        encoders = [best.encoder, *(encoder for encoder in config["encoders"] if encoder != best.encoder)]
        for encoder in encoders:
            model = best_model(rows[rows["encoder"] == encoder], name)
            columns, images = maps(config, layout, model)
            if images is not None:
                self.models[encoder] = columns, images
                found.append(_model(config, model, rows))
        images = next(iter(self.models.values()))[1] if self.models else []
        folder = layout.domain(name)
        self.classes = read_json(folder / "card.json")["classes"]
        test = read_arrays(folder / "test.safetensors") if images else {}
        self.data = {
            "name": name,
            "images": [
                {
                    "uri": _picture(test["images"][row["index"]]),
                    "outline": outline(test["masks"][row["index"]]),
                    "side": len(test["masks"][row["index"]]),
                    "id": row["image_id"],
                    "class": self.classes[row["label"]],
                }
                for row in images
            ],
            "models": found,
        }

    def add(self, encoder: str, place: int) -> int:
        """Add a plate; returns its size in characters."""
        columns, images = self.models[encoder]
        model = next(one for one in self.data["models"] if one["encoder"] == encoder)
        row = images[place]
        model["plates"][place] = {
            "prediction": self.classes[row["prediction"]],
            "correct": row["correct"],
            "maps": {column.name: code(column, place) for column in columns},
        }
        return sum(map(len, model["plates"][place]["maps"].values()))


def _order(domains: list[_Domain]) -> list[tuple[_Domain, str, int]]:
    """Every plate there could be, in order of interest: domain, encoder, image."""
    found = [
        (number > 0, place, domain, encoder)
        for domain in domains
        for number, encoder in enumerate(domain.models)
        for place in range(len(domain.data["images"]))
    ]
    return [(domain, encoder, place) for _, place, domain, encoder in sorted(found, key=lambda one: one[:2])]


def _model(config: Config, model: ModelId, rows: pd.DataFrame) -> dict[str, Any]:
    own = (rows["encoder"] == model.encoder) & (rows["pretrain_seed"] == model.pretrain_seed)
    test = rows.loc[own & (rows["finetune_seed"] == model.finetune_seed), "test"]
    return {
        "encoder": model.encoder,
        "seeds": f"p{model.pretrain_seed}f{model.finetune_seed}",
        "ratio": config.mask_ratio(model.encoder),
        "drawn": config.ratio_range(model.encoder) is not None,
        "accuracy": float(test.iloc[0]),
        "plates": {},
    }


def code(column: Column, place: int) -> str:
    """The map of one image, scaled as in the galleries: signed maps symmetrically around 0, others from their least
    value, the top 0.5 % saturated."""
    import numpy as np
    from PIL import Image

    if column.maps is None:
        return f"!{column.reason}"
    values = np.asarray(column.maps[place], np.float32)
    if values.min() == values.max():
        return "-"
    if max(values.shape) > SIDE:
        values = np.asarray(Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BOX))
    high = float(np.quantile(np.abs(values) if column.signed else values, 0.995))
    low = -high if column.signed else float(values.min())
    share = ((values - low) / max(high - low, 1e-12)).clip(0, 1)
    return "".join(ALPHABET[level] for level in np.rint(share * (len(ALPHABET) - 1)).astype(int).ravel())


def outline(mask: np.ndarray) -> str:
    """The edges of a mask bool [H, W] as the path of an SVG in pixels: runs along rows, then along columns."""
    import numpy as np

    padded = np.pad(mask, 1).astype(np.int8)
    path = []
    for edges, run in (
        (np.diff(padded, axis=0)[:, 1:-1], "M{0} {1}h{2}"),
        (np.diff(padded.T, axis=0)[:, 1:-1], "M{1} {0}v{2}"),
    ):
        for line, edge in enumerate(edges):
            bounds = np.flatnonzero(np.diff(np.pad(edge != 0, 1).astype(np.int8)))
            path += [run.format(start, line, end - start) for start, end in bounds.reshape(-1, 2)]
    return "".join(path)


def _picture(image: np.ndarray) -> str:
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.width > 2 * SIDE:
        picture = picture.resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    return picture_uri(picture)


def _colours(name: str) -> list[str]:
    """The colour of each level, as hexadecimal digits."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    levels = len(ALPHABET)
    return [to_hex(colormaps[name](level / (levels - 1)))[1:] for level in range(levels)]
