"""The DAG end to end, by real `snakemake` processes: kills, reruns, additions, mistakes.

A process start costs seconds, so one sequence of runs serves all tests, each fixture being the next step. Two folders:
in `first` a run with two cores is killed, continued, extended and edited; in `second` one core runs from start to end.
"""

from __future__ import annotations

import json
import os
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from sites import Site, group_ended, planned, wait_until

from unmask.check import run as check
from unmask.config import Config
from unmask.files import read_arrays, read_json, read_table

pytestmark = pytest.mark.slow

STAGES = ("data", "pretrain", "finetune", "maps", "scores", "leaderboards", "report")
MODEL = "medical/scratch/p0f0"
MADE_ONCE = ("1_data", "2_pretrain", "3_finetune")
PLUGIN = '''"""The red channel."""
META = {
    "kind": "explainers", "family": "gradient", "class_specific": False, "signed": False, "resolution": "pixel",
    "architectures": ["vit"], "passes": {"forward": "0", "backward": "0"}, "citation": "none: made for a test",
}


def explain(model, images, targets, *, generator, removal=None):
    return images[:, 0] + 1
'''
EXTENSION = [
    f"the results/4_maps/{MODEL}/main.json",
    f"the results/5_scores/{MODEL}/main.parquet",
    f"the results/4_maps/{MODEL}/own.json",
    f"the results/5_scores/{MODEL}/own.parquet",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """`site(name)` makes a fresh working folder."""
    return lambda name: Site(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def second(site):
    """A run with one core that goes on beside the other folder's, ended at the latest with the module."""
    place = site("second")
    process = place.start("--cores", 1)
    yield SimpleNamespace(site=place, process=process)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def intruder(second):
    """Another run on the same results while the first is at work."""
    wait_until((second.site.out / "config.json").exists, second.process, second.site.folder / "run.log")
    ran = second.site.run("--cores", 1)
    return SimpleNamespace(ran=ran, first_was_running=second.process.poll() is None)


@pytest.fixture(scope="module")
def killed(site, second, intruder):
    """A run killed, with all of its processes, between two epochs of pretraining."""
    place = site("first")
    process = place.start("--cores", 2)
    resume = place.out / "2_pretrain/simmim_50/p0/resume.safetensors"
    wait_until(resume.exists, process, place.folder / "run.log")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert group_ended(process.pid)
    return SimpleNamespace(site=place, files=place.state("."), data=place.state("1_data"))


@pytest.fixture(scope="module")
def finished(killed):
    """The next plain run."""
    ran = killed.site.run("--cores", 2)
    assert ran.returncode == 0, ran.stderr
    return SimpleNamespace(site=killed.site, ran=ran)


@pytest.fixture(scope="module")
def settled(finished):
    """A dry run after it, and the files as they were."""
    return SimpleNamespace(dry=finished.site.run("-n"), before=finished.site.state("."))


@pytest.fixture(scope="module")
def extended(finished, settled, second):
    """One explainer more in the group, and a second group that holds a user's own plug-in; one model's scores."""
    place = finished.site
    (place.folder / "red.py").write_text(PLUGIN)
    place.config["plugins"] = ["red.py"]
    place.config["explain"]["groups"] = {"main": ["saliency", "sobel", "random_patch"], "own": ["red", "centre"]}
    place.write()
    ran = place.run("--cores", 2, *EXTENSION)
    assert ran.returncode == 0, ran.stderr
    return SimpleNamespace(site=place, before=settled.before, after=place.state("."))


@pytest.fixture(scope="module")
def edited(extended):
    """The plug-in returns twice as much."""
    place = extended.site
    (place.folder / "red.py").write_text(PLUGIN.replace("images[:, 0] + 1", "2 * images[:, 0] + 2"))
    dry = place.run("-n", *EXTENSION)
    ran = place.run("--cores", 2, *EXTENSION)
    assert ran.returncode == 0, ran.stderr
    return SimpleNamespace(site=place, dry=dry, before=extended.after, after=place.state("."))


def readable(path):
    """Raises where a result is cut short."""
    if path.suffix == ".safetensors":
        read_arrays(path)
    elif path.suffix in (".parquet", ".csv"):
        assert len(read_table(path).columns)
    elif path.suffix == ".json":
        read_json(path)


def test_a_killed_run_leaves_whole_files_or_none(killed):
    assert {"1_data/medical/card.json", "1_data/pool.safetensors"} <= set(killed.files)
    assert not any(name.startswith(("2_pretrain", "4_maps")) and "resume" not in name for name in killed.files)
    for name in killed.files:
        if not name.startswith(("logs/", "benchmarks/")):
            readable(killed.site.out / name)


def test_the_next_run_continues_where_the_killed_one_stopped(killed, finished):
    jobs = re.findall(r"^(?:local)?rule (\w+):", finished.ran.stdout + finished.ran.stderr, re.MULTILINE)
    assert "data_domain" not in jobs
    assert "data_pool" not in jobs
    assert jobs.count("pretrain_encoder") == 1
    assert finished.site.state("1_data") == killed.data
    epoch = re.search(r"resuming after epoch (\d+) of 60", (finished.site.out / "logs/2_pretrain/simmim_50_p0.log")
                      .read_text())  # fmt: skip
    assert 1 <= int(epoch[1]) < 60
    assert (finished.site.out / "7_report/index.html").stat().st_size > 10_000
    for path in finished.site.out.rglob("[!.]*"):
        readable(path)


def test_then_nothing_is_left_to_do(settled):
    assert settled.dry.returncode == 0
    assert "Nothing to be done" in settled.dry.stdout + settled.dry.stderr


def test_one_core_and_two_with_a_kill_give_the_same_bytes(second, settled):
    assert second.process.wait(timeout=900) == 0, (second.site.folder / "run.log").read_text()
    tables = {name: sha for name, (_, sha) in settled.before.items() if name.endswith(".csv")}
    assert {"6_leaderboards/leaderboard.csv", "2_pretrain/simmim_50/p0/history.csv"} <= set(tables)
    other = {name: sha for name, (_, sha) in second.site.state(".").items() if name.endswith(".csv")}
    assert other == tables


def test_equal_runs_have_equal_manifests_that_name_every_job(second, finished):
    assert second.process.wait(timeout=900) == 0, (second.site.folder / "run.log").read_text()
    one, other = (read_json(place.out / "manifest.json") for place in (finished.site, second.site))
    assert {name for name in one if one[name] != other[name]} <= {"hardware", "times", "commit"}
    measured = {path.relative_to(second.site.out / "benchmarks").with_suffix("").as_posix()
                for path in (second.site.out / "benchmarks").rglob("*.tsv")}  # fmt: skip
    assert set(other["times"]["jobs"]) == measured - {"manifest"}


def test_a_second_run_on_the_same_results_is_refused(intruder):
    assert intruder.first_was_running
    assert intruder.ran.returncode == 2
    assert "unmask: another run is writing to 'the results'; wait for it, or set another" in intruder.ran.stderr
    assert "Traceback" not in intruder.ran.stderr


def test_a_new_explainer_costs_its_own_cell_only(extended):
    def unchanged(*below):
        return [name for name, state in extended.before.items()
                if name.startswith(below) and extended.after.get(name) != state]  # fmt: skip

    assert unchanged(*MADE_ONCE) == []
    assert unchanged(f"4_maps/{MODEL}/saliency", f"4_maps/{MODEL}/random_patch") == []
    assert unchanged(f"5_scores/{MODEL}/cells/") == []
    assert f"4_maps/{MODEL}/sobel.safetensors" not in extended.before
    scores = read_table(extended.site.out / f"5_scores/{MODEL}/main.parquet")
    assert set(scores["explainer"]) == {"saliency", "sobel", "random_patch"}


def red(site):
    """The red channel of the explained images, from the data."""
    rows = [image["index"] for image in read_json(site.out / f"4_maps/{MODEL}/own.json")["images"]]
    return read_arrays(site.out / "1_data/medical/test.safetensors")["images"][rows, :, :, 0] / np.float32(255)


def test_a_users_plugin_runs_in_the_dag(extended, edited):
    scores = read_table(extended.site.out / f"5_scores/{MODEL}/own.parquet")
    assert set(scores.loc[scores["status"] == "ok", "explainer"]) == {"red", "centre"}
    maps = read_arrays(edited.site.out / f"4_maps/{MODEL}/red.safetensors")["maps"]
    np.testing.assert_allclose(maps, 2 * red(edited.site) + 2, rtol=1e-6)


def test_an_edited_plugin_reruns_its_group_and_recomputes_its_cell(edited):
    assert planned(edited.dry.stdout) == {"explain_group": 1, "score_group": 1}
    changed = {name for name, state in edited.after.items() if edited.before.get(name) != state}
    results = {name for name in changed if name.startswith((*MADE_ONCE, "4_maps", "5_scores", "6_", "7_"))}
    assert results == {
        f"4_maps/{MODEL}/red.safetensors",
        f"4_maps/{MODEL}/own.json",
        *(f"5_scores/{MODEL}/{name}{kind}.parquet" for name in ("cells/red", "own") for kind in ("", ".curves")),
        f"5_scores/{MODEL}/own.judged.parquet",
    }


def test_a_comment_in_a_plugin_reruns_nothing(edited):
    path = edited.site.folder / "red.py"
    path.write_text("# A comment.\n" + path.read_text().replace('"""The red channel."""', '"""Red."""'))
    dry = edited.site.run("-n", *EXTENSION)
    assert "Nothing to be done" in dry.stdout + dry.stderr


def test_every_stage_has_a_target_and_check_counts_the_jobs(site, capsys):
    place = site("targets")
    jobs = planned(place.run("-n", *STAGES, "manifest").stdout)
    assert set(STAGES) <= set(jobs)
    check(Config(place.config))
    stages = sum(count for name, count in jobs.items() if name not in STAGES[:-1])
    assert int(re.search(r"^jobs +(\d+)", capsys.readouterr().out, re.MULTILINE)[1]) == stages


def test_a_stage_target_stops_at_its_stage(site):
    jobs = planned(site("maps").run("-n", "maps").stdout)
    assert jobs == {
        "data_domain": 1, "data_pool": 1, "pretrain_encoder": 1, "finetune_model": 2, "explain_group": 2, "maps": 1,
    }  # fmt: skip


def test_a_bad_config_is_one_sentence(site):
    place = site("bad")
    (place.folder / "bad.json").write_text(json.dumps({**place.config, "encoders": {}}))
    ran = place.run("-n", config="bad.json")
    assert ran.returncode == 2
    said = [line for line in ran.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert said == ["unmask: encoders: must not be empty"]


def test_lint_finds_nothing(site):
    ran = site("lint").run("--lint")
    assert ran.returncode == 0
    assert "in a good condition" in ran.stdout + ran.stderr
