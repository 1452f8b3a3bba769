"""What figures show: which rows, which numbers, and where their labels go."""

import crowd
import numpy as np
import pandas as pd
import pytest

from unmask.figures import (
    agreement,
    catalogue,
    critical,
    effects,
    forest,
    labels,
    ladder,
    pareto,
    ranks,
    ratio,
    removals,
    style,
)
from unmask.figures import source as sources


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return catalogue.source(crowd.write(crowd.config(tmp_path_factory.mktemp("parts"))))


def test_the_ends_of_the_scale_come_from_the_plugins(source):
    assert source.null() == "random_toy"
    assert source.oracle() == "oracle_toy"


def test_panels_take_one_metric_per_category(source):
    found = sources.panels(source.board("rings"))
    first = ["toy_faithfulness@mean", "toy_localisation", "toy_robustness", "toy_complexity"]
    assert [label for label, _ in found] == [*first, "randomisation_of_the_parameters", "toy_axiom"]
    assert all(rows["explainer"].is_unique and (rows["domain"] == "rings").all() for _, rows in found)


def test_ranks_stand_by_explainer_and_metric_under_the_first_removal(source):
    board = source.board(None)
    found = ranks.matrix(board, list(crowd.NAMES))
    assert found.columns.tolist() == list(dict.fromkeys(metric for metric, *_ in crowd.METRICS))
    rows = board[board["metric"] == "another_faithfulness"]
    first = rows[rows["removal"] == rows["removal"].iloc[0]].set_index("explainer")
    pd.testing.assert_series_equal(found["another_faithfulness"], first["rank"].reindex(crowd.NAMES), check_names=False)
    assert found.loc[crowd.ALIAS].isna().all()


def test_gates_have_no_column_among_the_ranks(source):
    board = source.board(None)
    gate = board["metric"] == "randomisation_of_the_parameters"
    found = ranks.matrix(board.assign(rank=board["rank"].mask(gate)), list(crowd.NAMES))
    assert "randomisation_of_the_parameters" not in found.columns
    assert len(found.columns) > 3


def test_aliases_are_named():
    board = pd.DataFrame({"explainer": ["a_b", "c", "c"], "alias_of": [None, "a_b", "a_b"]})
    assert sources.same_maps(board) == "Same maps: c = a b."
    assert sources.same_maps(board[:1]) == ""


def test_a_name_too_long_loses_its_middle():
    assert style.readable("occlusion@mask_token") == "occlusion @ mask token"
    short = style.readable("a" * 40 + "z" * 40)
    assert len(short) == style.LONGEST
    assert short.startswith("aaa")
    assert short.endswith("zzz")
    assert style.readable("x" * style.LONGEST) == "x" * style.LONGEST


def test_family_looks_differ_by_shape_and_colour():
    looks = [style.family_look(family) for family in style.FAMILIES]
    assert len({(look["marker"], look["markerfacecolor"]) for look in looks}) == len(looks)
    assert len({look["color"] for look in looks}) == len(looks)


def test_mean_ranks_by_removal():
    """Two metrics, two removals: b passes a under the second; a metric that lacks a removal has no say."""
    rows = [
        ("one", "mean", {"a": 1, "b": 2, "c": 3}),
        ("one", "zero", {"a": 2, "b": 1, "c": 3}),
        ("two", "mean", {"a": 1, "b": 2, "c": 3}),
        ("two", "zero", {"a": 3, "b": 1, "c": 2}),
        ("three", "mean", {"a": 3, "b": 2, "c": 1}),
    ]
    board = pd.DataFrame(
        [
            {"metric": metric, "removal": removal, "variant": None, "explainer": name, "rank": rank}
            for metric, removal, ranked in rows
            for name, rank in ranked.items()
        ]
    )
    found = removals.table(board, ["zero", "blur", "mean"])
    assert found.columns.tolist() == ["zero", "mean"]
    assert found["mean"].to_dict() == {"a": 1, "b": 2, "c": 3}
    assert found["zero"].to_dict() == {"a": 2.5, "b": 1, "c": 2.5}
    assert removals.taus(pd.DataFrame({"x": [1, 2, 3, 4], "y": [1, 2, 4, 3], "z": [1, 2, 4, 3]})) == [
        pytest.approx(2 / 3),
        pytest.approx(1),
    ]
    assert removals.table(board[board["removal"] == "blur"], ["blur"]).empty


