"""The families about concepts for one checkpoint: tables with intervals, what is printed of them, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unmask.config import ModelId
from unmask.internals.concepts import Concepts
from unmask.seeds import numpy_generator
from unmask.statistics.bootstrap import counts
from unmask.tables.concepts import COLUMNS, Left, framed, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from unmask.internals.describe import Described

WHO = ModelId("images", "model", 0, 0)
OF = {"dissection": "dissection", "concepts": "tcav", "factors": "concept_factors"}  # a family's table
CELL = {"domain", "encoder", "mask_ratio", "pretrain_seed", "finetune_seed", "phase", "seeds"}  # the same in all rows
SHOWN = {
    "dissection": [
        "layer",
        "kind",
        "concept",
        "detectors",
        "detectors_chance",
        "unit",
        "iou",
        "low",
        "high",
        "iou_chance",
    ],
    "tcav": ["layer", "kind", "concept", "accuracy", "class", "score", "low", "high", "p_holm", "verdict"],
    "concept_factors": ["factor", "concept", "iou", "class", "importance", "low", "high"],
}


def tables(
    made: Described, families: list[str], names: list[str], resamples: int, confidence: float
) -> dict[str, pd.DataFrame]:
    """The tables of those `families` that have one, for images `names`; the same numbers as in a run with one model."""
    import numpy as np

    from unmask.statistics.study import Study

    kept = Concepts()
    kept.add(made)
    draws = counts(numpy_generator(0, "inside", "bootstrap"), len(names), resamples)
    study = Study(
        explainers=[],
        encoders=[WHO.encoder],
        methods=[""],
        ratios=np.array([np.nan]),
        seeds=[WHO.seeds],
        metrics=[],
        weights={WHO.domain: draws[:, :, None]},
        correct={},
        confidence=confidence,
        seed=0,
    )
    rows = rows_of(study, [Left(WHO, kept.tables(), made.arrays, made.about)], names, draws)
    chosen = [OF[family] for family in families if family in OF]
    return {name: framed(rows[name], [column for column in COLUMNS[name] if column not in CELL]) for name in chosen}


def show(tables: dict[str, pd.DataFrame]) -> None:
    """Print what was measured."""
    for name, table in tables.items():
        known = table[table["status"] == "ok"]
        if name == "dissection":
            known = known[known["concept"].notna()]
        if len(known):
            text = known[SHOWN[name]].to_string(index=False, float_format="{:.3f}".format, na_rep="")
            print(f"\n{name.replace('_', ' ')}\n{text}")
        if name == "concept_factors" and len(known):
            first = known.iloc[0]
            print(
                f"relative reconstruction error {first['reconstruction_error']:.3f}, the same prediction from"
                f" {first['agreement']:.0%} of the reconstructions"
            )


def notes(tables: dict[str, pd.DataFrame], made: Described) -> set[str]:
    """Sentences about what was not measured, and why."""
    found = set()
    for name, table in tables.items():
        for row in table[table["status"] != "ok"].to_dict("records"):
            concept = f" of {row['concept']}" if isinstance(row["concept"], str) else ""
            found.add(f"{name.replace('_', ' ')}{concept} {row['status']}: {row['reason']}")
    for key, reason in made.about.items():
        if key.startswith("visualisation_"):
            found.add(f"visualisation {key.rpartition('_')[2]}: {reason}")
    return found


def draw(made: Described, folder: Path) -> list[Path]:
    """Write the images of activation maximisation as a figure, where there are some."""
    if "visualisations" not in made.arrays:
        return []
    from unmask.figures import strips, style
    from unmask.figures.units import maximised

    pictures = zip(made.about["visualisations"], made.arrays["visualisations"], strict=True)
    with style.styled():
        drawn = [maximised(one, image) for one, image in pictures]
        figure = strips.draw(
            [("", drawn)],
            "images made to drive a class's logit, or a unit, as high as can be; in brackets the best image",
            [one.get("class", "") for one in made.about["visualisations"]],
        )
        return style.save(figure, folder / "visualisations")
