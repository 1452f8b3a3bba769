"""Which maps the galleries show: those of each domain's most accurate model, on its first test images with evidence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask.config import Config, ModelId
from unmask.figures.gallery import Column, draw, pages
from unmask.figures.source import Picture, Source
from unmask.files import read_arrays, read_json
from unmask.layout import Layout

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NEEDS = ("accuracy",)


def pictures(source: Source) -> Iterator[Picture]:
    """Per domain with maps, in parts where there are many explainers."""
    config, layout = source.config, source.layout
    for domain in config["domains"]:
        model = best_model(source.tables["accuracy"], domain)
        columns, rows = maps(config, layout, model)
        if rows is None:
            continue
        parts = pages(columns)
        for number, part in enumerate(parts, 1):
            yield Picture(
                f"gallery_{domain}" + (f".{number}" if len(parts) > 1 else ""),
                f"{domain}: attribution maps of the most accurate model",
                partial(_draw, layout, model, part, rows),
            )


def best_model(accuracy: pd.DataFrame, domain: str) -> ModelId:
    """The model of a domain whose maps are shown: the most accurate in validation, the first of equals."""
    rows = accuracy[accuracy["domain"] == domain]
    row = rows.loc[rows["val"].idxmax()]
    return ModelId(domain, row["encoder"], int(row["pretrain_seed"]), int(row["finetune_seed"]))


def maps(config: Config, layout: Layout, model: ModelId) -> tuple[list[Column], list[dict[str, Any]] | None]:
    """The maps of the first test images with evidence (all, where none has any) in config order, and those images' rows
    of the index; (.., None) without maps."""
    import numpy as np

    folder = layout.maps(model)
    indices = [read_json(folder / f"{group}.json") for group in config.groups if (folder / f"{group}.json").exists()]
    if not indices:
        return [], None
    masks = read_arrays(layout.domain(model.domain) / "test.safetensors")["masks"]
    images = indices[0]["images"]
    chosen = [i for i, row in enumerate(images) if masks[row["index"]].any()] or list(range(len(images)))
    chosen = chosen[: config["report"]["gallery_images"]]
    cells = {cell["name"]: cell for index in indices for cell in index["explainers"]}
    columns = []
    for group in config.groups.values():
        for cell in (cells[name] for name in group if name in cells):
            whole = cell["status"] == "ok"
            values = read_arrays(folder / cell["file"])["maps"][chosen] if whole else None
            finite = values is not None and np.isfinite(values).all()
            columns.append(
                Column(
                    cell["name"],
                    cell["signed"],
                    values if finite else None,
                    "" if finite else "failed" if whole else cell["status"],
                    cell["family"],
                )
            )
    return columns, [images[i] for i in chosen]


def _draw(layout: Layout, model: ModelId, columns: list[Column], rows: list[dict[str, Any]]) -> Figure:
    folder = layout.domain(model.domain)
    classes, test = read_json(folder / "card.json")["classes"], read_arrays(folder / "test.safetensors")
    taken = [row["index"] for row in rows]
    return draw(
        test["images"][taken],
        test["masks"][taken],
        [(classes[row["label"]], row["correct"]) for row in rows],
        columns,
        f"{model.domain}, encoder {model.encoder}: {', '.join(dict.fromkeys(column.family for column in columns))}",
    )
