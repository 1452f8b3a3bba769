"""What the planted factors of an image truly do to a model's answer: do-interventions by rendering the image again.

The proxies are made from known causes: factors -> image -> prediction. Changing one factor and nothing else (the
evidence or a kind of distractor is not painted, the tag is not planted, the scene's backdrop is another one; light,
noise and all other objects stay) gives the image under `do(factor)`, so the difference between the model's answers is
the factor's causal effect on this image, not an estimate. Pearl, Causality, 2nd ed. 2009; Goyal et al., Explaining
Classifiers with Causal Concept Effect, arXiv:1907.07165, 2019.

Beside it stands what an observer without a renderer would estimate: a structural model in which a class's logit is a
sum of effects of the factors present, fitted to the images as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from unmask.device import batch_size

if TYPE_CHECKING:
    import numpy as np

    from unmask.interventions import Factor

FEWEST = 2  # images with a factor, and without it, that an effect is estimated from


@dataclass(frozen=True)
class Effect:
    """Values of N images, NaN where an image has none: a quantity of a factor, on the logit of the class `target` (None
    = each image's predicted class)."""

    factor: str
    quantity: str
    target: int | None
    values: np.ndarray


@dataclass(frozen=True)
class Answers:
    """Logits of the N images, float64 [N, C], and of those that have a factor with it changed, [K, C] by factor."""

    whole: np.ndarray
    changed: dict[str, np.ndarray]


@torch.no_grad()
def logits(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """The model's logits of images [N, 3, H, W], in batches: float64 [N, C]."""
    return torch.cat([model(part).double().cpu() for part in images.split(batch_size(images.device))]).numpy()


def pixels(changed: np.ndarray, device: torch.device) -> torch.Tensor:
    """Images uint8 [K, H, W, 3] as a model takes them: float32 [K, 3, H, W] in [0, 1]."""
    return torch.from_numpy(changed).to(device).permute(0, 3, 1, 2).float().div(255).contiguous()


def answers(model: torch.nn.Module, images: torch.Tensor, factors: Mapping[str, Factor]) -> Answers:
    """Ask the model about images [N, 3, H, W] and about each of them with each factor that it has changed."""
    asked = {name: pixels(factor.changed, images.device) for name, factor in factors.items() if factor.present.any()}
    return Answers(logits(model, images), {name: logits(model, changed) for name, changed in asked.items()})


def true_effects(given: Answers, factors: Mapping[str, Factor]) -> list[Effect]:
    """What each factor does to the answer of the images that have it.

    c is the class that is predicted for the image as it is. `effect_logit` is the logit of c less that with the factor
    changed, `effect_probability` the same of the softmax probability, and `changed_prediction` whether another class is
    predicted then (1 or 0). Positive: the factor speaks for the prediction.
    """
    import numpy as np
    from scipy.special import softmax

    predicted = given.whole.argmax(1)
    made = []
    for name, changed in given.changed.items():
        present = factors[name].present
        before, target = given.whole[present], predicted[present][:, None]

        def of_target(values: np.ndarray, target: np.ndarray = target) -> np.ndarray:
            return np.take_along_axis(values, target, 1)[:, 0]

        found = {
            "effect_logit": of_target(before) - of_target(changed),
            "effect_probability": of_target(softmax(before, 1)) - of_target(softmax(changed, 1)),
            "changed_prediction": (changed.argmax(1) != target[:, 0]).astype(np.float64),
        }
        made += [Effect(name, quantity, None, _spread(values, present)) for quantity, values in found.items()]
    return made


def causal_model(given: Answers, factors: Mapping[str, Factor]) -> tuple[list[Effect], list[tuple[str, int, str]]]:
    """Estimated and true average effects on the logit of each class, and by (factor, class) why there is none.

    For class c: `logit_c = a + sum_k b_k [factor k is present] + error`, by ordinary least squares over all N images as
    they are. A factor that speaks for classes has a dummy for each of them, of which b for the class c itself is
    reported (evidence of c against no evidence, a tag in the colour of c against none); another factor has one. A
    factor that every image has, such as the background, has no dummy.

    `true_effect` is logit_c less that with the factor changed, of the images whose dummy is 1; its mean is the average
    treatment effect on the treated. `estimated_effect` has one value for every image, whose mean is b and whose
    variance over N is the jackknife's (pseudo-values; MacKinnon & White 1985, HC3 but for the factor (N - 1) / N).
    """
    import numpy as np

    dummies: dict[tuple[str, int | None], np.ndarray] = {}
    for name, factor in factors.items():
        if factor.classes is None:
            dummies[name, None] = factor.present
        else:
            speaks = sorted({*factor.classes[factor.classes >= 0].tolist()})
            dummies |= {(name, c): factor.present & (factor.classes == c) for c in speaks}
    images, classes = given.whole.shape
    known = {key: d for key, d in dummies.items() if FEWEST <= d.sum() <= images - FEWEST}
    design = np.column_stack([np.ones(images), *known.values()]).astype(np.float64)
    problem = _unsolvable(design)
    effects: list[Effect] = []
    missing: list[tuple[str, int, str]] = []
    for c in range(classes):
        estimated = None if problem else least_squares(design, given.whole[:, c])
        for (name, speaks), dummy in dummies.items():
            if speaks not in (None, c) or dummy.all():
                continue
            if dummy.any():
                rows = dummy[factors[name].present]
                change = given.whole[dummy, c] - given.changed[name][rows, c]
                effects.append(Effect(name, "true_effect", c, _spread(change, dummy)))
            if (name, speaks) not in known:
                missing.append((name, c, f"{int(dummy.sum())} of the {images} images have it: too few to compare"))
            elif problem:
                missing.append((name, c, problem))
            else:
                place = 1 + list(known).index((name, speaks))
                effects.append(Effect(name, "estimated_effect", c, estimated[:, place]))
    return effects, missing


def least_squares(design: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Jackknife pseudo-values of the coefficients of `outcome` [N] on `design` [N, K], centred on them: [N, K].

    Without image i they are `b - (X'X)^-1 x_i e_i / (1 - h_i)`, with residual e and leverage h.
    """
    import numpy as np

    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ (design.T @ outcome)
    residuals = outcome - design @ coefficients
    leverage = np.einsum("ik,kl,il->i", design, inverse, design)
    shifts = (design @ inverse) * (residuals / (1 - leverage))[:, None]
    return coefficients + (len(design) - 1) * (shifts - shifts.mean(0))


def _unsolvable(design: np.ndarray) -> str | None:
    """Why the coefficients cannot be told apart."""
    import numpy as np

    if np.linalg.matrix_rank(design) < design.shape[1]:
        return "which factors the images have does not tell their effects apart"
    inverse = np.linalg.inv(design.T @ design)
    if np.einsum("ik,kl,il->i", design, inverse, design).max() > 1 - 1e-9:
        return "the effects hang on a single image"
    return None


def _spread(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    import numpy as np

    whole = np.full(len(present), np.nan)
    whole[present] = values
    return whole
