"""`unmask list` shows what the plug-ins say, and docs/explainers.md and docs/metrics.md are up to date with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask import list as listing
from unmask import registry
from unmask.cli import main

ROOT = Path(__file__).parents[2]
EXPLAINERS = registry.available("explainers")
METRICS = registry.available("metrics")


def test_the_table_shows_what_one_chooses_by(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["list", "explainers"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    names = [
        "id",
        "family",
        "applies to",
        "class-specific",
        "signed",
        "resolution",
        "removal",
        "passes per image",
        "citation",
    ]
    starts = [header.index(name) for name in names]
    assert starts == sorted(starts)
    rise = dict(zip(names, next(table for table in listing.table("explainers", []) if table[0] == "rise"), strict=True))
    assert rise == {
        "id": "rise",
        "family": "perturbation",
        "applies to": "ViT, ResNet",
        "class-specific": "yes",
        "signed": "yes",
        "resolution": "patch",
        "removal": "mean",
        "passes per image": "masks forward",
        "citation": EXPLAINERS["rise"].meta["citation"],
    }
    assert len(rows) == len(EXPLAINERS)


@pytest.mark.parametrize("kind", ["explainers", "metrics"])
def test_the_page_is_up_to_date(kind):
    page = (ROOT / "docs" / f"{kind}.md").read_text(encoding="utf-8")
    assert page == listing.page(kind, []), f"docs/{kind}.md is not what the plug-ins say: run `make docs`"


@pytest.mark.parametrize("name", sorted(EXPLAINERS))
def test_the_page_has_all_that_is_known(name):
    meta = EXPLAINERS[name].meta
    entry = listing.page("explainers", []).split(f"\n### {name}\n")[1].split("\n#")[0]
    assert meta["summary"] in entry
    assert meta["citation"] in entry
    for option, default in EXPLAINERS[name].options.items():
        assert f"| `{option}` | {default} |" in entry


def test_the_page_groups_by_family_and_says_what_applies(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(
        '"""My own | method."""\nMETA = {"kind": "explainers", "family": "zeta", '
        '"class_specific": True, "signed": False, '
        '"resolution": "patch", "architectures": ["vit"], "poolings": ["token"], '
        '"passes": {"forward": "2", "backward": "0"}, "options": {"masks": 4, "share": 0.5, "fill": "red"}, '
        '"ranges": {"masks": [1, None], "share": [0, 1]}, "choices": {"fill": ["red", "grey"]}, '
        '"needs": ["references"], "citation": "me"}\n\n\ndef explain():\n    pass\n'
    )
    page = listing.page("explainers", [str(own)])
    titles = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert titles[0] == "Gradients"
    assert titles[-2:] == ["Controls", "zeta"]
    assert "| [`mine`](#mine) | ViT (class token) | yes | no | patch | - | 2 forward | references |" in page
    assert "| `masks` | 4 | 1 or more |\n| `share` | 0.5 | 0 to 1 |\n| `fill` | red | red, grey |" in page


@pytest.mark.parametrize("name", sorted(METRICS))
def test_the_page_of_the_metrics_has_all_that_is_known(name):
    plugin = METRICS[name]
    chapter, entry = listing.page("metrics", []).split(f"\n### {name}\n")
    entry = entry.split("\n#")[0]
    title = [line for line in chapter.splitlines() if line.startswith("## ")][-1]
    assert title.removeprefix("## ") == listing.CATEGORIES[plugin.meta["category"]]
    shown = " ".join(entry.replace("\\", "").split())
    for text in (plugin.load().__doc__, plugin.load().score.__doc__, plugin.meta["citation"], plugin.meta["chance"]):
        for paragraph in text.split("\n\n"):
            assert " ".join(paragraph.split()) in shown
    for option, default in plugin.options.items():
        assert f"| `{option}` | {default} |" in entry
    [row] = [line for line in chapter.splitlines() if line.startswith(f"| [`{name}`](#{name}) | ")]
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert cells[1] == plugin.meta["direction"]
    assert cells[3] == ("gate" if plugin.meta.get("gate") else "rank")
    assert cells[-1] == (", ".join(plugin.meta["needs"]) or "-")


def test_a_metrics_file_is_shown_as_it_is_written(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(
        '"""A *rough* score.\n\nOf <maps> and a_b, 2 * 3, `x*y`.\n"""\n'
        'META = {"kind": "metrics", "category": "zeta", "direction": "lower", "gate": True, "pass": {"below": 0.5}, '
        '"bounds": [None, 1.0], "needs": ["masks"], "passes": {"forward": "2 * n", "explanations": "0"}, '
        '"options": {"n": 3}, "chance": "1/3", "quantus": "Focus", "citation": "me"}\n\n\n'
        'def score(case, n):\n    """Twice n:\n    float64 [N].\n\n    Beware of _this_ and _that.\n    """\n'
    )
    page = listing.page("metrics", [str(own)])
    assert [line for line in page.splitlines() if line.startswith("## ")][-1] == "## zeta"
    assert "| [`mine`](#mine) | lower | 1 or less | gate | 2 * n forward | masks |" in page
    assert page.split("### mine\n")[1] == (
        "\nA \\*rough\\* score.\n\nOf \\<maps> and a_b, 2 * 3, `x*y`.\n\nTwice n: float64 [N].\n\n"
        "Beware of \\_this\\_ and \\_that.\n\n| option | default | allowed |\n|---|---|---|\n| `n` | 3 | any |\n\n"
        "Better: lower; chance level: 1/3; in Quantus: `Focus`; passes: below 0.5.\n\nme.\n"
    )


@pytest.mark.parametrize("kind", ["removals", "domains"])
def test_other_kinds_are_a_table(kind):
    header, _, *rows = listing.page(kind, []).splitlines()[2:]
    assert header.startswith("| id | ")
    assert len(rows) == len(registry.available(kind))
