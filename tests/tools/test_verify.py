"""`unmask verify`: an honest run passes; a tampered score, map, model or table does not, with or without a manifest."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import small_run

from unmask.cli import main
from unmask.files import read_arrays, read_table, write_arrays, write_json, write_table
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.verification.workshop import Sampled

EVERYTHING = 4 * len(small_run.ENTRIES) * len(small_run.METRICS)  # models x explainers x metrics: all have scores


@pytest.fixture
def verify(tmp_path, capsys):
    """`verify(results, *arguments)` -> (exit code, lines); the config lies outside the results."""

    def run(results, *arguments):
        path = tmp_path / "config.json"
        write_json(path, small_run.config(results).data)
        code = main(["verify", "--config", str(path), *map(str, arguments)])
        said = capsys.readouterr()
        return code, (said.out + said.err).splitlines()

    return run


def model(results, folder="defect/masked/p0f1"):
    return next(one for one in small_run.config(results).models if one.folder == folder)


def state(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def tamper_score(results, by=0.01, **where):
    """Add to a stored score; returns its cell's name as it is printed."""
    where = {"explainer": "rise", "metric": "pixel_flipping", **where}
    path = Layout(results).scores(model(results)) / "some.parquet"
    table = read_table(path)
    chosen = np.flatnonzero(np.logical_and.reduce([table[name] == value for name, value in where.items()]))
    table.loc[chosen[2], "score"] += by
    write_table(path, table)
    return "defect/masked/p0f1  rise  pixel_flipping@mean"


def test_every_cell_of_an_honest_run_comes_out_again(results, verify):
    before = state(results)
    code, lines = verify(results, "--sample", 999)
    assert code == 0, lines
    assert state(results) == before  # nothing is written
    assert sum(line.startswith("ok ") for line in lines) == EVERYTHING
    assert all(line.endswith("largest difference 0") for line in lines if line.startswith("ok "))
    hashed = next(line for line in lines if line.startswith("hashes: "))
    counts = re.fullmatch(r"hashes: (\d+) of (\d+) files are those of the manifest", hashed).groups()
    assert counts[0] == counts[1] != "0"
    assert lines[-1] == f"cells: {EVERYTHING} of {EVERYTHING} recomputed the same (tolerance 0.0001), 0 differ"
    assert not any("since the manifest" in line for line in lines)


def test_the_sample_is_drawn_by_the_seed(results, verify):
    def drawn(*arguments):
        return [line.split()[1:4] for line in verify(results, "--sample", 5, *arguments)[1] if line[:3] == "ok "]

    first = drawn()
    assert len(first) == 5
    assert drawn() == first
    assert drawn("--seed", 1) != first
    assert verify(results, "--sample", 0)[0] == 0


def test_a_tampered_score_is_caught_by_its_hash_and_by_recomputing(results, verify):
    name = tamper_score(results)
    code, lines = verify(results, "--sample", 0)
    assert code == 1
    assert any(line.startswith("DIFFERS  ") and "masked/p0f1/some.parquet is not the file" in line for line in lines)
    (results / "manifest.json").unlink()
    code, lines = verify(results, "--sample", 999)
    assert code == 1
    (wrong,) = [line for line in lines if line.startswith("DIFFERS")]
    assert name in wrong
    assert "1 of 6 scores, most on t" in wrong
    assert wrong.endswith("its maps are the stored ones")
    assert any("has no manifest.json: hashes are not checked" in line for line in lines)


def test_a_difference_inside_the_tolerance_passes(results, verify):
    tamper_score(results, by=1e-3)
    (results / "manifest.json").unlink()
    assert verify(results, "--sample", 999)[0] == 1
    assert verify(results, "--sample", 999, "--tolerance", 0.5)[0] == 0


def test_a_tampered_model_is_caught_by_its_hash_and_by_recomputing(results, verify):
    path = Layout(results).model(model(results)) / "model.safetensors"
    weights = checkpoint.load_state(path)
    write_arrays(path, {name: tensor.numpy() * 1.5 for name, tensor in weights.items()})
    code, lines = verify(results, "--sample", 999)
    assert code == 1
    wrong = [line for line in lines if line.startswith("DIFFERS")]
    assert any("masked/p0f1/model.safetensors is not the file that the manifest describes" in line for line in wrong)
    cells = [line for line in wrong if "scores, most on" in line]
    assert cells
    assert all("defect/masked/p0f1" in line for line in cells)
    assert any(line.endswith("its maps differ, too") for line in cells)


