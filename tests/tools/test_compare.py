"""`unmask compare`: planted differences are found and told, equal runs raise no alarm, tolerances are kept."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "aggregate"))
import synthetic

from unmask import aggregate
from unmask.cli import main
from unmask.comparison import boards, differences
from unmask.files import read_table, write_json, write_table
from unmask.layout import Layout

LEADERBOARD = boards.BOARDS[0]
CELL = {"domain": "rings", "encoder": "m25", "metric": "toy_faithfulness", "removal": "mean", "explainer": "weak"}
MANIFEST = {
    "format": 1,
    "unmask": "0.1.0",
    "config": {
        "digest": "a",
        "keys": {
            "seed": 0,
            "explain": {"images": 20, "groups": {"main": ["lime", "rise"]}},
            "score": {},
            "domains": {},
        },
        "mask_ratios": {"m25": 0.25},
        "domains": {"rings": {"plugin": "rings", "options": {"train": 800}}},
        "explainers": {"rise": {"removal": "mean", "options": {"masks": 256}}},
        "metrics": {},
    },
    "seeds": {"base": 0},
    "code": {"digest": "b", "stages": {"score": "1", "explain": "1"}, "plugins": {"metrics": {"toy": "1"}}},
    "environment": {"python": "3.11.2", "platform": "x", "libraries": {"attrs": "1", "torch": "2.1"}, "lock": "c"},
    "hashes": {
        "data": {"1_data/a": "1"},
        "encoders": {"2/e.json": "1", "2/e": "1"},
        "models": {"3/a": "1", "3/b": "1"},
        "leaderboards": {},
    },
    "hardware": {"cpu": "one", "gpus": []},
    "times": {},
    "commit": {"commit": "0123456789abcdef", "edited": False},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The leaderboards of a synthetic run."""
    config = synthetic.write(synthetic.config(tmp_path_factory.mktemp("run")))
    aggregate.run(config)
    return config.results


@pytest.fixture
def pair(finished, tmp_path):
    """Two copies of the leaderboards."""
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        shutil.copytree(finished / "6_leaderboards", folder / "6_leaderboards")
    return folders


def compare(capsys, *arguments):
    """(exit code, printed lines); what goes to standard error comes last."""
    code = main(["compare", *map(str, arguments)])
    said = capsys.readouterr()
    return code, (said.out + said.err).splitlines()


def edit(folder, table, where, **columns):
    """Change cells of a table; a function gets the old values."""
    path = Layout(folder).leaderboards / f"{table}.csv"
    rows = read_table(path)
    chosen = np.logical_and.reduce([rows[name] == value for name, value in where.items()])
    assert chosen.any()
    for name, value in columns.items():
        rows.loc[chosen, name] = value(rows.loc[chosen, name]) if callable(value) else value
    write_table(path, rows)


def cell(folder, table="leaderboard", where=CELL):
    rows = read_table(Layout(folder).leaderboards / f"{table}.csv")
    return rows[np.logical_and.reduce([rows[name] == value for name, value in where.items()])].iloc[0]


def test_a_run_is_the_same_as_itself(pair, capsys, tmp_path):
    for flags in ([], ["--exact"], ["--tolerance", 0]):
        code, lines = compare(capsys, *pair, *flags, "--csv", tmp_path / "found.csv")
        assert code == 0
        assert lines[0].startswith("THE SAME: all ")
        assert len(read_table(tmp_path / "found.csv")) == 0
    rows = sum(len(read_table(path)) for path in boards.tables_of(pair[0]).values())
    assert lines[0] == f"THE SAME: all {rows} cells are equal"


def test_a_cell_that_moved_beyond_its_interval_is_found_first(pair, capsys, tmp_path):
    old = cell(pair[0])
    edit(pair[1], "leaderboard", CELL, mean=old["mean"] + 0.5, low=old["low"] + 0.5, high=old["high"] + 0.5)
    code, lines = compare(capsys, *pair, "--csv", tmp_path / "found.csv")
    assert code == 1
    assert lines[0].startswith("DIFFERENT: 1 changed beyond their intervals (")
    assert f"  leaderboard: rings / m25 / toy_faithfulness@mean / weak: {old['mean']:.4g} [" in "\n".join(lines)
    found = read_table(tmp_path / "found.csv")
    assert len(found) == 1
    assert found.loc[0, ["kind", *CELL]].tolist() == ["value", *CELL.values()]
    assert found.loc[0, "difference"] == pytest.approx(0.5)
    assert found.loc[0, "excess"] == pytest.approx(0.5 / np.hypot(old["high"] - old["mean"], old["mean"] - old["low"]))


