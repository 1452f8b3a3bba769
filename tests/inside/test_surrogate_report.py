"""Tables, figures and the page's words of surrogates, from planted ones."""

import numpy as np
import pandas as pd
import pytest
from test_counterfactual_report import IMAGES, configuration, pick, plant_images
from test_inside_report import rendered

from unmask.figures import style, surrogate_maps, surrogates
from unmask.figures.source import Source
from unmask.files import write_json, write_table
from unmask.internals.removed import frame
from unmask.internals.surrogates import COLUMNS
from unmask.layout import Layout
from unmask.page import inside
from unmask.tables import decisions
from unmask.tables.inside import COLUMNS as OTHERS

CONCEPTS = 20
TREE = "if <row> 1, column 2 is present:\n    logit 2.00\nelse:\n    logit -1.00"


def plant(config):
    layout = Layout(config.results)
    plant_images(config)
    for model in config.models:
        rows, contents = [], []
        better = 0.1 * list(config["encoders"]).index(model.encoder)
        for image in range(IMAGES):
            name = f"{model.domain}{image}"
            if image == 5:
                rows.append(
                    {"of": "patches", "removal": "mean", "image_id": name, "status": "skipped", "reason": "constant"}
                )
                continue
            for surrogate, r2 in (("tree", 0.4 + 0.01 * image), ("linear", 0.7 + better - 0.02 * image)):
                where = {"of": "patches", "surrogate": surrogate, "removal": "mean", "image_id": name}
                found = {"r2": r2, "agreement": 0.9, "baseline": 0.6, "fit": float(r2 >= 0.7)}
                rows += [{**where, "quantity": quantity, "value": value} for quantity, value in found.items()]
                one = {**where, "class": 1, "r2": r2, "agreement": 0.9, "fit": r2 >= 0.7}
                if r2 >= 0.7:
                    one |= {"intercept": -0.5, "coefficients": [[1, 2.0], [6, -1.0]], "nonzero": 5}
                contents.append(one)
        for surrogate in ("tree", "linear"):
            for image in range(CONCEPTS):
                where = {"of": "concepts", "surrogate": surrogate, "image_id": f"{model.domain}{image}"}
                found = {"agreement": float(image % 10 > 0), "baseline": float(image % 4 == 0), "fit": 1.0}
                rows += [{**where, "quantity": quantity, "value": value} for quantity, value in found.items()]
        contents.append({"of": "concepts", "surrogate": "tree", "agreement": 0.9, "fit": True, "tree": TREE})
        contents.append(
            {"of": "concepts", "surrogate": "linear", "agreement": 0.9, "fit": True,
             "coefficients": [["stain", "stain: area", 1.5]]}
        )  # fmt: skip
        if model.encoder == "scratch":
            rows.append({"of": "patches", "removal": "mask_token", "status": "skipped", "reason": "no <mask> token"})
        write_table(layout.inside(model) / "surrogates.parquet", frame(rows, COLUMNS))
        write_json(layout.inside(model) / "surrogates.json", {"surrogates": contents})
    return config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return plant(configuration(tmp_path_factory.mktemp("standins")))


@pytest.fixture(scope="module")
def found(config):
    return decisions.tables(decisions.read(config, Layout(config.results)))["surrogates"]


def test_fidelity_is_the_mean_over_the_images_that_have_one(found):
    row = pick(found, domain="medical", encoder="simmim_60", of="patches", surrogate="linear", quantity="r2").iloc[0]
    values = np.array([0.8 - 0.02 * image for image in range(IMAGES) if image != 5])
    assert (row["value"], row["n"]) == (pytest.approx(values.mean()), IMAGES - 1)
    assert row["low"] < row["value"] < row["high"]
    share = pick(found, domain="medical", encoder="simmim_60", surrogate="linear", removal="mean", quantity="fit")
    assert share["value"].iloc[0] == pytest.approx((values >= 0.7).mean())
    reason = pick(found, domain="medical", encoder="simmim_60", status="skipped").iloc[0]
    assert (reason["reason"], reason["removal"], reason["of"]) == ("1 images: constant", "mean", "patches")


