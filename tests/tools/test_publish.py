"""`unmask publish`: small, deterministic, comparable with the run itself, and of nothing but a finished run."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import small_run

from unmask import publish
from unmask.cli import main
from unmask.files import read_json, read_table, sha256, write_json
from unmask.layout import Layout


@pytest.fixture
def command(tmp_path, capsys):
    """`command(results, name, *arguments)` -> (exit code, lines)."""

    def run(results, name, *arguments):
        path = tmp_path / "config.json"
        write_json(path, small_run.config(results).data)
        code = main([name, "--config", str(path), *map(str, arguments)])
        said = capsys.readouterr()
        return code, (said.out + said.err).splitlines()

    return run


@pytest.fixture
def target(tmp_path):
    return tmp_path / "reference"


def files(folder):
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_a_published_run_is_the_same_as_the_run(made_once, command, target, capsys):
    code, lines = command(made_once, "publish", "--to", target)
    assert code == 0, lines
    names = {name.partition(".")[0] for name in files(target / "6_leaderboards")}
    assert {"leaderboard", "by_domain", "overall", "ranking", "accuracy", "hypotheses"} <= names
    assert not list(target.rglob("*.parquet"))
    assert main(["compare", str(made_once), str(target), "--exact"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("THE SAME: all ")
    assert "  config      the same" in said
    assert not any(line.startswith("  !") for line in said)
    assert any(line.startswith("Hypotheses: all ") and line.endswith(" verdicts the same") for line in said)
    code, lines = command(made_once, "verify", "--against", target, "--sample", 3)
    assert code == 0
    assert sum(line.startswith("ok ") for line in lines) == 3


def test_published_twice_it_has_the_same_bytes_and_no_leftovers(made_once, command, target):
    command(made_once, "publish", "--to", target)
    once = files(target)
    (target / "6_leaderboards" / "old.csv").write_text("left\n")
    assert command(made_once, "publish", "--to", target)[0] == 0
    assert files(target) == once


def test_long_tables_are_compressed_and_what_does_not_fit_is_named(made_once, command, target, monkeypatch, capsys):
    monkeypatch.setattr(publish, "PLAIN", 3000)
    assert command(made_once, "publish", "--to", target)[0] == 0
    folder = target / "6_leaderboards"
    original = read_table(Layout(made_once).leaderboards / "leaderboard.csv")
    table = read_table(folder / "leaderboard.csv.gz")
    assert list(table) == list(original)
    np.testing.assert_allclose(table["mean"], original["mean"], rtol=5e-6)
    assert main(["compare", str(made_once), str(target), "--exact"]) == 0
    whole = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    capsys.readouterr()
    monkeypatch.setattr(publish, "LIMIT", whole - 1000)
    code, lines = command(made_once, "publish", "--to", target)
    assert code == 0
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) < whole - 1000
    assert "leaderboard" in lines[-1]
    assert not (folder / "leaderboard.csv.gz").exists()
    # The finest table that is left is by domain: every model of the domain is recomputed.
    code, lines = command(made_once, "verify", "--against", target, "--sample", 3)
    assert code == 0, lines
    assert sum(line.startswith("ok ") and "defect (4 models)  " in line for line in lines) == 3


def test_a_tampered_publication_is_caught(made_once, command, target, capsys):
    command(made_once, "publish", "--to", target)
    path = target / "6_leaderboards" / "overall.csv"
    path.write_text(path.read_text() + "\n")
    code, lines = command(made_once, "verify", "--against", target, "--sample", 0)
    assert code == 1
    assert f"DIFFERS  {target / '6_leaderboards/overall.csv'} is not the file that its manifest describes" in lines
    main(["compare", str(made_once), str(target)])
    assert "  ! second    its manifest is not of these tables: 6_leaderboards/overall.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no manifest", "has no manifest.json; let the run end, or run `unmask manifest`"),
        ("stale", "leaderboard.csv is not the file that the manifest describes; run the benchmark again"),
        ("config", "manifest.json is of another config than this one"),
        ("itself", "is the folder of the results; give another, such as results/reference"),
        ("full", "holds something else than published tables; give an empty folder"),
        ("file", "is a file; give a folder"),
    ],
)
def test_only_a_finished_run_is_published_and_nothing_is_overwritten(results, command, target, case, said):
    if case == "no manifest":
        (results / "manifest.json").unlink()
    elif case == "stale":
        path = Layout(results).leaderboards / "leaderboard.csv"
        path.write_text(path.read_text() + "\n")
    elif case == "config":
        found = read_json(results / "manifest.json")
        found["config"]["digest"] = "0"
        write_json(results / "manifest.json", found)
    elif case == "itself":
        target = results
    elif case == "full":
        shutil.copytree(results / "1_data", target)
    else:
        target.write_text("mine")
    before = files(target) if target.is_dir() else None
    code, lines = command(results, "publish", "--to", target)
    assert code == 2
    assert len(lines) == 1
    assert said in lines[0]
    assert (files(target) if target.is_dir() else None) == before
