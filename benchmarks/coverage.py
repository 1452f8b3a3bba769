"""How honest the leaderboards' statistics are: simulated scores whose ties and gaps are known.

    python benchmarks/coverage.py

Four tables: intervals, tie groups, other corrections on the same scores, the ranking across metrics.
benchmarks/README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import add

import numpy as np
from scipy.stats import rankdata, wilcoxon

from unmask.statistics.boards import board
from unmask.statistics.bootstrap import Draws, counts, sums
from unmask.statistics.cells import Cell
from unmask.statistics.pairs import signs, tie_groups
from unmask.statistics.pools import Explainer, Pool
from unmask.statistics.ranking import Ranking
from unmask.statistics.votes import vote

CONFIDENCE = 0.95
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]  # of mean 0; the last axis is the explainers
NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "exponential": lambda rng, shape: rng.exponential(1, shape) - 1,
    "log-normal": lambda rng, shape: rng.lognormal(0, 1, shape) - np.exp(0.5),
    "t, 3 df": lambda rng, shape: rng.standard_t(3, shape),
    "hit or miss": lambda rng, shape: (rng.random(shape) < 0.7) - 0.7,
    "unequal": lambda rng, shape: rng.normal(0, 1, shape) * np.linspace(0.2, 3, shape[-1]),
    # Differences between the first half and the second are skewed: no sign-flip test is exact.
    "skewed": lambda rng, shape: np.where(
        np.arange(shape[-1]) < shape[-1] / 2, rng.exponential(2, shape) - 2, rng.normal(0, 0.3, shape)
    ),
}
LADDER = np.repeat([1.5, 1.0, 0.5, 0.0], 3)  # four groups of three, apart by half a standard deviation
CONTROLS = 3


def draws(images: int, resamples: int, seeds: int = 1, domain: int = 0) -> Draws:
    """The resampling of a domain, as the stage aggregate makes it."""
    rng = np.random.default_rng(domain)
    image, seed = np.tile(np.arange(images), seeds), np.repeat(np.arange(seeds), images)
    weights = counts(rng, images, resamples)[:, image] * counts(rng, seeds, resamples)[:, seed]
    return Draws(weights, image, signs(rng, images, resamples))


def explainers(number: int, controls: int) -> list[Explainer]:
    """Names of the columns of simulated scores, controls last."""
    return [Explainer(f"e{i}", "cam", False, False) for i in range(number)] + [
        Explainer(f"random_{i}", "control", True, False) for i in range(controls)
    ]


def cell(values: np.ndarray) -> Cell:
    """Scores [images, explainers] without gaps."""
    return Cell("d", "e", values, np.zeros(values.shape, bool), np.zeros(values.shape[1], int))


def intervals(
    rng: np.random.Generator, images: int, noise: Noise, simulations: int, domains: int = 1, resamples: int = 2000
) -> tuple[float, float]:
    """The coverage of a mean by the leaderboards' intervals, and by plain percentiles; images in each domain."""
    parts = [
        sums(draws(images, resamples, domain=domain), noise(rng, (images, simulations))) for domain in range(domains)
    ]
    found = reduce(add, parts)
    low, high = found.interval(CONFIDENCE)
    below, above = np.quantile(found.means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return float(((low <= 0) & (high >= 0)).mean()), float(((below <= 0) & (above >= 0)).mean())


def seeded(rng: np.random.Generator, images: int, seeds: int, spread: float, simulations: int) -> float:
    """The coverage of the mean over seeds and images, where a seed moves all scores by `spread` standard deviations."""
    effect = rng.normal(0, spread, (seeds, 1, simulations))
    values = effect + rng.normal(0, 1, (1, images, simulations)) + rng.normal(0, 0.5, (seeds, images, simulations))
    low, high = sums(draws(images, 2000, seeds), values.reshape(-1, simulations)).interval(CONFIDENCE)
    return float(((low <= 0) & (high >= 0)).mean())


@dataclass
class Outcome:
    """Shares of the simulated boards (`wrong`, `beats`), of their explainers (`ranks`), and means over the boards."""

    wrong: float  # somebody stands behind the leader of a group though it is as good
    beats: float  # somebody is said to beat a control that is as good
    ranks: float  # the true rank (the mean of equals) lies within the rank interval
    groups: float
    first: float  # explainers in group 1


def groups(
    rng: np.random.Generator, images: int, offsets: np.ndarray, noise: Noise, simulations: int, resamples: int = 1000
) -> Outcome:
    """Boards of explainers with these true means and controls with the mean 0; images have an effect of their own."""
    known, true = explainers(len(offsets), CONTROLS), np.concatenate([offsets, np.zeros(CONTROLS)])
    drawn, ranks = draws(images, resamples), rankdata(-true)
    made = []
    for _ in range(simulations):
        values = true + rng.normal(0, 0.5, (images, 1)) + noise(rng, (images, len(true)))
        rows = _board(values, drawn, known)
        group = np.array([rows[e.name]["tie_group"] or 0 for e in known])
        order = sorted(range(len(offsets)), key=lambda i: rows[f"e{i}"]["rank"])
        beaten = [(i, rows[e.name]["beats"]) for i, e in enumerate(known) if not e.is_control]
        within = [rows[e.name]["rank_low"] <= ranks[i] <= rows[e.name]["rank_high"] for i, e in enumerate(known)]
        made.append(
            (
                wrong(group, order, offsets),
                any(offsets[i] <= 0 and names != "none" for i, names in beaten),
                np.mean(within),
                group.max(),
                (group == 1).sum(),
            )
        )
    return Outcome(*np.mean(made, axis=0).tolist())


def wrong(group: np.ndarray, order: list[int], true: np.ndarray) -> bool:
    """Whether an explainer stands in the group after a leader's though its true mean is no smaller."""
    leaders = {group[i]: i for i in reversed(order)}
    return any(number > 1 and true[i] >= true[leaders[number - 1]] for i in order for number in (group[i],))


def _board(values: np.ndarray, drawn: Draws, known: list[Explainer]) -> dict[str, dict]:
    pool = Pool([cell(values)], {"d": drawn})
    return {row["explainer"]: row for row in board(pool, "higher", CONFIDENCE, known).rows}


def corrections(
    rng: np.random.Generator, images: int, offsets: np.ndarray, noise: Noise, simulations: int
) -> dict[str, tuple[float, float]]:
    """Per way to correct: the share of boards with a wrong group, and the mean number of explainers in group 1.

    `ours`; `Holm`: signed-rank tests with Holm's correction over all pairs; `leader`: over a leader's pairs only.
    """
    known, number, drawn = explainers(len(offsets), 0), len(offsets), draws(images, 1000)
    pairs = list(combinations(range(number), 2))
    found: dict[str, list[tuple[bool, int]]] = {"ours": [], "Holm": [], "leader": []}
    for _ in range(simulations):
        values = offsets + rng.normal(0, 0.5, (images, 1)) + noise(rng, (images, number))
        rows = _board(values, drawn, known)
        order = sorted(range(number), key=lambda i: rows[f"e{i}"]["rank"])
        differences = np.array([values[:, i] - values[:, j] for i, j in pairs])
        p = np.full((number, number), np.nan)
        for (i, j), one in zip(pairs, wilcoxon(differences, axis=1, zero_method="zsplit").pvalue, strict=True):
            p[i, j] = p[j, i] = one
        every, alone = p.copy(), {i: np.append(holm(np.delete(p[i], i)), np.nan) for i in range(number)}
        for (i, j), one in zip(pairs, holm(np.array([p[pair] for pair in pairs])), strict=True):
            every[i, j] = every[j, i] = one
        placed = {
            "ours": np.array([rows[f"e{i}"]["tie_group"] for i in range(number)]),
            "Holm": _placed(order, lambda i, p=every: p[i] < 1 - CONFIDENCE),
            "leader": _placed(order, lambda i, p=alone: np.insert(p[i][:-1], i, np.nan) < 1 - CONFIDENCE),
        }
        for name, group in placed.items():
            found[name].append((wrong(group, order, offsets), (group == 1).sum()))
    return {name: tuple(np.mean(made, axis=0).tolist()) for name, made in found.items()}


def _placed(order: list[int], differs: Callable[[int], np.ndarray]) -> np.ndarray:
    made = tie_groups(order, lambda leader, others: differs(leader)[others])
    return np.array([made[i] for i in range(len(order))])


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's corrected p-values."""
    order = np.argsort(p)
    made = np.empty(len(p))
    made[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return made


def rankings(
    rng: np.random.Generator, images: int, offsets: np.ndarray, simulations: int, resamples: int = 500
) -> tuple[float, float, float]:
    """Six metrics of four categories: the share of rankings with a wrong group, and the coverage of the true mean rank
    (the mean of equals) and of the true Borda count."""
    known, true = explainers(len(offsets), CONTROLS), np.concatenate([offsets, np.zeros(CONTROLS)])
    sample = true + rng.normal(0, 1, (20000, len(true)))
    ranks, borda = rankdata(-true), (len(true) - rankdata(-sample, axis=1).mean(0)) / (len(true) - 1)
    metrics = [("a", "m1"), ("a", "m2"), ("b", "m3"), ("b", "m4"), ("c", "m5"), ("d", "m6")]
    apart, drawn = {key: i for i, key in enumerate(metrics)}, draws(images, resamples)
    made = []
    for _ in range(simulations):
        ranking = Ranking()
        for category, metric in metrics:
            values = true + rng.normal(0, 0.5, (images, 1)) + rng.normal(0, 1, (images, len(true)))
            pool = Pool([cell(values)], {"d": drawn})
            ranking.votes.append(vote(category, metric, board(pool, "higher", CONFIDENCE, known)))
        rows = {row["explainer"]: row for row in ranking.rows(known, CONFIDENCE, apart) if row["category"] == "all"}
        group = np.array([rows[e.name]["tie_group"] or 0 for e in known])
        order = sorted(range(len(offsets)), key=lambda i: rows[f"e{i}"]["rank"])
        named = [rows[e.name] for e in known]
        made.append(
            (
                wrong(group, order, offsets),
                np.mean([row["low"] <= ranks[i] <= row["high"] for i, row in enumerate(named)]),
                np.mean([row["borda_low"] <= borda[i] <= row["borda_high"] for i, row in enumerate(named)]),
            )
        )
    return tuple(np.mean(made, axis=0).tolist())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, flat, ladder = np.random.default_rng(given.seed), np.zeros(12), LADDER
    plain = ("normal", "t, 3 df", "hit or miss", "exponential", "log-normal")

    print(f"## Intervals\n\n| images | {' | '.join(plain)} |\n|{'---|' * (1 + len(plain))}")
    for images, domains in ((4, 1), (6, 1), (10, 1), (20, 1), (20, 3), (60, 1), (200, 1)):
        cells = [intervals(rng, images, NOISES[name], 4 * given.simulations, domains) for name in plain]
        texts = [f"{ours:.3f} ({percentiles:.3f})" for ours, percentiles in cells]
        print(f"| {f'{domains} x ' * (domains > 1)}{images} | {' | '.join(texts)} |", flush=True)
    print("\n| seeds | a seed moves scores by | coverage |\n|---|---|---|")
    for seeds, spread in ((3, 0.0), (3, 0.2), (3, 0.5), (5, 0.5), (10, 0.5)):
        print(f"| {seeds} | {spread} | {seeded(rng, 20, seeds, spread, given.simulations):.3f} |", flush=True)

    print("\n## Tie groups\n\n| truth | images | noise | wrong group | wrong beats | ranks | groups | in group 1 |")
    print("|" + "---|" * 8)
    for truth, offsets in (("12 equal", flat), ("4 x 3", ladder)):
        for images in (6, 20, 60, 200):
            for name, noise in NOISES.items():
                if offsets is flat or name in ("normal", "exponential", "skewed"):
                    one = groups(rng, images, offsets, noise, given.simulations)
                    print(
                        f"| {truth} | {images} | {name} | {one.wrong:.3f} | {one.beats:.3f} | {one.ranks:.3f} "
                        f"| {one.groups:.2f} | {one.first:.2f} |",
                        flush=True,
                    )

    print("\n## Corrections\n\n| truth | images | noise | ours | Holm | leader |\n" + "|" + "---|" * 6)
    for truth, offsets in (("12 equal", flat), ("4 x 3", ladder)):
        for images in (20, 60, 200):
            for name in ("normal", "skewed"):
                found = corrections(rng, images, offsets, NOISES[name], given.simulations)
                texts = [f"{share:.3f}, {first:.2f}" for share, first in found.values()]
                print(f"| {truth} | {images} | {name} | {' | '.join(texts)} |", flush=True)

    print("\n## Ranking\n\n| truth | images | wrong group | mean rank | Borda |\n" + "|" + "---|" * 5)
    for truth, offsets in (("12 equal", flat), ("4 x 3", ladder)):
        for images in (20, 60):
            share, mean, borda = rankings(rng, images, offsets, given.simulations // 2)
            print(f"| {truth} | {images} | {share:.3f} | {mean:.3f} | {borda:.3f} |", flush=True)


if __name__ == "__main__":
    main()
