"""Explainers that lack scores are compared on the scores that both have: planted cases in which means mislead, and
every rule against its definition, pair by pair."""

import numpy as np
import pytest
from test_ranking import apart, ranking
from test_statistics import cell, draws, entries, pool

from unmask.statistics.boards import board
from unmask.statistics.cells import Cell
from unmask.statistics.matched import Matched
from unmask.statistics.pools import Pool
from unmask.statistics.ranks import share_behind
from unmask.statistics.votes import vote

IMAGES = 30


def model(encoder, values, skipped=(), domain="d"):
    """A model's cell; the columns `skipped` do not apply to it, other gaps are failures."""
    values = np.array(values, float)
    values[:, list(skipped)] = np.nan
    lost = ~np.isfinite(values)
    counts = np.where(np.isin(np.arange(values.shape[1]), skipped), len(values), 0)
    return Cell(domain, encoder, values, lost & (counts == 0), counts)


def noisy(seed, *offsets, images=IMAGES):
    rng = np.random.default_rng(seed)
    return np.array(offsets) + rng.normal(0, 0.3, (images, 1)) + rng.normal(0, 0.02, (images, len(offsets)))


def hard_model(direction="higher"):
    """`token` is worse than a and b on both models that it applies to; on the third everyone does badly."""
    sign = 1 if direction == "higher" else -1
    known = entries("a", "b", "token", "random_x")
    cells = [model(name, sign * noisy(i, 0.9, 0.8, 0.7, 0.2)) for i, name in enumerate(("m1", "m2"))]
    cells.append(model("scratch", sign * noisy(5, 0.15, 0.1, 0.0, 0.05), skipped=[2]))
    return board(Pool(cells, {"d": draws(IMAGES, 500)}), direction, 0.95, known)


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_who_does_not_apply_to_a_hard_model_does_not_win_by_it(direction):
    made = hard_model(direction)
    rows = {row["explainer"]: row for row in made.rows}
    mean = {name: row["mean"] * (1 if direction == "higher" else -1) for name, row in rows.items()}
    assert max(mean, key=mean.get) == "token", "the means alone put it first"
    assert list(rows) == ["a", "b", "token", "random_x"]
    assert [row["rank"] for row in rows.values()] == [1, 2, 3, 4]
    assert [(row["rank_low"], row["rank_high"]) for row in rows.values()] == [(i, i) for i in (1, 2, 3, 4)]
    assert [rows[name]["p_best"] for name in ("a", "b", "token")] == [1, 0, 0]
    assert [rows[name]["tie_group"] for name in ("a", "b", "token")] == [1, 2, 3]
    assert [row["lacks"] for row in rows.values()] == [None, None, "scratch", None]


def test_nor_does_it_win_the_ranking_across_metrics():
    known, made = entries("a", "b", "token", "random_x"), hard_model()
    votes = [vote("c", "m", made)]
    rows = {row["explainer"]: row for row in ranking(*votes).rows(known, 0.95, apart(*votes)) if row["category"] == "c"}
    order = ["a", "b", "token", "random_x"]
    for rule in ("rank", "borda_rank", "rescaled_rank"):
        assert sorted(rows, key=lambda name: rows[name][rule]) == order, rule
    assert [rows[name]["borda"] for name in order] == pytest.approx([1, 2 / 3, 1 / 3, 0], abs=0.06)
    # Its own models put token .5 above random, as far as a is on all; but there it is .2 behind a and .1 behind b.
    lead = {"a": (0 + 0.25 / 3 + 0.2 + 0.5) / 4, "token": (-0.2 - 0.1 + 0 + 0.5) / 4, "random_x": (-1.25 / 3 - 1) / 4}
    expected = (lead["token"] - lead["random_x"]) / (lead["a"] - lead["random_x"])
    assert rows["token"]["rescaled"] / rows["a"]["rescaled"] == pytest.approx(expected, abs=0.02)
    assert [rows[name]["lacks"] for name in order] == [None, None, "scratch", None]
    assert [rows[name]["tie_group"] for name in order] == [1, 2, 3, None]


