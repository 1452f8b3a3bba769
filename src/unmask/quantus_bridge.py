"""The way into Quantus 0.6: its metrics as they are, each fed one whole mini-batch.

What the library gets wrong or leaves to the caller is settled here once: copies of the arrays (it writes in place), one
mini-batch (several metrics keep only the first), an explicit softmax, numpy's global generator seeded and put back.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from quantus.helpers import asserts, warn
from quantus.helpers.model.pytorch_model import PyTorchModel
from quantus.metrics.base import Metric

from unmask.case import Case, fingerprint
from unmask.device import batch_size
from unmask.patches import patch_sum, to_pixels
from unmask.seeds import numpy_global

# Given to every metric beside its own `abs` and `normalise`; the axes normalise each image by its own maximum.
COMMON = {
    "normalise_func_kwargs": {"normalise_axes": [1, 2, 3]},
    "return_aggregate": False,
    "disable_warnings": True,
    "display_progressbar": False,
}


@contextmanager
def unchecked() -> Iterator[None]:
    """Switch off two self-checks of Quantus inside the block; they change no score and cost up to 98 % of its time.

    One compares every perturbed image with the original to warn of no change; the other puts all attributions into
    a Python set, and raises for the whole batch where a map is constant or negative. `score` checks maps by image.
    """
    checks = warn.warn_perturbation_caused_no_change, asserts.assert_attributions
    warn.warn_perturbation_caused_no_change = lambda *args, **kwargs: None
    asserts.assert_attributions = lambda *args, **kwargs: None
    try:
        yield
    finally:
        warn.warn_perturbation_caused_no_change, asserts.assert_attributions = checks
        # Their lru_cache would keep every wrapped model and its images alive.
        PyTorchModel._get_last_softmax_layer_index.cache_clear()
        PyTorchModel._get_model_with_linear_top.cache_clear()


class TokenSpace(torch.nn.Module):
    """A case's images seen through which patches are present: z [N, 1, gh, gw] of ones and zeros to logits.

    Row i of `z` belongs to image i, so it must be called with the whole mini-batch. Quantus's feature-removing
    metrics, given x = ones and a baseline of 0, then remove whole ViT patches, with any removal operator.
    """

    def __init__(self, case: Case):
        super().__init__()
        self.case = case
        self.eval()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.case.logits(z[:, 0] > 0.5), device=z.device)


def in_token_space(metric: Metric, case: Case, attributions: np.ndarray, *, softmax: bool) -> np.ndarray:
    """Score attributions [N, gh, gw] with a metric that removes features, each patch a feature."""
    return _call(
        metric,
        case,
        x=np.ones((len(case), 1, *case.model.grid), np.float32),
        a=attributions,
        model=TokenSpace(case),
        softmax=softmax,
    )


def against_masks(metric: Metric, case: Case, attributions: np.ndarray) -> np.ndarray:
    """Score attributions [N, H, W] with a metric that compares them with the evidence masks; no model is run.

    NaN where there is no evidence, too: PointingGame puts NaN into an array of bool, which is a hit.
    """
    x = np.zeros((len(case), 1, *case.masks.shape[1:]), np.float32)
    scores = _call(metric, case, x=x, a=attributions, s=case.masks[:, None].astype(np.int64))
    return np.where(case.masks.any((1, 2)), _of_something(scores, attributions), np.nan)


def of_map(metric: Metric, case: Case, attributions: np.ndarray) -> np.ndarray:
    """Score attributions [N, h, w] with a metric that looks at nothing else."""
    x = np.zeros((len(case), 1, *attributions.shape[1:]), np.float32)
    return _of_something(_call(metric, case, x=x, a=attributions), attributions)


def of_mosaics(metric: Metric, case: Case, attributions: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Score attributions [N, H, W] of mosaics by which of the tiles, row by row, are the class's: `own` bool [N, 4]."""
    x = np.zeros((len(case), 1, *attributions.shape[1:]), np.float32)
    return _of_something(_call(metric, case, x=x, a=attributions, model=case.model, custom_batch=own), attributions)