def test_a_cell_that_moved_within_its_interval_is_told_but_passes(pair, capsys):
    old = cell(pair[0])
    moved = 0.9 * np.hypot(old["high"] - old["mean"], old["mean"] - old["low"])
    edit(pair[1], "leaderboard", CELL, **{name: old[name] + moved for name in ("mean", "low", "high")})
    code, lines = compare(capsys, *pair)
    assert code == 0
    assert lines[0].startswith("WITHIN TOLERANCE: of ")
    assert lines[0].endswith(" 1 numbers moved within their intervals")
    code, lines = compare(capsys, *pair, "--exact")
    assert code == 1
    assert "1 numbers changed" in lines[0]


def test_tolerance_decides_what_is_equal(pair, capsys):
    largest = read_table(Layout(pair[0]).leaderboards / "leaderboard.csv")
    largest = (
        largest[(largest["metric"] == CELL["metric"]) & (largest["removal"] == CELL["removal"])]["mean"].abs().max()
    )
    edit(pair[1], "leaderboard", CELL, mean=lambda mean: mean + 1e-3 * largest)
    assert compare(capsys, *pair, "--exact", "--tolerance", 1.01e-3)[0] == 0
    assert compare(capsys, *pair, "--exact", "--tolerance", 0.9e-3)[0] == 1


def test_two_ranks_swapped_are_found(pair, capsys):
    where = {"domain": "rings", "encoder": "m25", "metric": "toy_robustness"}
    for name, rank in (("sharp", 4), ("random_toy", 1)):
        columns = dict.fromkeys(("rank", "rank_low", "rank_high"), rank)
        edit(pair[1], "leaderboard", {**where, "explainer": name}, **columns)
    code, lines = compare(capsys, *pair)
    assert code == 1
    assert lines[0].startswith("DIFFERENT: 2 rank changes beyond theirs (")
    assert "  leaderboard: rings / m25 / toy_robustness / sharp: rank 1 [1, 1] -> 4 [4, 4]" in lines


def test_a_rank_that_changed_inside_its_interval_passes(pair, capsys):
    for folder in pair:
        edit(folder, "leaderboard", CELL, rank_low=1, rank_high=5)
    edit(pair[1], "leaderboard", CELL, rank=lambda rank: rank - 1)
    code, lines = compare(capsys, *pair)
    assert code == 0
    assert lines[0].endswith(" 1 ranks within theirs")


def test_missing_cells_are_told_by_what_is_missing(pair, capsys):
    for table in ("leaderboard", "by_domain", "overall", "ranking"):
        path = Layout(pair[1]).leaderboards / f"{table}.csv"
        rows = read_table(path)
        keep = rows["explainer"] != "weak"
        if table == "leaderboard":
            keep &= ~(
                (rows["encoder"] == "m75") & (rows["metric"] == "toy_robustness") & (rows["explainer"] == "sharp")
            )
        write_table(path, rows[keep])
    code, lines = compare(capsys, *pair)
    assert code == 1
    whole = {name: read_table(path) for name, path in boards.tables_of(pair[0]).items()}
    lost = sum((table["explainer"] == "weak").sum() for table in whole.values())
    assert (
        f"  the explainer weak is not in the second: {lost} rows of leaderboard, by_domain, overall, ranking" in lines
    )
    assert "  rings / m75 / toy_robustness / sharp is not in the second: 1 rows of leaderboard" in lines
    assert "  bars / m75 / toy_robustness / sharp is not in the second: 1 rows of leaderboard" in lines
    assert lines[0].startswith(f"DIFFERENT: {lost + 2} missing (")
    # The other way round it is new.
    assert f"  the explainer weak is not in the first: {lost} rows of" in "\n".join(compare(capsys, *pair[::-1])[1])


def test_ranks_among_other_entries_are_not_compared(pair, capsys):
    path = Layout(pair[1]).leaderboards / "ranking.csv"
    rows = read_table(path)
    rows = rows[rows["explainer"] != "oracle_toy"]
    write_table(path, rows.assign(rank=rows["rank"] - 1, mean_rank=rows["mean_rank"] - 1))
    code, lines = compare(capsys, *pair)
    assert code == 1
    assert " missing (" in lines[0]
    assert "rank changes" not in lines[0]
    assert "changed beyond" not in lines[0]


def test_another_direction_is_one_line_and_no_rank_changes(pair, capsys):
    for table in ("leaderboard", "by_domain", "overall"):
        edit(pair[1], table, {"metric": "toy_localisation"}, direction="lower", rank=lambda rank: 6 - rank)
    code, lines = compare(capsys, *pair)
    assert code == 1
    assert lines[0].startswith("DIFFERENT: 3 of another direction (")
    assert "  leaderboard: toy_localisation: higher is better in the first, lower in the second" in lines


