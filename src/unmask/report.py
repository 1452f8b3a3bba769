"""Stage 7: the figures (PDF and PNG) and the page that shows everything, `index.html`."""

from __future__ import annotations

from typing import Any

from unmask import digest
from unmask.config import Config
from unmask.files import read_table, write_text
from unmask.layout import Layout

TABLES = ("leaderboard", "by_domain", "overall", "ranking", "mask_ratio", "accuracy", "failed", "explainers")


def settings(config: Config) -> dict[str, Any]:
    """What the page depends on beside the files it is made from."""
    page = {
        path.name: digest.of(path.read_text(encoding="utf-8"))
        for path in sorted((digest.PACKAGE / "page").glob("index.*"))
    }
    return {
        "code": digest.code("unmask.report"),
        "page": page,
        "versions": digest.versions("jinja2", "matplotlib", "pandas", "scipy"),
        "config": config.data,
    }


def run(config: Config, jobs: int = 1) -> None:
    """Draw the figures, in `jobs` processes, and write the page.

    Raises `UserError` where the leaderboards are missing.
    """
    from unmask.figures import catalogue
    from unmask.page.build import page

    layout = Layout(config.results)
    tables = {name: read_table(layout.leaderboards / f"{name}.csv") for name in TABLES}
    for table in tables.values():
        if "controls_separated" in table:
            # Without gaps it is read as numpy's bool, which is not True or False itself.
            table["controls_separated"] = table["controls_separated"].astype(object)
    chosen = catalogue.pictures(catalogue.source(config))
    drawn = catalogue.draw(chosen, layout, jobs)
    figures = {one.name: (one.caption, drawn[one.name]) for one in chosen}
    (layout.report / "figures").mkdir(parents=True, exist_ok=True)  # where nothing can be drawn, too
    index = layout.report / "index.html"
    write_text(index, page(config, layout, tables, figures))
    print(index)
