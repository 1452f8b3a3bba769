"""What a run asks of an explainer: which scores, on which models and data, under which metrics with which options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.files import read_json
from unmask.layout import Layout

if TYPE_CHECKING:
    import pandas as pd

MODEL = ["domain", "encoder", "pretrain_seed", "finetune_seed"]
CELL = [*MODEL, "metric", "removal", "variant"]
KEYS = [*CELL, "image_id"]
FACTS = ["mask_ratio", "category", "direction", "label", "prediction", "correct"]  # the same for every explainer


@dataclass(frozen=True)
class Task:
    """`models` and `data` hold SHA-256s by model folder and by domain, None where there is none yet; `metrics` what is
    known of each: category, direction, options, removals, and the bounds of its values, [low, high] (None = no bound).

    `rows` are the scores that an explainer can have, a row each: KEYS and FACTS, and in `skip` the reason where
    explainers of the run are skipped and none has a score, else None. None before anything is scored.
    """

    models: dict[str, str | None]
    data: dict[str, str | None]
    metrics: dict[str, dict[str, Any]]
    rows: pd.DataFrame | None = None


def of_config(config: Config) -> Task:
    """What is known before anything has run."""
    return Task(
        {model.folder: None for model in config.models}, dict.fromkeys(config["domains"]), _metrics(config), None
    )


def of_run(config: Config, scores: pd.DataFrame | None) -> Task:
    """What is known of a run: of `scores`, those of its own explainers, and of what lies in its results."""
    layout = Layout(config.results)
    return Task(
        {model.folder: _explained(config, layout.maps(model)) for model in config.models},
        {name: _sha256(layout.domain(name) / "card.json") for name in config["domains"]},
        _metrics(config),
        None if scores is None else rows(scores),
    )


def rows(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of a task from the long table of a run's own scores, in the table's order."""
    scores = scores.assign(**{name: scores[name].fillna("").astype("str") for name in ("removal", "variant")})
    keys = [scores[key] for key in KEYS]
    scored = (scores["status"] == "ok").groupby(keys, sort=False).transform("any")
    skipped = scores["reason"].astype(object).where((scores["status"] == "skipped") & ~scored, None)
    reason = skipped.groupby(keys, sort=False).transform("first")
    first = ~scores.duplicated(KEYS)
    made = scores.loc[first, [*KEYS, *FACTS]].assign(skip=reason.where(reason.notna(), None)[first])
    return made.reset_index(drop=True)


def _metrics(config: Config) -> dict[str, dict[str, Any]]:
    found = {}
    for name in config["score"]["metrics"]:
        spec = config.metric(name)
        meta = spec.plugin.meta
        found[name] = {
            "category": meta["category"],
            "direction": meta["direction"],
            "bounds": meta.get("bounds"),
            "removals": list(config["score"]["removals"]) if "removal" in meta["needs"] else [""],
            "options": spec.options,
        }
    return found


def _explained(config: Config, folder: Any) -> str | None:
    """The weights that stage 4 explained."""
    indices = (folder / f"{group}.json" for group in config.groups)
    known = (read_json(path)["model"].get("sha256") for path in indices if path.exists())
    return next((sha256 for sha256 in known if sha256), None)


def _sha256(card: Any) -> str | None:
    return read_json(card).get("sha256") if card.exists() else None
