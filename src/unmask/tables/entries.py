"""The explainers of a run: which are the same, what is known of each, what they and their scores cost, what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask import digest
from unmask.config import Config

if TYPE_CHECKING:
    import pandas as pd

    from unmask.statistics.pools import Explainer
    from unmask.tables.read import Maps


def aliases(maps: Maps) -> dict[str, str]:
    """Entries whose maps were measured to be another's on all of these models that have them, and whose they are."""
    seen: dict[str, set[str | None]] = {}
    for _, _, records in maps:
        for record in records:
            if record["status"] == "ok":
                seen.setdefault(record["name"], set()).add(record.get("alias_of"))
    return {name: next(iter(others)) for name, others in seen.items() if len(others) == 1 and None not in others}


def explainers(config: Config, known_aliases: dict[str, str]) -> list[Explainer]:
    """Every entry of the groups in config order, then those submitted; an alias was measured, or has another's plug-in
    and options."""
    from unmask.statistics.pools import Explainer

    seen: dict[str, str] = {}
    found = []
    for group in config.groups.values():
        for entry in group:
            spec = config.explainer(entry)
            first = seen.setdefault(digest.of([spec.plugin.id, spec.removal, spec.options]), entry)
            same = first if first != entry else known_aliases.get(entry)
            meta = spec.plugin.meta
            found.append(
                Explainer(entry, meta["family"], meta["family"] == "control", "masks" in meta.get("needs", []), same)
            )
    found.extend(Explainer(name, card.meta["family"], False, False) for name, card in config.submitted.items())
    return found


def describe(config: Config, maps: Maps) -> pd.DataFrame:
    """An entry a row: what its META says, and what was measured over the models (none of it depends on the clock).

    `target_correlation` is the mean rank correlation of the maps of an image for the predicted class and for the second
    most likely one: 1 = the map does not depend on the class. Passes are per image, means over the models. Of what was
    submitted it holds what the card says.
    """
    import pandas as pd

    known, rows = aliases(maps), []
    for entry in (entry for group in config.groups.values() for entry in group):
        spec = config.explainer(entry)
        found = [(count, record) for _, count, records in maps for record in records if record["name"] == entry]
        done = [(count, record) for count, record in found if record["status"] == "ok"]
        checked = [r["target_correlation"] for _, r in done if r.get("target_correlation") is not None]
        rows.append(
            {
                "explainer": entry,
                **{key: spec.plugin.meta[key] for key in ("family", "class_specific", "signed", "resolution")},
                "removal": spec.removal,
                "alias_of": known.get(entry),
                "target_correlation": sum(checked) / len(checked) if checked else None,
                **{
                    way: sum(r["passes"][way] / count for count, r in done) / len(done) if done else None
                    for way in ("forward", "backward")
                },
                "models": len(done),
                "models_without": len(found) - len(done),
                "failed_maps": sum(len(r["failed"]) for _, r in done),
                **dict.fromkeys(("submitted_by", "contact", "licence")),
            }
        )
    rows.extend(
        {
            "explainer": name,
            **{key: card.meta[key] for key in ("family", "class_specific", "signed", "resolution")},
            "removal": card.data["removal"],
            **card.passes,
            "models": len(card.data["models"]),
            "models_without": len(config.models) - len(card.data["models"]),
            "submitted_by": card.data["authors"],
            **{key: card.data[key] for key in ("contact", "licence")},
        }
        for name, card in config.submitted.items()
    )
    measured = dict.fromkeys(("target_correlation", "forward", "backward"), "float64")
    return pd.DataFrame(rows).astype({**measured, "failed_maps": "Int64"})


def failures(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores that are not ok, counted by cell, status and reason."""
    lost = scores[scores["status"] != "ok"]
    keys = [
        "domain",
        "encoder",
        "pretrain_seed",
        "finetune_seed",
        "explainer",
        "metric",
        "removal",
        "variant",
        "status",
        "reason",
    ]
    return lost.groupby(keys, sort=False, dropna=False).size().reset_index(name="count")


def costs(maps: Maps, scores: pd.DataFrame) -> pd.DataFrame:
    """Forward-pass equivalents and seconds per image: of the maps, and of scoring them under each metric."""
    import pandas as pd

    rows = [
        {
            "stage": "explain",
            "domain": model.domain,
            "encoder": model.encoder,
            "explainer": record["name"],
            "metric": None,
            "removal": None,
            "seconds": record["seconds"] / images,
            "passes": (record["passes"]["forward"] + 3 * record["passes"]["backward"]) / images,
        }
        for model, images, records in maps
        for record in records
        if record["status"] == "ok"
    ]
    keys = ["domain", "encoder", "explainer", "metric", "removal"]
    scored = (
        scores[scores["status"] == "ok"]
        .groupby(keys, sort=False, dropna=False)[["passes", "seconds"]]
        .mean()
        .reset_index()
    )
    made = pd.DataFrame(rows, columns=["stage", *keys, "passes", "seconds"])
    parts = [part for part in (made, scored.assign(stage="score")[made.columns]) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else made
