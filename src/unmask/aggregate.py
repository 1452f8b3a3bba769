"""Stage 6: leaderboards with paired bootstrap intervals from the scores of all models.

Tables (`results/6_leaderboards/`): `leaderboard` per domain, encoder and metric; `by_domain` with encoders pooled;
`overall` with domains pooled too; `ranking` across metrics; `mask_ratio`; `controls`; `explainers`; `accuracy`;
`failed`; `cost`; and `scores`, the long table itself. Pooled means weight every score equally.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from unmask import digest
from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import read_json, read_table, write_table
from unmask.layout import Layout
from unmask.tables.columns import BOARDS, COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from unmask.statistics.boards import Explainer, Pool

Maps = list[tuple[ModelId, int, list[dict[str, Any]]]]  # what stage 4 says: a model, its images, a record per explainer


def settings(config: Config) -> dict[str, Any]:
    """What the tables depend on beside the files they are made from."""
    return {
        "code": digest.code("unmask.aggregate"),
        "versions": digest.versions("numpy", "pandas", "pyarrow", "scipy"),
        "seed": config["seed"],
        "aggregate": config["aggregate"],
        "groups": config.groups,
        "models": [model.folder for model in config.models],
        "metrics": config["score"]["metrics"],
        "removals": config["score"]["removals"],
        "ratios": {name: config.mask_ratio(name) for name in config["encoders"]},
    }


def run(config: Config) -> None:
    """Write every table; raises `UserError` where a model's scores are missing or do not fit the config."""
    layout = Layout(config.results)
    scores, accuracy, maps = read_scores(config, layout), read_accuracy(config, layout), read_maps(config, layout)
    tables = {
        **leaderboards(config, scores, accuracy, maps),
        "explainers": describe(config, maps),
        "accuracy": accuracy,
        "failed": failures(scores),
    }
    for name, table in tables.items():
        write_table(layout.leaderboards / f"{name}.csv", _rounded(table))
    write_table(layout.leaderboards / "cost.parquet", costs(maps, scores))
    write_table(layout.leaderboards / "scores.parquet", scores)
    print(
        f"{len(scores)} scores, {int((scores['status'] != 'ok').sum())} of them failed or skipped "
        f"-> {layout.leaderboards / 'leaderboard.csv'}"
    )


def read_scores(config: Config, layout: Layout) -> pd.DataFrame:
    """The scores of every model and group, in config order: exactly these files, whatever else lies there."""
    import pandas as pd

    parts, entries = [], {entry for group in config.groups.values() for entry in group}
    for model in config.models:
        for group in config.groups:
            path = layout.scores(model) / f"{group}.parquet"
            table = read_table(path)
            missing = [name for name in COLUMNS if name not in table]
            if missing:
                raise UserError(
                    f"{path} lacks the columns {', '.join(missing)}; delete it and run the stage score again"
                )
            unknown = sorted(set(table["explainer"]) - entries)
            if unknown:
                raise UserError(
                    f"{path} holds scores of '{unknown[0]}', which explain.groups does not name; "
                    "delete it and run the stage score again"
                )
            # Whole files of None or NaN would make columns of another type than their neighbours.
            parts.append(
                table[COLUMNS].astype(
                    {
                        "removal": object,
                        "reason": object,
                        "variant": object,
                        "mask_ratio": "float64",
                        "score": "float64",
                    }
                )
            )
    scores = pd.concat(parts, ignore_index=True)
    bad = scores.loc[~scores["direction"].isin(["higher", "lower"]), "metric"]
    if len(bad):
        raise UserError(
            f"the metric '{bad.iloc[0]}' has no direction in its scores; META['direction'] must be higher or lower"
        )
    return scores


def read_accuracy(config: Config, layout: Layout) -> pd.DataFrame:
    """The models' accuracies: one row per model, columns val and test in [0, 1]."""
    import pandas as pd

    rows = []
    for model in config.models:
        path = layout.model(model) / "model.json"
        try:
            accuracy = read_json(path)["accuracy"]
            shares = {"val": float(accuracy["val"]), "test": float(accuracy["test"])}
        except (KeyError, TypeError):
            raise UserError(f"{path}: 'accuracy' must hold 'val' and 'test'; run the stage finetune again") from None
        rows.append(
            {
                "domain": model.domain,
                "encoder": model.encoder,
                "mask_ratio": config.mask_ratio(model.encoder),
                "pretrain_seed": model.pretrain_seed,
                "finetune_seed": model.finetune_seed,
                **shares,
            }
        )
    return pd.DataFrame(rows).astype({"mask_ratio": "float64"})


def read_maps(config: Config, layout: Layout) -> Maps:
    """What stage 4 says of each model's maps, group by group."""
    found = []
    for model in config.models:
        for group in config.groups:
            path = layout.maps(model) / f"{group}.json"
            if path.exists():
                index = read_json(path)
                found.append((model, max(1, len(index["images"])), index["explainers"]))
    return found


