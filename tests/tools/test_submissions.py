"""Submissions: a plug-in's scores leave a run and enter another as if computed there; every mistake is a line."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_run

import unmask
from unmask import aggregate, dag, explain, report, score
from unmask.cli import main
from unmask.config import Config, load
from unmask.errors import UserError
from unmask.figures import catalogue, forest
from unmask.files import read_json, read_table, write_json, write_table
from unmask.layout import Layout
from unmask.schema import problems
from unmask.submissions import card, enter
from unmask.submissions.scores import OPTIONAL, REQUIRED

sys.path.insert(0, str(Path(__file__).parents[1] / "aggregate"))
import synthetic

PLUGIN = '''"""The absolute gradient of the target's logit, squared."""

import torch

META = {
    "kind": "explainers",
    "family": "gradient",
    "class_specific": True,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Doe and Roe, 2026",
}


@torch.enable_grad()
def explain(model, images, targets, *, generator, removal=None):
    images = images.clone().requires_grad_()
    logits = model(images).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(logits, images)[0].square().sum(1)
'''
SAID = {"authors": "Jane Doe", "contact": "jane@example.org", "licence": "CC-BY-4.0"}
MODELS = [f"defect/{encoder}/p0f{seed}" for encoder in ("plain", "masked") for seed in (0, 1)]


class Site:
    """A folder with the results of the small run, `base.json` that names its explainers, `own.json` with one more."""

    def __init__(self, folder: Path):
        self.folder, self.results = folder, folder / "results"

    @property
    def base(self) -> Path:
        return self.folder / "base.json"

    @property
    def path(self) -> Path:
        """The submission of the one more."""
        return self.folder / "mine.parquet"

    def config(self, *submissions: Path, **changes) -> Path:
        """The base config with submissions, results in a folder of their own."""
        data = read_json(self.base) | {"submissions": list(map(str, submissions))} | changes
        path = self.folder / "with.json"
        write_json(path, data)
        return path

    def edit(self, table=None, about=None) -> Path:
        """The submission, changed: `table` and `about` map the old table and card to new ones."""
        if table is not None:
            write_table(self.path, table(read_table(self.path)))
        if about is not None:
            write_json(card.beside(self.path), about(read_json(card.beside(self.path))))
        return self.path


@pytest.fixture(scope="module")
def finished(made_once, tmp_path_factory):
    """The small run with an explainer of one's own in it, and the submission made of that."""
    site = Site(tmp_path_factory.mktemp("submissions"))
    shutil.copytree(made_once, site.results)
    domain = Layout(site.results).domain("defect") / "card.json"
    write_json(domain, read_json(domain) | {"sha256": "d" * 64})
    plugin = site.folder / "mine.py"
    plugin.write_text(PLUGIN)
    base = small_run.config(site.results).data
    write_json(site.base, base)
    own = json.loads(json.dumps(base)) | {"plugins": [str(plugin)]}
    own["explain"]["groups"]["own"] = ["mine"]
    write_json(site.folder / "own.json", own)
    config = Config(own)
    for model in config.models:
        seeds = {"pretrain_seed": model.pretrain_seed, "finetune_seed": model.finetune_seed}
        job = {"domain": model.domain, "encoder": model.encoder, **seeds, "group": "own"}
        explain.run(config, **job)
        score.run(config, **job)
    write_json(site.folder / "who.json", SAID)
    assert submit(site) == 0
    return site


@pytest.fixture
def site(finished, tmp_path):
    """A copy of the submission to change; the results are shared, and not to be changed."""
    for name in ("base.json", "own.json", "who.json", "mine.parquet", "mine.json"):
        shutil.copy(finished.folder / name, tmp_path)
    made = Site(tmp_path)
    made.results.symlink_to(finished.results)
    return made


def submit(site, *more, explainer="mine", said="who.json", output=None):
    arguments = ["--explainer", explainer, "--card", str(site.folder / said), "-o", str(output or site.path)]
    return main(["submit", "--config", str(site.folder / "own.json"), *arguments, *more])


@pytest.fixture
def check(capsys):
    """`check(site)` -> (exit code, lines)."""

    def run(site, path=None, config=None):
        code = main(["submit-check", str(path or site.path), "--config", str(config or site.base)])
        said = capsys.readouterr()
        return code, (said.out + said.err).splitlines()

    return run


def aggregated(config, folder):
    """The tables of a config, made in a folder that has the results of its other stages."""
    data = read_json(config)
    folder.mkdir()
    for stage in Path(data["results"]).iterdir():
        if stage.is_dir() and stage.name[0] in "12345":
            (folder / stage.name).symlink_to(stage)
    aggregate.run(Config(data | {"results": str(folder)}))
    return {path.stem: read_table(path) for path in (folder / "6_leaderboards").glob("*.csv")}


def test_a_submitted_explainer_ranks_as_if_it_had_been_computed_here(site, tmp_path):
    computed = aggregated(site.folder / "own.json", tmp_path / "computed")
    entered = aggregated(site.config(site.path), tmp_path / "entered")
    for name in ("leaderboard", "by_domain", "overall", "ranking", "controls", "mask_ratio", "failed", "pairwise"):
        marks = entered[name].get("submitted", pd.Series(dtype=bool))
        assert set(entered[name].loc[marks, "explainer"] if len(marks) else []) <= {"mine"}
        here, there = (table[name].drop(columns="submitted", errors="ignore") for table in (computed, entered))
        if name == "failed":  # what was submitted stands last there
            here, there = (table.sort_values(list(table), ignore_index=True) for table in (here, there))
        pd.testing.assert_frame_equal(here, there, check_exact=True)
    board = entered["leaderboard"].query("explainer == 'mine'")
    assert len(board) == 2 * len(small_run.METRICS)
    assert board["submitted"].all()
    assert not computed["leaderboard"]["submitted"].any()
    said = entered["explainers"].set_index("explainer").loc["mine"]
    assert said[["submitted_by", "contact", "licence"]].tolist() == list(SAID.values())
    assert said[["forward", "backward"]].tolist() == [0, 1]
    scores = unmask.load_scores(tmp_path / "entered")
    assert scores.loc[scores["submitted"], "explainer"].unique().tolist() == ["mine"]


def test_the_benchmarks_questions_are_asked_of_what_was_computed_here(site, tmp_path):
    without = aggregated(site.base, tmp_path / "without")
    entered = aggregated(site.config(site.path), tmp_path / "entered")
    for name in ("agreement", "stability", "ratio_effects", "hypotheses"):
        pd.testing.assert_frame_equal(without[name], entered[name], check_exact=True)
    assert "mine" in set(entered["critical_difference"]["explainer"])


def test_a_sound_submission_is_told_what_will_enter_where(site, check):
    code, lines = check(site)
    assert code == 0
    results = read_json(site.base)["results"]
    assert lines[0] == f"{site.path} can enter the leaderboards of '{results}'"
    assert lines[1] == "'mine': gradient, class-specific; by Jane Doe (jane@example.org), licence CC-BY-4.0"
    rows = read_table(site.path)
    counts = rows["status"].value_counts()
    states = ", ".join(f"{counts[one]} {one}" for one in ("ok", "skipped", "failed") if one in counts)
    assert lines[2] == f"  defect  models: 4, scores: {len(rows)} ({states})"
    assert lines[3] == "metrics: pixel_flipping (mean), relevance_mass_accuracy, max_sensitivity, sparseness"
    assert "mark it as submitted" in lines[4]
    assert f"submissions: [{site.path}]" in lines[5]
    code, lines = check(site, config=site.config(site.path))
    assert code == 0
    assert lines[-1] == "the config names it; the next run enters it"


def test_before_a_run_it_says_what_it_could_not_check(site, check):
    code, lines = check(site, config=site.config(results=str(site.folder / "nothing")))
    assert code == 0
    assert any(line.startswith("not checked, since") and "hashes of the models" in line for line in lines)
    site.edit(about=lambda about: about | {"models": dict.fromkeys(MODELS, "0" * 64)})
    assert check(site, config=site.config(results=str(site.folder / "nothing")))[0] == 0
    assert check(site)[0] == 2


def put(column, value, rows=slice(0, 1)):
    """A change of some rows of a column."""

    def change(table):
        table = table.astype({column: object})
        table.iloc[rows, table.columns.get_loc(column)] = value
        return table.infer_objects()

    return change


def where(table, **values):
    return np.logical_and.reduce([table[name] == value for name, value in values.items()])


def lost(chosen, status="failed", reason="out of memory"):
    """A change that takes the scores of some rows away."""

    def change(table):
        rows = chosen(table)
        return table.assign(
            score=table["score"].mask(rows),
            status=table["status"].astype(object).mask(rows, status),
            reason=table["reason"].astype(object).mask(rows, reason),
        )

    return change


def unskipped(table):
    rows = table["status"] == "skipped"
    assert rows.any()
    return table.assign(
        score=table["score"].mask(rows, 0.5), status=table["status"].mask(rows, "ok"), reason=table["reason"].mask(rows)
    )


TABLES = {
    "a column is missing": (
        lambda t: t.drop(columns=["score", "image_id"]),
        ["lacks the column 'score'", "'image_id'"],
    ),
    "a column is strange": (lambda t: t.assign(scores=1.0), ["'scores'", "did you mean 'score'"]),
    "there are no rows": (lambda t: t.iloc[:0], ["holds no scores"]),
    "scores are text": (lambda t: t.assign(score="high"), ["other than numbers in the column 'score'"]),
    "seeds are not whole": (lambda t: t.assign(finetune_seed=0.5), ["whole numbers in the column 'finetune_seed'"]),
    "ids are numbers": (lambda t: t.assign(image_id=7), ["other than text in the column 'image_id'"]),
    "a domain is unknown": (put("domain", "defects"), ["unknown domain 'defects'; did you mean 'defect'?"]),
    "an encoder is unknown": (put("encoder", "mask"), ["unknown encoder 'mask'; did you mean 'masked'?"]),
    "a seed is unknown": (put("finetune_seed", 7), ["no model 'defect/plain/p0f7'", "p0f0, p0f1"]),
    "a metric is unknown": (put("metric", "pixel_fliping"), ["unknown metric", "did you mean 'pixel_flipping'"]),
    "a removal is unknown": (put("removal", "blur"), ["'pixel_flipping' has the removal 'blur'", "with mean"]),
    "an image is unknown": (put("image_id", "t99"), ["an image that the run does not score there: 1 row", "image t99"]),
    "an image is missing": (
        lambda t: t.iloc[1:],
        ["an image is missing: 1 row, the first defect/plain/p0f0, pixel_flipping@mean"],
    ),
    "an image is there twice": (lambda t: pd.concat([t, t.iloc[:2]]), ["the same image twice: 2 rows"]),
    "the direction is another": (
        lambda t: t.assign(direction=t["direction"].mask(t["metric"] == "pixel_flipping", "higher")),
        ["'pixel_flipping' has the direction 'higher'; it is 'lower'"],
    ),
    "the category is another": (put("category", "mine"), ["category 'mine'; it is 'faithfulness'"]),
    "a score cannot be": (
        lambda t: t.assign(score=t["score"].mask(where(t, metric="sparseness", status="ok"), 7.0)),
        ["a score that 'sparseness' cannot give: ", "it gives 0 to 1"],
    ),
    "a score is not finite": (put("score", np.inf), ["ok without a finite score: 1 row"]),
    "a score is not there": (put("score", np.nan), ["ok without a finite score: 1 row"]),
    "a failure has a score": (put("status", "failed"), ["but with a score: 1 row", "without a reason: 1 row"]),
    "a status is strange": (put("status", "okay"), ["'status' has 'okay'; it may have ok, skipped, failed"]),
    "another class is explained": (put("prediction", 99), ["another class explained: 1 row"]),
    "another is named": (put("explainer", "yours"), ["'explainer' has 'yours', but the card is that of 'mine'"]),
    "what everybody skips is scored": (unskipped, ["a score where no explainer of the run has one"]),
    "what others have is skipped": (
        lost(lambda t: where(t, metric="sparseness", encoder="plain"), "skipped", "hard"),
        ["skipped where other explainers are scored: 12 rows"],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_mistake_in_the_scores_is_a_line(site, check, name):
    change, words = TABLES[name]
    code, lines = check(site, site.edit(table=change))
    found = [line for line in lines if line.startswith("FAIL  ")]
    assert code == 2
    assert found
    assert lines[-1].startswith(f"{site.path} cannot enter the leaderboards of ")
    for word in words:
        assert any(word in line for line in found), found


CARDS = {
    "a key is missing": ({"authors": ...}, "the key 'authors' is missing"),
    "a key is strange": ({"author": "me"}, "unknown key 'author'; did you mean 'authors'?"),
    "nobody is named": ({"authors": ""}, "authors: must not be empty"),
    "a text is blank": ({"licence": " "}, "licence: ' ' is not one line of text"),
    "a text has lines": ({"citation": "a\nb"}, "is not one line of text"),
    "it is a control": ({"family": "control"}, "not the name of a family that can be submitted"),
    "the name is a path": ({"explainer": "../../x"}, "'../../x' is not a name"),
    "the name ends a line": ({"explainer": "mine\n"}, "is not a name"),
    "the name is long": ({"explainer": "x" * 61}, "longer than 60 characters"),
    "nothing says whether it is class-specific": ({"class_specific": None}, "null is not of type boolean"),
    "passes are negative": ({"passes": {"forward": -1, "backward": 0}}, "passes.forward: -1"),
    "a hash is none": ({"models": dict.fromkeys(MODELS, "abc")}, "'abc' is not a SHA-256"),
    "other weights were explained": ({"models": dict.fromkeys(MODELS, "0" * 64)}, "have other weights than the run's"),
    "a model is missing": ({"models": {MODELS[0]: "0" * 64}}, "'defect/plain/p0f1', 'defect/masked/p0f0'"),
    "a model is unknown": ({"models": {"mars/plain/p0f0": "0" * 64}}, "the run has no 'mars/plain/p0f0'"),
    "other images were explained": ({"data": {"defect": "0" * 64}}, "'defect' has other images than the run's"),
    "other options were used": (
        {"metrics": {name: {"step": 9} for name in small_run.METRICS}},
        "'pixel_flipping' was scored with {'step': 9} and not with the run's options {'step': 1}",
    ),
    "options are missing": ({"metrics": {"sparseness": {}}}, "'pixel_flipping' is not there, but scored"),
    "the name is taken by an entry": ({"explainer": "rise"}, "taken by an entry of explain.groups.some"),
    "the name is taken by unmask": ({"explainer": "lime@mean"}, "taken by an explainer of unmask"),
    "the format is another": ({"format": "2"}, "'2' is not allowed"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_mistake_in_the_card_is_a_line(site, check, name):
    changes, words = CARDS[name]

    def change(about):
        about = about | changes
        return {key: value for key, value in about.items() if value is not ...}

    code, lines = check(site, site.edit(about=change))
    assert code == 2
    assert any(words in line for line in lines if line.startswith("FAIL  ")), lines


def test_files_that_are_missing_or_broken_are_a_line(site, check):
    assert check(site, site.folder / "nothing.parquet")[1][0].endswith(
        "does not exist; give the .parquet file of a submission"
    )
    assert "not the name of a submission" in check(site, site.folder / "mine.json")[1][0]
    card.beside(site.path).write_text('{"passes": NaN}')
    assert "is not valid JSON (NaN" in check(site)[1][0]
    card.beside(site.path).write_text("{")
    site.path.write_bytes(b"PAR1 and no more")
    code, lines = check(site)
    assert code == 2
    assert "is not valid JSON" in lines[0]
    assert "is not a readable parquet file" in lines[1]
    card.beside(site.path).unlink()
    assert "does not exist; give the card" in check(site)[1][0]


def test_all_mistakes_are_told_at_once(site, check):
    def table(rows):
        return put("status", "okay")(put("domain", "mars", slice(3, 4))(rows))

    site.edit(table=table, about=lambda about: about | {"data": {"defect": "0" * 64}})
    code, lines = check(site)
    assert code == 2
    assert len([line for line in lines if line.startswith("FAIL  ")]) >= 4
    assert lines[-1].endswith("problems above")


def test_what_is_not_in_a_submission_is_failed_in_the_tables(site, tmp_path, check):
    site.edit(
        table=lambda rows: rows[(rows["encoder"] == "plain") & (rows["metric"] != "max_sensitivity")],
        about=lambda about: about | {"models": {name: about["models"][name] for name in MODELS[:2]}},
    )
    code, lines = check(site)
    assert code == 0
    assert "not in it, and failed in the tables: masked, max_sensitivity" in lines
    tables = aggregated(site.config(site.path), tmp_path / "entered")
    failed = tables["failed"].query("explainer == 'mine' and reason == 'not in the submission'")
    assert set(failed["status"]) == {"failed"}
    assert set(failed.query("encoder == 'plain'")["metric"]) == {"max_sensitivity"}
    assert set(failed.query("encoder == 'masked'")["metric"]) == set(small_run.METRICS)
    board = tables["leaderboard"].set_index(["encoder", "metric", "explainer"])
    assert board.loc[("plain", "max_sensitivity", "mine"), "n"] == 0
    assert np.isnan(board.loc[("masked", "sparseness", "mine"), "rank"])
    everybody = tables["failed"].query("metric == 'relevance_mass_accuracy' and encoder == 'masked'")
    skips = everybody[everybody["status"] == "skipped"].groupby("explainer")["count"].sum()
    assert skips["mine"] == skips["saliency"], "what everybody skips is skipped"


def test_a_whole_encoder_or_metric_may_be_skipped(site, check):
    for chosen in ({"encoder": "masked"}, {"metric": "max_sensitivity"}):
        site.edit(table=lost(lambda rows, chosen=chosen: where(rows, **chosen), "skipped", "does not apply"))
        assert check(site)[0] == 0


def test_a_config_refuses_what_cannot_enter(site, tmp_path, capsys):
    other = shutil.copy(site.path, site.folder / "other.parquet")
    shutil.copy(card.beside(site.path), site.folder / "other.json")
    for submissions, changes, words in (
        ([site.folder / "nothing.parquet"], {}, "does not exist"),
        ([site.path, other], {}, "has the name 'mine', as has "),
        ([site.path], {"plugins": read_json(site.folder / "own.json")["plugins"]}, "as has an explainer of "),
    ):
        with pytest.raises(UserError, match=words):
            load(site.config(*submissions, **changes))
    site.edit(table=put("domain", "mars"))
    assert main(["check", "--config", str(site.config(site.path))]) == 2
    assert "submissions: " in (said := capsys.readouterr().err)
    assert "unknown domain 'mars'" in said
    with pytest.raises(UserError, match="unknown domain 'mars'"):
        enter.check(load(site.config(site.path)))


def test_the_stage_refuses_other_weights(site, tmp_path):
    site.edit(about=lambda about: about | {"models": dict.fromkeys(MODELS, "0" * 64)})
    with pytest.raises(UserError, match="other weights than the run's"):
        aggregated(site.config(site.path), tmp_path / "entered")
    assert not (tmp_path / "entered" / "6_leaderboards").exists()


def test_the_workflow_waits_for_the_files_and_reruns_for_their_content(site):
    config = load(site.config(site.path))
    assert dag.submission_files(config) == [site.path, card.beside(site.path)]
    before = aggregate.settings(config)
    assert aggregate.settings(config) == before
    site.edit(about=lambda about: about | {"licence": "MIT"})
    assert aggregate.settings(load(site.config(site.path))) != before
    assert aggregate.settings(load(site.base))["submissions"] == []


def test_it_enters_from_python_too(site, tmp_path):
    tables = aggregated(site.config(site.path), tmp_path / "entered")
    aggregated(site.base, tmp_path / "without")
    scores = unmask.load_scores(tmp_path / "without", site.path)
    pd.testing.assert_frame_equal(scores, unmask.load_scores(tmp_path / "entered"))
    found = unmask.leaderboard(scores, "metric")
    expected = tables["overall"]
    assert found["explainer"].tolist() == expected["explainer"].tolist()
    np.testing.assert_allclose(found["low"], expected["low"], rtol=1e-9)
    assert found["submitted"].tolist() == expected["submitted"].tolist()
    alone = unmask.load_scores(site.path)
    assert set(alone["explainer"]) == {"mine"}
    assert alone["submitted"].all()
    assert unmask.leaderboard(alone, ["domain", "metric"])["n"].sum() == (alone["status"] == "ok").sum()
    with pytest.raises(UserError, match="taken"):
        unmask.load_scores(tmp_path / "entered", site.path)
    site.edit(about=lambda about: about | {"models": dict.fromkeys(MODELS, "0" * 64)})
    with pytest.raises(UserError, match="other weights"):
        unmask.load_scores(tmp_path / "without", site.path)
    with pytest.raises(UserError, match="nothing to enter"):
        unmask.load_scores(site.path, site.path)


def test_the_kit_is_complete_once_it_is_filled_in(site, check, capsys):
    kit = site.folder / "kit"
    arguments = ["submit-template", "--explainer", "theirs", "-o", str(kit), "--config", str(site.base)]
    assert main(arguments) == 0
    asked = len(read_table(site.path))
    assert f"{asked} scores to give" in capsys.readouterr().out
    path = kit / "theirs.parquet"
    code, lines = check(site, path)
    assert code == 2
    assert sum("must not be empty" in line for line in lines) == 5
    assert any("ok without a finite score: " in line for line in lines)

    targets = read_table(kit / "targets.csv")
    index = read_json(Layout(site.results).maps(small_run.config(site.results).models[0]) / "some.json")["images"]
    here = targets[(targets["encoder"] == "plain") & (targets["finetune_seed"] == 0)]
    assert here["image_id"].tolist() == [image["image_id"] for image in index]
    assert here["index"].tolist() == [image["index"] for image in index]
    metrics = read_table(kit / "metrics.csv").set_index("metric")
    assert list(metrics.index) == small_run.METRICS
    assert json.loads(metrics.loc["max_sensitivity", "options"])["samples"] == 2
    assert metrics.loc["pixel_flipping", "removals"] == "mean"
    assert (metrics["images"] == small_run.COUNT).all()
    assert "theirs.parquet" in (kit / "README.md").read_text()

    keys = ["domain", "encoder", "pretrain_seed", "finetune_seed", "metric", "image_id"]
    blank = read_table(path)
    pd.testing.assert_series_equal(
        blank["prediction"], blank.merge(targets, on=[*keys[:4], "image_id"])["prediction_y"], check_names=False
    )
    given = read_table(site.path)[[*keys, "score", "status", "reason"]]
    write_table(path, blank.drop(columns=["score", "status", "reason"]).merge(given, on=keys))
    about = SAID | {"summary": "Mine.", "citation": "Me", "family": "new", "class_specific": True, "signed": False}
    write_json(card.beside(path), read_json(card.beside(path)) | about | {"resolution": "pixel"})
    assert check(site, path)[0] == 0
    assert main(arguments) == 2
    assert "exists, and may hold work" in capsys.readouterr().err
    for name, words in (("../x", "is not a name"), ("rise", "taken by"), ("lime", "taken by an explainer of unmask")):
        assert main([*arguments[:2], name, *arguments[3:]]) == 2
        assert words in capsys.readouterr().err


def test_a_run_that_is_not_finished_has_nothing_to_submit(site, capsys):
    config = site.config(results=str(site.folder / "nothing"))
    assert main(["submit-template", "--explainer", "x", "-o", str(site.folder / "kit"), "--config", str(config)]) == 2
    assert "lacks scores of this config; run `snakemake scores` first" in capsys.readouterr().err
    assert not (site.folder / "kit").exists()


@pytest.mark.parametrize(
    ("options", "said", "words"),
    [
        ({"explainer": "mime"}, SAID, "no group has 'mime'; did you mean 'mine'?"),
        ({"explainer": "oracle"}, SAID, "'oracle' is a control"),
        ({"output": "mine.csv"}, SAID, "let it end in .parquet"),
        ({"said": "none.json"}, SAID, "none.json' does not exist; give the card"),
        ({}, {"authors": "me", "contact": "me"}, "the key 'licence' is missing"),
        ({}, SAID | {"models": {}}, "unknown key 'models'"),
        ({}, SAID | {"licence": ""}, "licence: must not be empty"),
    ],
)
def test_what_cannot_be_submitted_is_one_sentence(site, capsys, options, said, words):
    write_json(site.folder / "who.json", said)
    before = site.path.read_bytes()
    assert submit(site, **options) == 2
    error = capsys.readouterr().err
    assert error.startswith("unmask: --")
    assert error.count("\n") == 1
    assert words in error
    assert site.path.read_bytes() == before
    assert not (site.folder / "mine.csv").exists()


def test_the_card_may_say_better_than_the_plugin_what_it_is(site):
    write_json(site.folder / "who.json", SAID | {"summary": "Better said.", "citation": "Doe, 2027"})
    assert submit(site) == 0
    about = read_json(card.beside(site.path))
    assert (about["summary"], about["citation"]) == ("Better said.", "Doe, 2027")
    assert about["family"] == "gradient"
    assert about["passes"] == {"forward": 0.0, "backward": 1.0}
    assert set(about["models"]) == set(MODELS)
    again = site.path.read_bytes()
    assert submit(site) == 0
    assert site.path.read_bytes() == again


def test_figures_tables_and_page_mark_it_and_escape_what_it_says(tmp_path, monkeypatch):
    config = synthetic.write(
        synthetic.config(tmp_path, domains=("rings",), encoders=("m25", "m75"), aggregate={"bootstrap": 100})
    )
    rows = pd.concat([synthetic.scores(config, model, "first") for model in config.models])
    rows = rows[rows["explainer"] == "sharp"].assign(explainer="theirs", score=lambda table: table["score"] + 0.001)
    path = tmp_path / "theirs.parquet"
    write_table(path, rows.drop(columns=["family", "is_control", "config_hash"]))
    hostile = "<script>alert('me')</script>"
    write_json(
        card.beside(path),
        {"format": card.FORMAT, "explainer": "theirs", "summary": hostile, "authors": hostile, "contact": "x"}
        | {"citation": hostile, "licence": "MIT", "family": "gradient", "class_specific": False, "signed": True}
        | {"resolution": "patch", "removal": None, "passes": None, "data": {"rings": "0" * 64}}
        | {"models": {model.folder: "0" * 64 for model in config.models}}
        | {"metrics": {name: {} for name in synthetic.METRICS}},
    )
    config = Config(config.data | {"submissions": [str(path)]})
    aggregate.run(config)
    monkeypatch.setattr(catalogue, "KINDS", (forest,))
    report.run(config)
    layout = Layout(config.results)
    html = (layout.report / "index.html").read_text(encoding="utf-8")
    assert hostile not in html
    assert "Submitted by &lt;script&gt;" in html
    assert "theirs (submitted)" in html
    assert "What is marked as submitted" in html
    tables = catalogue.source(config).tables
    assert "theirs (submitted)" in set(tables["by_domain"]["explainer"])
    assert "theirs" not in set(tables["ranking"]["explainer"])
    latex = (layout.leaderboards / "latex" / "ranking.tex").read_text()
    assert r"theirs$^\ast$" in latex
    assert r"$\ast$: submitted" in latex
    assert r"sharp$^\ast$" not in latex


def test_the_page_on_submissions_says_what_is_checked():
    text = (Path(__file__).parents[2] / "docs" / "submissions.md").read_text(encoding="utf-8")
    said, about = (json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert set(said) == set(SAID)
    assert problems(about, card.SCHEMA, "card") == []
    assert list(about) == list(card.SCHEMA["properties"])
    columns, keys = (
        [name for row in block.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
        for block in re.findall(r"^\| (?:column|key) \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    )
    assert columns == REQUIRED
    assert set(keys) == set(card.SCHEMA["properties"])
    assert all(f"`{name}`" in text for name in OPTIONAL)
