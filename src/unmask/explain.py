"""Stage 4: attribution maps of a group of explainers for a model, and an index of the group.

Each explainer is a cell with its own generator, its own key and its own file: a rerun computes only the cells whose key
changed, and one that raises costs itself alone.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import digest, explainers, files, passes, registry, removals, seeds
from unmask.config import Config, ExplainerSpec, ModelId
from unmask.device import batch_size, resolve
from unmask.errors import Skip, UserError
from unmask.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import torch

    from unmask.models.vit import Classifier

LIBRARIES = ("captum", "numpy", "timm", "torch", "torchvision")


def entries(config: Config, group: str) -> list[str]:
    """The explainer entries of a group; raises `UserError` for an unknown group."""
    if group not in config.groups:
        raise UserError(f"explain.groups: unknown group '{group}'; {registry.suggest(group, config.groups)}")
    return config.groups[group]


def cell_settings(config: Config, spec: ExplainerSpec) -> dict[str, Any]:
    """What one entry's maps depend on besides the model and the images."""
    code = ["unmask.explain", "unmask.models.checkpoint", spec.plugin.path]
    if spec.removal:
        code.append(registry.find("removals", spec.removal, config.plugins).path)
    return {
        "entry": spec.name,
        "removal": spec.removal,
        "options": spec.options,
        "seed": config["seed"],
        "images": config["explain"]["images"],
        "code": digest.code(*code),
        "versions": digest.versions(*LIBRARIES),
    }


def settings(
    config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int, group: str
) -> dict[str, Any]:
    """What a rerun of the job depends on besides its input files."""
    return {"cells": [cell_settings(config, config.explainer(entry)) for entry in entries(config, group)]}


def choose(labels: np.ndarray, count: int, generator: np.random.Generator) -> list[int]:
    """`count` rows (or all there are), one class after the other, so that every prefix is balanced.

    A class that has run out is passed over. Fewer rows are always a prefix of more.
    """
    import numpy as np

    shuffled = [generator.permutation(np.flatnonzero(labels == label)).tolist() for label in np.unique(labels)]
    rounds = max(map(len, shuffled))
    return [rows[i] for i in range(rounds) for rows in shuffled if i < len(rows)][:count]


def planned(spec: ExplainerSpec, patches: int) -> passes.Passes:
    """Passes per image as the plug-in declares them, for the entry's options and a number of patches."""
    known = spec.plugin.meta["passes"]
    return passes.Passes(*(int(passes.declared(known[way], spec.options, patches)) for way in ("forward", "backward")))


def run(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int, group: str) -> None:
    """Write `<entry>.safetensors` for each entry of the group, then `<group>.json`."""
    model_id = ModelId(domain, encoder, pretrain_seed, finetune_seed)
    specs = [config.explainer(entry) for entry in entries(config, group)]
    job = _prepare(config, model_id)
    folder = Layout(config.results).maps(model_id)
    folder.mkdir(parents=True, exist_ok=True)
    records = [_cell(config, job, spec, folder) for spec in specs]
    files.write_json(
        folder / f"{group}.json",
        {
            "group": group,
            "model": {**asdict(model_id), "mask_ratio": job.mask_ratio, "sha256": job.model_sha256},
            "images": job.index,
            "explainers": records,
        },
    )


@dataclass
class _Job:
    """A model and the images to explain, on the device."""

    model_id: ModelId
    model: Classifier
    images: torch.Tensor
    targets: torch.Tensor
    masks: torch.Tensor
    index: list[dict[str, Any]]
    mask_ratio: float | None
    model_sha256: str
    data_sha256: str


@dataclass
class _Maps:
    """What a cell computed."""

    maps: np.ndarray
    measured: dict[str, int]
    seconds: float
    failed: dict[str, str] = field(default_factory=dict)


def _prepare(config: Config, model_id: ModelId) -> _Job:
    import torch

    from unmask.models.checkpoint import load_classifier

    device = resolve(config["device"])
    layout = Layout(config.results)
    checkpoint, data = layout.model(model_id) / "model.safetensors", layout.domain(model_id.domain) / "test.safetensors"
    model, sidecar = load_classifier(checkpoint, device)
    test, table = files.read_arrays(data), files.read_table(data.with_suffix(".csv"))
    generator = seeds.numpy_generator(config["seed"], "explain", model_id.domain)  # the same images for every model
    rows = choose(test["labels"], config["explain"]["images"], generator)
    images = torch.from_numpy(test["images"][rows]).to(device).permute(0, 3, 1, 2).float().div(255).contiguous()
    with torch.no_grad():
        targets = torch.cat([model(part).argmax(1) for part in images.split(batch_size(device))])
    index = [
        {
            "image_id": str(table["image_id"][row]),
            "index": row,
            "label": int(test["labels"][row]),
            "prediction": prediction,
            "correct": prediction == int(test["labels"][row]),
        }
        for row, prediction in zip(rows, targets.tolist(), strict=True)
    ]
    return _Job(
        model_id,
        model,
        images,
        targets,
        torch.from_numpy(test["masks"][rows]),
        index,
        sidecar.get("mask_ratio"),
        files.sha256(checkpoint),
        files.sha256(data),
    )


