"""Counterfactuals: the fewest patches without which the model decides for another class.

A smallest set whose removal changes the decision (of a document's words: Martens & Provost, Explaining Data-Driven
Document Classifications, MIS Quarterly 2014) is an explanation that can be checked: every set is removed once more
after the search, and the class that is then decided for is recorded. What is found depends on how patches are removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.internals.flipping import Limits, search, together
from unmask.internals.removed import logits, under_every_removal

if TYPE_CHECKING:
    import numpy as np
    import torch

    from unmask.models.classifier import Classifier, ConvClassifier
    from unmask.registry import Plugin
    from unmask.removals import Removal

# A row per removal and image; one that does not apply or failed has neither image nor outcome.
COLUMNS = {
    "removal": "category",
    "image_id": "object",
    "decision": "Int64",  # class of the whole image
    "outcome": "category",  # of OUTCOMES
    "new_class": "Int64",
    "size": "Int64",  # patches in the smallest set found
    "greedy_size": "Int64",  # in greedy's
    "largest": "Int64",  # as large a set was searched for
    "proven": "boolean",  # all smaller sets were tried
    "evidence": "float64",  # share of the set's patches that touch the evidence; none without evidence
    "evidence_everywhere": "float64",  # of all patches
    "margin": "float64",  # logit of the class less the highest other one: of the whole image,
    "new_margin": "float64",  # and without the set
    "sets": "Int64",  # tried
    "patches": "object",  # numbers, in rows from the top left
    "status": "category",
    "reason": "object",
}
OUTCOMES = {
    "flipped": "the decision changed",
    "larger": "no set was found among those tried, but leaving a single patch changes the decision",
    "never": "removing all but one patch, whichever one is left, does not change the decision",
}


def margins(answers: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Logits float64 [M, C] of the class [M] less the highest of the others: [M]; below 0 the decision is another."""
    import numpy as np

    own = np.take_along_axis(answers, classes[:, None], 1)[:, 0]
    others = answers.copy()
    np.put_along_axis(others, classes[:, None], -np.inf, 1)
    return own - others.max(1)


def counterfactual_rows(
    plugins: list[Plugin],
    model: Classifier | ConvClassifier,
    images: torch.Tensor,
    ids: list[str],
    masks: np.ndarray | None,
    limits: Limits,
) -> list[dict[str, Any]]:
    """A row per removal and image: see `COLUMNS`; `masks` bool [N, H, W], None where the evidence is not known."""
    return under_every_removal(
        plugins, model, lambda removal: _rows(removal, model, images, ids, _touched(masks, model.grid), limits)
    )


def _touched(masks: np.ndarray | None, grid: tuple[int, int]) -> np.ndarray | None:
    """Which patches touch the evidence: bool [N, P]."""
    if masks is None:
        return None
    n, height, width = masks.shape
    return masks.reshape(n, grid[0], height // grid[0], grid[1], width // grid[1]).any((2, 4)).reshape(n, -1)


def _rows(
    removal: Removal,
    model: Classifier | ConvClassifier,
    images: torch.Tensor,
    ids: list[str],
    touched: np.ndarray | None,
    limits: Limits,
) -> list[dict[str, Any]]:
    import numpy as np

    count, patches = len(images), model.grid[0] * model.grid[1]
    everything = np.arange(count)
    whole = logits(model, removal, images, everything, np.zeros((count, patches), bool))
    classes = whole.argmax(1)
    before = margins(whole, classes)

    def ask(rows: np.ndarray, absent: np.ndarray) -> np.ndarray:
        return margins(logits(model, removal, images, rows, absent), classes[rows])

    found, tried = together([search(patches, margin, limits) for margin in before.tolist()], ask)
    absent = np.zeros((count, patches), bool)
    for row, sets in zip(absent, found, strict=True):
        row[list(sets.smallest or ())] = True
    again = logits(model, removal, images, everything, absent)
    after = margins(again, classes)
    rows = []
    for place, sets in enumerate(found):
        row: dict[str, Any] = {
            "image_id": ids[place],
            "decision": int(classes[place]),
            "largest": min(limits.largest, patches - 1),
            "margin": before[place],
            "sets": tried[place],
        }
        if sets.smallest is None:
            row["outcome"] = "never" if sets.never else "larger"
            row["reason"] = OUTCOMES[row["outcome"]]
        elif after[place] >= 0:
            row |= {"status": "failed", "reason": "the decision came back when the set was removed once more"}
        else:
            row |= {
                "outcome": "flipped",
                "new_class": int(again[place].argmax()),
                "size": len(sets.smallest),
                "greedy_size": None if sets.greedy is None else len(sets.greedy),
                "proven": sets.proven,
                "new_margin": after[place],
                "patches": " ".join(map(str, sets.smallest)),
            }
            if touched is not None and touched[place].any():
                row["evidence"] = float(touched[place, list(sets.smallest)].mean())
                row["evidence_everywhere"] = float(touched[place].mean())
        rows.append(row)
    return rows
