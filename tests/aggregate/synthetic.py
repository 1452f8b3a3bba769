"""A results folder as the stages before `aggregate` leave it, with effects that are known because they were planted.

Each explainer's score is an offset of its own plus an image effect that all explainers share plus its own noise.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from unmask.config import Config, ModelId
from unmask.files import write_arrays, write_json, write_table
from unmask.layout import Layout

EXPLAINERS = {  # offset in goodness (larger = better in every metric), noise, family, needs
    "sharp": (0.30, 0.05, "gradient"),
    "shifted": (0.20, None, "perturbation"),  # noise None: sharp's own score minus the difference of the offsets
    "weak": (0.05, 0.05, "attention"),
    "random_toy": (0.00, 0.05, "control"),
    "oracle_toy": (0.40, 0.05, "control"),
}
METRICS = {
    "toy_faithfulness": ("faithfulness", "lower"),
    "toy_localisation": ("localisation", "higher"),
    "toy_robustness": ("robustness", "lower"),
}
REMOVALS = ["mean", "zero"]
IMAGES, SIZE, PATCH = 24, 32, 8


def plugins(folder: Path, extra: tuple[str, ...] = ()) -> list[str]:
    """Write the plug-in files; `extra` names further explainers."""
    files = {"toy_domain": ("domains", {"summary": "toy", "options": {}}, "build")}
    for name in (*EXPLAINERS, *extra):
        family = EXPLAINERS.get(name, (0, 0, "gradient"))[2]
        files[name] = (
            "explainers",
            {
                "family": family,
                "class_specific": True,
                "signed": name == "sharp",
                "resolution": "patch" if name == "weak" else "pixel",
                "architectures": ["vit"],
                "passes": {"forward": "1", "backward": "0"},
                "citation": f"{name} et al. 2020",
                "needs": ["masks"] if name.startswith("oracle") else [],
            },
            "explain",
        )
    for name, (category, direction) in METRICS.items():
        needs = ["removal"] if category == "faithfulness" else []
        files[name] = (
            "metrics",
            {
                "category": category,
                "direction": direction,
                "needs": needs,
                "passes": {"forward": "1"},
                "citation": "toy 2020",
                "options": {},
            },
            "score",
        )
    paths = []
    for name, (kind, meta, function) in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'"""The {function} of a toy."""\n\nMETA = { ({"kind": kind, **meta})!r}\n\n\n'
            f"def {function}(*args):\n    pass\n"
        )
        paths.append(str(path))
    return paths


def config(
    folder: Path, *, domains=("rings", "bars"), encoders=("scratch", "m25", "m75"), seeds=(0,), extra=(), **sections
) -> Config:
    """A config over the toy plug-ins whose results lie in `folder`/results."""
    ratios = {"m25": 0.25, "m75": 0.75}
    return Config(
        {
            "results": str(folder / "results"),
            "plugins": plugins(folder / "plugins", extra),
            "image": {"size": SIZE, "patch": PATCH},
            "seeds": {"pretrain": list(seeds)},
            "domains": {name: {"plugin": "toy_domain"} for name in domains},
            "encoders": {
                name: {"method": "scratch"} if name == "scratch" else {"method": "simmim", "mask_ratio": ratios[name]}
                for name in encoders
            },
            "explain": {
                "images": IMAGES,
                "groups": {"first": ["sharp", "shifted", "weak", *extra], "controls": ["random_toy", "oracle_toy"]},
            },
            "score": {"metrics": list(METRICS), "removals": REMOVALS},
            "aggregate": {"bootstrap": 400},
            **sections,
        }
    )


def goodness(config: Config, model: ModelId, metric: str, removal: str | None) -> dict[str, np.ndarray]:
    """Planted scores [IMAGES] by explainer, larger = better."""
    where = np.random.default_rng([sum(map(ord, model.domain)), 1])
    image = where.normal(0, 0.1, IMAGES)
    rng = np.random.default_rng([sum(map(ord, f"{model.folder}{metric}{removal}")), 2])
    scores = {
        name: offset + image + rng.normal(0, noise, IMAGES)
        for name, (offset, noise, _) in EXPLAINERS.items()
        if noise is not None
    }
    return {**scores, "shifted": scores["sharp"] - 0.10}


def scores(config: Config, model: ModelId, group: str) -> pd.DataFrame:
    """A group's long table; weak has failures under toy_localisation, the oracle is skipped under toy_robustness."""
    parts = []
    for metric, (category, direction) in METRICS.items():
        for removal in REMOVALS if category == "faithfulness" else [None]:
            planted = goodness(config, model, metric, removal)
            for name in config.groups[group]:
                value = planted.get(name, np.full(IMAGES, -1.0)) * (1 if direction == "higher" else -1)
                status, reason = np.full(IMAGES, "ok", object), np.full(IMAGES, None, object)
                if (metric, name) == ("toy_localisation", "weak"):
                    status[:3], reason[:3] = "failed", "metric returned <b>nan</b>"
                if (metric, name) == ("toy_robustness", "oracle_toy"):
                    status[:], reason[:] = "skipped", "the oracle is not an explainer"
                labels = np.arange(IMAGES) % 3
                parts.append(
                    pd.DataFrame(
                        {
                            "domain": model.domain,
                            "encoder": model.encoder,
                            "mask_ratio": config.mask_ratio(model.encoder),
                            "pretrain_seed": model.pretrain_seed,
                            "finetune_seed": model.finetune_seed,
                            "explainer": name,
                            "family": EXPLAINERS.get(name, (0, 0, "gradient"))[2],
                            "is_control": EXPLAINERS.get(name, (0, 0, "gradient"))[2] == "control",
                            "metric": metric,
                            "category": category,
                            "direction": direction,
                            "removal": removal,
                            "variant": "",
                            "image_id": [f"test_{i:04d}" for i in range(IMAGES)],
                            "label": labels,
                            "prediction": labels,
                            "correct": True,
                            "score": np.where(status == "ok", value, np.nan),
                            "status": status,
                            "reason": reason,
                            "passes": 2.0,
                            "seconds": 0.01,
                            "config_hash": "0" * 16,
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True).astype({"mask_ratio": "float64"})


def write(config: Config, classes: tuple[str, ...] = ("none", "ring", "bar")) -> Config:
    """Write data, models, maps and scores of a config."""
    layout, rng = Layout(config.results), np.random.default_rng(0)
    for domain in config["domains"]:
        _write_domain(layout.domain(domain), rng, classes)
    for name in config.pretrained:
        _write_picture(layout.encoder(name, 0) / "reconstruction.png", rng)
    for i, model in enumerate(config.models):
        write_json(
            layout.model(model) / "model.json",
            {"accuracy": {"val": 0.8, "test": 0.7 + 0.01 * i}, "classes": list(classes)},
        )
        for group in config.groups:
            write_table(layout.scores(model) / f"{group}.parquet", scores(config, model, group))
            _write_maps(config, layout, model, group, rng)
    return config


def _write_domain(folder: Path, rng: np.random.Generator, classes: tuple[str, ...]) -> None:
    images = rng.integers(60, 140, (IMAGES, SIZE, SIZE, 3)).astype(np.uint8)
    masks = np.zeros((IMAGES, SIZE, SIZE), bool)
    labels = (np.arange(IMAGES) % 3).astype(np.int64)
    for i in np.flatnonzero(labels):
        masks[i, 8:18, 12:24] = True
        images[i, masks[i]] = 230
    write_arrays(
        folder / "test.safetensors",
        {"images": images, "labels": labels, "masks": masks, "shortcut": np.zeros_like(masks)},
    )
    write_json(folder / "card.json", {"classes": list(classes)})
    _write_picture(folder / "preview.png", rng)


def _write_picture(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (60, 200, 3)).astype(np.uint8)).save(buffer, "png")
    path.write_bytes(buffer.getvalue())


def _write_maps(config: Config, layout: Layout, model: ModelId, group: str, rng: np.random.Generator) -> None:
    cells = []
    row, column = np.mgrid[:SIZE, :SIZE]
    for name in config.groups[group]:
        plugin = config.explainer(name).plugin
        bump = np.exp(-((row - 13) ** 2 + (column - 18) ** 2) / 40)[None] + rng.normal(0, 0.2, (IMAGES, SIZE, SIZE))
        maps = bump if plugin.meta["signed"] else np.abs(bump)
        if plugin.meta["resolution"] == "patch":
            maps = maps.reshape(IMAGES, SIZE // PATCH, PATCH, SIZE // PATCH, PATCH).mean((2, 4))
        write_arrays(layout.maps(model) / f"{name}.safetensors", {"maps": maps.astype(np.float32)})
        cells.append(
            {
                "name": name,
                "plugin": name,
                "family": plugin.meta["family"],
                "is_control": plugin.meta["family"] == "control",
                "class_specific": True,
                "signed": plugin.meta["signed"],
                "resolution": plugin.meta["resolution"],
                "removal": None,
                "file": f"{name}.safetensors",
                "sha256": "",
                "passes": {"forward": IMAGES, "backward": 0},
                "seconds": 2.4,
                "failed": {},
                "error": None,
                "status": "ok",
            }
        )
    images = [
        {
            "image_id": f"test_{i:04d}",
            "index": i,
            "label": i % 3,
            "prediction": i % 3 if i != 4 else 0,
            "correct": i != 4,
        }
        for i in range(IMAGES)
    ]
    write_json(
        layout.maps(model) / f"{group}.json", {"group": group, "model": {}, "images": images, "explainers": cells}
    )
