"""Simple models that stand in for a network: a small decision tree, and a linear one with few coefficients.

How faithful they are comes first (Craven & Shavlik, Extracting Tree-Structured Representations of Trained Networks,
NeurIPS 1996): what they say of the network is worth as much as their agreement with it on inputs that they were not
fitted to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unmask.errors import Skip

if TYPE_CHECKING:
    import numpy as np

LEAST = 5  # inputs in a leaf
FOLDS, PENALTIES = 5, 30  # of the cross-validation that chooses the Lasso's penalty
SAME = 1e-6  # a logit that varies by less, relative to its size, is constant


@dataclass(frozen=True)
class StandIn:
    """A surrogate of one decision, with its fidelity on the inputs held out.

    r2         coefficient of determination of the logit; 1 = all of its variance, 0 = no better than its mean
    agreement  share of inputs where it says what the network does: whether the class is still decided for
    baseline   the same of always saying what is more frequent
    content    the tree as text, or (intercept, coefficients [F])
    """

    r2: float
    agreement: float
    baseline: float
    content: Any


def stand_ins(
    inputs: np.ndarray, logit: np.ndarray, margin: np.ndarray, fitting: int, depth: int, names: list[str]
) -> dict[str, StandIn]:
    """A tree and a sparse linear model of a class's logit and its margin, both float64 [K], of binary inputs [K, F].

    Fitted to the first `fitting` inputs, judged on the others. The tree has both as outputs; the linear model is two,
    each a Lasso (Tibshirani 1996) with a penalty chosen by cross-validation. Raises `Skip` where the logit is constant.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    parts = slice(None, fitting), slice(fitting, None)
    if any(np.ptp(logit[part]) <= SAME * max(1.0, np.abs(logit).max()) for part in parts):
        raise Skip("the logit is the same whatever is removed: there is nothing to stand in for")
    outputs = np.stack([logit, margin], 1)
    inputs = inputs.astype(np.float64)
    with threadpool_limits(1):  # sums depend on the number of threads
        made = {"tree": _tree(inputs, outputs, fitting, depth, names), "linear": _lasso(inputs, outputs, fitting)}
    stays = margin >= 0
    usual = stays[:fitting].mean() >= 0.5
    baseline = float((stays[fitting:] == usual).mean())
    found = {}
    for name, (guessed, content) in made.items():
        error = ((guessed[:, 0] - logit[fitting:]) ** 2).sum() / ((logit[fitting:] - logit[fitting:].mean()) ** 2).sum()
        agreement = float(((guessed[:, 1] >= 0) == stays[fitting:]).mean())
        found[name] = StandIn(float(1 - error), agreement, baseline, content)
    return found


def _tree(
    inputs: np.ndarray, outputs: np.ndarray, fitting: int, depth: int, names: list[str]
) -> tuple[np.ndarray, str]:
    from sklearn.tree import DecisionTreeRegressor

    tree = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=LEAST, random_state=0)
    tree.fit(inputs[:fitting], outputs[:fitting])
    text = printed(
        tree.tree_,
        lambda feature, threshold: f"{names[feature]} is present",
        lambda node: f"logit {tree.tree_.value[node, 0, 0]:.2f}",
    )
    return tree.predict(inputs[fitting:]), text


def _lasso(inputs: np.ndarray, outputs: np.ndarray, fitting: int) -> tuple[np.ndarray, tuple[float, np.ndarray]]:
    import numpy as np
    from sklearn.linear_model import LassoCV

    fitted = [
        LassoCV(alphas=_penalties(inputs[:fitting], output), cv=FOLDS, max_iter=10_000).fit(inputs[:fitting], output)
        for output in outputs[:fitting].T
    ]
    guessed = np.stack([one.predict(inputs[fitting:]) for one in fitted], 1)
    return guessed, (float(fitted[0].intercept_), fitted[0].coef_)


def _penalties(inputs: np.ndarray, output: np.ndarray) -> np.ndarray:
    """From the penalty that leaves no coefficient down to a ten-thousandth of it."""
    import numpy as np

    covariance = (inputs - inputs.mean(0)).T @ (output - output.mean()) / len(output)
    return np.abs(covariance).max() * np.geomspace(1, 1e-4, PENALTIES)


def printed(tree: Any, ask: Callable[[int, float], str], say: Callable[[int], str]) -> str:
    """A fitted scikit-learn `tree_` as nested questions, each answered yes where the feature is above its threshold."""

    def lines(node: int, indent: str) -> list[str]:
        yes, no = tree.children_right[node], tree.children_left[node]
        if yes == no:  # a leaf
            return [f"{indent}{say(node)}"]
        question = ask(int(tree.feature[node]), float(tree.threshold[node]))
        deeper = indent + "    "
        return [f"{indent}if {question}:", *lines(yes, deeper), f"{indent}else:", *lines(no, deeper)]

    return "\n".join(lines(0, ""))
