"""What goes into the page: packed tables, maps a character a value, outlines, and what it says first."""

import base64
import json
import zlib

import numpy as np
import pandas as pd
import pytest
import synthetic
from PIL import Image

from unmask.figures.gallery import Column
from unmask.layout import Layout
from unmask.page import about, answers, build, embed, plates


def test_packed_tables_hold_what_they_were_made_from():
    table = pd.DataFrame({"name": list("aab") * 5, "value": np.arange(15) / 7, "flag": [True, None, False] * 5})
    table["group"] = pd.array([1, None, 2] * 5, "Int64")
    made = embed.packed(table)
    assert made["rows"] == 15
    assert made["columns"]["value"][:3] == [0, 0.14286, 0.28571]
    for name, values in (("name", ["a", "a", "b"]), ("flag", [True, None, False]), ("group", [1, None, 2])):
        column = made["columns"][name]
        assert [column["of"][place] for place in column["at"]] == values * 5


def test_json_in_the_page_cannot_end_its_element():
    text = embed.deflated({"</script>": "<b>&"})
    assert not set("<>&") & set(text)
    assert json.loads(zlib.decompress(base64.b64decode(text))) == {"</script>": "<b>&"}


def test_large_pictures_are_shrunk_and_small_ones_kept(tmp_path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (20, 10)).save(small)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 2000, 3)).astype(np.uint8)).save(large)
    assert large.stat().st_size > embed.LARGE
    assert len(embed.data_uri(small)) < 200
    assert len(embed.data_uri(large)) < large.stat().st_size


def column(maps, signed=False, reason=""):
    return Column("one", signed, maps, reason, "gradient")


def test_maps_are_levels_between_their_extremes():
    maps = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    text = plates.code(column(maps), 0)
    assert len(text) == 16
    levels = [plates.ALPHABET.index(letter) for letter in text]
    assert levels[0] == 0
    assert levels[-1] == 62
    assert levels == sorted(levels)
    signed = plates.code(column(maps - 8, signed=True), 0)
    assert signed[8] == plates.ALPHABET[31]  # 0 lies in the middle
    assert len(set(plates.ALPHABET)) == 63


def test_maps_that_say_nothing_and_large_ones():
    assert plates.code(column(np.ones((1, 4, 4))), 0) == "-"
    assert plates.code(column(None, reason="skipped"), 0) == "!skipped"
    rng = np.random.default_rng(0)
    assert len(plates.code(column(rng.random((1, 224, 224)).astype(np.float32)), 0)) == plates.SIDE**2


def test_an_outline_runs_along_every_edge():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    assert plates.outline(mask) == "M2 1h3M2 3h3M2 1v2M5 1v2"
    assert plates.outline(np.zeros((4, 4), bool)) == ""
    rng = np.random.default_rng(0).random((9, 9)) < 0.5
    padded = np.pad(rng, 1)
    edges = sum(int((padded != np.roll(padded, 1, axis)).sum()) for axis in (0, 1))
    runs = [int(part) for part in plates.outline(rng).replace("v", "h").split("h")[1:] for part in [part.split("M")[0]]]
    assert sum(runs) == edges


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = synthetic.write(synthetic.config(tmp_path_factory.mktemp("page"), domains=("rings", "bars")))
    rows = [{"domain": m.domain, "encoder": m.encoder, "pretrain_seed": 0, "finetune_seed": 0} for m in config.models]
    accuracy = pd.DataFrame(rows).assign(val=0.8, test=0.9)
    accuracy.loc[accuracy["encoder"] == "m25", "val"] = 0.85
    return config, accuracy


