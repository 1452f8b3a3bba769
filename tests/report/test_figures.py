"""Every figure with 35 explainers of long names: legible, complete, the same bytes every time, from tables alone."""

from itertools import pairwise

import crowd
import matplotlib.text
import numpy as np
import pytest

from unmask import cli
from unmask.errors import UserError
from unmask.figures import catalogue, command, style
from unmask.layout import Layout

KINDS = {"leaderboard", "ranks", "mask_ratio", "removals", "agreement", "controls", "pareto", "critical", "effects"}
KINDS |= {"quality", "curves"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return crowd.write(crowd.config(tmp_path_factory.mktemp("figures")))


@pytest.fixture(scope="module")
def source(run):
    return catalogue.source(run)


@pytest.fixture(scope="module")
def drawn(source):
    """The figures by name, laid out as they are saved."""
    with style.styled():
        made = {one.name: one.draw() for one in catalogue.pictures(source)}
        for figure in made.values():
            figure.draw_without_rendering()
    return made


def kind(name):
    return next(kind for kind in KINDS if name.startswith(kind))


def texts(figure):
    """What is written; ticks beyond the limits of their axis exist, but are not shown."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high or not axis.axes.axison:
                beyond |= {id(tick.label1), id(tick.label2)}
    found = figure.findobj(matplotlib.text.Text)
    return [text for text in found if text.get_visible() and text.get_text().strip() and id(text) not in beyond]


def test_each_kind_is_drawn_for_each_domain(drawn):
    scoped = {
        f"{kind}{scope}"
        for kind in ("removals", "agreement", "pareto", "critical", "effects", "quality")
        for scope in ("", "_rings", "_bars")
    }
    single = {f"{kind}_{domain}" for kind in ("leaderboard", "mask_ratio") for domain in ("rings", "bars")}
    parts = {f"curves_{domain}.{part}" for domain in ("rings", "bars") for part in (1, 2)}
    assert set(drawn) == scoped | single | parts | {"ranks", "controls", "critical.faithfulness"}


def test_figures_fit_a_page_and_their_text_can_be_read(drawn):
    for name, figure in drawn.items():
        width, height = figure.get_size_inches()
        assert style.COLUMN - 1e-9 <= width <= style.PAGE + 1e-9, name
        assert height <= 9, name
        assert min(text.get_fontsize() for text in texts(figure)) >= 5, name


def test_no_axes_are_empty(drawn):
    for name, figure in drawn.items():
        shown = [axes for axes in figure.axes if axes.get_visible()]
        assert shown
        for axes in shown:
            assert axes.lines or axes.collections or axes.images or axes.patches, name


def test_everything_lies_inside_the_figure(drawn):
    for name, figure in drawn.items():
        width, height = figure.bbox.width, figure.bbox.height
        for text in texts(figure):
            box = text.get_window_extent()
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, (name, text.get_text(), box.extents)


@pytest.mark.parametrize("wanted", ["leaderboard", "ranks", "removals", "pareto", "critical"])
def test_every_ranked_explainer_is_named(drawn, wanted):
    ranked = [name for name in (*crowd.NAMES, *crowd.CONTROLS) if name != crowd.ALIAS]
    for name, figure in drawn.items():
        if kind(name) == wanted:
            words = "\n".join(text.get_text() for text in texts(figure))
            missing = [one for one in ranked if style.readable(one) not in words]
            if wanted == "critical":
                missing = [one for one in missing if one not in crowd.CONTROLS]
            assert not missing, name


@pytest.mark.parametrize("wanted", sorted(KINDS))
def test_no_names_overlap(drawn, wanted):
    """Slanted labels have boxes that overlap though their letters do not, so they are held to their spacing instead."""
    for name, figure in drawn.items():
        if kind(name) != wanted:
            continue
        boxes = [
            (text.get_text(), text.get_window_extent()) for text in texts(figure) if text.get_rotation() in (0, 90)
        ]
        for i, (one, a) in enumerate(boxes):
            for other, b in boxes[:i]:
                wide = min(a.x1, b.x1) - max(a.x0, b.x0)
                high = min(a.y1, b.y1) - max(a.y0, b.y0)
                assert wide <= 1 or high <= 0.35 * min(a.height, b.height), (name, one, other)
        slanted = [text for axes in figure.axes for text in axes.get_xticklabels() if text.get_rotation() == 40]
        for one, other in pairwise(slanted):
            apart = other.get_window_extent().x1 - one.get_window_extent().x1
            assert apart * np.sin(np.radians(40)) > 0.9 * one.get_fontsize() * figure.dpi / 72, name


def test_drawing_again_in_several_processes_gives_the_same_bytes(run, tmp_path):
    contents = []
    for folder, jobs in (("one", 1), ("two", 2)):
        source = catalogue.source(run)
        chosen = [
            next(iter(kind.pictures(source))) for kind in catalogue.KINDS if set(kind.NEEDS) <= set(source.tables)
        ]
        paths = catalogue.draw(chosen, Layout(tmp_path / folder), jobs)
        contents.append([p.read_bytes() for png in paths.values() for p in (png, png.with_suffix(".pdf"))])
    assert len(contents[0]) == 2 * len(KINDS)
    assert contents[0] == contents[1]
    assert not any(b"CreationDate" in content for content in contents[0])


@pytest.mark.parametrize("missing", list(crowd.tables()))
def test_without_a_table_its_figures_are_left_out(source, missing):
    fewer = type(source)(source.config, source.layout, {k: v for k, v in source.tables.items() if k != missing})
    left = {one.name for one in catalogue.pictures(fewer)}
    every = {one.name for one in catalogue.pictures(source)}
    kinds = {module for module in catalogue.KINDS if missing in module.NEEDS}
    assert left == every - {one.name for module in kinds for one in module.pictures(source)}
    assert left < every


def test_the_command_draws_what_is_asked_for_and_leaves_the_tables_alone(run, tmp_path, capsys):
    folder = Layout(run.results).leaderboards
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    command.run(run, ["controls", "removals"])
    figures = Layout(run.results).report / "figures"
    names = {"controls", "removals", "removals_rings", "removals_bars"}
    assert {path.name for path in figures.iterdir()} == {f"{n}.{s}" for n in names for s in ("pdf", "png")}
    assert {line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()} == {f"{n}.pdf" for n in names}
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_command_lists_figures_without_drawing(run, source, capsys):
    command.run(run, ["pareto_rings", "ranks"], names=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ranks", "pareto_rings"]
    assert not (Layout(run.results).report / "figures" / "ranks.png").exists()


def test_the_command_says_what_there_is(run, tmp_path):
    with pytest.raises(UserError, match="no figure 'rank' in this run; there are leaderboard_rings"):
        command.run(run, ["rank"])
    with pytest.raises(UserError, match="holds no tables to draw from"):
        command.run(crowd.config(tmp_path))


def test_the_command_line(monkeypatch):
    called = []
    monkeypatch.setattr(command, "run", lambda *positional, **options: called.append((positional, options)))
    monkeypatch.setattr("unmask.config.load", lambda path: path)
    assert cli.main(["figures", "--config", "c.yaml", "--only", "ranks", "pareto"]) == 0
    assert called == [(("c.yaml",), {"only": ["ranks", "pareto"], "names": False})]
