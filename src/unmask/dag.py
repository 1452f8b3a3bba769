"""What the Snakefile asks: the config, the files of each stage, and what must rerun a job."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from unmask import digest, encoders
from unmask.config import Config, load
from unmask.errors import UserError
from unmask.files import write_text
from unmask.layout import Layout
from unmask.submissions import card, enter

STAGES = ("data", "pretrain", "finetune", "explain", "score", "inside", "aggregate", "report")


def use_this_environment() -> None:
    """Let jobs find the `unmask` of the environment that runs Snakemake, activated or not."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def configure(given: dict[str, Any], config_files: Iterable[str | Path], default: str | Path) -> Config:
    """The checked config of this run; a mistake ends the process with one sentence and exit code 2.

    With `--configfile` that file alone counts (Snakemake would merge it into a default, key by key); without one the
    default file does, with what `--config key=value` gives put over it.
    """
    try:
        return Config(given) if list(config_files) else Config({**load(default).data, **given})
    except UserError as error:
        print(f"unmask: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def start(config: Config) -> None:
    """Take the run's lock, hold submissions and imported weights to what is known before a run, leave the config where
    the jobs read it."""
    config.results.mkdir(parents=True, exist_ok=True)
    global _lock
    _lock = open(config.results / ".lock", "w")  # noqa: SIM115 (held until the process ends)
    try:
        fcntl.flock(_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(
            f"unmask: another run is writing to '{config.results}'; wait for it, or set another `results:` folder",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)
    try:
        enter.check(config)
        encoders.check_weights(config["encoders"], config["image"])
    except UserError as error:
        print(f"unmask: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    write_text(config.results / "config.json", json.dumps(config.data, indent=2) + "\n")


def settings(config: Config, stage: str, **fixed: Any) -> Callable[[Any], str]:
    """A function of a job's wildcards: the digest of everything in config, code and versions that it depends on."""
    module = importlib.import_module(f"unmask.{stage}")
    seen: dict[tuple, str] = {}

    def of(wildcards: Any) -> str:
        named = {name: int(value) if name.endswith("_seed") else value for name, value in dict(wildcards).items()}
        key = tuple(sorted(named.items()))
        if key not in seen:
            seen[key] = digest.of(module.settings(config, **fixed, **named))
        return seen[key]

    return of


def encoder_of(config: Config) -> Callable[[Any], list[Path]]:
    """A function of a model's wildcards: the pretrained weights it starts from, none for `scratch`."""

    def of(wildcards: Any) -> list[Path]:
        if wildcards.encoder not in config.pretrained:
            return []
        folder = Layout(config.results).encoder(wildcards.encoder, int(wildcards.pretrain_seed))
        return [folder / "encoder.safetensors"]

    return of


def shared_pretraining(config: Config) -> Callable[[Any], list[Path]]:
    """A function of an encoder's wildcards: the weights of the encoder whose pretraining it shares, if there is one."""

    def of(wildcards: Any) -> list[Path]:
        source = config.pretraining_of(wildcards.encoder)
        folder = Layout(config.results).encoder(source, int(wildcards.pretrain_seed))
        return [folder / "encoder.safetensors"] if source != wildcards.encoder else []

    return of


def pool_sources(config: Config) -> list[Path]:
    """What the pool is made of: the domains' images, or, where it lies on disk, those that it must not hold."""
    names = ("val", "test") if config["pretrain"].get("pool") else ("train", "unlabelled")
    layout = Layout(config.results)
    return [layout.domain(domain) / f"{name}.safetensors" for domain in config["domains"] for name in names]


def among(names: Iterable[str]) -> str:
    """A wildcard's pattern that is one of the names; with none, a pattern that nothing matches."""
    return "|".join(names) or "(?!)"


def data_files(config: Config) -> list[Path]:
    """Stage 1: every domain and the pool."""
    layout = Layout(config.results)
    return [
        *(layout.domain(name) / "card.json" for name in config["domains"]),
        *([layout.pool] if config.pretrained else []),
    ]


def encoder_files(config: Config) -> list[Path]:
    """Stage 2: every pretrained encoder."""
    layout = Layout(config.results)
    return [
        layout.encoder(name, seed) / "encoder.safetensors"
        for name in config.pretrained
        for seed in config["seeds"]["pretrain"]
    ]


def model_files(config: Config) -> list[Path]:
    """Stage 3: every fine-tuned model."""
    layout = Layout(config.results)
    return [layout.model(model) / "model.safetensors" for model in config.models]


def map_files(config: Config) -> list[Path]:
    """Stage 4: the index of every group of every model."""
    layout = Layout(config.results)
    return [layout.maps(model) / f"{group}.json" for model in config.models for group in config.groups]


def score_files(config: Config) -> list[Path]:
    """Stage 5: the scores of every group of every model."""
    layout = Layout(config.results)
    return [layout.scores(model) / f"{group}.parquet" for model in config.models for group in config.groups]


def submission_files(config: Config) -> list[Path]:
    """What others submitted to stage 6: scores and cards."""
    return [one for path in config["submissions"] for one in (Path(path), card.beside(path))]


def inside_files(config: Config) -> list[Path]:
    """Stage 5: what is inside every model; none where the config asks for nothing."""
    layout = Layout(config.results)
    return [layout.inside(model) / "layers.parquet" for model in config.models if config["inside"]["what"]]
