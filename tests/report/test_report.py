"""The page and the figures on a results folder with planted effects and hostile names."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import synthetic

from unmask import aggregate, report
from unmask.errors import UserError
from unmask.figures import gallery, style
from unmask.files import read_table, write_table
from unmask.layout import Layout
from unmask.page import build

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
    names = {"gallery_rings", "leaderboard_rings", "mask_ratio_rings", "ranks"}
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
    assert sum(tag == "script" for tag, _ in page.found) == 2  # the data and our own
    assert not any(tag == "b" for tag, _ in page.found)
    text = "".join(page.text)
    assert EVIL_NAME in text
    assert EVIL_REASON in text
    boards = json.loads(page.scripts["boards"])
    assert EVIL_NAME in {row[boards["columns"].index("explainer")] for row in boards["rows"]}


def test_the_page_names_everything_that_ran(html, run):
    text = "".join(Page(html).text)
    for name in [*synthetic.EXPLAINERS, *run["domains"], *run["encoders"], *synthetic.METRICS]:
        assert name in text
    for section in ("Galleries", "Mask ratio", "Reconstructions", "Data", "Failed and skipped", "How to cite"):
        assert f"<h2>{section}</h2>" in html
    assert "the oracle is not an explainer" in text


def test_the_embedded_boards_are_the_tables(html, run):
    boards = json.loads(Page(html).scripts["boards"])
    shown = pd.DataFrame(boards["rows"], columns=boards["columns"])
    table = read_table(Layout(run.results).leaderboards / "leaderboard.csv")
    rows = shown[shown["encoder"].notna()]
    assert rows["explainer"].tolist() == table["explainer"].tolist()
    np.testing.assert_allclose(rows["mean"].astype(float), table["mean"], rtol=1e-4)
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
    assert {path.stem for path in (layout.report / "figures").iterdir()} == {"leaderboard_rings", "ranks"}


def test_without_leaderboards_the_error_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"leaderboard\.csv does not exist"):
        report.run(synthetic.config(tmp_path))


def test_the_gallery_shows_images_with_evidence_of_the_best_model(run):
    layout = Layout(run.results)
    model = report.best_model(run, read_table(layout.leaderboards / "accuracy.csv"), "rings")
    assert model.encoder == "scratch"  # equal in validation: the first
    columns, rows = report.gallery(run, layout, model)
    assert [column.name for column in columns] == ["sharp", "shifted", "weak", EVIL_NAME, "random_toy", "oracle_toy"]
    assert [row["index"] for row in rows] == [1, 2]  # image 0 has the class without evidence


def test_best_model_goes_by_validation_accuracy(run):
    accuracy = pd.DataFrame(
        {
            "domain": "rings",
            "encoder": ["scratch", "m75"],
            "pretrain_seed": 0,
            "finetune_seed": 0,
            "val": [0.6, 0.7],
            "test": [0.9, 0.1],
        }
    )
    assert report.best_model(run, accuracy, "rings").encoder == "m75"


def test_a_gallery_is_split_between_families():
    columns = [
        gallery.Column(f"{f}{i}", False, None, family=f) for f, n in (("a", 9), ("b", 9), ("c", 33)) for i in range(n)
    ]
    parts = gallery.pages(columns)
    assert [len(part) for part in parts] == [9, 9, 11, 11, 11]
    assert [column for part in parts for column in part] == columns
    assert gallery.pages(columns[:9] + columns[-7:]) == [columns[:9] + columns[-7:]]


def test_gallery_scales_and_grids():
    """A signed map is symmetric around 0, another starts at its minimum, a patch map keeps its grid."""
    rng = np.random.default_rng(0)
    signed, patch = rng.normal(1, 1, (1, 16, 16)), rng.random((1, 4, 4)) + 3
    masks = np.zeros((1, 16, 16), bool)
    masks[0, 2:5, 3:9] = True
    columns = [
        gallery.Column("a", True, signed),
        gallery.Column("b", False, patch),
        gallery.Column("c", False, None, "failed"),
    ]
    with style.styled():
        figure = gallery.draw(np.zeros((1, 16, 16, 3), np.uint8), masks, [("ring", True)], columns, "t")
    low, high = figure.axes[1].images[-1].get_clim()
    assert low == -high
    assert high == pytest.approx(np.quantile(np.abs(signed), 0.995))
    shown = figure.axes[2].images[-1]
    assert shown.get_array().shape == (4, 4)
    assert tuple(shown.get_extent()) == (-0.5, 15.5, 15.5, -0.5)
    assert shown.get_clim()[0] == patch.min()
    assert [text.get_text() for text in figure.axes[3].texts] == ["failed"]
    outline = figure.axes[0].lines[0].get_xydata()
    assert (np.nanmin(outline, 0).tolist(), np.nanmax(outline, 0).tolist()) == ([2.5, 1.5], [8.5, 4.5])


def test_figures_have_the_same_bytes_every_time(run, tmp_path):
    overall = read_table(Layout(run.results).leaderboards / "overall.csv")
    order = ["sharp", "shifted", "weak", "random_toy", "oracle_toy"]
    matrix = report.rank_matrix(overall, order)
    assert matrix.index.tolist() == order
    assert matrix.loc["sharp", "toy_robustness"] == 1
    assert np.isnan(matrix.loc["oracle_toy", "toy_robustness"])
    from unmask.figures import ranks

    contents = []
    for name in ("one", "two"):
        with style.styled():
            contents.append(
                [path.read_bytes() for path in style.save(ranks.draw(matrix, {"random_toy"}, "t"), tmp_path / name)]
            )
    assert contents[0] == contents[1]


def test_panels_take_one_metric_per_category(run):
    board = read_table(Layout(run.results).leaderboards / "by_domain.csv")
    labels = [label for label, _ in report.panels(board)]
    assert labels == ["toy_faithfulness @mean", "toy_localisation", "toy_robustness"]
    for _, rows in report.panels(board):
        assert rows["explainer"].is_unique


@pytest.mark.parametrize(
    ("value", "shown"), [(0.12345, "0.123"), (-2.0, "\u22122"), (None, "\u2013"), (float("nan"), "\u2013")]
)
def test_numbers_on_the_page(value, shown):
    assert build.number(value) == shown


def test_settings_follow_the_page_and_the_config(tmp_path):
    first = synthetic.config(tmp_path)
    assert set(report.settings(first)["page"]) == {"index.html", "index.css", "index.js"}
    assert report.settings(first) != report.settings(synthetic.config(tmp_path, seed=3))
    json.dumps(report.settings(first))
