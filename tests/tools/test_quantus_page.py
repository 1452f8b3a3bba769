"""docs/quantus.md accounts for every metric of Quantus, and names nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import quantus

from unmask import registry
from unmask.domains import _proxy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quantus.md").read_text(encoding="utf-8")
TOLD = ("faithfulness", "robustness")
METRICS = registry.available("metrics")
THEIRS = {kind.__name__ for group in quantus.AVAILABLE_METRICS.values() for kind in group.values()}
ROWS = [
    [[name.strip() for name in cell.split(",") if name.strip() != "-"] for cell in line.strip("|").split(" | ")[:2]]
    for line in PAGE.split("## Where each of its metrics is")[1].split("## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| in Quantus")
]


def test_every_metric_of_quantus_is_here_or_left_out_with_a_reason():
    named = [name for theirs, _ in ROWS for name in theirs]
    assert len(named) == len(set(named))
    assert set(named) == THEIRS
    left_out = {name.lower() for theirs, ours in ROWS if not ours for name in theirs}
    reasons = "".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in TOLD)
    assert left_out == {"monotonicity", "selectivity", "sufficiency", "consistency"}
    for name in left_out:
        assert f"| `{name}` |" in reasons or f"**Left out: {name}**" in reasons


@pytest.mark.parametrize(("theirs", "ours"), [row for row in ROWS if row[1]])
def test_what_is_here_is_the_one_that_is_named(theirs, ours):
    assert len(theirs) == len(ours)
    for name, mine in zip(theirs, ours, strict=True):
        assert METRICS[mine.strip("`")].meta.get("quantus", name) == name


def test_what_the_page_names_is_there():
    for file in re.findall(r"`((?:tests/metrics/)?test_\w+\.py|tests/score/\w+\.py)`", PAGE):
        assert (ROOT / file).is_file() or (ROOT / "tests/metrics" / file).is_file(), file
    for link in re.findall(r"\]\((\w+\.md)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link
    concepts = PAGE.split("## Concepts")[1].split("Their masks")[0]
    for domain in ("medical", "driving", "defect"):
        painter: _proxy.Painter = registry.find("domains", domain).load().PAINTER
        assert ", ".join(f"`{name}`" for name in painter.concepts) in " ".join(concepts.split())
        assert f"({domain})" in concepts
