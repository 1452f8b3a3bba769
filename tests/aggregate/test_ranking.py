"""The rules of the ranking across metrics on small cases, and which metrics vote together."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from test_statistics import cell, draws, entries, pool

from unmask.statistics.boards import board
from unmask.statistics.pools import Pool
from unmask.statistics.ranking import Ranking, shares, weighted_median
from unmask.statistics.redundancy import agreement, cluster
from unmask.statistics.scopes import ranks_by_model
from unmask.statistics.votes import Counts, vote


def ballot(category, metric, values, known, direction="higher", skipped=False):
    return vote(category, metric, board(pool(cell(values, skipped=skipped), resamples=200), direction, 0.95, known))


def ranking(*votes):
    made = Ranking()
    made.votes.extend(votes)
    return made


def apart(*votes):
    """No two metrics in a cluster."""
    return {(one.category, one.metric): i for i, one in enumerate(votes)}


def ranked(category, metric, values, direction="higher"):
    """A metric's cells of two models with the same scores."""
    keys = {"metric": metric, "removal": None, "variant": None, "category": category, "direction": direction}
    return keys, [replace(cell(flat(*values)), encoder=encoder) for encoder in ("one", "two")]


def flat(*values):
    return np.ones((6, 1)) * values


def test_categories_weigh_equally_and_failing_never_helps():
    known = entries("good", "fair", "dead")
    votes = [ballot("crowded", f"m{i}", flat(0.9, 0.5, 0.1), known) for i in range(3)]
    votes.append(ballot("lone", "m4", flat(0.1, 0.5, np.nan), known))
    rows = ranking(*votes).rows(known, 0.95, apart(*votes))
    rows = {(row["category"], row["explainer"]): row for row in rows}
    assert rows["all", "good"]["mean_rank"] == pytest.approx((1 + 2) / 2)
    assert rows["all", "fair"]["mean_rank"] == pytest.approx((2 + 1) / 2)
    assert rows["all", "dead"]["mean_rank"] == 3
    assert rows["all", "dead"]["missing"] == 1
    assert ("lone", "dead") not in rows
    assert rows["all", "good"]["rank"] == rows["all", "fair"]["rank"] == 1.5
    assert rows["all", "good"]["borda"] == pytest.approx((1 + 0.5) / 2)
    assert rows["all", "dead"]["borda"] == 0


def test_metrics_of_a_cluster_share_a_vote():
    known = entries("a", "b")
    votes = [ballot("c", f"m{i}", flat(0.9, 0.5), known) for i in range(2)] + [ballot("c", "m3", flat(0, 1), known)]
    together = {("c", "m0"): 1, ("c", "m1"): 1, ("c", "m3"): 2}
    assert shares(votes, apart(*votes)).tolist() == pytest.approx([1 / 3] * 3)
    assert shares(votes, together).tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 2])
    row = ranking(*votes).rows(known, 0.95, together)[0]
    assert row["mean_rank"] == 1.5
    other = ballot("d", "m4", flat(0, 1), known)
    assert shares([*votes, other], {**together, ("d", "m4"): 1}).tolist() == pytest.approx([1 / 8, 1 / 8, 1 / 4, 1 / 2])


def test_borda_counts_wins_image_by_image():
    """The winner by mean loses on most images: the two rules differ, as they should."""
    values = np.array([[0.0, 1.0, 0.5]] * 5 + [[50.0, 1.0, 0.5]])
    known = entries("outlier", "steady", "third")
    one = ballot("c", "m", values, known)
    assert one.rank[0].tolist() == [1, 2, 3]
    assert one.borda[0].tolist() == pytest.approx([1 / 6, (5 + 0.5) / 6, (2.5 + 0) / 6])
    lower = ballot("c", "m", values, known, "lower")
    assert lower.borda[0].tolist() == pytest.approx([5 / 6, 0.5 / 6, 3.5 / 6])
    assert one.rows.sum(0).tolist() == pytest.approx(one.borda[0].tolist())


