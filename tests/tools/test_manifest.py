"""`results/manifest.json`: everything is in it, equal for equal runs, and nothing of the machine that is private."""

from __future__ import annotations

import json
import platform
import shutil
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_run

from unmask import manifest
from unmask.cli import main
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table, sha256, write_arrays, write_json, write_table
from unmask.layout import Layout
from unmask.provenance import environment, hashes, times

MODEL = "defect/masked/p0f1"


def test_every_file_that_results_rest_on_is_hashed(made_once):
    found = read_json(made_once / "manifest.json")["hashes"]
    assert tuple(found) == hashes.SECTIONS
    named = {name for section in found.values() for name in section}
    on_disk = {path.relative_to(made_once).as_posix() for path in made_once.rglob("[!.]*") if path.is_file()}
    assert named == {name for name in on_disk if "/cells/" not in name and name != "manifest.json"}
    weights = f"3_finetune/{MODEL}/model.safetensors"
    assert found["models"][weights] == sha256(made_once / weights)
    assert found["data"]["1_data/defect/test.csv"] == sha256(made_once / "1_data/defect/test.csv")


def test_config_code_seeds_and_environment_are_described(made_once):
    found = read_json(made_once / "manifest.json")
    config = found["config"]
    assert config["keys"]["explain"]["images"] == small_run.COUNT
    assert config["keys"]["finetune"]["epochs"] > 0  # a default
    assert config["explainers"]["rise"]["options"]["masks"] == 16
    assert "keep" in config["explainers"]["rise"]["options"]  # a plug-in's own default
    assert config["metrics"]["pixel_flipping"]["options"] == {"step": 1}
    assert config["mask_ratios"] == {"plain": None, "masked": 0.5}
    assert found["seeds"] == {"base": 0, "pretrain": [0], "finetune": [0, 1]}
    assert {"data", "pretrain", "finetune", "explain", "score", "aggregate", "report"} <= set(found["code"]["stages"])
    assert set(found["code"]["plugins"]["explainers"]) == set(small_run.ENTRIES)
    assert set(found["code"]["plugins"]["metrics"]) == set(small_run.METRICS)
    assert found["code"]["plugins"]["removals"].keys() >= {"mean"}
    assert found["environment"]["python"].endswith(platform.python_version())
    assert found["environment"]["libraries"]["numpy"] == np.__version__
    assert found["environment"]["lock"] == sha256(Path(__file__).parents[2] / "requirements.lock")
    assert found["hardware"]["device"] == "cpu"
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory_gib"] > 0.1
    assert found["hardware"]["cpu"]


def test_libraries_of_libraries_are_listed_and_strangers_are_not():
    found = environment.libraries()
    assert {"torch", "quantus", "numpy", "sympy", "packaging"} <= set(found)  # sympy: torch's
    assert "ruff" not in found


def test_nothing_of_the_machine_is_told(made_once):
    text = (made_once / "manifest.json").read_text()
    assert str(made_once.parent) not in text
    assert str(Path.home()) + "/" not in text
    assert socket.gethostname() not in text
    given = {"results": "/somewhere/else", "plugins": [], "explain": {"groups": {"a": ["saliency"]}}}
    score = {"score": {"metrics": ["sparseness"]}}
    folder = {"mine": {"plugin": "folder", "path": str(Path(__file__).parent)}}
    config = Config({**given, "domains": folder, "encoders": {"plain": {"method": "scratch"}}, **score})
    told = manifest.described(config)
    assert told["domains"]["mine"]["options"]["path"] == "tools"
    assert told["keys"]["domains"]["mine"]["path"] == "tools"
    assert "somewhere" not in json.dumps(told)


def test_the_folder_of_the_results_does_not_enter_the_configs_digest():
    one, other = (manifest.described(small_run.config(Path(name)))["digest"] for name in ("here", "there"))
    assert one == other
    changed = Config({**small_run.config(Path("here")).data, "seed": 1})
    assert manifest.described(changed)["digest"] != one