def test_a_tampered_map_and_a_missing_file_are_caught_by_their_hashes(results, verify):
    layout = Layout(results)
    path = layout.maps(model(results)) / "saliency.safetensors"
    maps = read_arrays(path)["maps"]
    maps[0, 0, 0] += 1
    write_arrays(path, {"maps": maps})
    (layout.leaderboards / "failed.csv").unlink()
    code, lines = verify(results, "--sample", 0)
    assert code == 1
    assert f"DIFFERS  {path} is not the file that the manifest describes" in lines
    assert f"DIFFERS  {layout.leaderboards / 'failed.csv'} is missing" in lines


def test_a_score_that_became_a_failure_is_caught(results, verify):
    path = Layout(results).scores(model(results)) / "some.parquet"
    table = read_table(path)
    row = table.index[(table["explainer"] == "rise") & (table["metric"] == "sparseness")][1]
    table.loc[row, ["score", "status", "reason"]] = np.nan, "failed", "made up"
    write_table(path, table)
    (results / "manifest.json").unlink()
    code, lines = verify(results, "--sample", 999)
    assert code == 1
    (wrong,) = [line for line in lines if line.startswith("DIFFERS")]
    assert "1 of 6 scores" in wrong
    assert "stored failed (made up), now " in wrong


@pytest.mark.parametrize("missing", ["3_finetune", "1_data", "2_pretrain", "."])
def test_missing_weights_and_data_are_one_sentence(results, verify, missing):
    shutil.rmtree(results / missing)
    code, lines = verify(results)
    assert code == 2
    assert len(lines) == 1
    assert f"{results / missing}" in lines[0]
    assert "does not exist" in lines[0]
    assert "cells are recomputed from a run's weights and data; run the benchmark with this config first" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sample", "-1"], "--sample: -1 is not a number of cells; give 0 or more"),
        (["--tolerance", "1"], "--tolerance: 1 is not a share"),
        (["--against", "nowhere"], "--against: 'nowhere' is not a folder"),
    ],
)
def test_bad_input_is_one_sentence(results, verify, arguments, said):
    code, lines = verify(results, *arguments)
    assert code == 2
    assert len(lines) == 1
    assert said in lines[0]


def test_another_run_is_held_against_ones_own_models(results, made_once, verify):
    tamper_score(results)
    code, lines = verify(made_once, "--sample", 999, "--against", results)
    assert code == 1
    assert sum(line.startswith("DIFFERS  defect/") for line in lines) == 1
    assert "models: 12 of 12 files are those of" in "\n".join(lines)


def test_published_means_are_held_against_all_seeds_of_a_model(results, made_once, verify, tmp_path):
    published = tmp_path / "published"
    shutil.copytree(results / "6_leaderboards", published / "6_leaderboards")
    shutil.copy(results / "manifest.json", published)
    code, lines = verify(made_once, "--sample", 999, "--against", published)
    assert code == 0, lines
    rows = read_table(published / "6_leaderboards/leaderboard.csv")
    assert sum(line.startswith("ok ") for line in lines) == rows["mean"].notna().sum() == EVERYTHING / 2  # two seeds
    assert "data: 9 of 9 files are those of" in "\n".join(lines)
    # A mean of other numbers: beyond its interval it is a difference, inside it is told.
    chosen = rows.index[(rows["explainer"] == "rise") & (rows["metric"] == "pixel_flipping")][:2]
    rows.loc[chosen[0], ["mean", "low", "high"]] += 5
    rows.loc[chosen[1], "mean"] += 1e-3
    rows.loc[chosen[1], ["low", "high"]] = -9, 9
    write_table(published / "6_leaderboards/leaderboard.csv", rows)
    code, lines = verify(made_once, "--sample", 999, "--against", published)
    assert code == 1
    assert sum(line.startswith("DIFFERS  defect/") for line in lines) == 1
    assert sum(line.startswith("within ") for line in lines) == 1
    assert "1 within the published intervals, 1 differ" in lines[-1]
    assert "leaderboard.csv is not the file that its manifest describes" in "\n".join(lines)


def test_another_config_than_the_manifests_is_told(results, verify, tmp_path, capsys):
    config = small_run.config(results).data
    config["explain"]["options"]["rise"]["masks"] = 8
    write_json(tmp_path / "other.json", config)
    code = main(["verify", "--config", str(tmp_path / "other.json"), "--sample", "999"])
    lines = capsys.readouterr().out.splitlines()
    assert "config since the manifest: explainers.rise.options.masks 16 -> 8" in lines
    assert code == 1
    wrong = [line for line in lines if line.startswith("DIFFERS")]
    assert wrong
    assert all("  rise  " in line and line.endswith("its maps differ, too") for line in wrong)


def test_a_cells_name_says_what_it_is(results):
    assert Sampled(model(results), "rise", "srg", "blur").name == "defect/masked/p0f1  rise  srg@blur"