def test_borda_of_failed_scores_and_of_models_that_an_explainer_does_not_apply_to():
    known = entries("a", "b", "c")
    both = cell(flat(0.9, 0.5, 0.1))
    lost = cell(flat(np.nan, 0.5, 0.1))
    skipped = cell(flat(np.nan, 0.5, 0.1), skipped=True)

    def borda(other):
        return vote("c", "m", board(Pool([both, other], {"d": draws(6, 200)}), "higher", 0.95, known)).borda[0]

    assert borda(lost).tolist() == pytest.approx([(1 + 0) / 2, (0.5 + 1) / 2, (0 + 0.5) / 2])
    # b meets a on the first model only, and loses; it beats c on both.
    assert borda(skipped).tolist() == pytest.approx([1, (0 + 1) / 2, 0])


def test_images_without_any_score_do_not_count():
    values = flat(0.9, 0.5)
    values[3:] = np.nan
    one = cell(values, skipped=True)
    assert np.isnan(Counts(board(pool(one), "higher", 0.95, entries("a", "b"))).rows(one)[3:]).all()
    assert ballot("c", "m", values, entries("a", "b"), skipped=True).borda[0].tolist() == [1, 0]


def test_rescaled_scores_are_differences_to_the_null_control_in_standard_deviations():
    rng = np.random.default_rng(0)
    values, known = rng.normal([3.0, 1.0, 2.0, 0.0], 1.0, (200, 4)), entries("a", "b", "c", "random_x")
    difference = values - values[:, [3]]
    spread = np.median(difference[:, :3].std(0, ddof=1))
    for direction, sign in (("higher", 1), ("lower", -1)):
        one = ballot("c", "m", values * 7 * sign, known, direction)
        np.testing.assert_allclose(one.rescaled[0], difference.mean(0) / spread)
    # A hopeless explainer more changes nothing for the others, unlike between a best and a worst.
    more = np.column_stack([values, rng.normal(-1e3, 1, 200)])
    np.testing.assert_allclose(
        ballot("c", "m", more, [*known, *entries("e")]).rescaled[0][:4], difference.mean(0) / spread, rtol=0.02
    )
    dead = np.column_stack([values, np.full(200, np.nan)])
    assert ballot("c", "m", dead, [*known, *entries("e")]).rescaled[0][4] == 0, "as the last, the random control"
    assert ballot("c", "m", values[:, :3], known[:3]).rescaled is None
    assert ballot("c", "m", flat(1, 1, 1, 1), known).rescaled is None


def test_without_a_null_control_there_is_no_rescaled_score():
    known = entries("a", "b")
    one = ballot("c", "m", flat(0.9, 0.5), known)
    row = ranking(one).rows(known, 0.95, apart(one))[0]
    assert np.isnan([row[key] for key in ("rescaled", "rescaled_low", "rescaled_rank")]).all()
    assert row["rank"] == 1


def test_weighted_median():
    values = np.random.default_rng(1).normal(0, 1, (7, 5, 3))
    np.testing.assert_allclose(weighted_median(list(values), np.ones(7) / 7), np.median(values, axis=0))
    np.testing.assert_allclose(weighted_median(list(values[:4]), np.ones(4)), np.median(values[:4], axis=0))
    copies = np.repeat(values[:3], [3, 1, 1], axis=0)
    np.testing.assert_allclose(weighted_median(list(values[:3]), np.array([0.6, 0.2, 0.2])), np.median(copies, axis=0))


def test_the_median_follows_most_of_the_clusters():
    known = entries("a", "b", "random_x")
    values = np.random.default_rng(2).normal([2, 1, 0], 0.5, (20, 3))
    votes = [ballot(f"c{i}", "m", values, known) for i in range(2)]
    votes.append(ballot("c3", "m", values[:, [1, 0, 2]] * [1, 100, 1], known))
    row = ranking(*votes).rows(known, 0.95, apart(*votes))[-3:]
    found = {one["explainer"]: one for one in row}
    assert found["a"]["rescaled"] == pytest.approx(votes[0].rescaled[0][0])
    assert (found["a"]["rescaled_rank"], found["random_x"]["rescaled_rank"]) == (1, 3)