def _cell(config: Config, job: _Job, spec: ExplainerSpec, folder: Path) -> dict[str, Any]:
    """One entry's record in the index; its file is written, or reused where its key fits."""
    path = folder / f"{spec.name}.safetensors"
    key = digest.of([cell_settings(config, spec), job.model_id.folder, job.model_sha256, job.data_sha256])
    known = _reusable(path, key)
    if known is not None:
        print(f"{spec.name}: kept, nothing that it depends on has changed", flush=True)
        return _record(spec, path, known)
    try:
        result = _compute(config, job, spec)
    except UserError:
        raise
    except Skip as reason:
        return _without_maps(spec, path, "skipped", str(reason))
    except Exception as error:  # a plug-in may raise anything, and must cost no other
        return _without_maps(spec, path, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
    known = {"passes": result.measured, "seconds": result.seconds, "failed": result.failed}
    files.write_arrays(path, {"maps": result.maps}, {"key": key, "record": json.dumps(known)})
    _report(spec, job, result)
    return _record(spec, path, known)


def _without_maps(spec: ExplainerSpec, path: Path, status: str, reason: str) -> dict[str, Any]:
    path.unlink(missing_ok=True)  # what an older key left would contradict the index
    print(f"{spec.name}: {status}: {reason}", flush=True)
    nothing = {"passes": asdict(passes.Passes()), "seconds": 0.0, "failed": {}}
    return _record(spec, None, nothing, status, reason)


def _compute(config: Config, job: _Job, spec: ExplainerSpec) -> _Maps:
    """Run an explainer on all images; raises what it raises."""
    import torch

    removal = None
    if spec.removal:
        removal = removals.bind(registry.find("removals", spec.removal, config.plugins), job.model)
    explain = explainers.bind(spec, job.model, removal)
    generator = seeds.torch_generator(config["seed"], "explain", job.model_id.folder, spec.name)
    parts, start = [], time.perf_counter()
    with passes.counted(job.model) as measured:
        # Maps do not depend on the batch, so the size only decides how much an explainer holds at once.
        for part in explainers.split(job.images, 4):
            maps = explain(job.images[part], job.targets[part], generator, job.masks[part])
            parts.append(_checked(maps, spec, job.model, job.images[part]).detach().cpu())
    result = _Maps(torch.cat(parts).numpy(), asdict(measured), round(time.perf_counter() - start, 4))
    needs_evidence = "masks" in spec.plugin.meta.get("needs", [])
    for entry, one, evidence in zip(job.index, result.maps, job.masks, strict=True):
        reason = "no evidence mask" if needs_evidence and not evidence.any() else _degenerate(one)
        if reason:
            result.failed[entry["image_id"]] = reason
    return result


def _checked(maps: torch.Tensor, spec: ExplainerSpec, model: Classifier, images: torch.Tensor) -> torch.Tensor:
    """The maps themselves, where type and shape are as the plug-in declares."""
    import torch

    shape = model.grid if spec.plugin.meta["resolution"] == "patch" else images.shape[-2:]
    wanted = (len(images), *shape)
    if not isinstance(maps, torch.Tensor):
        raise TypeError(f"explain() returned {type(maps).__name__}; it must return a torch tensor")
    if maps.dtype != torch.float32:
        raise TypeError(f"explain() returned maps of {maps.dtype}; they must be torch.float32")
    if tuple(maps.shape) != wanted:
        raise ValueError(f"explain() returned maps of shape {tuple(maps.shape)}; they must be {wanted}")
    return maps


def _degenerate(one: np.ndarray) -> str | None:
    """Why a map says nothing, or None where it says something."""
    import numpy as np

    if not np.isfinite(one).all():
        return "the map is not finite"
    if not one.any():
        return "the map is all zero"
    return "the map is constant" if one.min() == one.max() else None


def _reusable(path: Path, key: str) -> dict[str, Any] | None:
    """What a file's header recorded, where its key fits."""
    try:
        metadata = files.read_metadata(path)
    except UserError:  # missing or broken: computed anew
        return None
    return json.loads(metadata["record"]) if metadata.get("key") == key else None


def _record(
    spec: ExplainerSpec, path: Path | None, known: dict[str, Any], status: str = "ok", error: str | None = None
) -> dict[str, Any]:
    meta = spec.plugin.meta
    return {
        "name": spec.name,
        "plugin": spec.plugin.id,
        "family": meta["family"],
        "is_control": meta["family"] == "control",
        "class_specific": meta["class_specific"],
        "signed": meta["signed"],
        "resolution": meta["resolution"],
        "removal": spec.removal,
        "file": path.name if path else None,
        "sha256": files.sha256(path) if path else None,
        **known,
        "error": error,
        "status": status,
    }


def _report(spec: ExplainerSpec, job: _Job, result: _Maps) -> None:
    count = len(job.index)
    print(
        f"{spec.name}: {count} images in {result.seconds:.1f} s ({count / max(result.seconds, 1e-9):.1f} images/s), "
        f"passes {_counts(result.measured)}",
        flush=True,
    )
    height, width = job.model.grid
    declared = {way: per * count for way, per in asdict(planned(spec, height * width)).items()}
    if declared != result.measured:
        print(f"{spec.name}: its META declares other passes: {_counts(declared)}", flush=True)
    for image_id, reason in result.failed.items():
        print(f"{spec.name}: failed on {image_id}: {reason}", flush=True)


def _counts(measured: dict[str, int]) -> str:
    return f"{measured['forward']} forward, {measured['backward']} backward"
