"""Hashes of what a run leaves on disk, the same for two runs that computed the same.

Most files are hashed byte by byte. Those that carry run times (tables of scores, maps and their indexes) are hashed by
their values without the times.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table, sha256
from unmask.layout import Layout

if TYPE_CHECKING:
    import numpy as np

SECTIONS = ("data", "encoders", "models", "maps", "scores", "inside", "leaderboards")  # in the order of the stages
MAPS = "4_maps"
TIME = "seconds"  # the columns and keys that hold run times end so


def of_run(config: Config) -> dict[str, dict[str, str]]:
    """Hashes by section and path relative to the results; raises `UserError` where a file is missing or broken."""
    return {
        section: {path.relative_to(config.results).as_posix(): fingerprint(path) for path in paths}
        for section, paths in listed(config).items()
    }


def listed(config: Config) -> dict[str, list[Path]]:
    """The files of a run by section, in the order of the stages: those that a config stands for, no leftovers."""
    layout = Layout(config.results)
    encoders = [layout.encoder(name, seed) for name in config.pretrained for seed in config["seeds"]["pretrain"]]
    maps, scores = [], []
    for model in config.models:
        for group in config.groups:
            index = layout.maps(model) / f"{group}.json"
            files = (entry["file"] for entry in read_json(index)["explainers"])
            maps += [index, *(index.with_name(Path(file).name) for file in files if file)]
            table = layout.scores(model) / f"{group}.parquet"
            scores += [table, *sorted(table.parent.glob(f"{group}.*.parquet"))]  # curves and the like beside it
    return {
        "data": [
            *(path for name in config["domains"] for path in _data(layout.domain(name))),
            *([layout.pool] if config.pretrained else []),
        ],
        "encoders": [folder / f"encoder.{suffix}" for folder in encoders for suffix in ("json", "safetensors")],
        "models": [
            layout.model(model) / name
            for model in config.models
            for name in ("model.json", "model.safetensors", "predictions.parquet")
        ],
        "maps": maps,
        "scores": scores,
        "inside": [
            path for model in config.models if config["inside"]["what"] for path in _files(layout.inside(model))
        ],
        "leaderboards": _files(layout.leaderboards),
    }


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("[!.]*") if path.is_file())


def _data(folder: Path) -> list[Path]:
    splits = [folder / f"{name}.{suffix}" for name in ("train", "val", "test") for suffix in ("safetensors", "csv")]
    return [folder / "card.json", *splits, folder / "unlabelled.safetensors"]


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes or, where it carries run times, of its values without them.

    Raises `UserError` where the file is missing or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the stage that writes it first")
    if path.suffix == ".parquet":
        return _of_table(path)
    if MAPS in path.parts and path.suffix == ".safetensors":
        return _of_arrays(read_arrays(path))
    if MAPS in path.parts and path.suffix == ".json":
        return hashlib.sha256(json.dumps(_untimed(read_json(path)), sort_keys=True).encode()).hexdigest()
    return sha256(path)


def changed(results: Path, hashes: dict[str, str]) -> dict[str, str]:
    """What is wrong with the files that `hashes` names by path relative to the results, for those that differ."""
    problems = {}
    for name, expected in hashes.items():
        path = results / name
        if not path.is_file():
            problems[name] = "is missing"
            continue
        try:
            if fingerprint(path) != expected:
                problems[name] = "is not the file that the manifest describes"
        except UserError:
            problems[name] = "cannot be read"
    return problems


def _untimed(value: Any) -> Any:
    """An index of maps without times, and without the hashes of files that carry times."""
    if isinstance(value, dict):
        timed = {key for key in value if key.endswith(TIME)} | ({"sha256"} if "file" in value else set())
        return {key: _untimed(one) for key, one in value.items() if key not in timed}
    return [_untimed(one) for one in value] if isinstance(value, list) else value


def _of_arrays(arrays: dict[str, np.ndarray]) -> str:
    whole = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        whole.update(f"{name} {array.dtype} {array.shape}\n".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def _of_table(path: Path) -> str:
    """Of every column but times, in the file's order: numbers as they are, anything else as codes and its values."""
    import numpy as np
    import pandas as pd

    whole = hashlib.sha256()
    for name, column in read_table(path).items():
        if name.endswith(TIME):
            continue
        if pd.api.types.is_numeric_dtype(column):
            parts = [column.to_numpy(np.float64, na_value=np.nan)]
        elif len(column) and isinstance(column.iloc[0], np.ndarray):
            parts = [np.array([len(one) for one in column]), np.concatenate(column.to_numpy()).astype(np.float64)]
        else:
            codes, values = pd.factorize(column)
            whole.update(json.dumps([str(value) for value in values]).encode())
            parts = [codes.astype(np.int64)]
        whole.update(f"{name} {len(column)}\n".encode())
        for part in parts:
            whole.update(np.ascontiguousarray(part).tobytes())
    return whole.hexdigest()