def aliases(maps: Maps) -> dict[str, str]:
    """Entries whose maps were measured to be another's on all of these models that have them, and whose they are."""
    seen: dict[str, set[str | None]] = {}
    for _, _, records in maps:
        for record in records:
            if record["status"] == "ok":
                seen.setdefault(record["name"], set()).add(record.get("alias_of"))
    return {name: next(iter(others)) for name, others in seen.items() if len(others) == 1 and None not in others}


def describe(config: Config, maps: Maps) -> pd.DataFrame:
    """An entry a row: what its META says, and what was measured over the models (none of it depends on the clock).

    `target_correlation` is the mean rank correlation of the maps of an image for the predicted class and for the second
    most likely one: 1 = the map does not depend on the class. Passes are per image, means over the models.
    """
    import pandas as pd

    known, rows = aliases(maps), []
    for entry in (entry for group in config.groups.values() for entry in group):
        spec = config.explainer(entry)
        found = [(count, record) for _, count, records in maps for record in records if record["name"] == entry]
        done = [(count, record) for count, record in found if record["status"] == "ok"]
        checked = [r["target_correlation"] for _, r in done if r.get("target_correlation") is not None]
        rows.append(
            {
                "explainer": entry,
                **{key: spec.plugin.meta[key] for key in ("family", "class_specific", "signed", "resolution")},
                "removal": spec.removal,
                "alias_of": known.get(entry),
                "target_correlation": sum(checked) / len(checked) if checked else None,
                **{
                    way: sum(r["passes"][way] / count for count, r in done) / len(done) if done else None
                    for way in ("forward", "backward")
                },
                "models": len(done),
                "models_without": len(found) - len(done),
                "failed_maps": sum(len(r["failed"]) for _, r in done),
            }
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(("target_correlation", "forward", "backward"), "float64"))


def explainers(config: Config, known_aliases: dict[str, str]) -> list[Explainer]:
    """Every entry of the groups in config order; an alias was measured, or has another's plug-in and options."""
    from unmask.statistics.boards import Explainer

    seen: dict[str, str] = {}
    found = []
    for group in config.groups.values():
        for entry in group:
            spec = config.explainer(entry)
            first = seen.setdefault(digest.of([spec.plugin.id, spec.removal, spec.options]), entry)
            same = first if first != entry else known_aliases.get(entry)
            meta = spec.plugin.meta
            found.append(
                Explainer(entry, meta["family"], meta["family"] == "control", "masks" in meta.get("needs", []), same)
            )
    return found


def leaderboards(config: Config, scores: pd.DataFrame, accuracy: pd.DataFrame, maps: Maps) -> dict[str, pd.DataFrame]:
    """The tables that hold intervals, by name.

    An alias is one within a table's scope: methods that coincide on transformers differ on a ResNet, and where the two
    are pooled.
    """
    import pandas as pd

    from unmask.statistics.boards import board, join, null, pool
    from unmask.statistics.cells import Table
    from unmask.statistics.ranking import Ranking

    @cache
    def entries(domain: str | None = None, encoder: str | None = None) -> list[Explainer]:
        chosen = [one for one in maps if domain in (None, one[0].domain) and encoder in (None, one[0].encoder)]
        return explainers(config, aliases(chosen))

    known, confidence = entries(), config["aggregate"]["confidence"]
    table = Table(scores, [e.name for e in known], config["seed"], config["aggregate"]["bootstrap"])
    tests = {
        keys: part.mean() for by in (["domain", "encoder"], ["domain"]) for keys, part in accuracy.groupby(by)["test"]
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in BOARDS}
    reference = [name for name in (null(known),) if name]
    rankings: dict[tuple[str, str, str], Ranking] = {}

    def place(name: str, keys: dict[str, str], metric: dict[str, Any], pooled: Pool, test: float) -> None:
        made = board(pooled, metric["direction"], confidence, entries(**keys))
        rows[name].extend({**keys, **metric, **row, "accuracy": test} for row in made.rows)
        if not metric["variant"]:  # variants of a metric are shown beside it; they have no vote of their own
            scope = (
                "model" if "encoder" in keys else "domain" if keys else "all",
                keys.get("domain"),
                keys.get("encoder"),
            )
            rankings.setdefault(scope, Ranking()).add(metric["category"], metric["metric"], made)

    for metric, cells in table.metrics():
        by_domain: dict[str, list[Pool]] = {}
        for cell in cells:
            pooled = pool(cell, table.weights[cell.domain], known)
            keys = {"domain": cell.domain, "encoder": cell.encoder}
            test = tests[cell.domain, cell.encoder]
            place("leaderboard", keys, metric, pooled, test)
            rows["controls"].extend(
                {**keys, **metric, **row} for row in _controls(pooled, metric["direction"], confidence, known)
            )
            rows["mask_ratio"].extend(
                {**keys, "mask_ratio": config.mask_ratio(cell.encoder), **metric, **row, "accuracy": test}
                for row in _ratio_rows(pooled, confidence, known)
            )
            by_domain.setdefault(cell.domain, []).append(pooled)
        domains = {domain: join(pools, reference) for domain, pools in by_domain.items()}
        for domain, pooled in domains.items():
            place("by_domain", {"domain": domain}, metric, pooled, tests[(domain,)])
        place("overall", {}, metric, join(list(domains.values()), reference), accuracy["test"].mean())
    for (scope, domain, encoder), made in rankings.items():
        keys = {"scope": scope, "domain": domain, "encoder": encoder}
        rows["ranking"].extend({**keys, **row} for row in made.rows(entries(domain, encoder), confidence))
    return {name: _ordered(pd.DataFrame(rows[name], columns=columns), config) for name, columns in BOARDS.items()}