def test_plates_are_those_of_every_encoder_the_most_accurate_first(run):
    config, accuracy = run
    made = plates.plates(config, Layout(config.results), accuracy)
    assert [one["name"] for one in made["explainers"]] == list(synthetic.EXPLAINERS)
    assert [domain["name"] for domain in made["domains"]] == ["rings", "bars"]
    for domain in made["domains"]:
        assert [model["encoder"] for model in domain["models"]] == ["m25", "scratch", "m75"]
        assert {len(model["plates"]) for model in domain["models"]} == {len(domain["images"])} == {6}
        assert [image["class"] for image in domain["images"]][:2] == ["ring", "bar"]  # the first has no evidence
        plate = domain["models"][0]["plates"][0]
        assert set(map(len, plate["maps"].values())) == {synthetic.SIZE**2, (synthetic.SIZE // synthetic.PATCH) ** 2}
        assert plate["correct"]


def test_a_small_budget_keeps_the_first_images_of_the_most_accurate_models(run, monkeypatch):
    config, accuracy = run
    whole = plates.plates(config, Layout(config.results), accuracy)["domains"][0]["models"][0]["plates"][0]["maps"]
    monkeypatch.setattr(plates, "BUDGET", 4 * sum(map(len, whole.values())))
    for domain in plates.plates(config, Layout(config.results), accuracy)["domains"]:
        assert len(domain["images"]) == 2
        assert [sorted(model["plates"]) for model in domain["models"]] == [[0, 1], [], []]


def test_leaders_come_with_their_ties():
    rows = [
        ("all", None, "all", "random_toy", True, 1.0, None, None),
        ("all", None, "all", "second", False, 3.0, 1.0, 0.2),
        ("all", None, "all", "first", False, 2.0, 1.0, 0.8),
        ("all", None, "all", "third", False, 4.0, 2.0, 0.0),
        ("all", None, "faithfulness", "third", False, 1.0, 1.0, 1.0),
    ]
    names = ["scope", "domain", "category", "explainer", "is_control", "rank", "tie_group", "p_best"]
    board = pd.DataFrame(
        {"explainer": ["first"] * 3 + ["third"], "variant": [None, None, "pixels", None]}
        | {"versus_random": ["better", "worse", "better", None]}
    )
    tables = {
        "ranking": pd.DataFrame(rows, columns=names),
        "explainers": pd.DataFrame({"explainer": ["first", "twin"], "alias_of": [None, "first"]}),
        "overall": board,
        "by_domain": board.assign(domain="rings"),
    }
    config = {"domains": {"rings": {}, "bars": {}}}
    found = answers.leaders(config, tables)
    assert found["categories"] == ["all", "faithfulness"]
    cell, other = found["rows"][0]["cells"]
    assert cell == {"name": "first", "same": ["twin"], "tied": ["second"], "p_best": 0.8}
    assert (other["name"], other["tied"]) == ("third", [])
    assert found["rows"][0]["random"] == {"of": 2, "better": 1, "worse": 1}
    assert found["rows"][1]["cells"] == [None, None]
    tables["ranking"] = tables["ranking"].drop(columns="tie_group")
    assert answers.leaders(config, tables) is None


def test_the_mask_ratio_is_answered_by_contrast():
    rows = [
        ("all", "difference", "m25", "scratch", "all", "area", "mean", "undecided"),
        ("all", "slope", "simmim", None, "all", "area", "mean", "worse"),
        ("all", "slope", "simmim", None, "all", "mass", None, "better"),
        ("all", "slope", "simmim", None, "correct", "mass", None, "undecided"),
        ("domain", "slope", "simmim", None, "all", "mass", None, "undecided"),
    ]
    names = ["scope", "contrast", "encoder", "reference", "images", "metric", "removal", "verdict"]
    assert answers.ratios(pd.DataFrame(rows, columns=names)) == [
        {"contrast": "a higher mask ratio of simmim", "better": ["mass"], "worse": ["area@mean"], "undecided": []},
        {"contrast": "m25 against scratch", "better": [], "worse": [], "undecided": ["area@mean"]},
    ]
    assert answers.ratios(None) == []


def test_failures_come_before_what_was_skipped():
    rows = [("skipped", "none", "area", "a", 9), ("failed", "nan", "area", "b", 1), ("failed", "nan", "mass", "b", 2)]
    found = build.failures(pd.DataFrame(rows, columns=["status", "reason", "metric", "explainer", "count"]))
    assert [(row["status"], row["count"], row["metrics"], row["explainers"]) for row in found] == [
        ("failed", 3, "area, mass", ["b"]),
        ("skipped", 9, "area", ["a"]),
    ]


def test_figures_stand_in_their_sections(tmp_path):
    config = synthetic.config(tmp_path, domains=("rings", "bars"))
    path = tmp_path / "any.png"
    Image.new("RGB", (9, 9)).save(path)
    names = ("ranks", "critical.area", "leaderboard_bars", "gallery_rings.1", "gallery_bars", "new_kind_rings")
    found = build.pictures(config, Layout(config.results), {name: (f"of {name}", path) for name in names})
    labels = {
        (section, title, p["label"]) for section, kinds in found.items() for title, ps in kinds.items() for p in ps
    }
    assert labels == {
        ("ranking", "Ranks under every metric", "all domains"),
        ("ranking", "Critical differences", "all domains, area"),
        ("leaderboards", "Means with intervals", "bars"),
        ("figures", "new kind", "rings"),
    }


def test_hashes_are_those_that_are_known(run):
    config, _ = run
    assert about.hashes(config, Layout(config.results)) == []
