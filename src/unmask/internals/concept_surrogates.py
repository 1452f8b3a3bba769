"""Global surrogates: what a model decides for, predicted from what is known to be in the images.

The concepts are the rendered factors: the evidence of each class, the distractors, the shortcut's tag; whether it is
there, and its share of the image. A tree and an L1-penalised logistic regression (Tibshirani 1996) are fitted to the
predicted classes. Every image is predicted by surrogates that were not fitted to it (five folds, the same for every
model of a domain), so that their agreement with the model is held out. Bastani et al., Interpreting Blackbox Models via
Model Extraction, arXiv:1705.08504, 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.domains._proxy import tag_colours
from unmask.errors import Skip
from unmask.internals.standins import LEAST, printed

if TYPE_CHECKING:
    import numpy as np

    from unmask.internals.scenes import Scenes

FOLDS = 5


def concepts(scenes: Scenes) -> tuple[list[str], np.ndarray]:
    """Names and values float64 [N, F] of what is known of N images; what is the same in all of them is left out.

    Raises `Skip` where nothing is known.
    """
    import numpy as np

    found: dict[str, np.ndarray] = {}
    if scenes.masks is not None and scenes.labels is not None:
        area = scenes.masks.mean((1, 2))
        for label, name in enumerate(scenes.classes):
            own = np.where(scenes.labels == label, area, 0.0)
            found |= {f"{name}: present": (own > 0).astype(float), f"{name}: area": own}
    for name, pixels in scenes.distractors.items():
        area = pixels.mean((1, 2))
        found |= {f"{name}: present": (area > 0).astype(float), f"{name}: area": area}
    if scenes.tag is not None and scenes.tag.any():
        found |= _tags(scenes)
    kept = {name: values for name, values in found.items() if np.ptp(values) > 0}
    if not kept:
        raise Skip("nothing is known of the images' content that differs between them")
    return list(kept), np.stack(list(kept.values()), 1)


def _tags(scenes: Scenes) -> dict[str, np.ndarray]:
    """Whether the tag is there, by the class whose colour it has."""
    import numpy as np

    tagged = scenes.tag.any((1, 2))
    colours = np.stack(
        [image[tag][0] if tag.any() else np.zeros(3) for image, tag in zip(scenes.images, scenes.tag, strict=True)]
    )
    known = tag_colours(len(scenes.classes)).astype(float)
    nearest = ((colours[:, None] - known) ** 2).sum(-1).argmin(1)
    return {
        f"tag of {name}: present": (tagged & (nearest == label)).astype(float)
        for label, name in enumerate(scenes.classes)
    }


def concept_rows(
    names: list[str],
    values: np.ndarray,
    decided: np.ndarray,
    ids: list[str],
    classes: list[str],
    generator: np.random.Generator,
    given: dict[str, Any],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Fidelity, a row per surrogate, image and quantity; and what those say that are faithful enough.

    `values` float64 [N, F], `decided` int64 [N]: the predicted classes. A surrogate is unfit below
    `given["agreement"]`, and where the most frequent class alone agrees as often. Raises `Skip` where all are the same.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    if len(np.unique(decided)) == 1:
        raise Skip("the model decides for one class on all images: there is nothing to stand in for")
    folds = generator.permutation(len(decided)) % FOLDS
    makers = {"tree": lambda: _tree(given["depth"]), "linear": _logistic}
    rows, contents = [], []
    with threadpool_limits(1):
        baseline = _held_out(_usual, values, decided, folds)
        for surrogate, make in makers.items():
            right = _held_out(make, values, decided, folds)
            fit = bool(right.mean() >= given["agreement"] and right.mean() > baseline.mean())
            found = {"agreement": right, "baseline": baseline, "fit": np.full(len(right), float(fit))}
            rows += [
                {"of": "concepts", "surrogate": surrogate, "image_id": name, "quantity": quantity, "value": value}
                for quantity, column in found.items()
                for name, value in zip(ids, column.tolist(), strict=True)
            ]
            one = {"of": "concepts", "surrogate": surrogate, "agreement": float(right.mean()), "fit": fit}
            contents.append(one | (_content(make().fit(values, decided), names, classes) if fit else {}))
    return rows, contents


def _held_out(make: Any, values: np.ndarray, decided: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Whether each image's class is predicted by a surrogate fitted without its fold: float64 [N] of 0 and 1."""
    import numpy as np

    right = np.zeros(len(decided))
    for fold in range(FOLDS):
        held = folds == fold
        one = make() if len(np.unique(decided[~held])) > 1 else _usual()
        right[held] = one.fit(values[~held], decided[~held]).predict(values[held]) == decided[held]
    return right


def _usual() -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="most_frequent")


def _tree(depth: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=depth, min_samples_leaf=LEAST, random_state=0)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(solver="saga", l1_ratio=1.0, max_iter=5000, tol=1e-3, random_state=0)
    )


def _content(fitted: Any, names: list[str], classes: list[str]) -> dict[str, Any]:
    """The tree as text, or per class the coefficients of the standardised concepts, the largest first."""
    if hasattr(fitted, "tree_"):
        return {"tree": _printed(fitted, names, classes)}
    regression = fitted[-1]
    coefficients = regression.coef_
    known = regression.classes_.tolist()
    if len(coefficients) == 1:  # of two classes the regression has the second's coefficients
        known = known[1:]
    return {
        "coefficients": [
            [classes[label], names[place], float(row[place])]
            for label, row in zip(known, coefficients, strict=True)
            for place in sorted(range(len(names)), key=lambda place, row=row: -abs(row[place]))
            if row[place]
        ]
    }


def _printed(tree: Any, names: list[str], classes: list[str]) -> str:
    known = tree.classes_.tolist()

    def ask(feature: int, threshold: float) -> str:
        name = names[feature]
        return (
            f"{name.removesuffix(': present')} is present"
            if name.endswith(": present")
            else f"{name} > {threshold:.4f}"
        )

    def say(node: int) -> str:
        shares = tree.tree_.value[node, 0] / tree.tree_.value[node, 0].sum()
        best = int(shares.argmax())
        return f"{classes[known[best]]} ({shares[best]:.0%} of {int(tree.tree_.n_node_samples[node])} images)"

    return printed(tree.tree_, ask, say)
