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

ROUNDING = 1e-10  # a difference below this share of the largest score is rounding, and none
SINGLE = 1e-5  # and so is one of this share between statistics, whose draws are made in single precision


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
    from scipy.sparse import csr_array

    p = np.full((len(tested), len(tested)), np.nan)
    chosen = np.flatnonzero(tested)
    if len(chosen) < 2:
        return p
    values = values[:, chosen]
    known = np.isfinite(values)
    values = values / (np.abs(values[known]).max(initial=0) or 1)
    # Explainers scored on the same rows share a pattern: there is one in most boards, and few in any.
    numbers: dict[bytes, int] = {}
    pattern = np.array([numbers.setdefault(column.tobytes(), len(numbers)) for column in np.packbits(known.T, axis=1)])
    # What a row's scores have in common cancels in every difference; taken off first, it leaves no rounding behind.
    centre = np.where(known, values, 0.0).sum(1, keepdims=True) / np.maximum(known.sum(1, keepdims=True), 1)
    filled = np.where(known, values - centre, 0.0)
    shared = [filled * known[:, [(pattern == number).argmax()]] for number in numbers.values()]
    of_image = csr_array((np.ones(len(image)), (image, np.arange(len(image)))), (flips.shape[1], len(image)))
    sums = np.array([of_image @ rows for rows in shared])  # [patterns, I, E]
    first, second = np.triu_indices(len(chosen), 1)
    difference = sums[pattern[second], :, first] - sums[pattern[first], :, second]  # [pairs, I]
    size = np.sqrt((difference**2).sum(1, keepdims=True))
    size[size <= ROUNDING] = np.inf
    difference /= size
    null = np.abs(difference.astype(np.float32) @ flips.T.astype(np.float32))
    observed, found = np.abs(difference.sum(1)), np.full(len(first), np.nan)
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


def tie_groups(order: list[int], worse: Callable[[int, list[int]], np.ndarray]) -> dict[int, int]:
    """The group of each explainer, 1 = best: `order` from best to worst, `worse(i, others)` (bool) who of them is shown
    worse than i.

    The best explainer leads group 1; with it are all that are not shown worse than it. Of the others the best leads
    group 2, and so on: groups do not overlap, and every member of a group is shown worse than the leader before.
    """
    groups: dict[int, int] = {}
    group = 0
    while order:
        group += 1
        leader, others = order[0], order[1:]
        beaten = [i for i, lost in zip(others, worse(leader, others), strict=True) if lost] if others else []
        groups.update((i, group) for i in order if i not in beaten)
        order = beaten
    return groups