def test_failing_on_hard_images_does_not_help():
    values = noisy(1, 0.5, 0.4, 0.0)
    values[:10] -= 3
    values[:10, 1] = np.nan
    rows = {row["explainer"]: row for row in board(pool(cell(values)), "higher", 0.95, entries("a", "b", "c")).rows}
    assert rows["b"]["mean"] > rows["a"]["mean"] + 0.8
    assert [(name, row["rank"]) for name, row in rows.items()] == [("a", 1), ("b", 2), ("c", 3)]
    assert [row["lacks"] for row in rows.values()] == [None] * 3, "it has scores on the model"


def test_a_control_without_some_images_is_compared_on_the_others():
    """The oracle has no map of an image without evidence, where everyone scores low."""
    values = noisy(2, 0.6, 0.0, 0.5)
    values[::3] -= 2
    values[::3, 2] = np.nan
    made = board(pool(cell(values, skipped=True)), "higher", 0.95, entries("a", "random_x", "oracle_x"))
    assert [row["explainer"] for row in made.rows] == ["a", "oracle_x", "random_x"]
    found = vote("c", "m", made)
    assert found.borda[0].tolist() == pytest.approx([1, 0, 0.5]), "what it was not asked it does not lose"


def gaps(seed, explainers=6, models=3, images=12):
    """Models with random scores, failures on single images, and explainers that do not apply to a model."""
    rng = np.random.default_rng(seed)
    cells = []
    for domain in ("d", "e"):
        for m in range(models):
            values = rng.normal(0, 1, (images, explainers)).round(1)
            values[rng.random(values.shape) < 0.15] = np.nan
            cells.append(model(f"m{m}", values, np.flatnonzero(rng.random(explainers) < 0.3), domain))
    return Pool(cells, {domain: draws(images, 60, seed=i) for i, domain in enumerate(("d", "e"))})


def pairs_by_hand(found, of):
    """The mean over domains of a pair's mean, over the rows of each domain, of `of(cell, i, j)` [U] (NaN = none)."""
    size = found.cells[0].values.shape[1]
    made = np.full((size, size), np.nan)
    for i in range(size):
        for j in range(size):
            means = []
            for domain in ("d", "e"):
                values = np.concatenate([of(cell, i, j) for cell in found.cells if cell.domain == domain])
                if np.isfinite(values).any():
                    means.append(np.nanmean(values))
            made[i, j] = np.mean(means) if means else np.nan
    return made


def difference(cell, i, j):
    return cell.values[:, i] - cell.values[:, j]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_ranks_count_who_is_better_on_shared_scores(seed, direction):
    found = gaps(seed)
    chosen = found.scores.n > 0
    mean = pairs_by_hand(found, difference) * (1 if direction == "higher" else -1)
    np.fill_diagonal(mean, np.inf)
    equal = np.abs(mean) < 1e-9
    expected = 1 + (mean < -1e-9).sum(1) + 0.5 * (equal | np.isnan(mean)).sum(1)
    made = Matched(found, chosen).ranks(direction)
    np.testing.assert_allclose(made[0], expected)
    assert made[0].sum() == pytest.approx(chosen.sum() * (chosen.sum() + 1) / 2)
    np.testing.assert_allclose(made[1].sum(1), made[0].sum())


@pytest.mark.parametrize("seed", range(6))
def test_gains_are_differences_of_mean_differences(seed):
    found = gaps(seed)
    mean = pairs_by_hand(found, difference)
    lead = np.nanmean(mean, axis=1)
    made = Matched(found, found.scores.n > 0).gains(1)
    np.testing.assert_allclose(made[0], lead - lead[1], atol=1e-12)


def test_a_resample_is_a_sample():
    """The ranks and gains of a resample are those of scores of which each is repeated as often as drawn."""
    found = gaps(9)
    ranks, gained = Matched(found, np.ones(6, bool)).ranks("lower")[1], Matched(found, np.ones(6, bool)).gains(2)[1]
    counts = Counted(found)
    for b in range(0, 60, 7):
        drawn = counts.resample(b)
        same = Matched(drawn, np.ones(6, bool))
        np.testing.assert_allclose(ranks[b], same.ranks("lower")[0])
        np.testing.assert_allclose(gained[b], same.gains(2)[0], atol=1e-9)