def test_two_runs_differ_in_the_volatile_sections_alone(made_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("again") / "results"
    small_run.make(folder)
    one, other = (read_json(place / "manifest.json") for place in (made_once, folder))
    files = [f"5_scores/{MODEL}/some.parquet", f"4_maps/{MODEL}/some.json"]
    assert any(sha256(made_once / name) != sha256(folder / name) for name in files)  # they carry seconds
    assert {name for name in one if one[name] != other[name]} <= set(manifest.VOLATILE)


@pytest.mark.parametrize("kind", ["score", "status", "map", "index", "curve", "table"])
def test_a_changed_value_changes_the_hash_and_a_changed_time_does_not(results, kind):
    layout = Layout(results)
    model = next(one for one in small_run.config(results).models if one.folder == MODEL)
    scores = layout.scores(model) / "some.parquet"
    path = {
        "score": scores,
        "status": scores,
        "map": layout.maps(model) / "rise.safetensors",
        "index": layout.maps(model) / "some.json",
        "curve": layout.scores(model) / "some.curves.parquet",
        "table": layout.leaderboards / "leaderboard.csv",
    }[kind]
    before = hashes.fingerprint(path)
    if kind in ("score", "status"):
        table = read_table(path)
        write_table(path, table.assign(seconds=table["seconds"] + 1))
        assert hashes.fingerprint(path) == before
        column, value = ("score", table["score"][0] + 1e-12) if kind == "score" else ("status", "failed")
        table.loc[0, column] = value
        write_table(path, table)
    elif kind == "map":
        maps = read_arrays(path)["maps"]
        write_arrays(path, {"maps": maps}, {"record": "another time"})
        assert hashes.fingerprint(path) == before
        maps[0, 0, 0] += 1
        write_arrays(path, {"maps": maps})
    elif kind == "index":
        index = read_json(path)
        index["explainers"][0]["seconds"] += 1
        write_json(path, index)
        assert hashes.fingerprint(path) == before
        index["explainers"][0]["passes"]["forward"] += 1
        write_json(path, index)
    elif kind == "curve":
        table = read_table(path)
        assert isinstance(table["curve"][0], np.ndarray)
        table.at[0, "curve"] = table["curve"][0] + np.float32(1e-3)
        write_table(path, table)
    else:
        path.write_text(path.read_text() + "\n")
    assert hashes.fingerprint(path) != before


def test_tables_with_other_columns_order_or_types_have_other_hashes(tmp_path):
    path, seen = tmp_path / "some.parquet", set()
    one = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]})
    several = [one, one[["b", "a"]], one[::-1], one.rename(columns={"a": "c"}), one.assign(b=["x", "x"]), one.head(1)]
    for table in several:
        write_table(path, table)
        seen.add(hashes.fingerprint(path))
    assert len(seen) == len(several)


def test_times_are_those_of_the_jobs_of_the_config(results):
    config = small_run.config(results)
    folder = results / "benchmarks"
    text = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    for name, row in (
        ("1_data/defect", "2.5\t0:00:02\t100.5\t-\t-\t-\t-\t-\t1\t1.25\n"),
        ("4_maps/defect_plain_p0f0_some", "1.0\t0:00:01\tNA\tNA\tNA\tNA\tNA\tNA\tNA\t0.5\n"),
        ("4_maps/defect_plain_p0f1_some", "2.0\t0:00:02\t7\t1\t1\t1\t1\t1\t1\t1.5\n"),
        ("4_maps/defect_forgotten_p0f0_some", "99\t0:00:02\t7\t1\t1\t1\t1\t1\t1\t1.5\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.tsv").write_text(text + row)
    found = times.of_run(config)
    assert found["stages"] == {
        "1_data": {"jobs": 1, "seconds": 2.5, "cpu_seconds": 1.25, "peak_memory_mb": 100.5},
        "4_maps": {"jobs": 2, "seconds": 3.0, "cpu_seconds": 2.0, "peak_memory_mb": 7.0},
    }
    assert found["jobs"]["4_maps/defect_plain_p0f1_some"] == 2.0
    assert len(found["jobs"]) == 3


def test_a_missing_file_is_one_sentence(results, capsys):
    (results / f"5_scores/{MODEL}/some.parquet").unlink()
    path = results / "config.json"
    write_json(path, small_run.config(results).data)
    assert main(["manifest", "--config", str(path)]) == 2
    assert "some.parquet does not exist; run the stage that writes it first" in capsys.readouterr().err


def test_another_format_is_refused(results):
    write_json(results / "manifest.json", {"format": 99})
    with pytest.raises(UserError, match="is not a manifest of this version of unmask"):
        manifest.read(results)
    shutil.rmtree(results)
    assert manifest.read(results) is None
