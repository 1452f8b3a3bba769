"""Remove and debias (ROAD): how long the prediction stands as the most relevant patches go.

ROAD as published removes by `noisy_linear`; any other removal gives the same question with another answer.
"""

from __future__ import annotations

import numpy as np
from quantus import ROAD

from unmask.case import Case
from unmask.metrics._curves import kept, logits, most_first
from unmask.quantus_bridge import COMMON, in_token_space

META = {
    "category": "faithfulness",
    "direction": "lower",
    "bounds": [0.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "patches // step + 1", "explanations": "0"},
    "shares": {"forward": {"morf": "patches // step - 1"}},
    "draws": {"ends": "2"},
    "options": {"step": 1},
    "ranges": {"step": [1, None]},
    "quantus": "ROAD",
    "chance": "how long it stands in a random order, which depends on the model",
    "citation": "Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022",
}


def score(case: Case, step: int) -> np.ndarray:
    """Share of the points `step`, 2 `step` ... of the patches, short of all, with the target ahead: float64 [N].

    The mean over images is the mean accuracy of ROAD's curve, with the prediction in place of the label.
    """
    ranks = most_first(case)
    keep = kept(ranks, step)
    if case.engine == "quantus":
        return _by_quantus(case, ranks, step)
    points = logits(case, keep)[0][:, 1:-1]
    targets = case.targets.cpu().numpy()[:, None, None]
    target = np.take_along_axis(points, targets, axis=-1)[..., 0]
    others = points.copy()
    np.put_along_axis(others, targets, -np.inf, axis=-1)
    return (target > others.max(axis=-1)).mean(axis=1)  # a tie is no prediction


class _PerImage(ROAD):
    """Quantus's ROAD, which averages over the images of its first mini-batch, without the average."""

    def custom_postprocess(self, **kwargs) -> None:
        self.evaluation_scores = np.concatenate(self.evaluation_scores).mean(axis=1)


def _by_quantus(case: Case, ranks: np.ndarray, step: int) -> np.ndarray:
    patches = ranks[0].size
    metric = _PerImage(
        percentages=[100 * (gone + 0.5) / patches for gone in range(step, patches, step)],  # it rounds down
        perturb_func=_remove,
        abs=False,
        normalise=False,
        **COMMON,
    )
    return in_token_space(metric, case, ranks, softmax=False)


def _remove(arr: np.ndarray, indices: np.ndarray, **kwargs) -> np.ndarray:
    arr = arr.copy()
    arr.reshape(-1)[indices] = 0  # which the removal makes of it
    return arr