def test_the_pareto_front():
    points = pd.DataFrame(
        {
            "explainer": list("abcdef"),
            "is_control": [False, False, False, False, True, False],
            "passes": [1.0, 10.0, 10.0, 100.0, 0.0, 5.0],
            "mean_rank": [5.0, 2.0, 3.0, 2.0, 1.0, 6.0],
        }
    )
    assert pareto.front(points) == [0, 1]


def test_passes_count_forward_passes(source):
    """One forward pass is 1, forward and backward together are 3, as the counter of passes has it."""
    from unmask.passes import Passes

    assert Passes(backward=1).total == pareto.BACKWARD * Passes(forward=1).total


def test_the_ladder_has_the_places_of_the_board_and_the_ceiling_of_the_scale():
    keys = [("m", "mean"), ("m", "zero"), ("plain", np.nan)]
    board = pd.DataFrame(
        [
            {"metric": metric, "removal": removal, "variant": np.nan, "explainer": name, "is_control": name == "oracle"}
            | {"rescaled": place if removal != "zero" else np.nan, "controls_separated": removal != "zero"}
            for metric, removal in keys
            for name, place in (("weak", 0.2), ("oracle", 1.0))
        ]
    )
    chance = pd.DataFrame(
        {
            "metric": ["m", "m", "plain"],
            "removal": ["mean", "zero", np.nan],
            "variant": np.nan,
            "ceiling_by": ["oracle", np.nan, "weak"],
        }
    )
    found = ladder.ladder(board, chance).set_index(["label", "explainer"])
    assert found["place"]["m@mean"].to_dict() == {"weak": 0.2, "oracle": 1.0}
    assert found["place"]["m@zero"].isna().all()
    assert found["scale"]["m@mean"].tolist() == ["oracle"] * 2
    assert found["scale"]["plain"].tolist() == ["weak"] * 2
    assert found["separated"]["m@zero"].tolist() == [False] * 2


def test_a_metric_that_does_not_separate_the_controls_says_so(source):
    with style.styled():
        figure = next(ladder.pictures(source)).draw()
        other = next(forest.pictures(source)).draw()
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts] == ["does not separate the controls"]
    flagged = [axes.get_title(loc="left") for axes in other.axes if axes.get_title(loc="left").endswith(forest.UNCLEAR)]
    assert flagged == [f"toy complexity {forest.UNCLEAR}"]
    assert "does not separate the controls" in other.get_suptitle().replace("\n", " ")


def test_tie_groups_stand_beside_the_intervals(source):
    rows = dict(sources.panels(source.board("rings")))["toy_localisation"].set_index("explainer")
    order = source.ranked("rings")["explainer"].tolist()
    with style.styled():
        figure = next(forest.pictures(source)).draw()
    shown = {order[round(text.xy[1])]: text for text in figure.axes[1].texts}
    expected = rows["tie_group"].dropna().drop(crowd.ALIAS, errors="ignore")
    assert {name: float(text.get_text()) for name, text in shown.items()} == expected.to_dict()
    assert {text.get_weight() for name, text in shown.items() if expected[name] == 1} == {"bold"}


def test_metrics_that_agree_stand_together():
    pairs = [("a", "b", 0.1), ("a", "c", 0.9), ("a", "d", 0.0), ("b", "c", 0.1), ("b", "d", 0.8), ("c", "d", -0.1)]
    table = pd.DataFrame(
        [
            {
                "metric_a": a,
                "removal_a": "mean",
                "metric_b": b,
                "removal_b": None,
                "tau": t,
                "low": t - 0.2,
                "high": t + 0.2,
            }
            for a, b, t in pairs
        ]
    ).assign(removal_a=None)
    tau, unsure = agreement.matrices(table)
    assert abs(tau.index.get_loc("a") - tau.index.get_loc("c")) == 1
    assert abs(tau.index.get_loc("b") - tau.index.get_loc("d")) == 1
    np.testing.assert_array_equal(tau, tau.T)
    assert tau.loc["a", "c"] == 0.9
    assert unsure.loc["a", "b"]
    assert not unsure.loc["a", "c"]


def test_curves_are_of_the_best_explainers_and_the_random_control(source):
    with style.styled():
        figure = next(ratio.pictures(source)).draw()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    best = [name for name in source.ranked("rings")["explainer"] if name not in crowd.CONTROLS][: ratio.CURVES]
    assert names == [*map(style.readable, best), "random toy", "trained from scratch"]