def test_lost_and_failed_scores_count_but_other_numbers_of_images_do_not(pair, capsys):
    edit(pair[1], "leaderboard", CELL, mean=np.nan, low=np.nan, high=np.nan, rank=np.nan)
    other = {**CELL, "explainer": "sharp"}
    edit(pair[1], "leaderboard", other, n=20, failed=4)
    code, lines = compare(capsys, *pair)
    assert code == 1
    assert lines[0].startswith("DIFFERENT: 1 without a score, 1 with other failures (")
    assert "  leaderboard: rings / m25 / toy_faithfulness@mean / weak: no score in the second" in lines
    assert "  leaderboard: rings / m25 / toy_faithfulness@mean / sharp: failed 0 -> 4" in lines
    edit(pair[1], "leaderboard", other, failed=0, skipped=4)
    shutil.copy(Layout(pair[1]).leaderboards / "leaderboard.csv", Layout(pair[0]).leaderboards / "leaderboard.csv")
    edit(pair[1], "leaderboard", other, n=24, skipped=0)
    code, lines = compare(capsys, *pair)
    assert code == 0
    assert lines[0].endswith(" 2 numbers of images differ")


def test_a_verdict_against_the_null_control_that_turned_round_counts(pair, capsys):
    edit(pair[0], "leaderboard", CELL, versus_random="better")
    edit(pair[1], "leaderboard", CELL, versus_random="undecided")
    assert compare(capsys, *pair)[0] == 0
    edit(pair[1], "leaderboard", CELL, versus_random="worse")
    code, lines = compare(capsys, *pair)
    assert code == 1
    assert "  leaderboard: rings / m25 / toy_faithfulness@mean / weak: better -> worse" in lines


def test_a_share_beyond_the_intervals_may_be_allowed(pair, capsys):
    edit(pair[1], "overall", {"explainer": "weak"}, **dict.fromkeys(("mean", "low", "high"), lambda old: old + 9))
    moved = len(read_table(Layout(pair[1]).leaderboards / "overall.csv").query("explainer == 'weak'"))
    numbers = sum(
        read_table(path)[list(board.values)].notna().sum().sum()
        for board, path in zip(boards.BOARDS, boards.tables_of(pair[0]).values(), strict=True)
    )
    assert compare(capsys, *pair, "--allow", moved / numbers * 0.99)[0] == 1
    code, lines = compare(capsys, *pair, "--allow", moved / numbers * 1.01)
    assert code == 0
    assert lines[0].startswith("WITHIN TOLERANCE")


def test_leaders_and_hypotheses_are_told(pair, capsys):
    where = {"scope": "all", "category": "all"}
    names = {name: cell(pair[0], "ranking", {**where, "explainer": name})["rank"] for name in ("sharp", "shifted")}
    for name, other in (("sharp", "shifted"), ("shifted", "sharp")):
        edit(pair[1], "ranking", {**where, "explainer": name}, rank=names[other])
    path = Layout(pair[1]).leaderboards / "hypotheses.csv"
    rows = read_table(path).astype({"verdict": object})
    rows.loc[0, "verdict"] = "supported"
    write_table(path, rows)
    old = read_table(Layout(pair[0]).leaderboards / "hypotheses.csv").loc[0]
    _, lines = compare(capsys, *pair)
    assert "  all domains: sharp -> shifted" in lines
    assert "  rings: sharp in both" in lines
    assert f"Hypotheses: {old['hypothesis']} {old['verdict']} -> supported" in lines


def test_what_made_two_runs_is_told_from_their_manifests(pair, capsys):
    other = json.loads(json.dumps(MANIFEST))
    other["config"]["keys"]["explain"] = {"images": 50, "groups": {"main": ["rise", "cam"]}}
    other["config"]["explainers"]["rise"]["options"]["masks"] = 512
    other["code"]["stages"]["score"] = "2"
    other["environment"]["libraries"] = {"attrs": "2", "torch": "2.2"}
    other["hashes"]["models"]["3/b"] = "2"
    other["hashes"]["encoders"]["2/e.json"] = "2"  # names the code, not the weights
    other["commit"] = None
    for folder, content in zip(pair, (MANIFEST, other), strict=True):
        content["hashes"]["leaderboards"] = {}
        write_json(folder / "manifest.json", content)
    code, lines = compare(capsys, *pair)
    assert code == 0  # what made them decides nothing; the numbers do
    text = "\n".join(lines)
    assert "explain.images 20 -> 50; explain.groups.main without lime and with cam" in text
    assert "explainers.rise.options.masks 256 -> 512" in text
    assert "  code        stages score differs (commit 0123456789 -> no commit known)" in lines
    assert "  environment torch 2.1 -> 2.2; attrs 1 -> 2" in lines  # what unmask asks for itself comes first
    assert "  results     they part at the models: 1 of 2 files differ, the first is 3/b" in lines
    # A table that the manifest does not describe is not trusted silently.
    assert any(line.startswith("  ! first     its manifest is not of these tables") for line in lines)


