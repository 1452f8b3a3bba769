"""What a config costs: model passes per stage from the plug-ins' formulas, and minutes on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unmask import registry
from unmask.config import Config, ExplainerSpec, MetricSpec
from unmask.internals.catalogue import PICTURED_UNITS, SEEN
from unmask.internals.decisions import FAMILIES, limits
from unmask.internals.flipping import most_sets
from unmask.judging import conditions, removals
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
        "inside": models if config["inside"]["what"] else 0,
        "aggregate": 1,
        "report": 1,
        "manifest": 1,
    }


def passes(config: Config) -> dict[str, Passes]:
    """Images through a model per stage."""
    images = {name: _images(config, name) for name in config["domains"]}
    patches = (config["image"]["size"] // config["image"]["patch"]) ** 2
    models, explained = len(config.models), config["explain"]["images"]
    per_domain = models // len(config["domains"])
    finetune = config["finetune"]["epochs"]
    explainers = [config.explainer(entry) for entries in config.groups.values() for entry in entries]
    width = config["model"]["width"]
    once = [explainer_cost(spec, patches, width) for spec in explainers]
    explain = Passes(
        *(models * explained * sum(getattr(cost, way) for cost in once) for way in ("forward", "backward"))
    )
    return {
        "pretrain": _pretrain(config, images),
        "finetune": Passes(
            forward=per_domain * sum(c["val"] * finetune + c["test"] for c in images.values()),
            backward=per_domain * sum(c["train"] * finetune for c in images.values()),
        ),
        "explain": explain,
        "score": _score(config, patches),
        "inside": _inside(config, images),
    }


def minutes(config: Config, speed: Speed, cores: int) -> float:
    """Wall minutes of the DAG's model passes and process starts on `cores` cores that are idle and share them evenly.

    A lower bound: the default run took 1.4 times, small configs up to four times as long.
    """
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


def explainer_cost(spec: ExplainerSpec, patches: int, width: int) -> Passes:
    """Passes of an explainer for one image."""
    formulas = spec.plugin.meta["passes"]
    ways = (declared(formulas.get(way, "0"), spec.options, patches, width) for way in ("forward", "backward"))
    return Passes(*map(int, ways))


def scoring_passes(
    cells: Iterable[tuple[ExplainerSpec, MetricSpec, str | None]], explained: int, patches: int, width: int
) -> Passes:
    """Passes for a model's cells (explainer, metric, removal) of `explained` images, what they share counted once.

    A metric's META says what its passes, or its explanations of other images, are spent on: `shares` names what
    metrics have in common for the same map (the curve of most relevant patches first, say), `draws` what depends on no
    map and is common to all explainers. A formula stands by each name; where two metrics differ, the larger counts.
    """
    common: dict[tuple, float] = {}
    total, specs = Passes(), {}
    for explainer, metric, removal in cells:
        specs[explainer.name] = explainer
        meta, images = metric.plugin.meta, min(metric.images or explained, explained)

        def cost(formula: str, metric=metric, images=images) -> float:
            return images * declared(formula, metric.options, patches)

        for kind in ("forward", "explanations"):
            own = cost(meta["passes"].get(kind, "0"))
            named = [(explainer.name, name, f) for name, f in meta.get("shares", {}).get(kind, {}).items()]
            if kind == "forward":
                named += [(None, name, formula) for name, formula in meta.get("draws", {}).items()]
            for owner, name, formula in named:
                key = kind, owner, name, removal
                common[key] = max(common.get(key, 0.0), cost(formula))
                own -= cost(formula)
            key = kind, explainer.name, "", removal, metric.name
            common[key] = max(own, 0.0)
    for (kind, owner, *_), count in common.items():
        if kind == "forward":
            total.forward += int(count)
        else:
            each = explainer_cost(specs[owner], patches, width)
            total.forward += int(count * each.forward)
            total.backward += int(count * each.backward)
    return total


def _pretrain(config: Config, images: dict[str, dict[str, int]]) -> Passes:
    """Every image of the pool once an epoch, two views of it under a contrast; with labels, those that have one."""
    labelled = sum(counts["train"] for counts in images.values())
    pool = labelled + sum(counts["unlabelled"] for counts in images.values())
    own = config["pretrain"].get("pool")
    if own:
        from unmask.pool import count

        pool = count(own["path"], own["kind"])
    once = {"simmim": pool, "simmim_siamese": 2 * pool, "mae": pool, "supervised": labelled, "imported": 0}
    trained = [name for name in config.pretrained if config.pretraining_of(name) == name]
    total = sum(once[config["encoders"][name]["method"]] for name in trained)
    return Passes(backward=len(config["seeds"]["pretrain"]) * config["pretrain"]["epochs"] * total)


def _score(config: Config, patches: int) -> Passes:
    known = [config.explainer(entry) for entries in config.groups.values() for entry in entries]
    metrics = [config.metric(name) for name in config["score"]["metrics"]]
    cells = [
        (explainer, metric, removal)
        for explainer in known
        for metric in metrics
        for removal in (config["score"]["removals"] if "removal" in metric.plugin.meta["needs"] else [None])
    ]
    once = scoring_passes(cells, config["explain"]["images"], patches, config["model"]["width"])
    # A group is a process of its own, but groups are few: what is drawn is counted once.
    judged = _judged(config, patches)
    models = len(config.models)
    return Passes(models * (once.forward + judged.forward), models * (once.backward + judged.backward))


def _judged(config: Config, patches: int) -> Passes:
    """A model's passes for the scores that the metrics are judged by: nothing is shared between conditions."""
    given, width = config["score"]["judge"], config["model"]["width"]
    explainers = [config.explainer(entry) for entry in given["explainers"]]
    metrics = [config.metric(name) for name in config["score"]["metrics"]]
    cells = [(one, metric, removal) for one in explainers for metric in metrics for removal in removals(config, metric)]
    images, times = min(given["images"], config["explain"]["images"]), len(conditions(given["repeats"]))
    once = scoring_passes(cells, images, patches, width)
    for one in explainers:
        cost = explainer_cost(one, patches, width)
        once.forward, once.backward = once.forward + images * cost.forward, once.backward + images * cost.backward
    return Passes(times * once.forward, times * once.backward)


