"""Working folders in which real `snakemake` processes run a tiny benchmark."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from unmask.files import sha256

ROOT = Path(__file__).parents[2]
CONFIG = {
    "results": "the results",  # a space, which a shell takes for an end
    "image": {"size": 32, "patch": 8},
    "domains": {"medical": {"train": 24, "val": 8, "test": 12, "unlabelled": 8}},
    "model": {"width": 24, "depth": 1, "heads": 2},
    "encoders": {"simmim_50": {"method": "simmim", "mask_ratio": 0.5}, "scratch": {"method": "scratch"}},
    "pretrain": {"epochs": 60, "batch": 32},  # of a step each: long enough to be killed between two of them
    "finetune": {"epochs": 1, "batch": 16, "warmup_epochs": 0},
    "explain": {"images": 4, "groups": {"main": ["saliency", "random_patch"]}},
    "score": {"metrics": ["pixel_flipping", "pointing_game", "sparseness"]},
    "aggregate": {"bootstrap": 100},
}


class Site:
    """A folder with its own config.yaml; `run` and `start` are `snakemake` in it, `out` its results."""

    def __init__(self, folder: Path):
        self.folder, self.out = folder, folder / CONFIG["results"]
        self.config = copy.deepcopy(CONFIG)
        self.write()

    def write(self) -> None:
        """Put the config on disk."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))

    def command(self, *arguments: object, config: str = "config.yaml") -> list[str]:
        snakefile = ["--snakefile", ROOT / "Snakefile", "--directory", self.folder, "--configfile", config]
        return [sys.executable, "-m", "snakemake", *map(str, [*snakefile, *arguments])]

    def run(self, *arguments: object, **given: str) -> subprocess.CompletedProcess:
        """A whole run; standard output and error are texts."""
        command = self.command(*arguments, **given)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=900, check=False)

    def start(self, *arguments: object) -> subprocess.Popen:
        """A run in a process group of its own, its output in run.log."""
        with open(self.folder / "run.log", "w") as log:
            return subprocess.Popen(
                self.command(*arguments), cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    def state(self, *below: str) -> dict[str, tuple[int, str]]:
        """Time of change (ns) and SHA-256 of every file below these folders of the results, hidden ones left out."""
        paths = [path for name in below for path in sorted((self.out / name).rglob("[!.]*")) if path.is_file()]
        return {path.relative_to(self.out).as_posix(): (path.stat().st_mtime_ns, sha256(path)) for path in paths}


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, log: Path, seconds: float = 600) -> None:
    """Poll until `condition()` holds; fails with the log where the process ends or the time is up before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"it never came to that; the run's log:\n{log.read_text()}")
        time.sleep(0.01)


def group_ended(leader: int, seconds: float = 60) -> bool:
    """Whether no process of a group is left within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def planned(output: str) -> dict[str, int]:
    """Snakemake's table of jobs, rule -> count, without the total; empty where there is nothing to do."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table[1], re.MULTILINE)} if table else {}
