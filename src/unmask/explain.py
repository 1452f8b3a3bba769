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
from unmask.sampling import explained
from unmask.time_limit import time_limit

if TYPE_CHECKING:
    import numpy as np
    import torch

    from unmask.models.classifier import Classifier, ConvClassifier

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
        "references": config["explain"]["references"] if _needs(spec, "references") else None,
        "target_check": config["explain"]["target_check"] if spec.plugin.meta["class_specific"] else None,
        "code": digest.code(*code),
        "versions": digest.versions(*LIBRARIES),
    }


def _needs(spec: ExplainerSpec, what: str) -> bool:
    return what in spec.plugin.meta.get("needs", [])


def settings(
    config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int, group: str
) -> dict[str, Any]:
    """What a rerun of the job depends on besides its input files."""
    return {"cells": [cell_settings(config, config.explainer(entry)) for entry in entries(config, group)]}


def planned(spec: ExplainerSpec, patches: int, width: int) -> passes.Passes:
    """Passes per image as the plug-in declares them, for the entry's options, a number of patches and of channels."""
    known, ways = spec.plugin.meta["passes"], ("forward", "backward")
    return passes.Passes(*(int(passes.declared(known[way], spec.options, patches, width)) for way in ways))


def run(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int, group: str) -> None:
    """Write `<entry>.safetensors` for each entry of the group, then `<group>.json`."""
    model_id = ModelId(domain, encoder, pretrain_seed, finetune_seed)
    specs = [config.explainer(entry) for entry in entries(config, group)]
    job = _prepare(config, model_id, specs)
    folder = Layout(config.results).maps(model_id)
    folder.mkdir(parents=True, exist_ok=True)
    records = [_cell(config, job, spec, folder) for spec in specs]
    _mark_aliases(records, folder)
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
    model: Classifier | ConvClassifier
    images: torch.Tensor
    targets: torch.Tensor
    others: torch.Tensor
    masks: torch.Tensor
    references: torch.Tensor | None
    index: list[dict[str, Any]]
    mask_ratio: float | None
    model_sha256: str
    encoder_sha256: str | None
    data_sha256: dict[str, str]


@dataclass
class _Maps:
    """What a cell computed."""

    maps: np.ndarray
    measured: dict[str, int]
    seconds: float
    target_correlation: float | None = None
    failed: dict[str, str] = field(default_factory=dict)


def _prepare(config: Config, model_id: ModelId, specs: list[ExplainerSpec]) -> _Job:
    import torch

    from unmask import subject

    device = resolve(config["device"])
    layout = Layout(config.results)
    checkpoint, data = layout.model(model_id) / "model.safetensors", layout.domain(model_id.domain) / "test.safetensors"
    model, sidecar = subject.load_model(config, model_id, device)
    test, table = files.read_arrays(data), files.read_table(data.with_suffix(".csv"))
    rows = explained(test["labels"], config["explain"]["images"], config["seed"], model_id.domain)
    images = torch.from_numpy(test["images"][rows]).to(device).permute(0, 3, 1, 2).float().div(255).contiguous()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(batch_size(device))])
    targets, others = logits.topk(2, 1).indices.unbind(1)  # what the model predicts, and its second choice
    hashes, references = {"test": files.sha256(data)}, None
    if any(_needs(spec, "references") for spec in specs):
        references = subject.references(config, model_id.domain, device)
        hashes["train"] = files.sha256(data.with_name("train.safetensors"))
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
        others,
        torch.from_numpy(test["masks"][rows]),
        references,
        index,
        sidecar.get("mask_ratio"),
        files.sha256(checkpoint),
        sidecar.get("encoder_sha256"),
        hashes,
    )


