"""How long the jobs of a run took, from what Snakemake measured: `results/benchmarks/`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unmask.config import Config


def of_run(config: Config) -> dict[str, Any]:
    """Of the last time that each job ran: wall and CPU seconds, peak memory (MB) per stage, and wall seconds per job.

    A job that no Snakemake ran is left out, and so is the job that is asking.
    """
    stages: dict[str, dict[str, Any]] = {}
    jobs: dict[str, float] = {}
    for stage, job in _jobs(config):
        measured = _read(config.results / "benchmarks" / f"{job}.tsv")
        if measured is None:
            continue
        total = stages.setdefault(stage, {"jobs": 0, "seconds": 0.0, "cpu_seconds": 0.0, "peak_memory_mb": 0.0})
        total["jobs"] += 1
        total["seconds"] = round(total["seconds"] + measured["s"], 2)
        total["cpu_seconds"] = round(total["cpu_seconds"] + measured["cpu_time"], 2)
        total["peak_memory_mb"] = max(total["peak_memory_mb"], measured["max_rss"])
        jobs[job] = measured["s"]
    return {"stages": stages, "jobs": jobs}


def _jobs(config: Config) -> Iterator[tuple[str, str]]:
    """(stage, file below `benchmarks/` without its suffix) of every job, named as the rules name them."""
    yield from (("1_data", f"1_data/{name}") for name in [*config["domains"], *(["pool"] if config.pretrained else [])])
    for encoder in config.pretrained:
        yield from (("2_pretrain", f"2_pretrain/{encoder}_p{seed}") for seed in config["seeds"]["pretrain"])
    models = [model.folder.replace("/", "_") for model in config.models]
    yield from (("3_finetune", f"3_finetune/{model}") for model in models)
    for stage in ("4_maps", "5_scores"):
        yield from ((stage, f"{stage}/{model}_{group}") for model in models for group in config.groups)
    if config["inside"]["what"]:
        yield from (("5_inside", f"5_inside/{model}") for model in models)
    yield from ((stage, stage) for stage in ("6_leaderboards", "7_report"))


def _read(path: Path) -> dict[str, float] | None:
    """A benchmark file's numbers; what Snakemake could not measure in a short job is 0."""
    if not path.is_file():
        return None
    with open(path, encoding="utf-8", newline="") as handle:
        row = next(csv.DictReader(handle, delimiter="\t"), None)
    if row is None:
        return None
    return {name: _number(row.get(name)) for name in ("s", "cpu_time", "max_rss")}


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:  # NA, -
        return 0.0
