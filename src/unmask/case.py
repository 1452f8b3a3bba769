"""What a metric is given: the maps of one explainer for one mini-batch, with all that is needed to judge them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unmask.errors import Skip
from unmask.passes import counted
from unmask.patches import patch_sum, to_pixels

if TYPE_CHECKING:
    from unmask.removals import Removal


@dataclass
class _Known:
    value: Any
    passes: int
    seconds: float


class Shared:
    """Forward passes and re-explanations that several metrics or explainers ask for: computed once.

    Each asker is charged what it would have cost alone, so that a metric's cost does not depend on what ran before it.
    `saved_passes` and `saved_seconds` sum what was charged for a value that was there already.
    """

    def __init__(self, model: torch.nn.Module):
        self._model = model
        self._known: dict[Hashable, _Known] = {}
        self.saved_passes, self.saved_seconds = 0, 0.0

    def get(self, key: tuple[str, ...], compute: Callable[[], Any]) -> Any:
        """The value of `key`, whose first part names its kind; `compute()` makes it where it is not known."""
        if key in self._known:
            known = self._known[key]
            self.saved_passes += known.passes
            self.saved_seconds += known.seconds
            return known.value
        start = time.perf_counter()
        with counted(self._model) as spent:
            value = compute()
        self._known[key] = _Known(value, spent.total, time.perf_counter() - start)
        return value

    def forget(self, kind: str) -> None:
        """Drop the values of a kind."""
        self._known = {key: known for key, known in self._known.items() if key[0] != kind}


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
    explainer  (images, targets) -> maps of the same explainer with the same options, for `explain`
    """

    model: torch.nn.Module
    images: torch.Tensor
    targets: torch.Tensor
    masks: np.ndarray
    maps: np.ndarray
    seed: int
    removal: Removal | None = None
    explainer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    shared: Shared = field(default=None)

    def __post_init__(self):
        self.masks, self.maps = self.masks.copy(), self.maps.copy()
        self.masks.setflags(write=False)
        self.maps.setflags(write=False)
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

    def explain(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        """Maps of the same explainer for other images [N, 3, H, W], pixel resolution: float32 [N, H, W].

        A pure function of its arguments, each call with a generator of its own: the order of calls changes nothing,
        and metrics that ask for the same inputs share one explanation. Raises `Skip` where the case has no explainer.
        """
        if self.explainer is None:
            raise Skip("the explainer cannot be run again on other images")

        def compute() -> np.ndarray:
            maps = self.explainer(images, targets).detach().cpu().numpy()
            return _to_pixels(maps, tuple(images.shape[-2:]))

        return self.shared.get(("explanation", fingerprint(images, targets)), compute).copy()

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