def test_a_ratio_that_each_image_draws_stands_apart_from_the_curve():
    rows = pd.DataFrame(
        {
            "encoder": ["a", "b", "c", "drawn", "scratch", "labels"],
            "explainer": "one",
            "mask_ratio": [0.25, 0.75, 0.5, 0.51, None, None],
            "mean": [1.0, 2.0, 5.0, 9.0, 3.0, 4.0],
            "direction": "higher",
        }
    ).astype({"mask_ratio": "float64"})
    rows = rows.assign(low=rows["mean"] - 0.1, high=rows["mean"] + 0.1)
    rows = rows.assign(**{f"minus_random{end}": rows[end[1:] or "mean"] for end in ("", "_low", "_high")})
    conditions = ratio.Conditions({"simmim": ["a", "b"], "mae": ["c"]}, {"drawn": (0.2, 0.8)}, ["scratch"])
    with style.styled():
        figure = ratio.draw([("metric", rows)], ["one"], None, "title", 0.95, conditions)
    lines = [line.get_xydata() for line in figure.axes[0].get_lines()]
    assert [line.tolist() for line in lines[:2]] == [[[0.25, 1], [0.75, 2]], [[0.5, 5]]], "a curve per series"
    assert lines[2].tolist() == [[0.51, 9]], "the mean of the range, alone"
    assert lines[3][:, 1].tolist() == [3, 3], "scratch; what was pretrained without a mask is not on this axis"
    assert len(lines) == 4
    bars = [path.vertices.tolist() for part in figure.axes[0].collections for path in part.get_paths()]
    assert [[0.2, 9.0], [0.8, 9.0]] in bars, "the range"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["one", "trained from scratch", "simmim", "mae", "ratio drawn per image: at the mean, bar = range"]


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0])
def test_labels_do_not_overlap_whatever_the_crowding(spread):
    """35 points anywhere, 35 on a small spot, 35 on one: always the same places."""
    from matplotlib.figure import Figure

    rng = np.random.default_rng(1)
    points = 0.5 + spread * (rng.random((35, 2)) - 0.5)
    boxes = []
    for _ in range(2):
        with style.styled():
            figure = Figure(figsize=(style.PAGE, 4.2))
            axes = figure.add_axes((0.1, 0.1, 0.85, 0.85))
            axes.set(xlim=(0, 1), ylim=(0, 1))
            labels.place(axes, points, [f"explainer number {i}" for i in range(35)], ["#000000"] * 35)
            figure.draw_without_rendering()
        boxes.append(np.array([text.get_window_extent().extents for text in axes.texts]))
    np.testing.assert_array_equal(*boxes)
    found = boxes[0]
    for i in range(35):
        wide = np.minimum(found[i, 2:], found[:i, 2:]) - np.maximum(found[i, :2], found[:i, :2])
        assert not (wide > 1).all(1).any()
    frame = axes.get_window_extent().extents
    assert (found[:, :2] >= frame[:2] - 1).all()
    assert (found[:, 2:] <= frame[2:] + 1).all()


def test_bars_of_a_critical_difference_diagram():
    """Overlapping bars stand on levels of their own; one that is clear of the first goes back to the axis."""
    ranked = pd.DataFrame(
        {"average_rank": [1.0, 2.0, 3.0, 5.0, 6.0, 7.0], "cliques": ["c1", "c1 c2", "c2", "c3", "c3", float("nan")]}
    )
    assert critical.bars(ranked) == [(1.0, 2.0, 0), (2.0, 3.0, 1), (5.0, 6.0, 0)]
    assert critical.bars(ranked.assign(cliques="")) == []


def test_explainers_that_were_not_compared_are_named(source):
    with style.styled():
        figure = next(critical.pictures(source)).draw()
    assert "left out: oracle toy." in figure.get_suptitle().replace("\n", " ")


def test_effects_point_to_the_better_side():
    """A change of -2 with a standard deviation of 4, in [-3, 1]: good where lower is better, bad where higher is."""
    rows = pd.DataFrame({"direction": ["lower", "higher"], "estimate": -2.0, "low": -3.0, "high": 1.0, "effect": -0.5})
    found = effects.standardised(rows)
    assert found[["left", "place", "right"]].to_numpy().tolist() == [[-0.25, 0.5, 0.75], [-0.75, -0.5, 0.25]]
    assert effects.standardised(rows.assign(effect=0.0, estimate=0.0))["left"].isna().all()
