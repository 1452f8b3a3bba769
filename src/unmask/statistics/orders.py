"""The order in which a set of scores puts the explainers, and how alike two orders are.

Controls are left out: their places are known beforehand, and would make any two orders look alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from unmask.seeds import numpy_generator
from unmask.statistics.complete import comparable, complete, image_means
from unmask.statistics.kendall import products, signs, tau_b, tau_of
from unmask.statistics.signed_rank import holm, signed_rank

if TYPE_CHECKING:
    import numpy as np

    from unmask.statistics.study import Measured, Study

DRAWS = 500  # resamples that are taken, at most: what the others add to the interval of a tau cannot be seen
SPLITS = 100  # random halvings of the images


@dataclass(frozen=True)
class View:
    """The scores of a metric in some domains, under some encoders and pairs of seeds (by their places; None = all)."""

    measured: Measured
    domains: Sequence[str]
    encoders: Sequence[int] | None = None
    seeds: Sequence[int] | None = None

    def cube(self, domain: str) -> np.ndarray:
        """The scores [I, S, M, E] in a domain."""
        every = slice(None)
        cube = self.measured.values[domain][:, every if self.seeds is None else self.seeds]
        return cube[:, :, every if self.encoders is None else self.encoders]

    def takes_part(self, study: Study) -> np.ndarray:
        """The explainers, no controls, that can be compared: bool [E]."""
        return comparable(self.cube(domain) for domain in self.domains) & ~study.control


def means(
    study: Study,
    view: View,
    chosen: np.ndarray,
    weights: dict[str, np.ndarray] | None = None,
    draws: int | None = None,
) -> tuple[np.ndarray, int, int]:
    """Mean scores of the chosen explainers over the rows that have all of them, every row counting the same.

    [1 + B, K], observed first, and over how many images in how many domains. `weights` (by domain [B, I]) stands for
    the observed row and the bootstrap: then the means are [B, K] and the first is nothing special. `draws` limits the
    bootstrap to its first resamples.
    """
    import numpy as np

    total, n, images, domains = 0.0, 0.0, 0, 0
    for domain in view.domains:
        cube = complete(view.cube(domain), chosen)
        held = np.isfinite(cube).all(-1, keepdims=True) if chosen.any() else np.zeros((*cube.shape[:-1], 1), bool)
        sums, rows = np.where(held, cube, 0.0).sum(2), held.sum(2).astype(np.float64)  # [I, S, K], [I, S, 1]
        if weights is None:
            drawn = study.weights[domain][:draws]
            drawn = drawn if view.seeds is None else drawn[:, :, view.seeds]
            drawn = np.concatenate([np.ones((1, *drawn.shape[1:])), drawn]).reshape(-1, rows.size)
            sums, rows = sums.reshape(rows.size, -1), rows.reshape(-1, 1)
        else:
            drawn, sums, rows = weights[domain], sums.sum(1), rows.sum(1)
        total, n = total + drawn @ sums, n + drawn @ rows
        here = int(held.any((1, 2)).sum())
        images, domains = images + here, domains + (here > 0)
    return np.divide(total, n, out=np.full(np.shape(total), np.nan), where=n > 0), images, domains


def halves(study: Study, view: View) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights of the images, by domain [SPLITS, I], that pick a random half of those with scores, and the others."""
    import numpy as np

    first, second = {}, {}
    for domain in view.domains:
        scored = np.isfinite(view.cube(domain)).any((1, 2, 3))
        generator = numpy_generator(study.seed, "aggregate", "splits", domain)
        drawn = np.where(scored, generator.random((SPLITS, len(scored))), np.inf)
        half = drawn.argsort(1, kind="stable").argsort(1, kind="stable") < scored.sum() // 2
        first[domain], second[domain] = half.astype(np.float64), (scored & ~half).astype(np.float64)
    return first, second


def spearman_brown(tau: np.ndarray | float) -> np.ndarray | float:
    """The reliability of scores from the tau of their halves: 0 = noise, 1 = no noise.

    Tau becomes a correlation (Greiner's relation, r = sin(pi tau / 2)), and that grows with twice the images, to
    2 r / (1 + r) (Spearman 1910; Brown 1910). Halves that disagree are noise.
    """
    import numpy as np

    r = np.clip(np.sin(np.pi / 2 * tau), 0.0, None)
    return 2 * r / (1 + r)


