"""What the page says of the true effects of the planted factors."""

from __future__ import annotations

from typing import Any

from unmask.config import Config
from unmask.files import read_table
from unmask.internals.catalogue import ordered
from unmask.layout import Layout
from unmask.page.embed import records


def causes(config: Config, layout: Layout) -> dict[str, Any] | None:
    """Per domain and factor every encoder's effects; None where no model's images could be made again."""
    paths = {name: layout.leaderboards / f"{name}.csv" for name in ("causes", "causal_model")}
    if not all(path.exists() for path in paths.values()):
        return None
    effects, model = (read_table(path) for path in paths.values())
    known = effects[(effects["status"] == "ok") & effects["domain"].notna()]
    if known.empty:
        return None
    encoders = [name for name in config["encoders"] if name in set(known["encoder"])]
    rows = []
    for domain in config["domains"]:
        own = known[known["domain"] == domain]
        for factor in ordered(own["factor"]):
            cells: dict[str, dict[str, Any]] = {encoder: {} for encoder in encoders}
            for row in records(own[own["factor"] == factor]):
                cells[row["encoder"]][row["quantity"]] = row
            rows.append({"domain": domain, "factor": factor, "cells": [cells[encoder] for encoder in encoders]})
    compared = model[model["difference"].notna()]
    return {
        "encoders": encoders,
        "rows": rows,
        "tag": "tag" in set(known["factor"]),
        "compared": len(compared),
        "differ": int((compared["verdict"] != "undecided").sum()),
    }
