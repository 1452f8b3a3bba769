"""`unmask.load_scores` and `unmask.leaderboard` give the tables of `unmask aggregate`; docs/api.md runs."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import small_run

import unmask
from unmask import aggregate
from unmask.files import read_json, read_table, write_json
from unmask.layout import Layout

DOCS = Path(__file__).parents[2] / "docs" / "api.md"
BOARD = ["metric", "removal", "explainer"]


@pytest.fixture(scope="module")
def scores(made_once):
    return unmask.load_scores(made_once)


def written(table):
    """A frame as `unmask aggregate` writes it: floats to 10 significant digits, then CSV and back."""
    floats = table.select_dtypes("float").columns
    rounded = table.assign(**{name: table[name].map(lambda value: float(f"{value:.10g}")) for name in floats})
    return pd.read_csv(io.StringIO(rounded.to_csv(index=False)))


def assert_same(made, expected, keys, without=()):
    """All columns of the expected table, to the last digit; the order within a group is that of the rank."""
    expected = expected.drop(columns=list(without))
    assert list(made) == list(expected) or set(made) == set(expected)
    found = written(made[list(expected)]).sort_values(keys, kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(found, expected.sort_values(keys, kind="stable", ignore_index=True), check_exact=True)


@pytest.mark.parametrize(
    ("by", "name"),
    [(["domain", "encoder", "metric"], "leaderboard"), (["domain", "metric"], "by_domain"), ("metric", "overall")],
)
def test_boards_are_the_tables_of_the_stage(scores, made_once, by, name):
    expected = read_table(Layout(made_once).leaderboards / f"{name}.csv")
    keys = [*(key for key in ("domain", "encoder") if key in by), *BOARD]
    assert_same(unmask.leaderboard(scores, by), expected, keys, without=["accuracy"])


@pytest.mark.parametrize("by", [[], ["domain"], ["domain", "encoder"]])
def test_rankings_are_the_tables_of_the_stage(scores, made_once, by):
    ranking = read_table(Layout(made_once).leaderboards / "ranking.csv")
    scope = ranking[ranking["scope"] == ("all", "domain", "model")[len(by)]]
    others = ["scope", *(name for name in ("domain", "encoder") if name not in by)]
    keys = [*by, "category", "rank", "explainer"]
    found = unmask.leaderboard(scores, by)
    assert_same(found, written(scope[scope["category"] == "all"]), keys, without=others)
    found = unmask.leaderboard(scores, [*by, "category"])
    assert_same(found, written(scope[scope["category"] != "all"]), keys, without=others)


def test_an_alias_of_the_run_is_one_here_and_on_its_models_only(results):
    config = small_run.config(results)
    for model in config.models:
        path = Layout(results).maps(model) / "some.json"
        index = read_json(path)
        for record in index["explainers"]:
            record["alias_of"] = "saliency" if record["name"] == "rise" and model.encoder == "plain" else None
        write_json(path, index)
    aggregate.run(config)
    table = unmask.load_scores(results)
    by = ["domain", "encoder", "metric"]
    made = unmask.leaderboard(table, by)
    assert_same(
        made, read_table(Layout(results).leaderboards / "leaderboard.csv"), [*by[:2], *BOARD], without=["accuracy"]
    )
    assert set(made.loc[made["alias_of"].notna(), "encoder"]) == {"plain"}
    assert unmask.leaderboard(table, "metric")["alias_of"].isna().all()
    plain = table[table["encoder"] == "plain"]
    assert set(unmask.leaderboard(plain, "metric")["alias_of"].dropna()) == {"saliency"}
    alone = plain[plain["explainer"] != "saliency"]
    assert unmask.leaderboard(alone, "metric")["alias_of"].isna().all(), "whose maps it has takes no part"


def test_what_is_not_in_the_table_takes_no_part(scores):
    without = unmask.leaderboard(scores[scores["explainer"] != "rise"], "metric")
    assert set(without["explainer"]) == {"saliency", "random_patch", "oracle"}
    assert without["rank"].max() <= 3


def test_seeds_and_removals_can_be_kept_apart(scores):
    found = unmask.leaderboard(scores, ["finetune_seed", "metric"])
    for seed, part in found.groupby("finetune_seed"):
        alone = unmask.leaderboard(scores[scores["finetune_seed"] == seed], "metric")
        pd.testing.assert_frame_equal(part.drop(columns="finetune_seed").reset_index(drop=True), alone)
    means = scores[scores["status"] == "ok"].groupby(["finetune_seed", "metric", "explainer"])["score"].mean()
    some = found[found["n"] > 0].set_index(["finetune_seed", "metric", "explainer"])["mean"]
    pd.testing.assert_series_equal(some.sort_index(), means.loc[some.sort_index().index], check_names=False)
    by_removal = unmask.leaderboard(scores, "removal")
    with_mean = unmask.leaderboard(scores[scores["removal"] == "mean"], ())
    part = by_removal[by_removal["removal"] == "mean"].drop(columns="removal").reset_index(drop=True)
    pd.testing.assert_frame_equal(part, with_mean)
    assert by_removal["removal"].isna().any(), "metrics without a removal have a ranking of their own"


def test_settings_are_the_runs_unless_given(scores):
    wide, narrow = (unmask.leaderboard(scores, "metric", confidence=share) for share in (0.99, 0.6))
    width = [(one["high"] - one["low"]).sum() for one in (wide, narrow)]
    assert width[0] > width[1]
    usual = unmask.leaderboard(scores, "metric")
    pd.testing.assert_frame_equal(usual, unmask.leaderboard(scores, "metric", bootstrap=100, seed=0, confidence=0.95))
    assert not usual["low"].equals(unmask.leaderboard(scores, "metric", seed=1)["low"])
    bare = scores.copy()
    bare.attrs = {}
    pd.testing.assert_frame_equal(usual, unmask.leaderboard(bare, "metric", bootstrap=100), check_like=True)


def test_a_file_is_read_alone(made_once, scores, tmp_path):
    path = tmp_path / "theirs.parquet"
    path.write_bytes((Layout(made_once).leaderboards / "scores.parquet").read_bytes())
    alone = unmask.load_scores(str(path))
    pd.testing.assert_frame_equal(alone, scores)
    assert alone.attrs == scores.attrs
    assert alone.attrs["unmask"]["bootstrap"] == 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns=["status", "metric"]), ["lacks the columns metric, status"]),
        (lambda table: table.iloc[:0], ["holds no rows"]),
        (lambda table: pd.concat([table, table]), ["twice"]),
        (lambda table: table.assign(direction="up"), ["direction", "higher or lower"]),
        (lambda table: table.assign(status="failed"), ["no ok score"]),
        (lambda table: table.to_dict(), ["of type dict", "load_scores"]),
    ],
)
def test_what_is_no_table_of_scores_is_one_sentence(scores, change, words):
    with pytest.raises(unmask.UserError) as raised:
        unmask.leaderboard(change(scores))
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "encoders"}, ["'encoders'", "did you mean 'encoder'"]),
        ({"by": ["domain", "explainer"]}, ["'explainer'", "known: category, domain"]),
        ({"confidence": 95}, ["confidence", "95"]),
        ({"bootstrap": 3}, ["bootstrap", "3"]),
        ({"seed": -1}, ["seed", "-1"]),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(scores, options, words):
    with pytest.raises(unmask.UserError) as raised:
        unmask.leaderboard(scores, **options)
    for word in words:
        assert word in str(raised.value)


def test_what_cannot_be_loaded_is_one_sentence(tmp_path, made_once):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    for path, words in (
        (tmp_path / "nothing", "does not exist; give a results folder"),
        (tmp_path / "empty", "scores.parquet' does not exist; run the benchmark"),
        (tmp_path / "broken.parquet", "is not a readable table"),
        (Layout(made_once).leaderboards / "ranking.csv", "lacks the columns"),
    ):
        with pytest.raises(unmask.UserError, match=re.escape(words)):
            unmask.load_scores(path)


def test_importing_is_cheap_and_says_what_there_is():
    code = "import sys, unmask; print(*dir(unmask)); print(*(set(sys.modules) & {'pandas', 'numpy', 'torch', 'yaml'}))"
    names, heavy = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split("\n")[:2]
    assert {"UserError", "leaderboard", "load_scores"} <= set(names.split())
    assert heavy == ""
    with pytest.raises(AttributeError, match="no attribute 'leaderbord'"):
        unmask.leaderbord  # noqa: B018


def test_the_example_of_the_page_runs(made_once, monkeypatch, capsys):
    monkeypatch.chdir(made_once.parent)
    blocks = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), names)
    assert "explainer" in capsys.readouterr().out
    scores, board, without = names["scores"], names["board"], names["without"]
    assert len(board) == len(small_run.ENTRIES)
    assert names["best"] == names["ranking"].query("tie_group == 1")["explainer"].tolist()
    assert set(names["leaders"].index.get_level_values("encoder")) == {"plain", "masked"}
    assert set(without["explainer"]) == set(scores["explainer"]) - {"rise"}