@dataclass(frozen=True)
class Order:
    """Explainers by their mean scores: who takes part (`known`, bool [E]), and which of each two of the K explainers
    that are no controls is ahead, int8 [1 + B, P = K (K - 1) / 2] (0 where one takes no part).

    The first row is the observed one, the others the resamples'. `images` and `domains` are how many there were.
    """

    study: Study
    view: View
    known: np.ndarray
    signs: np.ndarray
    images: int
    domains: int

    @cached_property
    def decided(self) -> np.ndarray:
        """How many pairs are no ties, [1 + B]."""
        return products(self.signs, self.signs)

    @cached_property
    def halves(self) -> np.ndarray:
        """Tau between the orders from two halves of the images, split within each domain at random: [SPLITS]."""
        one, other = (means(self.study, self.view, self.known, half)[0] for half in halves(self.study, self.view))
        return tau_b(signs(one), signs(other))

    @cached_property
    def reliability(self) -> float:
        """Split-half reliability: the correlation to expect between the mean scores and those of other images."""
        import numpy as np

        tau = self.halves[np.isfinite(self.halves)]
        return float(spearman_brown(tau.mean())) if len(tau) else np.nan

    @cached_property
    def tests(self) -> np.ndarray:
        """Signed-rank tests of every two explainers over the images: p-values, effects (> 0: first better), [2, P]."""
        import numpy as np

        among = self.known[~self.study.control]
        parts = [image_means(complete(self.view.cube(domain), self.known)) for domain in self.view.domains]
        values = np.full((sum(map(len, parts)), len(among)), np.nan)
        values[:, among] = np.concatenate(parts) * self.view.measured.sign
        first, second = np.triu_indices(len(among), 1)
        scale = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
        return np.stack(signed_rank(values[:, first] - values[:, second], scale)[:2])


def order(study: Study, view: View) -> Order:
    """The order by mean scores, the best first."""
    import numpy as np

    known = view.takes_part(study)
    found, images, domains = means(study, view, known, draws=DRAWS)
    values = np.full((len(found), (~study.control).sum()), np.nan)
    values[:, known[~study.control]] = found * view.measured.sign
    return Order(study, view, known, signs(values), images, domains)


@dataclass(frozen=True)
class Likeness:
    """How alike two orders are, by the explainers (`explainers` of them) that take part in both.

    `tau`: Kendall's tau-b [1 + B], observed first. `expected`: the tau to expect of one ranking measured twice with as
    much noise as each of these has. `pairs` of explainers, of which `agreed` are surely in the same order in both and
    `reversed` surely in opposite ones: both orders' tests reject, Holm's correction over the pairs.
    """

    tau: np.ndarray
    explainers: int
    expected: float
    pairs: int
    agreed: int
    reversed: int
    images: int
    domains: int


def likeness(first: Order, second: Order) -> Likeness:
    """Compare two orders; tau is NaN for fewer than three explainers, which agree or not by the toss of a coin."""
    import numpy as np

    both = (first.known & second.known)[~first.study.control]
    images, domains = min(first.images, second.images), min(first.domains, second.domains)
    one, other = np.triu_indices(len(both), 1)
    shared = both[one] & both[other]
    if both.sum() < 3:
        nothing = np.full(len(first.signs), np.nan)
        return Likeness(nothing, int(both.sum()), np.nan, int(shared.sum()), 0, 0, images, domains)
    every = shared.all()
    if every:
        tau = tau_of(products(first.signs, second.signs), first.decided, second.decided)
    else:
        tau = tau_b(first.signs[:, shared], second.signs[:, shared])
    (p, effect), (q, change) = first.tests[:, shared], second.tests[:, shared]
    sure = holm(np.maximum(p, q)) < 1 - first.study.confidence
    same = np.sign(effect) * np.sign(change)
    expected = 2 / np.pi * np.arcsin(np.sqrt(first.reliability * second.reliability))
    counted = int((sure & (same > 0)).sum()), int((sure & (same < 0)).sum())
    return Likeness(tau, int(both.sum()), float(expected), int(shared.sum()), *counted, images, domains)
