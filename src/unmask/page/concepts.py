"""What the page says of concepts: which a layer knows, which decisions follow, what units and factors stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.files import read_table
from unmask.internals.known import Concept
from unmask.layout import Layout
from unmask.page.embed import records
from unmask.statistics.tcav import AGAINST, FOR

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("tcav", "dissection", "concept_factors")


def concepts(config: Config, layout: Layout) -> dict[str, Any] | None:
    """None where none of it was measured: an older run, or one that left these families out."""
    paths = [layout.leaderboards / f"{name}.csv" for name in NAMES]
    if not all(path.exists() for path in paths):
        return None
    tcav, units, factors = (read_table(path) for path in paths)
    if not any(map(len, (tcav, units, factors))):
        return None
    encoders = list(config["encoders"])
    return {
        "encoders": encoders,
        "vectors": vectors(tcav, encoders),
        "detectors": detectors(units, encoders),
        "factors": fitness(factors, encoders),
        "missing": missing(tcav, units, factors),
    }


def words(kind: str, name: str) -> str:
    """A concept in words."""
    return Concept(kind, name).words


def last(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each encoder's last layer."""
    return table[table["layer"] == table.groupby("encoder")["layer"].transform("max")]


def vectors(tcav: pd.DataFrame, encoders: list[str]) -> list[dict[str, Any]]:
    """Per domain and concept, for every encoder: accuracies before and after, and the classes that follow it."""
    known = last(tcav[tcav["accuracy"].notna()])
    rows = []
    for (domain, kind, name), part in known.groupby(["domain", "kind", "concept"], sort=False):
        cells = []
        for encoder in encoders:
            own = {
                phase: part[(part["encoder"] == encoder) & (part["phase"] == phase)] for phase in ("before", "after")
            }
            first = {phase: records(one)[0] if len(one) else None for phase, one in own.items()}
            verdicts = {
                word: own["after"].loc[own["after"]["verdict"] == word, "class"].tolist() for word in (FOR, AGAINST)
            }
            cells.append({**first, "for": verdicts[FOR], "against": verdicts[AGAINST]} if first["after"] else None)
        rows.append({"domain": domain, "kind": kind, "concept": words(kind, name), "cells": cells})
    return rows


def detectors(units: pd.DataFrame, encoders: list[str]) -> list[dict[str, Any]]:
    """Per domain and concept the largest IoU of any unit after fine-tuning, for every encoder."""
    known = units[units["iou"].notna() & (units["phase"] == "after") & (units["layer"] > 0)]
    rows = []
    for (domain, kind, name), part in known.groupby(["domain", "kind", "concept"], sort=False):
        best = {
            encoder: records(own.loc[[own["iou"].idxmax()]])[0] for encoder, own in part.groupby("encoder", sort=False)
        }
        rows.append(
            {
                "domain": domain,
                "kind": kind,
                "concept": words(kind, name),
                "cells": [best.get(encoder) for encoder in encoders],
            }
        )
    return rows


def fitness(factors: pd.DataFrame, encoders: list[str]) -> list[dict[str, Any]]:
    """Per domain, means over the seeds: the factorisations' reconstruction errors and agreement by encoder."""
    known = factors[factors["reconstruction_error"].notna()]
    rows = []
    for domain, part in known.groupby("domain", sort=False):
        means = part.groupby("encoder")[["reconstruction_error", "agreement"]].mean()
        cells = [means.loc[encoder].to_dict() if encoder in means.index else None for encoder in encoders]
        rows.append({"domain": domain, "cells": cells})
    return rows


def missing(*tables: pd.DataFrame) -> list[dict[str, Any]]:
    """What could not be measured after fine-tuning, by reason: concepts, domains and encoders."""
    import pandas as pd

    rows = pd.concat([table[(table["status"] != "ok") & (table.get("phase", "after") != "before")] for table in tables])
    return [
        {
            "reason": reason,
            "concepts": list(dict.fromkeys(words(*one) for one in zip(named["kind"], named["concept"], strict=True))),
            "domains": list(dict.fromkeys(part["domain"])),
            "encoders": list(dict.fromkeys(part["encoder"])),
        }
        for reason, part in rows.groupby("reason", sort=False)
        for named in [part[part["concept"].notna()]]
    ]
