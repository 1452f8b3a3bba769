"""The page and the figures on a results folder with planted effects and hostile names."""

import base64
import json
import re
import shutil
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from unmask import aggregate, report
from unmask.errors import UserError
from unmask.figures import catalogue
from unmask.files import read_table, write_table
from unmask.layout import Layout
from unmask.page import build, embed

EVIL_CLASS, EVIL_NAME = "<script>alert(1)</script>", "<b>evil&"
EVIL_REASON = "</script><script>alert('reason')</script>"


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the text of scripts by id."""

    def __init__(self, html):
        super().__init__()
        self.found, self.scripts, self.text, self._script = [], {}, [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag == "script":
            self._script = dict(attributes).get("id", "code")

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.text.append(data)


def data(page, script):
    """What a script element holds, as a browser would unpack it."""
    return json.loads(zlib.decompress(base64.b64decode(page.scripts[script])))


def unpacked(page, name):
    """A packed table of the page as a frame."""
    table = data(page, "tables")[name]
    columns = {
        key: column if isinstance(column, list) else [column["of"][place] for place in column["at"]]
        for key, column in table["columns"].items()
    }
    assert {len(values) for values in columns.values()} == {table["rows"]}
    return pd.DataFrame(columns, dtype=object)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = synthetic.config(
        tmp_path_factory.mktemp("report"),
        domains=("rings",),
        encoders=("scratch", "m75"),
        extra=(EVIL_NAME,),
        report={"gallery_images": 2},
        aggregate={"bootstrap": 100},
    )
    synthetic.write(config, classes=("none", EVIL_CLASS, "bar"))
    path = Layout(config.results).scores(config.models[0]) / "first.parquet"
    write_table(path, read_table(path).replace({"reason": {"metric returned <b>nan</b>": EVIL_REASON}}))
    aggregate.run(config)
    report.run(config)
    return config


@pytest.fixture(scope="module")
def html(run):
    return (Layout(run.results).report / "index.html").read_text(encoding="utf-8")


def test_every_figure_exists_as_pdf_and_png(run):
    folder = Layout(run.results).report / "figures"
    names = {one.name for one in catalogue.pictures(catalogue.source(run))}
    assert {"gallery_rings", "leaderboard_rings", "mask_ratio_rings", "ranks", "controls", "pareto"} <= names
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("pdf", "png")
    }
    for name in names:
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert b"CreationDate" not in (folder / f"{name}.pdf").read_bytes()
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_stands_alone(html):
    assert len(html) < 10_000_000
    page = Page(html)
    links = [value for _, attributes in page.found for key, value in attributes.items() if key in ("src", "href")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", html)
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors <= {attributes.get("id") for _, attributes in page.found}


def test_names_and_reasons_of_users_are_escaped(html):
    page = Page(html)
    assert sum(tag == "script" for tag, _ in page.found) == 3  # the tables, the plates and our own
    assert f"<b>{EVIL_NAME[3:]}" not in html
    text = "".join(page.text)
    assert EVIL_NAME in text
    assert EVIL_REASON in text
    assert EVIL_NAME in unpacked(page, "boards")["explainer"].tolist()
    plates = data(page, "plates")
    assert EVIL_NAME in {one["name"] for one in plates["explainers"]}
    assert EVIL_CLASS in {one["class"] for one in plates["domains"][0]["images"]}


def test_the_page_names_everything_that_ran(html, run):
    text = "".join(Page(html).text)
    for name in [*synthetic.EXPLAINERS, *run["domains"], *run["encoders"], *synthetic.METRICS]:
        assert name in text
    for section in ("Galleries", "Mask ratio", "Reconstructions", "Data", "Failed and skipped", "How to cite"):
        assert f"<h2>{section}</h2>" in html
    assert "the oracle is not an explainer" in text


def test_the_embedded_boards_are_the_tables(html, run):
    shown = unpacked(Page(html), "boards")
    table = read_table(Layout(run.results).leaderboards / "leaderboard.csv")
    rows = shown[shown["encoder"].notna()]
    assert rows["explainer"].tolist() == table["explainer"].tolist()
    np.testing.assert_allclose(rows["mean"].astype(float), table["mean"], rtol=1e-4)
    np.testing.assert_array_equal(rows["tie_group"].astype(float), table["tie_group"].astype(float))
    assert set(shown.loc[shown["domain"].isna(), "n"]) >= {2 * synthetic.IMAGES}


def test_optional_pictures_are_left_out(tmp_path):
    config = synthetic.config(tmp_path, domains=("rings",), encoders=("scratch",), aggregate={"bootstrap": 100})
    synthetic.write(config)
    layout = Layout(config.results)
    (layout.domain("rings") / "preview.png").unlink()
    for group in config.groups:
        (layout.maps(config.models[0]) / f"{group}.json").unlink()
    aggregate.run(config)
    report.run(config)
    html = (layout.report / "index.html").read_text(encoding="utf-8")
    for section in ("Galleries", "Mask ratio", "Reconstructions", "Data"):
        assert f"<h2>{section}</h2>" not in html
    drawn = {path.stem for path in (layout.report / "figures").iterdir()}
    assert {"leaderboard_rings", "ranks"} <= drawn
    assert not any(name.startswith(("gallery", "mask_ratio", "pareto")) for name in drawn)


def test_where_nothing_can_be_drawn_there_is_a_page_and_an_empty_folder(run, tmp_path, monkeypatch):
    config = synthetic.config(tmp_path, domains=("rings",), encoders=("scratch", "m75"))
    synthetic.write(config)
    shutil.copytree(Layout(run.results).leaderboards, Layout(config.results).leaderboards)
    monkeypatch.setattr(catalogue, "KINDS", ())
    report.run(config)
    assert list((Layout(config.results).report / "figures").iterdir()) == []
    assert "<h2>Leaderboards</h2>" in (Layout(config.results).report / "index.html").read_text(encoding="utf-8")


def test_without_leaderboards_the_error_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"leaderboard\.csv does not exist"):
        report.run(synthetic.config(tmp_path))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.12345, "0.123"), (0.3125, "0.313"), (-2.0, "\u22122"), (None, "\u2013"), (float("nan"), "\u2013")],
)
def test_numbers_on_the_page(value, shown):
    assert embed.number(value) == shown


def test_settings_follow_the_page_and_the_config(tmp_path):
    first = synthetic.config(tmp_path)
    files = {path.name for path in Path(build.__file__).parent.iterdir()} - {"__pycache__"}
    assert set(report.settings(first)["page"]) == {name for name in files if not name.endswith(".py")}
    assert set(build.SCRIPTS) == {name for name in files if name.endswith(".js")}
    assert report.settings(first) != report.settings(synthetic.config(tmp_path, seed=3))
    json.dumps(report.settings(first))