def _controls(pooled: Pool, direction: str, confidence: float, known: list[Explainer]) -> list[dict[str, Any]]:
    """Each explainer minus each control on the same images."""
    from unmask.statistics.boards import separates, verdicts

    rows, flag = [], separates(pooled, direction, confidence, known)
    for control, difference in pooled.against.items():
        (low, high), words = pooled.interval(confidence, control), verdicts(pooled, control, direction, confidence)
        rows.extend(
            {
                "explainer": e.name,
                "family": e.family,
                "is_control": e.is_control,
                "control": control,
                "difference": difference.mean[i],
                "low": low[i],
                "high": high[i],
                "n": int(difference.n[i]),
                "verdict": words[i],
                "controls_separated": flag,
            }
            for i, e in enumerate(known)
            if e.name != control and difference.n[i]
        )
    return rows


def _ratio_rows(pooled: Pool, confidence: float, known: list[Explainer]) -> list[dict[str, Any]]:
    """Scores, and scores relative to the random control on the same images.

    A model trained on masked images tolerates removal, so the scores alone are not comparable across mask ratios.
    """
    import numpy as np

    from unmask.statistics.boards import null

    low, high = pooled.interval(confidence)
    empty = np.full(len(known), np.nan)
    difference, (below, above), reference = empty, (empty, empty), null(known)
    if reference:
        difference = pooled.against[reference].mean
        below, above = pooled.interval(confidence, reference)
    return [
        {
            "explainer": e.name,
            "family": e.family,
            "is_control": e.is_control,
            "mean": pooled.scores.mean[i],
            "low": low[i],
            "high": high[i],
            "minus_random": difference[i],
            "minus_random_low": below[i],
            "minus_random_high": above[i],
            "n": int(pooled.scores.n[i]),
        }
        for i, e in enumerate(known)
        if pooled.scores.n[i]
    ]


def failures(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores that are not ok, counted by cell, status and reason."""
    lost = scores[scores["status"] != "ok"]
    keys = [
        "domain",
        "encoder",
        "pretrain_seed",
        "finetune_seed",
        "explainer",
        "metric",
        "removal",
        "variant",
        "status",
        "reason",
    ]
    return lost.groupby(keys, sort=False, dropna=False).size().reset_index(name="count")


def costs(maps: list[tuple[ModelId, int, list[dict[str, Any]]]], scores: pd.DataFrame) -> pd.DataFrame:
    """Forward-pass equivalents and seconds per image: of the maps, and of scoring them under each metric."""
    import pandas as pd

    rows = [
        {
            "stage": "explain",
            "domain": model.domain,
            "encoder": model.encoder,
            "explainer": record["name"],
            "metric": None,
            "removal": None,
            "seconds": record["seconds"] / images,
            "passes": (record["passes"]["forward"] + 3 * record["passes"]["backward"]) / images,
        }
        for model, images, records in maps
        for record in records
        if record["status"] == "ok"
    ]
    keys = ["domain", "encoder", "explainer", "metric", "removal"]
    scored = (
        scores[scores["status"] == "ok"]
        .groupby(keys, sort=False, dropna=False)[["passes", "seconds"]]
        .mean()
        .reset_index()
    )
    made = pd.DataFrame(rows, columns=["stage", *keys, "passes", "seconds"])
    parts = [part for part in (made, scored.assign(stage="score")[made.columns]) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else made


def _ordered(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Sort by domain, encoder, metric and removal in config order (unknown names last); stable below that."""
    import pandas as pd

    orders = {
        "scope": ["all", "domain", "model"],
        "domain": list(config["domains"]),
        "encoder": list(config["encoders"]),
        "metric": config["score"]["metrics"],
        "removal": config["score"]["removals"],
    }
    keys = [name for name in orders if name in table]
    places = {name: {value: i for i, value in enumerate(orders[name])} for name in keys}
    coded = pd.DataFrame({name: [places[name].get(value, len(places[name])) for value in table[name]] for name in keys})
    return table.loc[coded.sort_values(keys, kind="stable").index].reset_index(drop=True)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Floats to 10 significant digits: more would differ between BLAS builds, and mean nothing."""
    columns = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].map(lambda value: float(f"{value:.10g}")) for name in columns})
