"""The stage on a results folder with planted effects."""

import numpy as np
import pandas as pd
import pytest
import synthetic

from unmask import aggregate, questions
from unmask.config import ModelId
from unmask.errors import UserError
from unmask.files import read_json, read_table, write_json, write_table
from unmask.layout import Layout
from unmask.tables import concepts, decisions, inside, latex
from unmask.tables.columns import BOARDS, LARGE
from unmask.tables.entries import aliases, describe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = synthetic.write(synthetic.config(tmp_path_factory.mktemp("aggregate")))
    aggregate.run(config)
    return config


def table(config, name):
    return read_table(Layout(config.results).leaderboards / f"{name}.csv")


def test_means_are_those_of_the_scores(run):
    scores, board = read_table(Layout(run.results).leaderboards / "scores.parquet"), table(run, "leaderboard")
    keys = ["domain", "encoder", "metric", "removal", "explainer"]
    expected = scores[scores["status"] == "ok"].groupby(keys, dropna=False)["score"].agg(["mean", "size"])
    found = board[board["n"] > 0].set_index(keys)
    assert len(found) == len(expected)
    aligned = (
        found.reset_index().fillna({"removal": "-"}).merge(expected.reset_index().fillna({"removal": "-"}), on=keys)
    )
    np.testing.assert_allclose(aligned["mean_x"], aligned["mean_y"], rtol=1e-9)
    assert (aligned["n"] == aligned["size"]).all()
    pooled = table(run, "overall").set_index(["metric", "removal", "explainer"])
    one = scores[(scores["metric"] == "toy_robustness") & (scores["explainer"] == "sharp")]["score"].mean()
    assert pooled.loc[("toy_robustness", np.nan, "sharp"), "mean"] == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("name", ["leaderboard", "by_domain", "overall"])
def test_the_planted_order_in_both_directions(run, name):
    board = table(run, name)
    for (metric, _), part in board[board["metric"] != "toy_robustness"].groupby(["metric", "removal"], dropna=False):
        for _, one in part.groupby([c for c in ("domain", "encoder") if c in part] or "metric"):
            order = [e for e in one["explainer"] if e != "weak"]
            assert order == ["oracle_toy", "sharp", "shifted", "random_toy"], metric
    assert set(board["direction"]) == {"lower", "higher"}
    assert ((board["low"] <= board["mean"]) & (board["mean"] <= board["high"]) | (board["n"] == 0)).all()
    assert ((board["rank_low"] <= board["rank_high"]) | (board["n"] == 0)).all()


def test_no_ok_score_means_no_rank_and_last_place(run):
    board = table(run, "leaderboard")
    for _, part in board[board["metric"] == "toy_robustness"].groupby(["domain", "encoder"]):
        last = part.iloc[-1]
        assert last["explainer"] == "oracle_toy"
        assert np.isnan(last["rank"])
        assert np.isnan(last["mean"])
        assert (last["n"], last["skipped"]) == (0, synthetic.IMAGES)
        assert part.iloc[0]["explainer"] == "sharp"


def test_failures_are_counted_with_their_reason(run):
    failed = table(run, "failed")
    lost = failed[failed["status"] == "failed"]
    assert (lost["count"] == 3).all()
    assert len(lost) == len(run.models)
    assert set(lost["reason"]) == {"metric returned <b>nan</b>"}
    weak = table(run, "leaderboard").query("explainer == 'weak' and metric == 'toy_localisation'")
    assert (weak["failed"] == 3).all()
    assert (weak["n"] == synthetic.IMAGES - 3).all()


def test_accuracy_stands_beside_every_score(run):
    board, accuracy = table(run, "leaderboard"), table(run, "accuracy")
    assert accuracy["test"].tolist() == pytest.approx([0.7 + 0.01 * i for i in range(len(run.models))])
    shown = board.groupby(["domain", "encoder"], sort=False)["accuracy"].unique().explode().tolist()
    assert shown == pytest.approx(accuracy["test"].tolist())