def _inside(config: Config, images: dict[str, dict[str, int]]) -> Passes:
    """Before fine-tuning and after: layers, masked tokens, probes; after: attributions, and removals at four fractions.

    The reconstructions of in-painting are passes too. Where a removal or family does not apply, or an image has nothing
    of a factor that is changed, it is less. Of concepts: the slopes that vectors are held against, and activation
    maximisation.
    """
    given, total = config["inside"], Passes(forward=_decisions(config, images))
    what, phases = set(given["what"]), 1 + 1 / len(config["seeds"]["finetune"])
    kinds = registry.available("removals", config.plugins) if given["removals"] is None else given["removals"]
    for domain, counts in images.items():
        test, train = min(given["images"], counts["test"]), min(given["train"], counts["train"])
        layers = bool(what - {"mask_token", "missingness", *FAMILIES})
        total.forward += round(phases * test * (layers + ("mask_token" in what)))
        total.forward += round(phases * min(SEEN, test)) * ("pictures" in what)
        total.forward += round(phases * train * bool(what & {"probes", "concepts"})) + test * ("attribution" in what)
        total.forward += (
            test * (1 + 4 * given["subsets"] * (len(kinds) + ("inpaint" in kinds))) * ("missingness" in what)
        )
        total.forward += test * (1 + factors(config, domain)) * ("causes" in what and factors(config, domain) > 0)
        total.backward += test * (("attribution" in what) + ("concepts" in what))
        if "visualisation" in what:  # of four classes, as many as embedded domains have, and of the best detectors
            goals = 4 + PICTURED_UNITS * ("dissection" in what)
            total.forward += test + goals
            total.backward += given["steps"] * goals
    models = len(config.models) // len(images)
    return Passes(models * total.forward, models * total.backward)


def _decisions(config: Config, images: dict[str, dict[str, int]]) -> int:
    """A model's images per domain, for the sets of patches that are tried at most: mostly it is a fraction of them."""
    given = config["inside"]
    patches = (config["image"]["size"] // config["image"]["patch"]) ** 2
    total = 0
    if "counterfactuals" in given["what"]:
        own = given["counterfactuals"]
        most = min(own["images"], given["images"])
        count = sum(min(most, counts["test"]) for counts in images.values())
        total += count * len(own["removals"]) * (most_sets(patches, limits(own)) + 2)
    if "surrogates" in given["what"]:
        own = given["surrogates"]
        for counts in images.values():
            test = min(given["images"], counts["test"])
            total += test + min(own["images"], test) * len(own["removals"]) * (own["fitting"] + own["held_out"] + 1)
    return total


def factors(config: Config, domain: str) -> int:
    """How many factors of a domain's images can be changed."""
    plugin, options = config.domain(domain)
    return plugin.meta.get("factors", 0) + bool(options.get("shortcut"))


def _images(config: Config, domain: str) -> dict[str, int]:
    """Images per split: what a rendered domain is asked for, or a folder's files divided by the shares."""
    _, options = config.domain(domain)
    names = ("train", "val", "test", "unlabelled")
    if isinstance(options.get("train"), int):
        return {name: options[name] for name in names}
    folders = {"labelled": Path(options["path"]) / "images", "unlabelled": options["unlabelled"]}
    found = {key: len([p for p in Path(f).rglob("*") if p.is_file()]) if f else 0 for key, f in folders.items()}
    return {**{name: round(found["labelled"] * options[name]) for name in names[:3]}, "unlabelled": found["unlabelled"]}