def test_concepts_have_no_removal_and_their_own_images(found):
    rows = pick(found, domain="defect", encoder="scratch", of="concepts", quantity="agreement")
    assert rows["removal"].isna().all()
    assert rows["value"].tolist() == pytest.approx([0.9, 0.9])
    assert set(rows["n"]) == {CONCEPTS}
    gone = pick(found, domain="defect", encoder="scratch", removal="mask_token").iloc[0]
    assert (gone["status"], gone["reason"], gone["n"]) == ("skipped", "no <mask> token", 0)


def test_the_figure_shows_the_means_and_is_the_same_bytes_each_time(config, found, tmp_path):
    source = Source(config, Layout(config.results), {"surrogates": found})
    drawn = {one.name: one for one in surrogates.pictures(source)}
    assert list(drawn) == ["surrogates", "surrogates_medical", "surrogates_defect"]
    with style.styled():
        paths = [style.save(drawn["surrogates"].draw(), tmp_path / str(i)) for i in range(2)]
        figure = drawn["surrogates_medical"].draw()
    assert [path.read_bytes() for path in paths[0]] == [path.read_bytes() for path in paths[1]]
    assert figure.get_size_inches()[0] <= style.PAGE
    shown = {round(float(value), 6) for line in figure.axes[0].lines for value in line.get_ydata()}
    expected = pick(found, domain="medical", of="patches", quantity="r2", status="ok")["value"]
    assert {round(value, 6) for value in expected} <= shown


def test_maps_show_the_coefficients_of_what_is_fit_and_the_fidelity_of_all(config, found):
    source = Source(config, Layout(config.results), {"surrogates": found})
    drawn = list(surrogate_maps.pictures(source))
    assert [one.name for one in drawn] == ["surrogate_maps_medical", "surrogate_maps_defect"]
    with style.styled():
        figure = drawn[0].draw()
    assert figure.get_size_inches()[0] <= style.PAGE
    shown = {axes.get_xlabel().split("\n")[-1]: len(axes.images) for axes in figure.axes}
    fit = {words: layers for words, layers in shown.items() if words.startswith("R")}
    unfit = {words: layers for words, layers in shown.items() if words.startswith("unfit")}
    assert set(fit.values()) == {2}, "the image and the coefficients over it"
    assert set(unfit.values()) == {1}
    assert "unfit, R\N{SUPERSCRIPT TWO} 0.68" in unfit


def test_the_page_gives_fidelity_first_and_no_content_of_what_is_unfit(config, found):
    layout = Layout(config.results)
    write_table(layout.leaderboards / "surrogates.csv", found)
    for name, columns in OTHERS.items():
        write_table(layout.leaderboards / f"{name}.csv", pd.DataFrame(columns=columns))
    section = inside.inside(config, layout, None)
    said = section["surrogates"]["said"]
    first = [one for one in said if (one["domain"], one["encoder"], one["of"]) == ("medical", "simmim_30", "patches")]
    assert {one["surrogate"]: one["text"] is None for one in first} == {"tree": True, "linear": False}
    text = next(one["text"] for one in first if one["text"])
    assert text == "-0.50 with no patch present\n+2.00 row 1, column 2\n-1.00 row 2, column 3\nand 3 smaller ones"
    page = rendered(section)
    assert page.index("R<sup>2</sup>") < page.index("What they say")
    assert "unfit" in page
    assert "if &lt;row&gt; 1, column 2 is present:" in page
    assert "<b>hole" not in page
    assert "no &lt;mask&gt; token" in page
    rows = section["surrogates"]["rows"]
    assert [(row["of"], row["encoder"], row["surrogate"]) for row in rows[:2]] == [
        ("patches", "simmim_30", "linear"), ("patches", "simmim_30", "tree"),
    ]  # fmt: skip
