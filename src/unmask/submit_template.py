"""`unmask submit-template`: what somebody needs to score an explainer of theirs on the models of a finished run.

Writes the submission itself, with a row for each score to be given and a card that knows the models, the data and the
options of the metrics, beside lists of the images with their targets and of the metrics.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_json, write_table, write_text
from unmask.layout import Layout
from unmask.submissions import card, make
from unmask.submissions.task import CELL, Task

if TYPE_CHECKING:
    import pandas as pd

EMPTY = dict.fromkeys(("summary", "authors", "contact", "citation", "licence", "family"), "")
README = """# A submission of '{name}' to unmask

1. Explain, with your own code, each image of `targets.csv` on its model for the class in `prediction`. The models are
   `3_finetune/<domain>/<encoder>/p<pretrain_seed>f<finetune_seed>/model.safetensors`, the images
   `1_data/<domain>/test.safetensors`, at the row `index` of `images`. Work on these very files: the card has their
   hashes.
2. Score the maps under the metrics of `metrics.csv` with their options, and write the scores into the column `score` of
   `{name}.parquet`. A score that cannot be had gets the status `failed` and a reason. What is `skipped` there is so for
   every explainer: leave it.
3. Fill in what is empty in `{name}.json`: who you are, what your explainer is, under which licence.
4. `unmask submit-check {name}.parquet` says what is still wrong.

`docs/submissions.md` describes the format.
"""


def run(config: Config, *, explainer: str, output: str) -> None:
    """Write the kit into a folder; raises `UserError` where the run is not finished or the files are there already."""
    pattern = card.SCHEMA["properties"]["explainer"]
    if not re.search(pattern["pattern"], explainer) or len(explainer) > pattern["maxLength"]:
        raise UserError(f"--explainer: '{explainer}' is not {pattern['description']}")
    if owner := config.owner(explainer):
        raise UserError(f"--explainer: the name '{explainer}' is taken by {owner}; choose another")
    folder = Path(output)
    path = folder / f"{explainer}.parquet"
    present = next((one for one in (path, card.beside(path)) if one.exists()), None)
    if present:
        raise UserError(f"--output: '{present}' exists, and may hold work; give another folder")
    _, task = make.finished(config)
    make.write(path, _blank(task, explainer), make.described(task, explainer, {**EMPTY, "passes": None}))
    write_table(folder / "targets.csv", _targets(config))
    write_table(folder / "metrics.csv", _metrics(config, task))
    write_text(folder / "README.md", README.format(name=explainer))
    print(f"{folder}: {len(task.rows)} scores to give; start with README.md")


def _blank(task: Task, explainer: str) -> pd.DataFrame:
    """Every row of the task, ok and without a score where not everybody is skipped."""
    skip = task.rows["skip"]
    return task.rows.assign(
        explainer=explainer,
        removal=task.rows["removal"].astype(object).where(task.rows["removal"] != "", None),
        score=float("nan"),
        status=skip.notna().map({True: "skipped", False: "ok"}),
        reason=skip,
    )


def _targets(config: Config) -> pd.DataFrame:
    """The explained images of every model."""
    import pandas as pd

    layout, rows = Layout(config.results), []
    group = next(iter(config.groups))
    for model in config.models:
        classes = read_json(layout.domain(model.domain) / "card.json")["classes"]
        for image in read_json(layout.maps(model) / f"{group}.json")["images"]:
            rows.append(
                {
                    "domain": model.domain,
                    "encoder": model.encoder,
                    "pretrain_seed": model.pretrain_seed,
                    "finetune_seed": model.finetune_seed,
                    **{key: image[key] for key in ("image_id", "index", "label", "prediction", "correct")},
                    "class": classes[image["prediction"]],
                }
            )
    return pd.DataFrame(rows)


def _metrics(config: Config, task: Task) -> pd.DataFrame:
    """The metrics with all that decides their scores."""
    import pandas as pd

    def row(name: str, known: dict[str, Any]) -> dict[str, Any]:
        meta = config.metric(name).plugin.meta
        return {
            "metric": name,
            **{key: known[key] for key in ("category", "direction")},
            "removals": " ".join(known["removals"]),
            "options": json.dumps(known["options"]),
            "bounds": json.dumps(known["bounds"]) if known["bounds"] else None,
            "images": int(task.rows.loc[task.rows["metric"] == name].groupby(CELL).size().max()),
            "summary": meta["summary"],
            "citation": meta["citation"],
        }

    return pd.DataFrame([row(name, known) for name, known in task.metrics.items()])
