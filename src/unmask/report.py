"""Stage 7: the figures (PDF and PNG) and the page that shows everything, `index.html`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask import digest
from unmask.config import Config, ModelId
from unmask.files import read_arrays, read_json, read_table, write_text
from unmask.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from unmask.figures.gallery import Column

CURVES = 4  # explainers in the mask-ratio figure beside the random control: more lines cannot be told apart
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
        "versions": digest.versions("jinja2", "matplotlib", "pandas"),
        "config": config.data,
    }


def run(config: Config) -> None:
    """Draw the figures and write the page; raises `UserError` where the leaderboards are missing."""
    from unmask.figures import style
    from unmask.page.build import page

    layout = Layout(config.results)
    tables = {name: read_table(layout.leaderboards / f"{name}.csv") for name in TABLES}
    for table in tables.values():
        if "controls_separated" in table:
            # Without gaps it is read as numpy's bool, which is not True or False itself.
            table["controls_separated"] = table["controls_separated"].astype(object)
    pictures: dict[str, Path] = {}
    with style.styled():
        for name, figure in figures(config, layout, tables):
            pictures[name] = style.save(figure, layout.report / "figures" / name)[1]
    index = layout.report / "index.html"
    write_text(index, page(config, layout, tables, pictures))
    print(index)


def figures(config: Config, layout: Layout, tables: dict[str, pd.DataFrame]) -> list[tuple[str, Figure]]:
    """Every figure with its file stem; a domain without maps has no gallery, one without ratios no curves."""
    from unmask.figures import forest, ranks, ratio
    from unmask.figures.gallery import pages

    made, confidence = [], config["aggregate"]["confidence"]
    for domain in config["domains"]:
        board, ratios = (table[table["domain"] == domain] for table in (tables["by_domain"], tables["mask_ratio"]))
        order = ranked(tables["ranking"], "domain", domain)
        model = best_model(config, tables["accuracy"], domain)
        columns, rows = gallery(config, layout, model)
        if rows is not None:
            parts = pages(columns)
            for number, part in enumerate(parts, 1):
                stem = f"gallery_{domain}" + (f".{number}" if len(parts) > 1 else "")
                made.append((stem, _gallery(layout, model, part, rows)))
        if order:
            made.append((f"leaderboard_{domain}", forest.draw(panels(board), order, domain, confidence)))
        shown, control = curves(order, board)
        if shown and ratios["mask_ratio"].notna().any():
            made.append((f"mask_ratio_{domain}", ratio.draw(panels(ratios), shown, control, domain, confidence)))
    order = ranked(tables["ranking"], "all", None)
    overall = tables["overall"]
    if order:
        controls = set(overall.loc[overall["is_control"], "explainer"])
        made.append(
            (
                "ranks",
                ranks.draw(
                    rank_matrix(overall, order), controls, "Rank by pooled mean (1 = best), sorted by mean rank"
                ),
            )
        )
    return made


def ranked(ranking: pd.DataFrame, scope: str, domain: str | None) -> list[str]:
    """Explainers from best to worst by mean rank over all categories."""
    rows = ranking[(ranking["scope"] == scope) & (ranking["category"] == "all")]
    if domain is not None:
        rows = rows[rows["domain"] == domain]
    return rows["explainer"].tolist()


def panels(board: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """One metric per category, the first that was scored, with its first removal: (label, rows)."""
    import pandas as pd

    chosen = []
    scored = board[board["mean"].notna() & board["variant"].isna()]
    for _, rows in scored.groupby("category", sort=False):
        first = rows.iloc[0]
        same = rows["removal"].isna() if pd.isna(first["removal"]) else rows["removal"] == first["removal"]
        label = first["metric"] if pd.isna(first["removal"]) else f"{first['metric']} @{first['removal']}"
        chosen.append((label, rows[same & (rows["metric"] == first["metric"])]))
    return chosen


def curves(order: list[str], board: pd.DataFrame) -> tuple[list[str], str | None]:
    """The explainers whose curves are drawn: the best by mean rank, and the random control."""
    controls = list(dict.fromkeys(board.loc[board["is_control"], "explainer"]))
    random = [name for name in controls if name.startswith("random")]
    null = "random_patch" if "random_patch" in random else next(iter(random), None)
    return [name for name in order if name not in controls][:CURVES], null


def rank_matrix(overall: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Ranks, explainers x metrics with their removals, in the tables' order of metrics."""
    label = overall["metric"] + overall["removal"].map(lambda r: f"@{r}" if isinstance(r, str) else "")
    label += overall["variant"].map(lambda v: f" {v}" if isinstance(v, str) else "")
    table = overall.assign(column=label).pivot(index="explainer", columns="column", values="rank")
    return table.reindex(index=order, columns=list(dict.fromkeys(label)))


def best_model(config: Config, accuracy: pd.DataFrame, domain: str) -> ModelId:
    """The model of a domain whose maps are shown: the most accurate in validation, the first of equals."""
    rows = accuracy[accuracy["domain"] == domain]
    row = rows.loc[rows["val"].idxmax()]
    return ModelId(domain, row["encoder"], int(row["pretrain_seed"]), int(row["finetune_seed"]))


def gallery(config: Config, layout: Layout, model: ModelId) -> tuple[list[Column], list[dict[str, Any]] | None]:
    """The maps of the first test images with evidence (all, where none has any) in config order, and those images' rows
    of the index; (.., None) without maps."""
    import numpy as np

    from unmask.figures.gallery import Column

    folder = layout.maps(model)
    indices = [read_json(folder / f"{group}.json") for group in config.groups if (folder / f"{group}.json").exists()]
    if not indices:
        return [], None
    masks = read_arrays(layout.domain(model.domain) / "test.safetensors")["masks"]
    images = indices[0]["images"]
    chosen = [i for i, row in enumerate(images) if masks[row["index"]].any()] or list(range(len(images)))
    chosen = chosen[: config["report"]["gallery_images"]]
    cells = {cell["name"]: cell for index in indices for cell in index["explainers"]}
    columns = []
    for group in config.groups.values():
        for cell in (cells[name] for name in group if name in cells):
            whole = cell["status"] == "ok"
            maps = read_arrays(folder / cell["file"])["maps"][chosen] if whole else None
            finite = maps is not None and np.isfinite(maps).all()
            columns.append(
                Column(
                    cell["name"],
                    cell["signed"],
                    maps if finite else None,
                    "" if finite else "failed" if whole else cell["status"],
                    cell["family"],
                )
            )
    return columns, [images[i] for i in chosen]


def _gallery(layout: Layout, model: ModelId, columns: list[Column], rows: list[dict[str, Any]]) -> Figure:
    from unmask.figures.gallery import draw

    folder = layout.domain(model.domain)
    classes, test = read_json(folder / "card.json")["classes"], read_arrays(folder / "test.safetensors")
    taken = [row["index"] for row in rows]
    return draw(
        test["images"][taken],
        test["masks"][taken],
        [(classes[row["label"]], row["correct"]) for row in rows],
        columns,
        f"{model.domain}, encoder {model.encoder}: {', '.join(dict.fromkeys(column.family for column in columns))}",
    )