def test_controls_hold_paired_differences(run):
    rows = table(run, "controls").query("control == 'random_toy' and domain == 'rings' and encoder == 'm25'")
    planted = synthetic.goodness(run, ModelId("rings", "m25", 0, 0), "toy_localisation", None)
    row = rows.query("metric == 'toy_localisation' and explainer == 'sharp'").iloc[0]
    difference = planted["sharp"] - planted["random_toy"]
    assert row["difference"] == pytest.approx(difference.mean(), rel=1e-9)
    # Paired: the image effect (sd .1) is gone, the two noises (sd .05 each) are left.
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * difference.std() / np.sqrt(synthetic.IMAGES), rel=0.2)
    assert set(rows.query("explainer == 'sharp'")["verdict"]) == {"better"}
    assert rows.query("metric == 'toy_faithfulness'")["controls_separated"].all()
    assert (rows["p_corrected"].dropna() > 0).all()
    assert (rows.loc[rows["verdict"] != "undecided", "p_corrected"] < 0.05).all()
    weak = rows.query("metric == 'toy_localisation' and explainer == 'weak'").iloc[0]
    assert weak["n"] == synthetic.IMAGES - 3
    assert weak["difference"] == pytest.approx((planted["weak"] - planted["random_toy"])[3:].mean(), rel=1e-9)


def test_mask_ratio_includes_scratch_and_the_difference_to_random(run):
    ratios = table(run, "mask_ratio")
    assert ratios[ratios["encoder"] == "scratch"]["mask_ratio"].isna().all()
    assert set(ratios["mask_ratio"].dropna()) == {0.25, 0.75}
    random = ratios[ratios["explainer"] == "random_toy"]
    assert (random[["minus_random", "minus_random_low", "minus_random_high"]] == 0).all(axis=None)
    sharp = ratios[ratios["explainer"] == "sharp"]
    assert (sharp["minus_random"].abs() - 0.3).abs().max() < 0.06


def test_ranking_across_metrics(run):
    ranking = table(run, "ranking")
    assert set(ranking["scope"]) == {"all", "domain", "model"}
    every = ranking[(ranking["scope"] == "all") & (ranking["category"] == "all")].set_index("explainer")
    # oracle: 1 in faithfulness and localisation, last (5) in robustness, where it was skipped
    assert every.loc["oracle_toy", "mean_rank"] == pytest.approx((1 + 1 + 5) / 3)
    assert every.loc["oracle_toy", "missing"] == 1
    assert every.loc["sharp", "mean_rank"] == pytest.approx((2 + 2 + 1) / 3)
    assert every.index[0] == "sharp"


def test_reruns_are_byte_identical_and_the_seed_matters(run, tmp_path):
    folder = Layout(run.results).leaderboards
    before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    papers = {path.name: path.read_bytes() for path in (folder / "latex").iterdir()}
    aggregate.run(run, jobs=3)
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == before
    assert {path.name: path.read_bytes() for path in (folder / "latex").iterdir()} == papers
    assert set(papers) == {f"{name}.tex" for name in ("by_domain", "overall", "ranking")}
    others = {"accuracy", "encoders", "failed", "explainers", "gates", "curves", "image_maps"}
    expected = {*BOARDS, *questions.COLUMNS, *inside.COLUMNS, *decisions.COLUMNS, *concepts.COLUMNS, *others}
    assert set(before) == {f"{name}.csv" for name in expected}
    assert all(b"seconds" not in content for content in before.values())
    other = synthetic.write(synthetic.config(tmp_path, seed=1))
    aggregate.run(other)
    assert (Layout(other.results).leaderboards / "leaderboard.csv").read_bytes() != before["leaderboard.csv"]


def test_large_tables_are_parquet_files_too(run):
    folder = Layout(run.results).leaderboards
    for name in LARGE:
        written, read = read_table(folder / f"{name}.parquet"), table(run, name)
        written, read = (one.astype(object).where(one.notna(), None) for one in (written, read))
        pd.testing.assert_frame_equal(written, read)


def test_tie_groups_and_shares_of_being_best(run):
    board = table(run, "leaderboard").query("metric == 'toy_localisation'")
    for _, part in board.groupby(["domain", "encoder"]):
        part = part.set_index("explainer")
        assert part["tie_group"].dropna().to_dict() == {"sharp": 1, "shifted": 2, "weak": 3}
        assert part["p_best"].dropna().to_dict() == {"sharp": 1, "shifted": 0, "weak": 0}
        assert set(part.loc[["sharp", "shifted"], "beats"]) == {"random_toy"}
        assert part.loc[["random_toy", "oracle_toy"], "beats"].isna().all()
    overall = table(run, "overall").query("metric == 'toy_localisation'").set_index("explainer")
    assert overall["tie_group"].dropna().to_dict() == {"sharp": 1, "shifted": 2, "weak": 3}


