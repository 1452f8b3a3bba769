"""What a metric is given: the maps of one explainer for one mini-batch, with all that is needed to judge them."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unmask.device import batch_size
from unmask.errors import Skip
from unmask.passes import counted
from unmask.patches import patch_sum, to_pixels
from unmask.seeds import derive

if TYPE_CHECKING:
    from unmask.removals import Removal


@dataclass
class _Known:
    value: Any
    passes: int
    seconds: float
    size: int  # bytes


def _size(value: Any) -> int:
    """Bytes of arrays and tensors, and of lists and dicts of them.

    Networks count for nothing: there are a few, however many images and explainers, and one would drive out all else.
    """
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else getattr(value, "nbytes", 0)


class Shared:
    """Forward passes and re-explanations that several metrics or explainers ask for: computed once.

    Each asker is charged what it would have cost alone, so that a metric's cost does not depend on what ran before it.
    `saved_passes` and `saved_seconds` sum what was charged for a value that was there already; passes of networks
    other than the model, which nobody else counts, are among the former. What was not asked for the longest is let go
    where all would take more than `memory` bytes: the number of explainers and images does not matter.
    """

    def __init__(self, model: torch.nn.Module, memory: int = 2**28):
        self._model, self._memory = model, memory
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()
        self._size = 0
        self.saved_passes, self.saved_seconds = 0, 0.0

    def get(self, key: tuple[Any, ...], compute: Callable[[], Any], model: torch.nn.Module | None = None) -> Any:
        """The value of `key`, whose first part names its kind; `compute()` makes it where it is not known.

        `model`: the network that it takes, where that is another than the model.
        """
        if key in self._known:
            known = self._known[key]
            self._known.move_to_end(key)
            self.saved_passes += known.passes
            self.saved_seconds += known.seconds
            return known.value
        start = time.perf_counter()
        with counted(self._model if model is None else model) as spent:
            value = compute()
        if model is not None:
            self.saved_passes += spent.total
        known = self._known[key] = _Known(value, spent.total, time.perf_counter() - start, _size(value))
        self._size += known.size
        while self._size > self._memory and len(self._known) > 1:
            self._size -= self._known.popitem(last=False)[1].size
        return value

    def forget(self, kind: str) -> None:
        """Drop the values of a kind."""
        self._known = OrderedDict((key, known) for key, known in self._known.items() if key[0] != kind)
        self._size = sum(known.size for known in self._known.values())


@dataclass(frozen=True)
class Gallery:
    """Every explained image that has evidence and is classified right, whatever the mini-batch and the explainer."""

    images: torch.Tensor  # float32 [G, 3, H, W] in [0, 1], on the model's device
    targets: torch.Tensor  # int64 [G]
    masks: np.ndarray  # bool [G, H, W]


@dataclass(frozen=True)
class Changed:
    """A factor of N images, K of which have it, and what they are when it is changed and nothing else.

    images  float32 [K, 3, H, W] in [0, 1], in the order of the images, on the model's device
    pixels  bool [N, H, W]: which pixels change; none of an image that does not have the factor
    """

    images: torch.Tensor
    pixels: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """Which images have the factor: bool [N]."""
        return self.pixels.any((1, 2))

    def of(self, rows: Sequence[int]) -> Changed:
        """The factor in the images `rows`, in that order."""
        present = self.present
        places = (np.cumsum(present) - 1)[rows][present[rows]]
        return Changed(self.images[torch.from_numpy(places).to(self.images.device)], self.pixels[rows])


@dataclass
class Case:
    """One mini-batch of N images with the maps of one explainer. Arrays are read-only; the views are fresh copies.

    model    classifier in evaluation mode
    images   float32 [N, 3, H, W] in [0, 1], on the model's device
    targets  int64 [N]: the predicted classes, which the maps explain
    masks    bool [N, H, W]: evidence pixels
    maps     float32 [N, H, W] or [N, gh, gw], as the explainer made them
    seed     of this cell's draws. The metrics of a category share it for a model and removal, as do all explainers:
             they are compared on the same draws, and what they draw is computed once
    removal  how absence is realised, with `.id` and `.remove(images, keep)`; None where the metric removes nothing
    explainer  (images, targets, model=None, paired=False, masks=None) -> maps of the same explainer and options
    engine   "batched", or "quantus": then a metric with a batched version of its own runs Quantus's instead
    traces   what metrics put in with `trace`
    concepts bool [N, H, W] by name: kinds of objects beside the evidence; none where the domain knows of none
    gallery  images of every class to build mosaics of; None where the metric needs none
    factors  by name what can be changed in the images; none where the metric needs none
    skipped  by an image's place why the metric cannot judge it, put in with `skip`
    """

    model: torch.nn.Module
    images: torch.Tensor
    targets: torch.Tensor
    masks: np.ndarray
    maps: np.ndarray
    seed: int
    removal: Removal | None = None
    explainer: Callable[..., torch.Tensor] | None = None
    shared: Shared = field(default=None)
    engine: str = "batched"
    traces: dict[str, np.ndarray] = field(default_factory=dict)
    concepts: dict[str, np.ndarray] = field(default_factory=dict)
    gallery: Gallery | None = None
    factors: dict[str, Changed] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)

    def __post_init__(self):
        self.masks, self.maps = self.masks.copy(), self.maps.copy()
        self.concepts = {name: pixels.copy() for name, pixels in self.concepts.items()}
        for array in (self.masks, self.maps, *self.concepts.values()):
            array.setflags(write=False)
        if self.shared is None:
            self.shared = Shared(self.model)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pixel_maps(self) -> np.ndarray:
        """float32 [N, H, W]: a map on the patch grid has each value repeated over its pixels, undivided."""
        return _to_pixels(self.maps, tuple(self.images.shape[-2:]))

    @property
    def patch_maps(self) -> np.ndarray:
        """float32 [N, gh, gw]: a map on pixels is summed over each patch."""
        return patch_sum(torch.tensor(self.maps), self.model.grid).numpy()

    @cached_property
    def fingerprint(self) -> str:
        """Of images and targets, to tell mini-batches apart."""
        return fingerprint(self.images, self.targets)

    def rng(self, *parts: object) -> np.random.Generator:
        """A generator for draws that every explainer of the model shares; `parts` tell a metric's draws apart."""
        return np.random.default_rng(derive(self.seed, "case", *parts))

    def logits(self, keep: np.ndarray | torch.Tensor) -> np.ndarray:
        """The model's logits with patches absent by the removal, for all K subsets in batches of the best size.

        `keep` bool [N, gh, gw] or [N, K, gh, gw], True = present; float32 [N, C] or [N, K, C], not to be written to.
        The same subsets are computed once for all metrics and explainers: subsets from `rng` cost the next one nothing.
        """
        keep = torch.as_tensor(keep)
        asked = hashlib.sha256(np.packbits(keep.cpu().numpy())).digest()
        key = "forward", self.removal.id, self.fingerprint, tuple(keep.shape), asked
        return self.shared.get(key, lambda: self._logits(keep.to(self.images.device)))

    @torch.no_grad()
    def _logits(self, keep: torch.Tensor) -> np.ndarray:
        subsets = keep if keep.dim() == 4 else keep[:, None]
        size = batch_size(self.images.device)
        at_once = max(1, size // len(self))
        # One part is the case's own tensor, by which a removal knows that it has painted it.
        images = [self.images] if len(self) <= size else self.images.split(size)
        parts = []
        for part, kept in zip(images, subsets.split([len(part) for part in images]), strict=True):
            steps = [self.model(self.removal.remove(part, some)).float() for some in kept.split(at_once, dim=1)]
            parts.append(torch.cat([step.unflatten(0, (len(part), -1)) for step in steps], dim=1))
        found = torch.cat(parts).cpu().numpy()
        found = found if keep.dim() == 4 else found[:, 0]
        found.setflags(write=False)
        return found

    def trace(self, name: str, values: np.ndarray) -> None:
        """Keep a curve per image, [N, S], beside the scores. A name without the map in it is stored once per model.

        `name` is the metric's id for a curve that depends on the maps, else "random".
        """
        self.traces[name] = np.asarray(values, dtype=np.float32)

    def skip(self, where: np.ndarray, reason: str) -> None:
        """Say of images, bool [N], why the metric does not apply to them; their scores are not read."""
        self.skipped |= dict.fromkeys(np.flatnonzero(where).tolist(), reason)

    @torch.no_grad()
    def changed_logits(self, factor: str | None) -> np.ndarray:
        """The model's logits of the K images that have a factor, with it changed: float32 [K, C]; None = of all as they
        are, [N, C]. Computed once for all metrics and explainers."""
        images = self.images if factor is None else self.factors[factor].images

        def compute() -> np.ndarray:
            return torch.cat(
                [self.model(part).float().cpu() for part in images.split(batch_size(images.device))]
            ).numpy()

        return self.shared.get(("changed", factor, self.fingerprint), compute)

    def explain(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        model: torch.nn.Module | None = None,
        *,
        paired: bool = False,
        masks: np.ndarray | None = None,
    ) -> np.ndarray:
        """Maps of the same explainer for other images, pixel resolution: float32 [K * N, H, W].

        `images` [K * N, 3, H, W]: versions of the case's own, all N in one version before those in the next.
        `model`: another network of the same class, such as a copy with other weights, to explain instead of the case's.
        `paired`: what a sampling explainer draws is the same in every paired call, so that maps for two classes or of
        two networks differ by these and not by luck; else a call's draws are its own, as another run's would be.
        `masks` bool [K * N, H, W]: the images' evidence where it is not the case's own, for the oracle.
        A pure function of its arguments: the order of calls changes nothing, and metrics that ask for the same inputs
        share one explanation. Raises `Skip` where the case has no explainer.
        """
        if self.explainer is None:
            raise Skip("the explainer cannot be run again on other images")
        weights = "" if model is None else fingerprint(*model.parameters(), *model.buffers())
        given = {"model": model, "paired": paired or None, "masks": masks}
        extra = {name: value for name, value in given.items() if value is not None}

        def compute() -> np.ndarray:
            maps = self.explainer(images, targets, **extra).detach().cpu().numpy()
            return _to_pixels(maps, tuple(images.shape[-2:]))

        evidence = "" if masks is None else fingerprint(torch.from_numpy(masks))
        key = "explanation", fingerprint(images, targets), weights, paired, evidence
        return self.shared.get(key, compute, model).copy()

    def ranks(self, maps: np.ndarray) -> np.ndarray:
        """float64, shape of `maps` [N, h, w]: 1 for an image's lowest value up to h * w, ties in random order.

        For metrics that read only the order: a sort leaves ties (a patch's pixels, the zeros that a ReLU leaves) in
        raster order or worse, in one that depends on the processor.
        """
        flat = maps.reshape(len(maps), -1)
        chance = np.random.default_rng(self.seed).random(flat.shape)
        order = np.stack([np.lexsort(keys) for keys in zip(chance, flat, strict=True)])
        ranks = np.empty(flat.shape)
        np.put_along_axis(ranks, order, np.arange(1.0, flat.shape[1] + 1)[None], axis=1)
        return ranks.reshape(maps.shape)


def _to_pixels(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return to_pixels(torch.tensor(maps), size).numpy()


def fingerprint(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()))
    return digest.hexdigest()
