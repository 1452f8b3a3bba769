"""Surrogates of single decisions: which patches have to be present, said by a tree and by a sparse linear model.

Random subsets of an image's patches are removed, every number of patches equally often (as in Covert et al., Learning
to Estimate Shapley Values with Vision Transformers, ICLR 2023), the same ones for every model of a domain. On one part
of them surrogates are fitted to the logit of the class that is decided for, on the other they are judged. Surrogates of
single decisions: Ribeiro et al., KDD 2016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.errors import Skip
from unmask.internals.counterfactuals import margins
from unmask.internals.removed import logits, under_every_removal
from unmask.internals.standins import StandIn, stand_ins

if TYPE_CHECKING:
    import numpy as np
    import torch

    from unmask.models.classifier import Classifier, ConvClassifier
    from unmask.registry import Plugin
    from unmask.removals import Removal

# A row per removal, surrogate, image and quantity; what is undefined or does not apply lacks the names of the rest.
COLUMNS = {
    "of": "category",  # patches, or concepts
    "surrogate": "category",  # tree, or linear
    "removal": "category",
    "image_id": "object",
    "quantity": "category",
    "value": "float64",
    "status": "category",
    "reason": "object",
}
LEAST = 0.005  # a coefficient below is 0.00 in words
MOST = 8  # coefficients that are kept of a linear surrogate


def subsets(generator: np.random.Generator, images: int, count: int, patches: int) -> np.ndarray:
    """Which patches are present: bool [images, count, patches], every number of them from 0 to all equally likely."""
    size = generator.integers(0, patches + 1, (images, count, 1))
    return generator.random((images, count, patches)).argsort(-1).argsort(-1) < size


def place(patch: int, across: int) -> str:
    """Where a patch lies, of `across` in a row, counted from 1 at the top left."""
    return f"row {patch // across + 1}, column {patch % across + 1}"


def patch_rows(
    plugins: list[Plugin],
    model: Classifier | ConvClassifier,
    images: torch.Tensor,
    ids: list[str],
    present: np.ndarray,
    given: dict[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Fidelity, a row per removal, surrogate, image and quantity; and what those say that are faithful enough.

    `present` bool [N, K, P], of which the first `given["fitting"]` are fitted to. Those below `given["r2"]` are unfit.
    """
    contents: list[dict[str, Any]] = []
    rows = under_every_removal(
        plugins, model, lambda removal: _rows(removal, model, images, ids, present, given, contents)
    )
    return [{"of": "patches", **row} for row in rows], contents


def _rows(
    removal: Removal,
    model: Classifier | ConvClassifier,
    images: torch.Tensor,
    ids: list[str],
    present: np.ndarray,
    given: dict[str, Any],
    contents: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    import numpy as np

    count, subsets, patches = present.shape
    everything = np.arange(count)
    decided = logits(model, removal, images, everything, np.zeros((count, patches), bool)).argmax(1)
    answers = logits(model, removal, images, everything.repeat(subsets), ~present.reshape(-1, patches))
    own = np.take_along_axis(answers, decided.repeat(subsets)[:, None], 1).reshape(count, subsets)
    margin = margins(answers, decided.repeat(subsets)).reshape(count, subsets)
    names = [place(patch, model.grid[1]) for patch in range(patches)]
    rows, said = [], []
    for at, name in enumerate(ids):
        try:
            found = stand_ins(present[at], own[at], margin[at], given["fitting"], given["depth"], names)
        except Skip as reason:
            rows.append({"image_id": name, "status": "skipped", "reason": str(reason)})
            continue
        for surrogate, one in found.items():
            fit = one.r2 >= given["r2"]
            values = {"r2": one.r2, "agreement": one.agreement, "baseline": one.baseline, "fit": float(fit)}
            rows += [
                {"surrogate": surrogate, "image_id": name, "quantity": quantity, "value": value}
                for quantity, value in values.items()
            ]
            key = {"of": "patches", "removal": removal.id, "surrogate": surrogate, "image_id": name}
            key |= {"class": int(decided[at]), "r2": one.r2, "agreement": one.agreement, "fit": fit}
            said.append(key | (_content(one) if fit else {}))
    contents += said
    return rows


def _content(one: StandIn) -> dict[str, Any]:
    """The tree's text, or the linear model's intercept and largest coefficients by patch, and how many there are."""
    import numpy as np

    if isinstance(one.content, str):
        return {"tree": one.content}
    intercept, coefficients = one.content
    order = np.argsort(-np.abs(coefficients), kind="stable")[:MOST]
    return {
        "intercept": intercept,
        "coefficients": [[int(patch), float(coefficients[patch])] for patch in order if coefficients[patch]],
        "nonzero": int((coefficients != 0).sum()),
    }


def words(one: dict[str, Any], across: int) -> str:
    """What a fit surrogate says: the tree, or coefficients line by line; `across` patches lie in a row."""
    if "tree" in one:
        return one["tree"]
    if one["of"] == "concepts":
        return "\n".join(
            f"{value:+.2f} {concept} \N{RIGHTWARDS ARROW} {name}"
            for name, concept, value in one["coefficients"]
            if abs(value) >= LEAST
        )
    lines = [f"{one['intercept']:.2f} with no patch present"]
    lines += [f"{value:+.2f} {place(patch, across)}" for patch, value in one["coefficients"]]
    more = one["nonzero"] - len(one["coefficients"])
    return "\n".join([*lines, f"and {more} smaller ones"] if more else lines)
