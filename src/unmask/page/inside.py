"""What the page's section "Inside the model" says in words and tables; its figures come with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.files import read_table
from unmask.internals.catalogue import MISSINGNESS, QUANTITIES
from unmask.layout import Layout
from unmask.page import decisions
from unmask.page.causes import causes
from unmask.page.concepts import concepts
from unmask.page.embed import records
from unmask.statistics.hypotheses import HYPOTHESES
from unmask.statistics.inside_effects import OVER_LAYERS
from unmask.statistics.inside_hypotheses import TESTS

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ("unchanged_prediction", "class_entropy", "prediction_entropy", "feature_distance")


def inside(config: Config, layout: Layout, hypotheses: pd.DataFrame | None) -> dict[str, Any] | None:
    """None where nothing was measured: an older run, or one that left the stage out."""
    paths = {name: layout.leaderboards / f"{name}.csv" for name in ("inside", "missingness")}
    if not all(path.exists() for path in paths.values()):
        return None
    layers, curves = (read_table(path) for path in paths.values())
    apart = {name: getattr(decisions, name)(config, layout) for name in ("counterfactuals", "surrogates")}
    caused = causes(config, layout)
    if not len(layers) and not len(curves) and not any(apart.values()) and caused is None:
        return None
    known = set(layers.loc[layers["status"] == "ok", "quantity"])
    return {
        "images": config["inside"]["images"],
        "one_seed": len(config["seeds"]["pretrain"]) * len(config["seeds"]["finetune"]) == 1,
        "answers": answers(hypotheses),
        "removals": removals(config, curves),
        "effects": effects(layout),
        "columns": {name: MISSINGNESS[name] for name in SHOWN},
        "quantities": [about for name, about in QUANTITIES.items() if name in known],
        "missing": missing(layers),
        **apart,
        "causes": caused,
        "concepts": concepts(config, layout),
    }


def answers(hypotheses: pd.DataFrame | None) -> list[dict[str, Any]]:
    """The hypotheses that this stage measured."""
    if hypotheses is None:
        return []
    own = {one["id"] for one in HYPOTHESES if one["test"] in TESTS}
    measured = hypotheses["hypothesis"].isin(own) & hypotheses["estimate"].notna()
    return records(hypotheses[measured])


def removals(config: Config, curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Per encoder and removal the means over the fraction removed, all domains pooled, the most tolerated first."""
    whole = curves[curves["domain"].isna() & curves["fraction"].isna() & (curves["status"] == "ok")]
    rows = []
    for encoder in config["encoders"]:
        own = whole[whole["encoder"] == encoder]
        parts = [
            {"encoder": encoder, "removal": removal, **{row["quantity"]: row for row in records(part)}}
            for removal, part in own.groupby("removal", sort=True)
        ]
        rows += sorted(parts, key=lambda row: -row[SHOWN[0]]["value"])
    return rows


def effects(layout: Layout) -> dict[str, Any] | None:
    """What pretraining changes in the fine-tuned models, means over layers, all domains pooled; None if it is empty."""
    path = layout.leaderboards / "inside_effects.csv"
    table = read_table(path) if path.exists() else None
    if table is None or table.empty:
        return None
    table = table[table["domain"].isna() & (table["phase"] == "after") & table["removal"].isna()]
    table = table[table["layers"] == OVER_LAYERS]
    named = table["encoder"].where(table["contrast"] == "difference", table["encoder"] + ", slope")
    columns = list(dict.fromkeys(named))
    rows = []
    for quantity, part in table.assign(column=named).groupby("quantity", sort=False):
        title = QUANTITIES[quantity].title if quantity in QUANTITIES else quantity.replace("_", " ")
        cells = {row["column"]: row for row in records(part)}
        rows.append({"title": title, "cells": [cells.get(column) for column in columns]})
    return {"columns": columns, "rows": rows}


def missing(layers: pd.DataFrame) -> list[dict[str, Any]]:
    """What was not measured: quantities, encoders and phases by reason."""
    without = layers[layers["status"] != "ok"]
    return [
        {
            "reason": reason,
            "quantities": list(dict.fromkeys(part["quantity"])),
            "encoders": list(dict.fromkeys(part["encoder"])),
            "phases": list(dict.fromkeys(part["phase"])),
        }
        for reason, part in without.groupby("reason", sort=False)
    ]
