"""An explainer on a network so small that running it takes a moment."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import nn

from unmask import explainers, registry, removals
from unmask.config import ExplainerSpec
from unmask.models.classifier import Classifier, ConvClassifier
from unmask.models.simmim import SimMIM
from unmask.models.vit import Pretraining
from unmask.registry import Plugin

SIZE, PATCH, CLASSES, IMAGES = 32, 8, 3, 5
KINDS = {"avg": ("vit", "avg"), "token": ("vit", "token"), "resnet": ("resnet", "avg")}
SMALL = {"masks": 32, "samples": 3, "steps": 4}  # budgets, by the names that options for them usually have


def network(kind: str, **given: Any) -> Classifier | ConvClassifier:
    """A network of a kind of `KINDS` with fixed random weights, as `subject.load_model` gives it.

    A transformer has a mask token and its pretraining network beside it; `given` overrides its sizes.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(4 if kind == "resnet" else 0)  # with others, rectified maps are rightly empty for some target
        if kind == "resnet":
            shape = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), **given}
            model = ConvClassifier(size=SIZE, patch=PATCH, classes=CLASSES, **shape).eval().requires_grad_(False)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.ones_(module.weight)  # timm's residual branches start at 0: it would see one patch
            model.backbone.maxpool = nn.Identity()  # with it, 32 pixels would end as a single position
            return model
        shape = {"size": SIZE, "patch": PATCH, "width": 32, "depth": 2, "heads": 2, "pooling": kind, **given}
        model = Classifier(classes=CLASSES, **shape).eval().requires_grad_(False)
        pretraining = SimMIM(**shape).eval().requires_grad_(False)
    model.mask_token = nn.Parameter(pretraining.encoder.mask_token.clone(), requires_grad=False)
    model.pretraining = Pretraining(pretraining, 0.5, PATCH)
    return model


def kinds(plugin: Plugin) -> list[str]:
    """The kinds of network that an explainer's META names."""
    architectures, poolings = plugin.meta["architectures"], plugin.meta.get("poolings", ["avg", "token"])
    return [kind for kind, (arch, pooling) in KINDS.items() if arch in architectures and pooling in poolings]


def small(plugin: Plugin, budgets: dict[str, int] = SMALL) -> dict[str, int]:
    """Those of the plug-in's options that are budgets, small but not below what it allows."""
    lowest = {name: limits[0] or 0 for name, limits in plugin.meta.get("ranges", {}).items()}
    return {name: max(value, lowest.get(name, 0)) for name, value in budgets.items() if name in plugin.options}


class Trial:
    """An explainer on a kind of network, with five images of noise, small budgets and all that it may ask for.

    `plugins` are the paths of users' files among which its removal is looked up too.
    """

    def __init__(self, plugin: Plugin, kind: str, options: dict[str, Any] | None = None, plugins: Any = ()):
        self.plugin, self.kind, self.plugins = plugin, kind, plugins
        options = small(plugin) if options is None else options
        self.spec = ExplainerSpec(plugin.id, plugin, plugin.meta.get("removal"), {**plugin.options, **options})
        generator = torch.Generator().manual_seed(5)
        self.images = torch.rand(IMAGES, 3, SIZE, SIZE, generator=generator)
        self.masks = torch.rand(IMAGES, SIZE, SIZE, generator=generator) > 0.5
        self.references = torch.rand(6, 3, SIZE, SIZE, generator=generator)
        self.targets = torch.tensor([0, 1, 2, 1, 0])
        self._with: dict[str, torch.Tensor] = {}

    def meta(self, key: str) -> Any:
        """What META says, or what holds where it says nothing."""
        return self.plugin.meta.get(key, {"draws": False, "needs": []}.get(key))

    def run(
        self,
        model: Classifier | ConvClassifier | None = None,
        *,
        targets: torch.Tensor | None = None,
        generator: torch.Generator | int = 0,
        part: slice | None = None,
        removal: str | None = None,
    ) -> torch.Tensor:
        """Maps of the images `part`, as the stage would ask for them; `generator` may be a seed."""
        model = network(self.kind) if model is None else model
        removal = removal or self.spec.removal
        bound = removals.bind(registry.find("removals", removal, self.plugins), model) if removal else None
        explain = explainers.bind(self.spec, model, bound, self.references)
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        targets = self.targets if targets is None else targets
        given = self.images, targets, self.masks
        images, targets, masks = given if part is None else (tensor[part] for tensor in given)
        return explain(images, targets, generator, masks)

    @cached_property
    def maps(self) -> torch.Tensor:
        """The maps of all images."""
        return self.run()

    def maps_with(self, removal: str) -> torch.Tensor:
        """The maps of all images with a removal."""
        if removal not in self._with:
            self._with[removal] = self.run(removal=removal)
        return self._with[removal]