@pytest.mark.parametrize("name", ["by_domain", "overall"])
def test_pooled_ranks_do_not_reward_being_absent_where_scores_are_low(tmp_path, name):
    """`shifted` is always behind `sharp`; on the encoder that it does not apply to everyone is much worse."""
    config = synthetic.write(synthetic.config(tmp_path))
    for model in config.models:
        if model.encoder == "scratch":
            for group in config.groups:
                path = Layout(config.results).scores(model) / f"{group}.parquet"
                scores = read_table(path)
                absent = (scores["explainer"] == "shifted").to_numpy()
                low = scores["score"] - np.where(scores["direction"] == "higher", 5.0, -5.0)
                scores["score"] = np.where(absent, np.nan, low)
                scores["status"] = np.where(absent, "skipped", scores["status"])
                write_table(path, scores)
    aggregate.run(config)
    board = table(config, name).query("metric == 'toy_faithfulness'")
    for _, part in board.groupby(["domain", "removal"] if "domain" in board else "removal"):
        part = part.set_index("explainer")
        assert part["mean"].idxmin() == "shifted", "lower is better"
        ranks = part["rank"].to_dict()
        assert ranks == {"oracle_toy": 1, "sharp": 2, "shifted": 3, "weak": 4, "random_toy": 5}
        assert part["lacks"].dropna().to_dict() == {"shifted": "scratch"}
    scope = "all" if name == "overall" else "domain"
    ranking = table(config, "ranking").query(f"scope == '{scope}' and category == 'faithfulness'")
    for _, part in ranking.groupby("domain", dropna=False):
        part = part.set_index("explainer")
        assert part["lacks"].dropna().to_dict() == {"shifted": "scratch"}
        for rule in ("rank", "borda_rank", "rescaled_rank"):
            assert part[rule].sort_values().index.tolist() == ["oracle_toy", "sharp", "shifted", "weak", "random_toy"]
    alone = table(config, "leaderboard")
    assert alone["lacks"].isna().all(), "within one model there is nothing to lack"


def test_the_ranking_has_its_rules_side_by_side(run):
    every = table(run, "ranking").query("scope == 'all' and category == 'all'").set_index("explainer")
    assert every["p_best"].dropna().to_dict() == {"sharp": 1, "shifted": 0, "weak": 0}
    assert every["tie_group"].dropna().to_dict() == {"sharp": 1, "shifted": 2, "weak": 3}
    assert every.loc["random_toy", "rescaled"] == 0
    for rule in ("borda", "rescaled"):
        assert (every[f"{rule}_low"] <= every[rule]).all()
        assert (every[rule] <= every[f"{rule}_high"]).all()
        assert every.loc["sharp", f"{rule}_rank"] < every.loc["shifted", f"{rule}_rank"]
    sharp = table(run, "leaderboard").query("metric == 'toy_faithfulness' and explainer == 'sharp'")
    assert sharp["p_best"].tolist() == [1] * len(sharp)


def test_the_metrics_that_vote_together_are_listed(run):
    clusters = table(run, "metric_clusters")
    assert clusters["metric"].tolist() == list(synthetic.METRICS)
    assert clusters["weight"].tolist() == pytest.approx([1 / 3] * 3)
    assert clusters["cluster"].tolist() == [1, 1, 1]


def test_latex_tables_hold_every_explainer_and_the_groups(run):
    folder = Layout(run.results).leaderboards / "latex"
    overall, domains, ranking = ((folder / f"{name}.tex").read_text() for name in ("overall", "by_domain", "ranking"))
    for text in (overall, domains, ranking):
        assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == text.count(r"\toprule")
        assert text.count("{") == text.count("}")
        assert r"\textit{random\_toy} & " in text
        assert "nan" not in text
    assert overall.count(r"\toprule") == 3
    assert domains.count(r"\toprule") == 6
    assert ranking.count(r"\toprule") == 3
    mean = table(run, "overall").query("metric == 'toy_localisation' and explainer == 'sharp'").iloc[0]
    assert f"sharp & \\textbf{{{mean['mean']:.3f}}}\\textsuperscript{{1}} {{\\scriptsize[{mean['low']:.3f}" in overall
    assert r"\textit{oracle\_toy} & -- \\" in overall, "skipped under toy_robustness"


def test_latex_escapes_and_numbers():
    assert latex.escaped("a_b & 5% #1 {x} $|") == r"a\_b \& 5\% \#1 \{x\} \$\textbar{}"
    assert latex.escaped("~^\\<>") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}"
    numbers = {0.4: "0.400", -0.0125: "$-$0.0125", 123.4: "123", 1e-7: r"1.00$\cdot10^{-7}$", 0: "0.00"}
    assert {value: latex.number(value) for value in numbers} == numbers
    assert latex.number(float("nan")) == "--"


