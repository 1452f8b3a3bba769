"""The way into Quantus 0.6: its metrics as they are, each fed one whole mini-batch.

What the library gets wrong or leaves to the caller is settled here once: copies of the arrays (it writes in place), one
mini-batch (several metrics keep only the first), an explicit softmax, numpy's global generator seeded and put back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from quantus.helpers import asserts, warn
from quantus.helpers.model.pytorch_model import PyTorchModel
from quantus.metrics.base import Metric

from unmask.case import Case
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
    """Score attributions [N, H, W] with a metric that compares them with the evidence masks; no model is run."""
    x = np.zeros((len(case), 1, *case.masks.shape[1:]), np.float32)
    return _call(metric, case, x=x, a=attributions, s=case.masks[:, None].astype(np.int64))


def of_map(metric: Metric, case: Case, attributions: np.ndarray) -> np.ndarray:
    """Score attributions [N, h, w] with a metric that looks at nothing else."""
    return _call(metric, case, x=np.zeros((len(case), 1, *attributions.shape[1:]), np.float32), a=attributions)


def of_mosaics(metric: Metric, case: Case, attributions: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Score attributions [N, H, W] of mosaics by which of the tiles, row by row, are the class's: `own` bool [N, 4]."""
    x = np.zeros((len(case), 1, *attributions.shape[1:]), np.float32)
    return _call(metric, case, x=x, a=attributions, model=case.model, custom_batch=own)


def re_explaining(metric: Metric, case: Case) -> np.ndarray:
    """Score the case's maps, at pixel resolution, with a metric that explains perturbed images anew."""

    def explain(model, inputs, targets, **kwargs):
        images = torch.tensor(inputs, dtype=torch.float32, device=case.images.device)
        # The explainer may draw from numpy's global generator; the metric's own draws go on untouched.
        with numpy_global(case.seed):
            return case.explain(images, torch.as_tensor(targets, device=case.images.device))[:, None]

    return _call(metric, case, x=case.images.cpu().numpy(), a=case.pixel_maps, model=case.model, explain=explain)


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
