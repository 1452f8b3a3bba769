"""Which explainers of a board differ: sign-flip tests of all pairs, corrected together, and tie groups made of them.

The test of a pair flips the signs of its differences image by image, all scores of an image at once (Fisher's
randomisation test: exact for any number of images where differences are symmetric around 0, of whatever shape). The
same flips serve every pair, so the correction knows how the pairs hang together: step-down max-T (Westfall & Young
1993; Romano & Wolf 2005), which is Holm's procedure with the joint distribution instead of Bonferroni's bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-10  # a difference below this share of the scores is rounding, and none
SINGLE = 1e-6  # and so is one of this share between statistics, whose draws are kept in single precision


def signs(generator: np.random.Generator, images: int, resamples: int) -> np.ndarray:
    """Random signs, float64 [resamples, images]."""
    import numpy as np

    return generator.integers(0, 2, (resamples, images)).astype(np.float64) * 2 - 1


def corrected(
    values: np.ndarray, image: np.ndarray, flips: np.ndarray, tested: np.ndarray, control: np.ndarray
) -> np.ndarray:
    """Corrected p-values of all pairs of explainers: [E, E], NaN where a pair has no test.

    `values` [R, E] scores (NaN = none), `image` [R] whose they are, `flips` [B, I] signs, `tested` [E] who takes part.
    A pair is compared on the rows where both have a score; its statistic is |sum d| / sqrt(sum d^2) over the images.
    Pairs are corrected together that answer one question: which explainers differ, which differ from which control
    (`control` [E]), which controls differ.
    """
    import numpy as np

    p = np.full((len(tested), len(tested)), np.nan)
    chosen = np.flatnonzero(tested)
    if len(chosen) < 2:
        return p
    values = values[:, chosen]
    known = np.isfinite(values)
    # Explainers scored on the same rows share a pattern: there is one in most boards, and few in any.
    patterns, pattern = np.unique(known, axis=1, return_inverse=True)
    # What a row's scores have in common cancels in every difference; taken off first, it leaves no rounding behind.
    centre = np.where(known, values, 0.0).sum(1, keepdims=True) / np.maximum(known.sum(1, keepdims=True), 1)
    filled = np.where(known, values - centre, 0.0)
    sums = np.zeros((patterns.shape[1], flips.shape[1], len(chosen)))
    for i, rows in enumerate(patterns.T):
        np.add.at(sums[i], image[rows], filled[rows])
    flipped = sums.transpose(0, 2, 1) @ flips.T  # [patterns, E, B]
    first, second = np.triu_indices(len(chosen), 1)
    difference = sums[pattern[second], :, first] - sums[pattern[first], :, second]  # [pairs, I]
    size = np.sqrt((difference**2).sum(1))
    size[size <= ROUNDING * np.abs(values[known]).max(initial=0)] = np.inf
    null, at = np.empty((len(first), len(flips)), np.float32), 0
    for i in range(len(chosen) - 1):
        drawn = flipped[pattern[i + 1 :], i] - flipped[pattern[i], i + 1 :]
        drawn /= size[at : at + len(drawn), None]
        np.abs(drawn, out=null[at : at + len(drawn)], casting="same_kind")
        at += len(drawn)
    observed, found = np.abs(difference.sum(1)) / size, np.full(len(first), np.nan)
    both = (known.T.astype(np.float64) @ known)[first, second] > 0
    question = control[chosen][first].astype(int) + control[chosen][second]
    for family in range(3):
        pairs = both & (question == family)
        found[pairs] = step_down(observed[pairs], null[pairs])
    p[chosen[first], chosen[second]] = p[chosen[second], chosen[first]] = found
    return p


def step_down(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Corrected p-values [P] of statistics [P] (large = different) by their joint draws [P, B] under the null."""
    import numpy as np

    largest = np.zeros(null.shape[1], null.dtype)  # in each draw, of a statistic and all smaller ones
    p = np.empty(len(observed))
    for pair in np.argsort(observed, kind="stable"):
        np.maximum(largest, null[pair], out=largest)
        p[pair] = (1 + np.count_nonzero(largest >= observed[pair] * (1 - SINGLE))) / (1 + len(largest))
    order = np.argsort(-observed, kind="stable")
    p[order] = np.maximum.accumulate(p[order])
    return p


def tie_groups(order: list[int], worse: Callable[[int], np.ndarray]) -> dict[int, int]:
    """The group of each explainer, 1 = best: `order` from best to worst, `worse(i)` [E] who is shown worse than i.

    The best explainer leads group 1; with it are all that are not shown worse than it. Of the others the best leads
    group 2, and so on: groups do not overlap, and every member of a group is shown worse than the leader before.
    """
    groups: dict[int, int] = {}
    group = 0
    while order:
        group += 1
        beaten = worse(order[0])
        groups.update((i, group) for i in order if not beaten[i] or i == order[0])
        order = [i for i in order if i not in groups]
    return groups