def test_equal_manifests_and_missing_ones_are_told(pair, capsys):
    from unmask.provenance.hashes import fingerprint

    content = json.loads(json.dumps(MANIFEST))
    content["hashes"]["leaderboards"] = {
        path.relative_to(pair[0]).as_posix(): fingerprint(path) for path in boards.tables_of(pair[0]).values()
    }
    write_json(pair[0] / "manifest.json", content)
    assert (
        "  manifest    the second has none, so configs, code and environments are not compared"
        in (compare(capsys, *pair)[1])
    )
    write_json(pair[1] / "manifest.json", content)
    _, lines = compare(capsys, *pair)
    assert [line for line in lines if line.startswith("  !")] == []
    assert "  config      the same" in lines
    assert "  code        the same" in lines
    assert "  results     every file is the same" in lines


@pytest.mark.parametrize("case", ["no folder", "no tables", "column", "word", "double", "share", "manifest"])
def test_bad_input_is_one_sentence_and_exit_code_2(pair, capsys, case, tmp_path):
    arguments, path = list(pair), Layout(pair[1]).leaderboards / "overall.csv"
    table = read_table(path)
    expected = {
        "no folder": "is not a folder; give a folder of results",
        "no tables": "holds no leaderboards",
        "column": "overall.csv is not a table `overall` of this version: it lacks low",
        "word": "overall.csv: the column 'mean' holds something that is not a number",
        "double": "overall.csv has two rows for toy_faithfulness / mean / ",
        "share": "--tolerance: -1 is not a share; give 0 or more and less than 1",
        "manifest": "manifest.json is not valid JSON",
    }[case]
    if case == "no folder":
        arguments[1] = tmp_path / "nowhere"
    elif case == "no tables":
        arguments[1] = tmp_path
    elif case == "column":
        write_table(path, table.drop(columns="low"))
    elif case == "word":
        write_table(path, table.astype({"mean": object}).replace({"mean": {table["mean"][0]: "much"}}))
    elif case == "double":
        write_table(path, pd.concat([table, table.head(1)]))
    elif case == "share":
        arguments += ["--tolerance=-1"]
    else:
        (pair[1] / "manifest.json").write_text("{")
    code, lines = compare(capsys, *arguments)
    assert code == 2
    assert len(lines) == 1
    assert expected in lines[0]


def board(means, half):
    """A leaderboard of one metric with symmetric intervals."""
    count = len(means)
    return pd.DataFrame(
        {
            **dict.fromkeys(("domain", "encoder", "metric"), "x"),
            "removal": "",
            "variant": "",
            "explainer": [f"e{i}" for i in range(count)],
            "mean": means,
            "low": means - half,
            "high": means + half,
            "rank": 1.0,
            "rank_low": 1.0,
            "rank_high": 1.0,
        }
    )


def test_independent_runs_of_the_same_truth_differ_in_a_twentieth_of_their_cells():
    """Means of n(0, 1) over 25 images, their exact 95 % intervals: the criterion has the level it is built for."""
    rng, count, error = np.random.default_rng(0), 4000, 1 / 5
    one, other = (board(rng.normal(0, error, count), 1.959964 * error) for _ in range(2))
    found = differences.compare(LEADERBOARD, one, other, 0.0).rows
    share = found["beyond"].astype(bool).sum() / count
    assert share == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / count))


def test_the_criterion_is_the_closed_form_for_symmetric_intervals():
    rng = np.random.default_rng(1)
    one, other = board(rng.normal(0, 1, 500), 0.7), board(rng.normal(0, 1, 500), 1.1)
    found = differences.compare(LEADERBOARD, one, other, 0.0).rows
    assert len(found) == 500
    expected = np.abs(one["mean"] - other["mean"]) > np.sqrt(0.7**2 + 1.1**2)
    np.testing.assert_array_equal(found["beyond"].astype(bool), expected)
    assert 0 < expected.sum() < 500
