"""What the leaderboards of a large run cost: time and memory of the stage aggregate on made-up scores.

python benchmarks/aggregate.py                # a million scores of the default config's explainers and metrics
python benchmarks/aggregate.py --images 160   # four million
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

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
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Config({**copy.deepcopy(configs.load(given.config).data), "results": folder})
        layout, rng = Layout(config.results), np.random.default_rng(0)
        for model in config.models:
            files.write_json(layout.model(model) / "model.json", {"accuracy": {"val": 0.9, "test": 0.9}})
            for group, entries in config.groups.items():
                made = table(config, model, entries, given.images, rng)
                files.write_table(Path(layout.scores(model)) / f"{group}.parquet", made)
        before, wall, memory = _cpu(), time.perf_counter(), Memory()
        with memory:
            aggregate.run(config, given.jobs)
        print(
            f"{time.perf_counter() - wall:.1f} wall seconds, {_cpu() - before:.1f} CPU seconds in {given.jobs} "
            f"processes, {memory.peak / 2**30:.2f} GiB at most"
        )


class Memory(threading.Thread):
    """Watches what this process and those that it forked hold together; what they share counts once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._done = 0, threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Look twice a second."""
        own = psutil.Process()
        while not self._done.wait(0.5):
            with contextlib.suppress(psutil.NoSuchProcess):
                every = [own, *own.children(recursive=True)]
                self.peak = max(self.peak, sum(process.memory_full_info().pss for process in every))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
