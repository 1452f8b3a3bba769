"""What `unmask inside --model` says of a checkpoint's single decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unmask import registry
from unmask.config import defaults
from unmask.internals import decisions
from unmask.internals.catalogue import COUNTERFACTUALS, SURROGATES
from unmask.internals.removed import frame
from unmask.internals.surrogates import words

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.internals.decisions import Subject

Bounded = Callable[[list["np.ndarray"]], list[dict[str, float]]]  # mean and interval of values [N] each
SHOWN = 3  # surrogates of single decisions that are printed


def counterfactuals(subject: Subject, bounded: Bounded) -> tuple[dict[str, pd.DataFrame], list[dict[str, Any]]]:
    """Means over the images, every image's set, and the rows that say what was not searched for."""
    import pandas as pd

    from unmask.internals.counterfactuals import COLUMNS
    from unmask.statistics.counterfactuals import values

    rows = frame(decisions.counterfactuals(defaults("inside"), registry.available("removals"), subject), COLUMNS)
    found = {
        (removal, *key): one
        for removal, part in rows[rows["outcome"].notna()].groupby("removal", observed=True, sort=False)
        for key, one in values(part, subject.scenes.classes)
    }
    named = [
        {"quantity": name, "unit": COUNTERFACTUALS[name].unit, "removal": removal, "patches": most, "class": new}
        for removal, name, most, new in found
    ]
    means = pd.DataFrame(
        [{**one, **other} for one, other in zip(named, bounded(list(found.values())), strict=True) if other["n"]],
        columns=["quantity", "unit", "removal", "patches", "class", "value", "low", "high", "n"],
    ).astype({"patches": "Int64"})
    return {"counterfactuals": means, "counterfactual_sets": rows[rows["image_id"].notna()]}, _gone(rows)


def surrogates(
    subject: Subject, images: str, bounded: Bounded
) -> tuple[dict[str, pd.DataFrame], list[dict[str, Any]], list[dict[str, Any]]]:
    """Means of the fidelity over the images, the rows that say what is undefined, and what the surrogates say.

    `images` is where they are from, which names the draws.
    """
    import pandas as pd

    from unmask.internals.surrogates import COLUMNS

    made, contents = decisions.surrogates(defaults("inside"), registry.available("removals"), subject, 0, images)
    rows = frame(made, COLUMNS)
    keys = ["of", "surrogate", "removal", "quantity"]
    parts = rows[rows["status"] == "ok"].groupby(keys, observed=True, sort=False, dropna=False)
    means = [
        {
            **dict(zip(keys, key, strict=True)),
            "unit": SURROGATES[key[-1]].unit,
            **bounded([part["value"].to_numpy()])[0],
        }
        for key, part in parts
    ]
    table = pd.DataFrame(means, columns=[*keys, "unit", "value", "low", "high", "n"])
    return {"surrogates": table}, _gone(rows), contents


def _gone(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What was not measured, of which removal, with the reason."""
    gone = rows[rows["status"] != "ok"].astype({"removal": object})
    gone = gone.assign(removal=gone["removal"].where(gone["removal"].notna(), "surrogates on concepts"))
    return gone[["removal", "status", "reason"]].drop_duplicates().to_dict("records")


def said(contents: list[dict[str, Any]], classes: list[str], across: int) -> str:
    """What surrogates that are faithful enough say: those on concepts, and the first ones on patches.

    `across`: patches in a row.
    """
    fit = [one for one in contents if one["fit"]]
    chosen = [one for one in fit if one["of"] == "concepts"]
    chosen += [one for one in fit if one["of"] == "patches"][:SHOWN]
    lines = []
    for one in chosen:
        measure = f"R2 {one['r2']:.2f}" if "r2" in one else f"agreement {one['agreement']:.2f}"
        of = (
            f"image {one['image_id']}, {classes[one['class']]}, {one['removal']}" if "image_id" in one else "all images"
        )
        lines.append(f"\n{one['surrogate']} on {one['of']}, {of}: {measure}\n{words(one, across)}")
    return "\n".join(lines)