def _of_something(scores: np.ndarray, attributions: np.ndarray) -> np.ndarray:
    """NaN where a map is zero everywhere: there Quantus's score depends on the other maps of the mini-batch."""
    return np.where(attributions.any((1, 2)), scores, np.nan)


class Answers(torch.nn.Module):
    """The model's logits for a case's images and `inputs` [K, N, 3, H, W], looked up by image batch.

    Quantus asks for each several times, and so do its metrics and the explainers: all are computed at once, by the
    first who asks. `last` gives what the head reads, for metrics that look inside by a module's name.
    """

    def __init__(self, case: Case, inputs: torch.Tensor):
        super().__init__()
        known = torch.cat([case.images[None], inputs])
        self._row = {_digest(batch.cpu().numpy()): row for row, batch in enumerate(known)}
        key = "forward", "answers", fingerprint(known)
        self._found = cache(lambda: case.shared.get(key, lambda: _asked(case.model, known)))
        self.last = torch.nn.Identity()
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        row = self._row[_digest(images.cpu().numpy())]
        logits, features = self._found()
        self.last(features[row])
        return logits[row]


@torch.no_grad()
def _asked(model: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [K, N, C] and what the head reads of each image, [K, N, ...], for images [K, N, 3, H, W]."""
    seen = []
    handle = model.backbone.get_classifier().register_forward_pre_hook(lambda head, given: seen.append(given[0]))
    try:
        logits = [model(part) for part in images.flatten(0, 1).split(batch_size(images.device))]
    finally:
        handle.remove()
    logits, features = (torch.cat(parts).float().unflatten(0, images.shape[:2]) for parts in (logits, seen))
    return logits, features


def _digest(images: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(images, np.float32)).digest()


def re_explaining(metric: Metric, case: Case, inputs: torch.Tensor, *, patches: bool = False) -> np.ndarray:
    """Score the case's maps, at pixel resolution, with a metric that explains perturbed images anew.

    `inputs` float32 [K, N, 3, H, W]: what it perturbs the images to. They are explained all at once; the metric looks
    the maps up, and the logits too. With `patches` each pixel has the sum over its patch: Quantus wants maps of the
    image's size.
    """
    maps = case.explain(inputs.flatten(0, 1), case.targets.repeat(len(inputs)))
    own = case.pixel_maps
    if patches:
        grid, size = case.model.grid, tuple(case.images.shape[-2:])
        maps, own = (to_pixels(patch_sum(torch.from_numpy(some), grid), size).numpy() for some in (maps, own))
    batches = zip(inputs.cpu().numpy(), maps.reshape(len(inputs), len(case), 1, *maps.shape[1:]), strict=True)
    known = {_digest(batch): found for batch, found in batches}
    return _call(
        metric,
        case,
        x=case.images.cpu().numpy(),
        a=own,
        model=Answers(case, inputs),
        explain=lambda model, inputs, targets, **_: known[_digest(inputs)].copy(),
    )


def _call(
    metric: Metric,
    case: Case,
    *,
    x: np.ndarray,
    a: np.ndarray,
    s: np.ndarray | None = None,
    model: torch.nn.Module | None = None,
    softmax: bool = False,
    explain: Callable[..., np.ndarray] | None = None,
    **more: np.ndarray,
) -> np.ndarray:
    arguments: dict[str, Any] = {
        "x_batch": x.copy(),
        "a_batch": a[:, None].copy(),
        "s_batch": s,
        "y_batch": case.targets.cpu().numpy().copy(),
        "model": model,
        "softmax": softmax,
        "explain_func": explain,
        "channel_first": True,
        "batch_size": len(case),
        **more,
    }
    with unchecked(), numpy_global(case.seed), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an undefined score is a NaN, which becomes a row with a reason
        return np.asarray(metric(**arguments), dtype=np.float64)
