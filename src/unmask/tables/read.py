"""What the leaderboards are made from: the scores, the models' accuracies, what stage 4 says of its maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import read_json, read_table
from unmask.layout import Layout
from unmask.tables.columns import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

Maps = list[tuple[ModelId, int, list[dict[str, Any]]]]  # a model, its number of images, a record per explainer


def read_scores(config: Config, layout: Layout) -> pd.DataFrame:
    """The scores of every model and group, in config order: exactly these files, whatever else lies there."""
    import pandas as pd

    parts, entries = [], {entry for group in config.groups.values() for entry in group}
    for model in config.models:
        for group in config.groups:
            path = layout.scores(model) / f"{group}.parquet"
            table = read_table(path)
            missing = [name for name in COLUMNS if name not in table]
            if missing:
                raise UserError(
                    f"{path} lacks the columns {', '.join(missing)}; delete it and run the stage score again"
                )
            unknown = sorted(set(table["explainer"]) - entries)
            if unknown:
                raise UserError(
                    f"{path} holds scores of '{unknown[0]}', which explain.groups does not name; "
                    "delete it and run the stage score again"
                )
            # Whole files of None or NaN would make columns of another type than their neighbours.
            parts.append(
                table[COLUMNS].astype(
                    {
                        "removal": object,
                        "reason": object,
                        "variant": object,
                        "mask_ratio": "float64",
                        "score": "float64",
                    }
                )
            )
    scores = pd.concat(parts, ignore_index=True)
    bad = scores.loc[~scores["direction"].isin(["higher", "lower"]), "metric"]
    if len(bad):
        raise UserError(
            f"the metric '{bad.iloc[0]}' has no direction in its scores; META['direction'] must be higher or lower"
        )
    return scores


def read_accuracy(config: Config, layout: Layout) -> pd.DataFrame:
    """The models' accuracies: one row per model, columns val and test in [0, 1]."""
    import pandas as pd

    rows = []
    for model in config.models:
        path = layout.model(model) / "model.json"
        try:
            accuracy = read_json(path)["accuracy"]
            shares = {"val": float(accuracy["val"]), "test": float(accuracy["test"])}
        except (KeyError, TypeError):
            raise UserError(f"{path}: 'accuracy' must hold 'val' and 'test'; run the stage finetune again") from None
        rows.append(
            {
                "domain": model.domain,
                "encoder": model.encoder,
                "mask_ratio": config.mask_ratio(model.encoder),
                "pretrain_seed": model.pretrain_seed,
                "finetune_seed": model.finetune_seed,
                **shares,
            }
        )
    return pd.DataFrame(rows).astype({"mask_ratio": "float64"})


def read_maps(config: Config, layout: Layout) -> Maps:
    """What stage 4 says of each model's maps, group by group."""
    found = []
    for model in config.models:
        for group in config.groups:
            path = layout.maps(model) / f"{group}.json"
            if path.exists():
                index = read_json(path)
                found.append((model, max(1, len(index["images"])), index["explainers"]))
    return found