def test_files_that_the_config_does_not_name_are_ignored(run, tmp_path):
    config = synthetic.write(synthetic.config(tmp_path))
    stray = Layout(config.results).scores(ModelId("rings", "scratch", 7, 0)) / "first.parquet"
    write_table(stray, synthetic.scores(config, ModelId("rings", "scratch", 0, 0), "first"))
    aggregate.run(config)
    assert table(config, "leaderboard").equals(table(run, "leaderboard"))


def test_an_order_of_rows_does_not_matter(run, tmp_path):
    config = synthetic.write(synthetic.config(tmp_path))
    for model in config.models:
        path = Layout(config.results).scores(model) / "first.parquet"
        write_table(path, read_table(path).sample(frac=1, random_state=0))
    aggregate.run(config)
    for name in ("leaderboard", "overall", "ranking", "mask_ratio"):
        pd.testing.assert_frame_equal(table(config, name), table(run, name), rtol=1e-9)


def test_several_seeds_are_pooled_and_widen_the_interval(tmp_path):
    """Scores that differ between seeds and not between images: the interval comes from the seeds alone."""
    config = synthetic.config(
        tmp_path, seeds=(0, 1, 2), domains=("rings",), encoders=("m25",), aggregate={"bootstrap": 4000}
    )
    synthetic.write(config)
    for model in config.models:
        for group in config.groups:
            path = Layout(config.results).scores(model) / f"{group}.parquet"
            write_table(path, read_table(path).assign(score=float(model.pretrain_seed), status="ok"))
    aggregate.run(config)
    row = table(config, "leaderboard").iloc[0]
    assert (row["mean"], row["low"], row["high"], row["n"]) == (1, 0, 2, 3 * synthetic.IMAGES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="reason"), "lacks the columns reason"),
        (lambda t: t.assign(explainer="stranger"), "'stranger'"),
        (lambda t: t.assign(direction="up"), "no direction"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "twice"),
    ],
)
def test_scores_that_do_not_fit_are_refused(tmp_path, change, message):
    config = synthetic.write(synthetic.config(tmp_path, domains=("rings",), encoders=("m25",)))
    path = Layout(config.results).scores(config.models[0]) / "first.parquet"
    write_table(path, change(read_table(path)))
    with pytest.raises(UserError, match=message):
        aggregate.run(config)


def test_missing_scores_name_the_file(tmp_path):
    config = synthetic.write(synthetic.config(tmp_path, domains=("rings",), encoders=("m25",)))
    path = Layout(config.results).scores(config.models[0]) / "controls.parquet"
    path.unlink()
    with pytest.raises(UserError, match=r"controls\.parquet does not exist"):
        aggregate.run(config)


def record(name, status="ok", **given):
    return {
        "name": name,
        "status": status,
        "alias_of": None,
        "target_correlation": None,
        "passes": {"forward": 0, "backward": 0},
        "failed": {},
        **given,
    }


def test_an_alias_is_one_on_every_model_that_has_both(tmp_path):
    first, second = synthetic.config(tmp_path, domains=("rings",), encoders=("m25", "m75")).models

    def found(*names):
        """The alias of `shifted` where it has these others, model by model."""
        models = zip((first, second), names, strict=False)
        return aliases([(model, 3, [record("sharp"), record("shifted", alias_of=n)]) for model, n in models])

    assert found("sharp") == found("sharp", "sharp") == {"shifted": "sharp"}
    assert found("sharp", None) == found(None, "sharp") == found("sharp", "weak") == found() == {}
    skipped = second, 3, [record("shifted", "skipped")]
    assert aliases([(first, 3, [record("shifted", alias_of="sharp")]), skipped]) == {"shifted": "sharp"}


def mark(config, model):
    """Say that on a model the maps of `shifted` are those of `sharp`."""
    path = Layout(config.results).maps(model) / "first.json"
    index = read_json(path)
    for entry in index["explainers"]:
        entry["alias_of"] = "sharp" if entry["name"] == "shifted" else None
    write_json(path, index)