class Counted:
    def __init__(self, found):
        self.found = found

    def resample(self, b):
        cells = []
        for one in self.found.cells:
            drawn = self.found.draws[one.domain].weights[b].astype(int)
            cells.append(Cell(one.domain, one.encoder, np.repeat(one.values, drawn, 0), one.failed, one.skipped))
        return Pool(cells, {domain: draws(len(cells[0].values), 5) for domain in ("d", "e")})


@pytest.mark.parametrize("seed", range(6))
def test_borda_is_the_mean_over_the_others_of_the_share_of_shared_images(seed):
    found = gaps(seed)
    made = board(found, "higher", 0.95, entries(*"abcdef"))

    def outcome(cell, i, j):
        part = [np.isfinite(cell.values[:, k]) | cell.failed[:, k] for k in (i, j)]
        one, other = (np.nan_to_num(cell.values[:, k], nan=-np.inf) for k in (i, j))
        held = part[0] & part[1] & np.isfinite(cell.values).any(1)
        return np.where(held, (one > other) + 0.5 * (one == other), np.nan)

    shares = pairs_by_hand(found, outcome)
    np.fill_diagonal(shares, np.nan)
    np.testing.assert_allclose(vote("c", "m", made).borda[0], np.nanmean(shares, axis=1))


def test_two_that_share_nothing_are_equal_to_each_other():
    cells = [model("vit", noisy(1, 0.9, 0.5, 0.1), skipped=[2]), model("cnn", noisy(2, 0.9, 0.5, 0.95), skipped=[1])]
    made = board(Pool(cells, {"d": draws(IMAGES, 200)}), "higher", 0.95, entries("a", "b", "c"))
    rows = {row["explainer"]: row for row in made.rows}
    assert {name: row["rank"] for name, row in rows.items()} == {"c": 1.5, "a": 2, "b": 2.5}
    assert {name: row["lacks"] for name, row in rows.items()} == {"a": None, "b": "cnn", "c": "vit"}
    found = vote("c", "m", made)
    assert found.borda[0] == pytest.approx([0.5, 0, 1], abs=0.1)
    assert np.isnan(made.verdicts.p[1, 2])


def test_better_and_worse_are_counted_in_halves():
    one, other = np.array([1.0, np.nan]), np.array([1.0 + 1e-14, 0.5, 2.0, np.nan])
    assert share_behind(one, other, "higher").tolist() == [[0.5, 0, 1, 0.5], [0.5] * 4]
    assert share_behind(one, other, "lower").tolist() == [[0.5, 1, 0, 0.5], [0.5] * 4]


def test_what_is_lacking_is_named_by_encoder_or_by_model():
    cells = [
        model("m1", noisy(1, 0, 0, 0), domain="d"),
        model("m1", noisy(2, 0, 0, 0), [1], domain="e"),
        model("m2", noisy(3, 0, 0, 0), [1, 2], domain="d"),
        model("m2", noisy(4, 0, 0, 0), [1, 2], domain="e"),
        model("m3", np.full((IMAGES, 3), np.nan), [0, 1, 2], domain="d"),
    ]
    made = Pool(cells, {domain: draws(IMAGES, 10) for domain in ("d", "e")})
    assert made.lacking == ["", "e/m1 m2", "m2"]


def test_domains_weigh_equally_however_many_images_they_have():
    small, large = noisy(1, 1.0, 0.0, images=10), noisy(2, 0.0, 0.8, images=40)
    made = pool(model("m", small, domain="d"), model("m", large, domain="e"))
    assert made.scores.mean.tolist() == pytest.approx(((small.mean(0) + large.mean(0)) / 2).tolist())
    assert np.concatenate([small, large]).mean(0).argmax() == 1
    rows = board(made, "higher", 0.95, entries("a", "b")).rows
    assert [row["explainer"] for row in rows] == ["a", "b"]
    assert made.balance[:10].sum() == pytest.approx(0.5)
    assert made.balance[10:].sum() == pytest.approx(0.5)
