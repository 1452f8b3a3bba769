"""The page in a real browser: sorting, choosing, the gallery, themes, the keyboard, hostile names."""

import json
import time

import pandas as pd
import pytest
import synthetic
from browser import CHROMIUM, Browser

from unmask import aggregate, report
from unmask.figures import catalogue, forest
from unmask.files import read_json, read_table, write_json, write_table
from unmask.layout import Layout

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

EVIL = '<img src=x onerror="alert(1)">'
SECONDS = 2  # within which the page is there
READY = """new Promise((done) => {
  const look = () => ("ready" in document.documentElement.dataset ? done() : setTimeout(look, 5));
  look();
})"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results with an alias, hostile names and every optional table."""
    config = synthetic.config(
        tmp_path_factory.mktemp("browser"), extra=(EVIL,), report={"gallery_images": 3}, aggregate={"bootstrap": 100}
    )
    synthetic.write(config, classes=("none", EVIL, "bar"))
    layout = Layout(config.results)
    for model in config.models:
        index = read_json(layout.maps(model) / "first.json")
        for cell in index["explainers"]:
            if cell["name"] == EVIL:
                cell["alias_of"] = "sharp"
        write_json(layout.maps(model) / "first.json", index)
    aggregate.run(config)
    for name, rows in optional().items():
        write_table(layout.leaderboards / f"{name}.csv", pd.DataFrame(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "KINDS", (forest,))  # drawing all of them takes longer than all else here
        report.run(config)
    return config


def optional():
    """A row or two of the tables that answer questions."""
    metric = {"metric": "toy_faithfulness", "removal": "mean", "category": "faithfulness", "direction": "lower"}
    scope, bounds = {"scope": "all", "domain": None}, {"low": -0.1, "high": 0.3, "n": 20}
    effect = {**scope, **metric, **bounds, "estimate": 0.1, "effect": 0.2, "relative_to": "random_toy"}
    effect |= {"images": "all", "explainers": 3, "seeds": 1, "accuracy": 0.01}
    hypothesis = {"statement": EVIL, "source": "toy 2020", "measure": "area", "direction": "above", "threshold": 0}
    hypothesis |= {**bounds, "unit": "images"}
    return {
        "ratio_effects": [
            {**effect, "contrast": "difference", "encoder": "m25", "reference": "scratch", "verdict": "undecided"},
            {**effect, "contrast": "slope", "encoder": "simmim", "reference": None, "verdict": "worse"},
        ],
        "stability": [
            {"kind": "encoder", **scope, "metric": None, "removal": None, "category": None, "a": "m25", "b": "m75"}
            | {"measure": "kendall_tau", "value": 0.6, "low": 0.5, "high": 0.7, "expected": 0.8, "p": None}
            | {"explainers": 3, "n": 20}
        ],
        "friedman": [
            {**scope, **metric, "statistic": 9.0, "p": 0.01, "n": 20, "k": 3, "w": 0.4, "left_out": EVIL.split()[0]}
            | {"detectable_rank": 1.5, "detectable_score": 0.1, "detectable_score_all": 0.2}
        ],
        "hypotheses": [
            {"hypothesis": "H1", **hypothesis, "estimate": 0.2, "verdict": "not supported", "reason": None},
            {"hypothesis": "H2", **hypothesis, "estimate": None, "verdict": "not measured", "reason": "it needs more"},
        ],
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()


@pytest.fixture
def page(browser, results):
    """The page, freshly loaded in a wide window; at the end its console must have been silent."""
    browser.look()
    browser.complaints.clear()
    started = time.monotonic()
    browser.open((Layout(results.results).report / "index.html").as_uri())
    browser.js(READY)
    assert time.monotonic() - started < SECONDS
    browser.js("localStorage.clear()")
    yield browser
    assert browser.complaints == []


def rows(page, view, column):
    """The texts of a column of a view's table."""
    script = """(() => {
      const table = document.querySelector("#view-%s table");
      const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === %s);
      return [...table.tBodies[0].rows].map((row) => row.cells[at].textContent);
    })()"""
    return page.js(script % (view, json.dumps(column)))


def choose(page, select, text):
    """Choose an option by its text."""
    script = """(() => {
      const select = document.getElementById(%s);
      select.selectedIndex = [...select.options].findIndex((option) => option.text === %s);
      for (const kind of ["input", "change"]) select.dispatchEvent(new Event(kind, { bubbles: true }));
    })()"""
    page.js(script % (json.dumps(select), json.dumps(text)))


def click(page, selector):
    page.js(f"document.querySelector({json.dumps(selector)}).click()")


def count(page, selector):
    return page.js(f"document.querySelectorAll({json.dumps(selector)}).length")


def test_a_click_sorts_and_another_turns_it_round(page):
    named = "[...document.querySelectorAll('#view-ranking thead th')].find((cell) => cell.textContent === %s)"
    head = named % json.dumps("mean rank")
    page.js(f"{head}.firstChild.click()")
    values = [float(text.split()[0]) for text in rows(page, "ranking", "mean rank")]
    assert values == sorted(values)
    page.js(f"{head}.firstChild.click()")
    values = [float(text.split()[0]) for text in rows(page, "ranking", "mean rank")]
    assert values == sorted(values, reverse=True)
    assert page.js(f"{head}.getAttribute('aria-sort')") == "descending"
    choose(page, "ranking-domain", "bars")  # and it stays sorted when other rows are chosen
    values = [float(text.split()[0]) for text in rows(page, "ranking", "mean rank")]
    assert values == sorted(values, reverse=True)


def test_a_header_is_pressed_by_keyboard(page):
    page.js("document.querySelector('#view-ranking thead button').focus()")
    page.press("Enter", 13)
    assert page.js("document.querySelector('#view-ranking thead th').getAttribute('aria-sort')") == "ascending"
    assert page.js("document.activeElement.textContent") == "rank"


def test_selects_choose_the_board_of_the_tables(page, results):
    for name, text in (("domain", "bars"), ("encoder", "m75"), ("category", "faithfulness"), ("removal", "zero")):
        choose(page, f"boards-{name}", text)
    table = read_table(Layout(results.results).leaderboards / "leaderboard.csv")
    table = table[(table["domain"] == "bars") & (table["encoder"] == "m75") & (table["removal"] == "zero")]
    assert set(rows(page, "boards", "explainer")) == set(table["explainer"])
    means = dict(zip(rows(page, "boards", "explainer"), rows(page, "boards", "mean"), strict=True))
    sharp = table.loc[table["explainer"] == "sharp", "mean"].iloc[0]
    assert float(means["sharp"].split()[0].replace("\N{MINUS SIGN}", "-")) == pytest.approx(sharp, rel=0.01)


def test_ties_and_aliases_are_visible(page, results):
    table = read_table(Layout(results.results).leaderboards / "overall.csv")
    table = table[(table["metric"] == "toy_faithfulness") & (table["removal"] == "mean")]
    groups = table["tie_group"].map(lambda group: "" if pd.isna(group) else f"{group:.0f}")
    groups = dict(zip(table["explainer"], groups, strict=True))
    assert dict(zip(rows(page, "boards", "explainer"), rows(page, "boards", "tie"), strict=True)) == groups
    names = rows(page, "boards", "explainer")
    assert rows(page, "boards", "rank")[names.index(EVIL)] == "= sharp"
    assert names.index(EVIL) == names.index("sharp") + 1
    assert f"sharp = {EVIL}" in rows(page, "ranking", "explainer")
    assert rows(page, "boards", "against random")[names.index("sharp")] == "better"
    click(page, "#boards-same")
    assert EVIL not in rows(page, "boards", "explainer")


def test_explainers_are_found_by_name_and_controls_hidden(page):
    page.js("document.getElementById('boards-find').focus()")
    page("Input.insertText", text="SHA, weak")
    assert rows(page, "boards", "explainer") == ["sharp", "weak"]
    assert "2 of 6 rows" in page.js("document.querySelector('#view-boards .note').textContent")
    page.js("document.getElementById('boards-find').value = ''")
    click(page, "#boards-controls")
    assert not {"random_toy", "oracle_toy"} & set(rows(page, "boards", "explainer"))
    click(page, "#boards-controls")
    assert {"random_toy", "oracle_toy"} <= set(rows(page, "boards", "explainer"))


def test_the_gallery_shows_what_is_chosen(page):
    click(page, "#galleries summary")
    click(page, "[data-choose=none]")
    assert count(page, ".tile") == 1  # the image
    page.js("document.querySelector('.families input[value=sharp]').focus()")
    page.press(" ", 32)
    click(page, ".families input[value=weak]")
    assert count(page, ".tile canvas") == 2
    sizes = page.js("[...document.querySelectorAll('.tile canvas')].map((canvas) => canvas.width)")
    assert sorted(sizes) == [4, 32]  # patches, pixels
    choose(page, "gallery-encoder", "all encoders")
    assert page.js("[...document.querySelectorAll('#gallery-maps h3')].map((head) => head.firstChild.data)") == [
        *("scratch", "m25", "m75")
    ]
    assert count(page, ".tile canvas") == 6
    click(page, "[data-choose=all]")
    assert count(page, ".tile canvas") == 3 * 6
    assert page.js("document.getElementById('gallery-count').textContent") == "6 of 6 chosen"


def test_the_gallery_goes_through_images_by_keyboard_and_outlines_evidence(page):
    drawn = "document.querySelector('.tile canvas').toDataURL()"
    before = page.js(drawn)
    page.js("document.querySelector('.images input').focus()")
    page.press("ArrowRight", 39)
    assert page.js("document.querySelector('.images input:checked').value") == "1"
    assert page.js(drawn) != before
    shown = "getComputedStyle(document.querySelector('.tile svg')).display"
    assert page.js(shown) != "none"
    click(page, "#gallery-outline")
    assert page.js(shown) == "none"
    choose(page, "gallery-domain", "bars")
    assert page.js("document.querySelector('.images input:checked').value") == "0"


def test_maps_have_the_colours_of_their_values(page):
    """The bump of the toy maps lies in the second row of patches, nothing in the last."""
    click(page, "[data-choose=none]")
    click(page, ".families input[value=weak]")
    pixels = page.js("[...document.querySelector('.tile canvas').getContext('2d').getImageData(0, 0, 4, 4).data]")
    brightness = [sum(pixels[4 * place : 4 * place + 3]) for place in range(16)]
    assert max(brightness[4:8]) > max(brightness[12:])


def test_dark_mode_follows_the_system_until_it_is_chosen(page):
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.js(background) == "rgb(255, 255, 255)"
    page.look(dark=True)
    assert page.js(background) == "rgb(20, 23, 27)"
    click(page, "#theme")
    assert page.js("document.getElementById('theme').textContent") == "Theme: light"
    assert page.js(background) == "rgb(255, 255, 255)"
    page.look()
    click(page, "#theme")
    assert page.js(background) == "rgb(20, 23, 27)"


def test_figures_of_one_kind_are_chosen_by_button(page):
    group = "#leaderboards .figures"
    visible = f"[...document.querySelectorAll('{group} figure:not([hidden])')].map((figure) => figure.dataset.label)"
    assert "rings" in page.js(visible)
    page.js(f"[...document.querySelectorAll('{group} .tabs button')].find((one) => one.textContent === 'bars').click()")
    assert "bars" in page.js(visible)
    assert "rings" not in page.js(visible)


def test_questions_are_answered(page):
    text = page.js("document.getElementById('questions').textContent")
    assert "not supported" in text
    assert "Not measured: H2" in text
    assert rows(page, "stability", "which") == ["m25, m75"]
    assert rows(page, "friedman", "metric") == ["toy_faithfulness"]
    assert rows(page, "ratio_effects", "explanations get") == ["worse"]
    assert "a higher mask ratio of simmim" in page.js("document.getElementById('answers').textContent")
    click(page, "#failed details summary")
    page.js("new Promise((done) => setTimeout(done, 100))")
    assert set(rows(page, "failed", "explainer")) == {"weak", "oracle_toy"}


def test_names_of_users_are_text(page):
    assert page.js(f"document.body.textContent.includes({json.dumps(EVIL)})")
    assert count(page, "img[src=x]") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_scrolls_in_one_direction(page, dark, tmp_path):
    page.look(width=400, height=800, dark=dark)
    assert page.js("document.documentElement.scrollWidth") <= 400
    page.screenshot(tmp_path / "narrow.png")
    assert (tmp_path / "narrow.png").read_bytes().startswith(b"\x89PNG")


def test_everything_that_scrolls_can_be_reached_by_keyboard(page):
    assert count(page, ".scroll:not([tabindex='0'][role=region][aria-label])") == 0
    unnamed = """[...document.querySelectorAll("input, select, button, img, canvas[role=img]")].filter((one) =>
      !one.labels?.length && !one.textContent.trim() && !one.hasAttribute("alt") && !one.ariaLabel).length"""
    assert page.js(unnamed) == 0
