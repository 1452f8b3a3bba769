"""What a config costs: model passes per stage from the plug-ins' formulas, and minutes on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from unmask.config import Config
from unmask.passes import Passes, declared


@dataclass(frozen=True)
class Speed:
    """Seconds per image of a pass forward and of one forward and backward, and to start one process."""

    forward: float
    backward: float
    start: float


def jobs(config: Config) -> dict[str, int]:
    """Processes per stage."""
    models, groups = len(config.models), len(config.groups)
    return {
        "data": len(config["domains"]) + bool(config.pretrained),
        "pretrain": len(config.pretrained) * len(config["seeds"]["pretrain"]),
        "finetune": models,
        "explain": models * groups,
        "score": models * groups,
        "aggregate": 1,
        "report": 1,
    }


def passes(config: Config) -> dict[str, Passes]:
    """Images through a model per stage."""
    images = {name: _images(config, name) for name in config["domains"]}
    patches = (config["image"]["size"] // config["image"]["patch"]) ** 2
    models, explained = len(config.models), config["explain"]["images"]
    per_domain = models // len(config["domains"])
    pool = sum(counts["train"] + counts["unlabelled"] for counts in images.values())
    finetune = config["finetune"]["epochs"]
    explainers = [config.explainer(entry) for entries in config.groups.values() for entry in entries]
    width = config["model"]["width"]
    once = [_cost(spec.plugin.meta["passes"], spec.options, patches, width) for spec in explainers]
    explain = Passes(
        *(models * explained * sum(getattr(cost, way) for cost in once) for way in ("forward", "backward"))
    )
    return {
        "pretrain": Passes(backward=jobs(config)["pretrain"] * pool * config["pretrain"]["epochs"]),
        "finetune": Passes(
            forward=per_domain * sum(c["val"] * finetune + c["test"] for c in images.values()),
            backward=per_domain * sum(c["train"] * finetune for c in images.values()),
        ),
        "explain": explain,
        "score": _score(config, once, patches),
    }


def minutes(config: Config, speed: Speed, cores: int) -> float:
    """Wall minutes of the whole DAG on `cores` cores, if they are idle and share the work evenly."""
    work = sum(cost.forward * speed.forward + cost.backward * speed.backward for cost in passes(config).values())
    return (work + sum(jobs(config).values()) * speed.start) / cores / 60


def measure(config: Config) -> Speed:
    """Time this process's imports and the config's model on this machine: a few seconds."""
    started = time.perf_counter()
    import torch

    from unmask.device import batch_size, resolve
    from unmask.models.vit import Classifier

    start = time.perf_counter() - started
    device = resolve(config["device"])
    model = Classifier(**config["image"], **config["model"], classes=4).to(device)
    images = torch.rand(batch_size(device), 3, config["image"]["size"], config["image"]["size"], device=device)

    def seconds(step) -> float:
        step()
        began = time.perf_counter()
        for _ in range(3):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / 3 / len(images)

    with torch.inference_mode():
        forward = seconds(lambda: model(images))
    return Speed(forward, seconds(lambda: model(images).sum().backward()), start)


def _cost(formulas: dict[str, str], options: dict, patches: int, width: int) -> Passes:
    return Passes(*(int(declared(formulas.get(way, "0"), options, patches, width)) for way in ("forward", "backward")))


def _score(config: Config, once: list[Passes], patches: int) -> Passes:
    """Every metric on every explainer; robustness metrics share re-explanations, and `shared` metrics their passes."""
    total, explanations = Passes(), 0.0
    for name in config["score"]["metrics"]:
        metric = config.metric(name)
        images = min(metric.images or config["explain"]["images"], config["explain"]["images"])
        times = len(config["score"]["removals"]) if "removal" in metric.plugin.meta["needs"] else 1
        known = metric.plugin.meta["passes"]
        times *= 1 if metric.plugin.meta.get("shared") else len(once)
        total.forward += int(images * times * declared(known.get("forward", "0"), metric.options, patches))
        explanations = max(explanations, images * declared(known.get("explanations", "0"), metric.options, patches))
    for cost in once:
        total.forward += int(explanations * cost.forward)
        total.backward += int(explanations * cost.backward)
    return Passes(total.forward * len(config.models), total.backward * len(config.models))


def _images(config: Config, domain: str) -> dict[str, int]:
    """Images per split: what a rendered domain is asked for, or a folder's files divided by the shares."""
    _, options = config.domain(domain)
    names = ("train", "val", "test", "unlabelled")
    if isinstance(options.get("train"), int):
        return {name: options[name] for name in names}
    folders = {"labelled": Path(options["path"]) / "images", "unlabelled": options["unlabelled"]}
    found = {key: len([p for p in Path(f).rglob("*") if p.is_file()]) if f else 0 for key, f in folders.items()}
    return {**{name: round(found["labelled"] * options[name]) for name in names[:3]}, "unlabelled": found["unlabelled"]}
