"""What units and factors answer to, and images that drive classes and units as high as can be."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.config import ModelId
from unmask.figures import strips, style
from unmask.figures.galleries import best_model
from unmask.figures.source import Picture, Source
from unmask.files import read_arrays, read_json, read_table
from unmask.internals.concepts import read
from unmask.internals.dissection import DETECTOR
from unmask.internals.known import Concept, concepts

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

NEEDS = ("accuracy", "concept_factors")
SHOWN = 5  # factors


def pictures(source: Source) -> Iterator[Picture]:
    """Per domain: units and factors of the most accurate model, maximised images of every encoder's."""
    for domain in source.config["domains"]:
        model = best_model(source.tables["accuracy"], domain)
        _, about = read(source.layout.inside(model))
        if "units" in about:
            yield Picture(
                f"units_{domain}",
                f"{domain}: units that mark known concepts, on the test images that they answer to most",
                partial(_units, source, model),
            )
        if any("visualisations" in read(source.layout.inside(one))[1] for one in _models(source, domain).values()):
            yield Picture(
                f"visualisations_{domain}",
                f"{domain}: images made to drive each class, and the best detectors, as high as can be",
                partial(_visualisations, source, domain),
            )
        if "factors" in about:
            yield Picture(
                f"factors_{domain}",
                f"{domain}: non-negative factors of the activations, on the test images that hold most of them",
                partial(_factors, source, model),
            )


def _models(source: Source, domain: str) -> dict[str, ModelId]:
    """Every encoder's first model."""
    seeds = source.config.first_seeds
    return {encoder: ModelId(domain, encoder, *seeds) for encoder in source.config["encoders"]}


class _Images:
    """A domain's test images by name, and the pixels of its concepts."""

    def __init__(self, source: Source, domain: str):
        folder = source.layout.domain(domain)
        self.arrays = read_arrays(folder / "test.safetensors")
        self.classes = read_json(folder / "card.json")["classes"]
        names = read_table(folder / "test.csv")["image_id"].astype(str)
        self.rows = {name: row for row, name in enumerate(names)}

    def tiles(self, names: list[str], lights: np.ndarray, concept: Concept | None) -> Iterator[strips.Tile]:
        """The images, dark where lights [n, gh, gw] are 0, the pixels of a concept outlined."""
        import numpy as np

        rows = [self.rows[name] for name in names]
        labels = self.arrays["labels"][rows]
        known = concepts({name: array[rows] for name, array in self.arrays.items()}, labels, self.classes)
        pixels = known.get(concept, np.zeros(self.arrays["images"][rows].shape[:3], bool))
        for place, row in enumerate(rows):
            yield strips.Tile(
                strips.lit(self.arrays["images"][row], lights[place], pixels[place]),
                style.readable(self.classes[labels[place]], 16),
            )


def _units(source: Source, model: ModelId) -> Figure:
    arrays, about = read(source.layout.inside(model))
    images = _Images(source, model.domain)
    rows = []
    for place, unit in enumerate(about["units"]):
        concept = Concept(unit["kind"], unit["name"])
        label = (
            f"{style.readable(concept.words, 20)}\nlayer {unit['layer']}, unit {unit['unit']}\nIoU {unit['iou']:.2f}"
        )
        active = arrays[f"unit_{place}"] >= unit["threshold"]
        rows.append((label, list(images.tiles(unit["images"], active.astype(float), concept))))
    return strips.draw(
        rows,
        f"{model.domain}, encoder {model.encoder}: of every concept the unit that marks its pixels best, on the images"
        " that it answers to most; bright: the patches that it marks; outlined: the concept; below: the class",
    )


def _factors(source: Source, model: ModelId) -> Figure:
    arrays, about = read(source.layout.inside(model))
    images = _Images(source, model.domain)
    table = source.tables["concept_factors"]
    for name in ("domain", "encoder", "pretrain_seed", "finetune_seed"):
        table = table[table[name] == getattr(model, name)]
    rows = []
    for factor, own in list(table[table["factor"].notna()].groupby("factor", sort=False))[:SHOWN]:
        first = own.iloc[0]
        known = isinstance(first["concept"], str) and first["iou"] > DETECTOR
        concept = Concept(first["kind"], first["concept"]) if known else None
        names = about["factors"]["images"][int(factor)]
        rows.append(
            (_factor_label(own, concept), list(images.tiles(names, arrays["factors"][int(factor)].clip(0, 1), concept)))
        )
    first = table[table["factor"].notna()].iloc[0]
    return strips.draw(
        rows,
        f"{model.domain}, encoder {model.encoder}: factors of layer {first['layer']} by importance, on the images that"
        f" hold most of them; relative reconstruction error {first['reconstruction_error']:.2f}, same prediction from"
        f" {first['agreement']:.0%} of the reconstructions; beside: what the logits of two classes lose without it",
    )


def _factor_label(rows: pd.DataFrame, concept: Concept | None) -> str:
    lines = ["like no known concept"]
    if concept is not None:
        lines = [f"like {style.readable(concept.words, 20)} (IoU {rows['iou'].iloc[0]:.2f})"]
    strongest = rows.reindex(rows["importance"].abs().sort_values(ascending=False, kind="stable").index)[:2]
    for row in strongest.to_dict("records"):
        lines.append(
            f"{style.readable(row['class'], 18)} {row['importance']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        )
    return "\n".join(lines).replace("-", "\N{MINUS SIGN}")


def _visualisations(source: Source, domain: str) -> Figure:
    rows, above = [], []
    for encoder, model in _models(source, domain).items():
        arrays, about = read(source.layout.inside(model))
        if "visualisations" in about:
            named = about["visualisations"]
            made = zip(named, arrays["visualisations"], strict=True)
            rows.append((style.readable(encoder), [maximised(one, image) for one, image in made]))
            above = above or [style.readable(one["class"], 16) for one in named if "class" in one]
    return strips.draw(
        rows,
        f"{domain}: images made to drive the logit of a class (left) or a unit that detects a concept (right) as high"
        " as can be; below what they reach, and in brackets the best test image",
        above,
    )


def maximised(one: dict[str, Any], image: np.ndarray) -> strips.Tile:
    """An image uint8 [H, W, 3] by activation maximisation, with what it reaches and the best natural image's value."""
    number = f"{one['reached']:.1f} ({one['natural']:.1f})".replace("-", "\N{MINUS SIGN}")
    if "unit" in one:
        concept = style.readable(Concept(one["kind"], one["name"]).words, 14)
        number = f"{number}\n{one['layer']}.{one['unit']} {concept}"
    return strips.Tile(image, number)
