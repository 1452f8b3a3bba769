"""What the leaderboards of a large run cost: time and memory of the stage aggregate on made-up scores.

python benchmarks/aggregate.py                # a million scores of the default config's explainers and metrics
python benchmarks/aggregate.py --images 20    # as many as the default run makes
"""

from __future__ import annotations

import argparse
import copy
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from unmask import aggregate, files
from unmask import config as configs
from unmask.config import Config, ModelId
from unmask.layout import Layout
from unmask.tables.columns import COLUMNS


def table(config: Config, model: ModelId, entries: list[str], images: int, rng: np.random.Generator) -> pd.DataFrame:
    """A model's scores of a group; a tenth of the images has no evidence, one explainer in ten fails now and then."""
    rows = []
    for name in config["score"]["metrics"]:
        meta = config.metric(name).plugin.meta
        for removal in config["score"]["removals"] if "removal" in meta.get("needs", []) else [None]:
            rows += [(entry, name, meta["category"], meta["direction"], removal) for entry in entries]
    whole = pd.DataFrame(rows, columns=["explainer", "metric", "category", "direction", "removal"])
    whole = whole.loc[whole.index.repeat(images)].reset_index(drop=True)
    image = np.tile(np.arange(images), len(rows))
    plain = whole["explainer"].map({entry: i / len(entries) for i, entry in enumerate(entries)}).to_numpy()
    frail = whole["explainer"].isin(entries[::10]).to_numpy()
    status = np.where(frail & (rng.random(len(whole)) < 0.05), "failed", "ok")
    status[(whole["category"] == "localisation").to_numpy() & (image % 10 == 0)] = "skipped"
    family = {entry: config.explainer(entry).plugin.meta["family"] for entry in entries}
    return whole.assign(
        domain=model.domain,
        encoder=model.encoder,
        mask_ratio=config.mask_ratio(model.encoder),
        pretrain_seed=model.pretrain_seed,
        finetune_seed=model.finetune_seed,
        family=whole["explainer"].map(family),
        is_control=whole["explainer"].map(family) == "control",
        variant="",
        image_id=[f"test_{i:05d}" for i in image],
        label=0,
        prediction=0,
        correct=True,
        score=np.where(status == "ok", plain + rng.normal(0, 0.5, len(whole)) + np.sin(image), np.nan),
        status=status,
        reason=np.where(status == "ok", None, "made up"),
        passes=1.0,
        seconds=0.01,
        config_hash="0" * 16,
    )[COLUMNS]


def main() -> None:
    """Write the scores, time the stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="config.yaml")
    parser.add_argument("--images", type=int, default=217)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Config({**copy.deepcopy(configs.load(given.config).data), "results": folder})
        layout, rng = Layout(config.results), np.random.default_rng(0)
        for model in config.models:
            files.write_json(layout.model(model) / "model.json", {"accuracy": {"val": 0.9, "test": 0.9}})
            for group, entries in config.groups.items():
                made = table(config, model, entries, given.images, rng)
                files.write_table(Path(layout.scores(model)) / f"{group}.parquet", made)
        start, wall = time.process_time(), time.perf_counter()
        aggregate.run(config)
        print(
            f"{time.process_time() - start:.1f} CPU seconds, {time.perf_counter() - wall:.1f} wall seconds, "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