def test_an_alias_is_shown_and_not_ranked_where_it_is_one(tmp_path):
    config = synthetic.write(synthetic.config(tmp_path, domains=("rings",), encoders=("m25", "m75")))

    def ranks(name, **where):
        part = table(config, name).query("metric == 'toy_localisation'")
        for key, value in where.items():
            part = part[part[key] == value]
        return part.set_index("explainer")

    mark(config, config.models[0])
    aggregate.run(config)
    aliased, other = ranks("leaderboard", encoder="m25"), ranks("leaderboard", encoder="m75")
    assert aliased["rank"].dropna().to_dict() == {"oracle_toy": 1, "sharp": 2, "weak": 3, "random_toy": 4}
    assert aliased.loc["shifted", "alias_of"] == "sharp"
    assert aliased.loc["shifted", "n"] == synthetic.IMAGES
    assert other.loc["shifted", "rank"] == 3
    assert other["alias_of"].isna().all()
    assert ranks("overall").loc["shifted", "rank"] == 3, "where maps differ, so do explainers"
    ranking = table(config, "ranking").query("scope == 'model' and category == 'all'")
    ranked = {encoder: set(part["explainer"]) for encoder, part in ranking.groupby("encoder")}
    assert ranked == {"m25": set(synthetic.EXPLAINERS) - {"shifted"}, "m75": set(synthetic.EXPLAINERS)}
    assert table(config, "explainers")["alias_of"].isna().all()

    mark(config, config.models[1])
    aggregate.run(config)
    for name in ("leaderboard", "by_domain", "overall"):
        part = table(config, name)
        assert part[part["explainer"] == "shifted"]["rank"].isna().all()
        assert set(part[part["alias_of"].notna()]["explainer"]) == {"shifted"}
    assert "shifted" not in set(table(config, "ranking")["explainer"])
    assert table(config, "explainers").set_index("explainer")["alias_of"].dropna().to_dict() == {"shifted": "sharp"}


def test_entries_are_described_by_their_meta_and_by_what_was_measured(tmp_path):
    config = synthetic.config(tmp_path, domains=("rings",), encoders=("m25", "m75"))
    one, two = config.models
    costs = [{"forward": 8, "backward": 4}, {"forward": 12, "backward": 0}]
    maps = [
        (one, 4, [record("sharp", target_correlation=0.25, passes=costs[0], failed={"a": "x", "b": "x"})]),
        (two, 4, [record("sharp", target_correlation=-0.75, passes=costs[1], failed={"a": "x"})]),
        (one, 4, [record("weak", target_correlation=0.5, passes=costs[0]), record("shifted", alias_of="sharp")]),
        (two, 4, [record("weak", "skipped"), record("shifted", "failed")]),
    ]
    described = describe(config, maps).set_index("explainer")
    assert list(described.index) == ["sharp", "shifted", "weak", "random_toy", "oracle_toy"]
    nothing = ["alias_of", "removal", "submitted_by", "contact", "licence"]
    assert described.loc["sharp", nothing].isna().all()
    assert described.loc["sharp"].drop(nothing).to_dict() == {
        "family": "gradient",
        "class_specific": True,
        "signed": True,
        "resolution": "pixel",
        "target_correlation": -0.25,
        "forward": 2.5,
        "backward": 0.5,
        "models": 2,
        "models_without": 0,
        "failed_maps": 3,
    }
    weak, shifted, oracle = (described.loc[name] for name in ("weak", "shifted", "oracle_toy"))
    assert (weak["target_correlation"], weak["forward"], weak["resolution"]) == (0.5, 2, "patch")
    assert (weak["models"], weak["models_without"]) == (1, 1)
    assert (shifted["alias_of"], shifted["models_without"]) == ("sharp", 1)
    assert oracle[["target_correlation", "forward", "backward"]].isna().all()
    assert (oracle["models"], oracle["models_without"], oracle["failed_maps"]) == (0, 0, 0)


def test_settings_change_with_what_matters(tmp_path):
    first, second = synthetic.config(tmp_path / "a"), synthetic.config(tmp_path / "b", aggregate={"bootstrap": 500})
    assert aggregate.settings(first) == aggregate.settings(synthetic.config(tmp_path / "c"))
    assert aggregate.settings(first) != aggregate.settings(second)


def test_cost_gives_passes_and_seconds(run):
    cost = read_table(Layout(run.results).leaderboards / "cost.parquet")
    made = cost[cost["stage"] == "explain"]
    assert len(made) == len(run.models) * len(synthetic.EXPLAINERS)
    assert made["passes"].unique().tolist() == [1.0]
    assert made["seconds"].unique().tolist() == pytest.approx([0.1])
    assert cost[cost["stage"] == "score"]["passes"].unique().tolist() == [2.0]
