"""`unmask list` shows what META says, and docs/explainers.md is up to date with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask import list as listing
from unmask import registry
from unmask.cli import main

ROOT = Path(__file__).parents[2]
EXPLAINERS = registry.available("explainers")


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


def test_the_page_of_the_explainers_is_up_to_date():
    page = (ROOT / "docs" / "explainers.md").read_text(encoding="utf-8")
    assert page == listing.page("explainers", []), "docs/explainers.md is not what META says: run `make docs`"


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


@pytest.mark.parametrize("kind", ["metrics", "removals", "domains"])
def test_other_kinds_are_a_table(kind):
    header, _, *rows = listing.page(kind, []).splitlines()[2:]
    assert header.startswith("| id | ")
    assert len(rows) == len(registry.available(kind))