def test_groups_of_a_ranking_are_tested_image_by_image():
    rng, known = np.random.default_rng(3), entries("best", "tied", "worse", "random_x")
    votes = [ballot("c", f"m{i}", rng.normal([1, 1, -1, -3], 0.5, (40, 4)), known) for i in range(4)]
    rows = {row["explainer"]: row for row in ranking(*votes).rows(known, 0.95, apart(*votes)) if row["category"] == "c"}
    assert [rows[name]["tie_group"] for name in ("best", "tied", "worse", "random_x")] == [1, 1, 2, None]
    assert rows["best"]["p_best"] + rows["tied"]["p_best"] == pytest.approx(1)


def test_agreement_is_the_mean_of_kendalls_tau_over_the_models():
    rng = np.random.default_rng(4)
    ranks = [scipy.stats.rankdata(rng.normal(size=(2, 8)), axis=1) for _ in range(3)]
    models = [{("c", "x"): x, ("c", "y"): y} for x, y in ranks]
    expected = np.mean([scipy.stats.kendalltau(x, y).statistic for x, y in ranks])
    assert agreement(models, ("c", "x"), ("c", "y")) == pytest.approx(expected)
    models.append({("c", "x"): ranks[0][0]})
    models.append({("c", "x"): np.array([1, 2, np.nan]), ("c", "y"): np.array([1, 2, 3.0])})
    assert agreement(models, ("c", "x"), ("c", "y")) == pytest.approx(expected), "too few shared explainers say nothing"
    assert agreement(models, ("c", "x"), ("c", "z")) == 0


def test_metrics_that_rank_alike_are_one_cluster_within_their_category():
    known = entries("a", "b", "c", "d", "e", "random_x")
    order, other = np.arange(6.0), np.array([1.0, 0, 3, 2, 5, 9])
    metrics = [
        ranked("one", "m", order),
        ranked("one", "twin", order * 10),
        ranked("one", "mirror", -order, "lower"),
        ranked("one", "other", other),
        ranked("two", "m2", order),
        ranked("two", "gate", other),
    ]
    models = ranks_by_model(metrics, {"d": draws(6, 10)}, lambda domain, encoder: known, ["gate"])
    assert len(models) == 2
    clusters, rows = cluster(models, known, 0.9)
    assert clusters == {
        ("one", "m"): 1,
        ("one", "twin"): 1,
        ("one", "mirror"): 1,
        ("one", "other"): 2,
        ("two", "m2"): 1,
    }
    assert [row["weight"] for row in rows] == pytest.approx([1 / 12, 1 / 12, 1 / 12, 1 / 4, 1 / 2])
    assert rows[0]["closest"] == "twin"
    assert rows[0]["tau"] == pytest.approx(1)
    assert rows[3]["tau"] == pytest.approx(scipy.stats.kendalltau(order[:5], other[:5]).statistic)
    assert rows[4]["closest"] is None
    assert set(cluster(models, known, 1)[0].values()) == {1, 2}, "perfect agreement is agreement at 1, too"
    assert set(cluster(models, known, 0.1)[0].values()) == {1}


def test_ranks_of_a_model_are_averaged_over_removals_and_leave_out_aliases_and_variants():
    known = [*entries("a", "b", "c"), replace(entries("d")[0], alias_of="a")]
    values = [np.array([1.0, 2, 3, 1]), np.array([3.0, 2, 1, 3]), np.array([9.0, 1, 5, 9]), np.array([0.0, 1, 2, 0])]
    mean, zero, variant, lost = (ranked("c", "m", row) for row in values)
    variant[0]["variant"] = "signed"
    lost[0]["metric"] = "lost"
    for one in lost[1]:
        one.values[:, 1] = np.nan
    models = ranks_by_model([mean, zero, variant, lost], {"d": draws(6, 10)}, lambda domain, encoder: known, [])
    np.testing.assert_array_equal(models[0]["c", "m"], [2, 2, 2, np.nan])
    np.testing.assert_array_equal(models[0]["c", "lost"], [2, np.nan, 1, np.nan])