def _cell(config: Config, job: _Job, spec: ExplainerSpec, folder: Path) -> dict[str, Any]:
    """One entry's record in the index; its file is written, or reused where its key fits."""
    path = folder / f"{spec.name}.safetensors"
    inputs = [job.model_id.folder, job.model_sha256, job.data_sha256["test"]]
    if _needs(spec, "references"):
        inputs.append(job.data_sha256["train"])
    removal = registry.find("removals", spec.removal, config.plugins).meta if spec.removal else {}
    inpaints = "pretraining" in removal.get("needs", [])
    if inpaints or _needs(spec, "pretraining"):
        inputs.append(job.encoder_sha256)
    key = digest.of([cell_settings(config, spec), *inputs])
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
    except (Exception, SystemExit) as error:  # a plug-in may raise anything, and must cost no other
        return _without_maps(spec, path, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
    known = {
        "passes": result.measured,
        "seconds": result.seconds,
        "target_correlation": result.target_correlation,
        "failed": result.failed,
    }
    files.write_arrays(path, {"maps": result.maps}, {"key": key, "record": json.dumps(known)})
    _report(spec, job, result, inpaints)
    return _record(spec, path, known)


def _without_maps(spec: ExplainerSpec, path: Path, status: str, reason: str) -> dict[str, Any]:
    path.unlink(missing_ok=True)  # what an older key left would contradict the index
    print(f"{spec.name}: {status}: {reason}", flush=True)
    nothing = {"passes": asdict(passes.Passes()), "seconds": 0.0, "target_correlation": None, "failed": {}}
    return _record(spec, None, nothing, status, reason)


def _compute(config: Config, job: _Job, spec: ExplainerSpec) -> _Maps:
    """Run an explainer on all images; raises what it raises."""
    removal = None
    if spec.removal:
        removal = removals.bind(registry.find("removals", spec.removal, config.plugins), job.model)
    explain = explainers.bind(spec, job.model, removal, job.references)

    def maps_of(targets: torch.Tensor, count: int) -> torch.Tensor:
        """Of the first `count` images; the same draws whatever the targets are, since images draw one after another."""
        import torch

        generator, parts = seeds.torch_generator(config["seed"], "explain", job.model_id.folder, spec.name), []
        # Maps do not depend on the batch, so the size only decides how much an explainer holds at once.
        for part in explainers.split(job.images[:count], 4):
            images = job.images[:count][part]
            maps = explain(images, targets[:count][part], generator, job.masks[:count][part])
            parts.append(checked(maps, spec, job.model, images).detach().cpu())
        return torch.cat(parts)

    with time_limit(config["explain"]["time_limit"], "explain.time_limit"):
        start = time.perf_counter()
        with passes.counted(job.model) as measured:
            maps = maps_of(job.targets, len(job.images)).numpy()
        result = _Maps(maps, asdict(measured), round(time.perf_counter() - start, 4))
        asked = min(config["explain"]["target_check"], len(job.images))
        if asked and spec.plugin.meta["class_specific"]:
            result.target_correlation = _correlation(maps[:asked], maps_of(job.others, asked).numpy())
    for entry, one, evidence in zip(job.index, result.maps, job.masks, strict=True):
        reason = "no evidence mask" if _needs(spec, "masks") and not evidence.any() else degenerate(one)
        if reason:
            result.failed[entry["image_id"]] = reason
    return result


def _correlation(maps: np.ndarray, others: np.ndarray) -> float | None:
    """Mean rank correlation of an image's maps for two targets; None where no image has two maps that vary."""
    import numpy as np
    from scipy.stats import spearmanr

    pairs = [pair for pair in zip(maps, others, strict=True) if not any(map(degenerate, pair))]
    found = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in pairs]
    return round(float(np.mean(found)), 4) if found else None


def _mark_aliases(records: list[dict[str, Any]], folder: Path) -> None:
    """Say of an entry whose maps all equal those of an entry before it which one that is: `alias_of`."""
    firsts: list[tuple[str, np.ndarray]] = []
    for record in records:
        record["alias_of"] = None
        if record["status"] != "ok" or record["is_control"]:
            continue
        maps = files.read_arrays(folder / record["file"])["maps"]
        record["alias_of"] = next((name for name, known in firsts if _coincide(maps, known)), None)
        if record["alias_of"] is None:
            firsts.append((record["name"], maps))


def _coincide(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two entries' maps are the same up to rounding: 1e-4 of each image's largest value."""
    import numpy as np

    if one.shape != other.shape:
        return False
    largest = np.abs(other).max((1, 2), keepdims=True)
    return bool((np.abs(one - other) <= 1e-4 * largest).all() and (largest > 0).any())


def checked(
    maps: torch.Tensor, spec: ExplainerSpec, model: Classifier | ConvClassifier, images: torch.Tensor
) -> torch.Tensor:
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


def degenerate(one: np.ndarray) -> str | None:
    """Why a map says nothing, or None where it says something."""
    import numpy as np

    if not np.isfinite(one).all():
        return "the map is not finite"
    if not one.any():
        return "the map is all zero"
    # Up to rounding: a single value that was enlarged to a map is no longer the same to the last bit.
    return "the map is constant" if np.ptp(one) <= 1e-6 * np.abs(one).max() else None


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


def _report(spec: ExplainerSpec, job: _Job, result: _Maps, inpaints: bool) -> None:
    count = len(job.index)
    print(
        f"{spec.name}: {count} images in {result.seconds:.1f} s ({count / max(result.seconds, 1e-9):.1f} images/s), "
        f"passes {_counts(result.measured)}",
        flush=True,
    )
    height, width = job.model.grid
    declared = {
        way: per * count for way, per in asdict(planned(spec, height * width, job.model.backbone.num_features)).items()
    }
    if declared != result.measured and not inpaints:  # a removal by the pretraining network has passes of its own
        print(f"{spec.name}: its META declares other passes: {_counts(declared)}", flush=True)
    for image_id, reason in result.failed.items():
        print(f"{spec.name}: failed on {image_id}: {reason}", flush=True)


def _counts(measured: dict[str, int]) -> str:
    return f"{measured['forward']} forward, {measured['backward']} backward"
