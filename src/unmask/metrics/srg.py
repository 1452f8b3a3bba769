"""Symmetric relevance gain: area when the least relevant patches go first, minus area when the most relevant do.

What removal does to any image, whatever is removed, is in both areas and leaves their difference.
"""

from __future__ import annotations

import numpy as np

from unmask.case import Case
from unmask.metrics._curves import area, curves, least_first, most_first

META = {
    "category": "faithfulness",
    "direction": "higher",
    "bounds": [-1.0, 1.0],
    "needs": ["removal"],
    "passes": {"forward": "2 * (patches // step)", "explanations": "0"},
    "shares": {"forward": {"morf": "patches // step - 1", "lerf": "patches // step - 1"}},
    "draws": {"ends": "2"},
    "options": {"step": 1},
    "ranges": {"step": [1, None]},
    "chance": "0",
    "citation": "Bluecher et al., Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks, "
    "TMLR 2024",
}


def score(case: Case, step: int) -> np.ndarray:
    """Least-relevant-first area minus most-relevant-first area: float64 [N] in [-1, 1]."""
    least, most = curves(case, least_first(case), most_first(case), step=step)
    return area(least) - area(most)
