"""Simulated scores with known ties and gaps: intervals cover, tie groups keep the family-wise error.

The numbers in the docstrings are those of `benchmarks/coverage.py` with 1,000 simulations (4,000 for intervals); the
tests simulate less and allow three standard errors.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("unmask_coverage", ROOT / "benchmarks" / "coverage.py")
coverage = sys.modules["unmask_coverage"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coverage)
EQUAL = np.zeros(12)


def error(share, simulations):
    """Three standard errors of a share."""
    return 3 * np.sqrt(share * (1 - share) / simulations)


@pytest.mark.parametrize(
    ("images", "domains", "noise", "expected"),
    [
        (20, 1, "normal", 0.950),  # plain percentiles: .931
        (20, 1, "t, 3 df", 0.942),
        (20, 1, "exponential", 0.927),  # skewness 2; plain percentiles: .900
        (20, 3, "normal", 0.949),
        (60, 1, "normal", 0.940),
        (200, 1, "exponential", 0.943),
    ],
)
def test_intervals_cover_the_mean(images, domains, noise, expected):
    """95 % intervals over 20 images cover .93 to .95 of the time, over 200 images .94."""
    ours, percentiles = coverage.intervals(np.random.default_rng(0), images, coverage.NOISES[noise], 1500, domains)
    assert abs(ours - expected) < error(expected, 1500)
    assert ours > percentiles


def test_few_images_cannot_cover():
    """Over 4 images the interval is all that resampling can reach, and covers .87 (plain percentiles: .80)."""
    ours, percentiles = coverage.intervals(np.random.default_rng(0), 4, coverage.NOISES["normal"], 1500)
    assert abs(ours - 0.867) < error(0.867, 1500)
    assert percentiles < 0.84


def test_intervals_know_of_seeds():
    """Scores that three seeds move by half a standard deviation: .92; with ten seeds .956."""
    assert coverage.seeded(np.random.default_rng(0), 20, 3, 0.5, 600) > 0.917 - error(0.917, 600)
    assert coverage.seeded(np.random.default_rng(0), 20, 10, 0.5, 600) > 0.95 - error(0.95, 600)


@pytest.mark.parametrize("noise", ["normal", "skewed"])
def test_equal_explainers_are_split_on_one_board_in_twenty_at_most(noise):
    """Twelve equal explainers, 20 images: .043 of the boards hold a second group (normal), .020 (skewed); .026 and .016
    say that somebody beats a control; .968 and .954 of the rank intervals hold the true rank. No case of
    `benchmarks/coverage.py` is above .054."""
    found = coverage.groups(np.random.default_rng(1), 20, EQUAL, coverage.NOISES[noise], 300, 500)
    assert found.wrong <= 0.05 + error(0.05, 300)
    assert found.beats <= 0.05 + error(0.05, 300)
    assert found.ranks > 0.94


def test_gaps_are_found_and_ties_kept():
    """Four groups of three, half a standard deviation apart: 200 images find all four (4.04 groups, .039 wrong), 20
    images two (2.07 groups, .006 wrong)."""
    many = coverage.groups(np.random.default_rng(2), 200, coverage.LADDER, coverage.NOISES["normal"], 100, 500)
    few = coverage.groups(np.random.default_rng(2), 20, coverage.LADDER, coverage.NOISES["normal"], 100, 500)
    assert many.groups == pytest.approx(4.04, abs=0.1)
    assert many.first == pytest.approx(3, abs=0.1)
    assert few.groups == pytest.approx(2.07, abs=0.25)
    assert max(many.wrong, few.wrong) <= 0.05 + error(0.05, 100)


def test_a_correction_over_the_leader_s_pairs_would_not_do():
    """Who leads is chosen by the scores: corrected over its own pairs only, .143 of the boards would split equals.
    Holm's correction over all pairs keeps the error too (.026), and finds less: on the ladder 8.01 are in group 1
    instead of 7.63."""
    found = coverage.corrections(np.random.default_rng(3), 20, EQUAL, coverage.NOISES["normal"], 300)
    assert found["ours"][0] <= 0.05 + error(0.05, 300)
    assert found["Holm"][0] <= 0.05 + error(0.05, 300)
    assert found["leader"][0] > 0.05 + error(0.05, 300)
    ladder = coverage.corrections(np.random.default_rng(4), 20, coverage.LADDER, coverage.NOISES["normal"], 150)
    assert ladder["ours"][1] < ladder["Holm"][1]


def test_the_ranking_across_metrics_keeps_them_too():
    """Equal explainers, 20 images, six metrics: .028 of the rankings split them; the intervals of the mean rank cover
    .970 and those of the Borda count .947 (on the ladder: .014, .960, .950)."""
    split, mean, borda = coverage.rankings(np.random.default_rng(5), 20, EQUAL, 60, 500)
    assert split <= 0.05 + error(0.05, 60)
    assert mean > 0.94
    assert borda == pytest.approx(0.947, abs=0.03)
