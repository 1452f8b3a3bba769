"""Stage 5: every metric on the maps of a group of explainers, for one model.

Reads the group's index and maps, the test split and the model; writes `5_scores/<model>/<group>.parquet`, one row per
image x metric x removal x explainer, and `<group>.curves.parquet`, what metrics traced on the way: the removal curves;
`<group>.judged.parquet` has the scores that the metrics are judged by.
What is computed once stands in `cells/<explainer>.parquet` with a key of all it depends on, so that a rerun after an
addition or a kill computes only the missing cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import digest, judging, registry
from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import write_table
from unmask.layout import Layout
from unmask.plan import scoring_passes
from unmask.progress import bar
from unmask.scoring import (
    CURVES,
    Cell,
    Work,
    common_settings,
    explainer_settings,
    kept_cells,
    metric_settings,
    removal_settings,
    typed,
)

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "domain": "str",
    "encoder": "str",
    "mask_ratio": "float64",
    "pretrain_seed": "int64",
    "finetune_seed": "int64",
    "explainer": "str",
    "family": "str",
    "is_control": "bool",
    "metric": "str",
    "category": "str",
    "direction": "str",
    "removal": "object",
    "variant": "str",
    "image_id": "str",
    "label": "int64",
    "prediction": "int64",
    "correct": "bool",
    "score": "float64",
    "status": "str",
    "reason": "object",
    "passes": "float64",
    "seconds": "float64",
    "config_hash": "str",
}


def settings(
    config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int, group: str
) -> dict[str, Any]:
    """All of the config, the code and the libraries that the scores of a group depend on, beside the files read."""
    return {
        "seed": config["seed"],
        "model": ModelId(domain, encoder, pretrain_seed, finetune_seed).folder,
        "mask_ratio": config.mask_ratio(encoder),
        "metrics": [metric_settings(config.metric(name)) for name in config["score"]["metrics"]],
        "removals": [removal_settings(config, name) for name in config["score"]["removals"]],
        "explainers": [explainer_settings(config, config.explainer(entry)) for entry in _entries(config, group)],
        "judge": judging.settings(config, _entries(config, group)),
        "code": digest.code("unmask.score"),  # more than what cells depend on, which are kept where only this changed
        "common": common_settings(config),
    }


def run(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int, group: str) -> None:
    """Score a group's maps. A metric that fails costs its own cell: rows with the reason."""
    import pandas as pd

    model_id = ModelId(domain, encoder, pretrain_seed, finetune_seed)
    entries = _entries(config, group)
    folder = Layout(config.results).scores(model_id)
    work = Work(config, model_id, group)
    pending = {entry: work.cells(config.explainer(entry)) for entry in entries}
    kept = {entry: _kept(folder / "cells", entry) for entry in entries}
    missing = {entry: [cell for cell in cells if cell.key not in kept[entry]] for entry, cells in pending.items()}
    _announce(work, missing)
    tables, curves = [], []
    with bar(sum(map(len, missing.values())), f"score {model_id.folder}", " cells") as progress:
        for entry, cells in pending.items():
            found = {cell.key: kept[entry].get(cell.key) for cell in cells}
            for cell in missing[entry]:
                found[cell.key] = work.score(cell)
                progress.update()
            work.finish(entry)
            tables += [scores for scores, _ in found.values()]
            curves += [traced for _, traced in found.values()]
            if missing[entry]:
                _keep(folder / "cells", entry, found)
    whole = typed(pd.concat(tables, ignore_index=True).assign(config_hash=config_hash(config, model_id)), COLUMNS)
    traced = typed(pd.concat(curves, ignore_index=True), CURVES)
    # What depends on no map was traced with each explainer's.
    traced = traced.drop_duplicates(["explainer", "metric", "removal", "image_id"], ignore_index=True)
    judging.run(config, work, entries, folder / f"{group}.judged.parquet")
    write_table(folder / f"{group}.curves.parquet", traced)
    write_table(folder / f"{group}.parquet", whole)
    counts = whole["status"].value_counts()
    print(f"scores: {len(whole)} rows, " + ", ".join(f"{count} {status}" for status, count in counts.items()))


def config_hash(config: Config, model: ModelId) -> str:
    """Of the sections that decide a model's scores; what else is run beside them, and where, leaves it unchanged."""
    sections = ("seed", "image", "model", "pretrain", "finetune")
    own = {"domain": config["domains"][model.domain], "encoder": config["encoders"][model.encoder]}
    options = {key: config[key]["options"] for key in ("explain", "score")}
    return digest.of([{key: config[key] for key in sections}, own, options, config["explain"]["images"]])


def _entries(config: Config, group: str) -> list[str]:
    if group not in config.groups:
        raise UserError(f"explain.groups: unknown group '{group}'; {registry.suggest(group, config.groups)}")
    return config.groups[group]


def _kept(folder: Path, entry: str) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """The cells of an earlier run by key: scores and curves."""
    import pandas as pd

    path, none = folder / f"{entry}.parquet", pd.DataFrame(columns=list(CURVES))
    scores = kept_cells(path)
    curves = kept_cells(_curves(path)) if scores else {}
    return {key: (rows, curves.get(key, none)) for key, rows in scores.items()}


def _keep(folder: Path, entry: str, found: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> None:
    import pandas as pd

    def joined(which: int) -> pd.DataFrame:
        return pd.concat([tables[which].assign(key=key) for key, tables in found.items()], ignore_index=True)

    path = folder / f"{entry}.parquet"
    write_table(_curves(path), typed(joined(1), {**CURVES, "key": "str"}))
    write_table(path, joined(0))  # last: where it stands, its curves do


def _curves(path: Path) -> Path:
    return path.with_suffix(".curves.parquet")


def _announce(work: Work, missing: dict[str, list[Cell]]) -> None:
    """Say before the first pass what will be computed, and about how long it takes."""
    cells = [(cell.explainer, cell.metric, cell.removal) for some in missing.values() for cell in some]
    if not cells:
        print("scores: 0 cells to compute", flush=True)
        return
    patches = (work.config["image"]["size"] // work.config["image"]["patch"]) ** 2
    planned = scoring_passes(cells, len(work.index["images"]), patches, work.config["model"]["width"])
    minutes = planned.total * work.seconds_per_pass() / 60
    print(
        f"scores: {len(cells)} cells to compute, at most {planned.total} forward-pass equivalents "
        f"(about {minutes:.1f} minutes of passes)",
        flush=True,
    )
