"""Stage 6: leaderboards with paired bootstrap intervals from the scores of all models.

Tables (`results/6_leaderboards/`): `leaderboard` per domain, encoder and metric; `by_domain` with encoders pooled;
`overall` with domains pooled too; `ranking` across metrics, and `metric_clusters`, which of them vote together;
`chance`, every metric's chance level and ceiling; `mask_ratio`; `controls`; `explainers`; `accuracy`; `encoders`;
`failed`; `cost`; and `scores`, the long table itself. Pooled means weight every score of a domain equally, and every
domain. `unmask.questions` names the tables of tests; `curves` are removal curves; `inside`, `missingness`, `causes`,
`causal_model`, `cka`, `counterfactuals`, `dissection`, `tcav` and `concept_factors` are of the stage `inside`. The long
ones are parquet files too; `latex/` holds those that go into papers.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from unmask import digest, questions
from unmask.config import Config
from unmask.files import write_table, write_text
from unmask.layout import Layout
from unmask.parallel import each
from unmask.statistics.hypotheses import HYPOTHESES
from unmask.submissions import enter
from unmask.tables import concepts, decisions, inside, latex
from unmask.tables.about import KEY, about
from unmask.tables.columns import BOARDS, LARGE
from unmask.tables.comparisons import control_rows, ratio_rows
from unmask.tables.curves import mean_curves, read_curves
from unmask.tables.encoders import encoders
from unmask.tables.entries import aliases, costs, describe, explainers, failures
from unmask.tables.gates import gates
from unmask.tables.image_maps import image_maps
from unmask.tables.judged import read_judged
from unmask.tables.read import Maps, read_accuracy, read_maps, read_scores
from unmask.tables.submitted import marked

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from unmask.statistics.bootstrap import Draws
    from unmask.statistics.cells import Cell
    from unmask.statistics.pools import Explainer
    from unmask.statistics.ranking import Clusters
    from unmask.statistics.scopes import Metric


def settings(config: Config) -> dict[str, Any]:
    """What the tables depend on beside the files they are made from."""
    return {
        "code": digest.code("unmask.aggregate"),
        "versions": digest.versions("numpy", "pandas", "pyarrow", "scikit-learn", "scipy"),
        "seed": config["seed"],
        "aggregate": config["aggregate"],
        "groups": config.groups,
        "models": [model.folder for model in config.models],
        "metrics": config["score"]["metrics"],
        "removals": config["score"]["removals"],
        "ratios": {name: config.mask_ratio(name) for name in config["encoders"]},
        "encoders": config["encoders"],
        "hypotheses": HYPOTHESES,
        "inside": config["inside"]["what"],
        "submissions": enter.settings(config),
    }


def run(config: Config, jobs: int = 1) -> None:
    """Write every table, in `jobs` processes.

    Raises `UserError` where a model's scores are missing or do not fit the config.
    """
    layout = Layout(config.results)
    own, accuracy, maps = read_scores(config, layout), read_accuracy(config, layout), read_maps(config, layout)
    scores, within = enter.enter(config, own), inside.read_inside(config, layout)
    apart = decisions.read(config, layout)
    boards = leaderboards(config, scores, accuracy, maps, jobs)
    measured = inside.tables(config, within, decisions.effects(apart))
    tables = {
        **boards,
        "gates": gates(config, boards),
        **questions.tables(
            config,
            scores,
            accuracy,
            {e.name: e.alias_of for e in explainers(config, aliases(maps)) if e.alias_of},
            within,
            boards["chance"],
            read_judged(config, layout),
            jobs,
        ),
        **measured,
        **decisions.tables(apart),
        **concepts.tables(config, layout, within),
        "encoders": encoders(config, layout, accuracy, measured["inside"]),
        "image_maps": image_maps(config, layout, jobs),
        "explainers": describe(config, maps),
        "accuracy": accuracy,
        "failed": failures(scores),
    }
    tables = {name: marked(table, config.submitted) for name, table in tables.items()}
    curves = mean_curves(config, read_curves(config, layout))
    # Every model's would be a text file of many megabytes.
    tables["curves"] = curves[curves["encoder"].isna()]
    whole = marked(scores, config.submitted)
    whole.attrs[KEY] = about(config, maps)
    folder = layout.leaderboards
    writing = [
        partial(write_table, folder / "scores.parquet", whole),
        partial(_write, [folder / "curves.parquet"], curves),
        partial(_typeset, folder / "latex", tables, config["aggregate"]["confidence"]),
        lambda: write_table(folder / "cost.parquet", costs(maps, own)),
    ]
    for name, table in sorted(tables.items(), key=lambda item: -item[1].size):
        suffixes = (".csv", ".parquet") if name in LARGE else (".csv",)
        writing.append(partial(_write, [folder / f"{name}{suffix}" for suffix in suffixes], table))
    each(writing, jobs)
    print(
        f"{len(scores)} scores, {int((scores['status'] != 'ok').sum())} of them failed or skipped "
        f"-> {folder / 'leaderboard.csv'}"
    )


def leaderboards(
    config: Config, scores: pd.DataFrame, accuracy: pd.DataFrame, maps: Maps, jobs: int = 1
) -> dict[str, pd.DataFrame]:
    """The tables that hold intervals, by name, in `jobs` processes.

    An alias is one within a table's scope: methods that coincide on transformers differ on a ResNet, and where the two
    are pooled.
    """
    import pandas as pd

    from unmask.statistics.cells import Table
    from unmask.statistics.redundancy import cluster
    from unmask.statistics.scopes import ranks_by_model

    @cache
    def entries(domain: str | None = None, encoder: str | None = None) -> list[Explainer]:
        chosen = [one for one in maps if domain in (None, one[0].domain) and encoder in (None, one[0].encoder)]
        return explainers(config, aliases(chosen))

    known = entries()
    table = Table(scores, [e.name for e in known], config["seed"], config["aggregate"]["bootstrap"])
    metrics = list(table.metrics())
    models = ranks_by_model(metrics, table.draws, entries, config.gates)
    clusters, of_metrics = cluster(models, known, config["aggregate"]["redundancy"])
    keys = dict.fromkeys((cell.domain, cell.encoder) for _, cells in metrics for cell in cells)
    scopes = [
        {},
        *({"domain": domain} for domain in dict.fromkeys(domain for domain, _ in keys)),
        *({"domain": domain, "encoder": encoder} for domain, encoder in keys),
    ]
    parts = each(
        [partial(_scope, config, one, entries(**one), metrics, table.draws, accuracy, clusters) for one in scopes], jobs
    )
    rows = {name: [row for part in parts for row in part.get(name, ())] for name in BOARDS}
    rows["metric_clusters"] = of_metrics
    made = {name: _ordered(pd.DataFrame(rows[name], columns=columns), config) for name, columns in BOARDS.items()}
    # Whole numbers with gaps stay whole.
    return {name: one.astype({"tie_group": "Int64"}) if "tie_group" in one else one for name, one in made.items()}


def _scope(
    config: Config,
    keys: dict[str, str],
    entries: list[Explainer],
    metrics: list[tuple[Metric, list[Cell]]],
    draws: dict[str, Draws],
    accuracy: pd.DataFrame,
    clusters: Clusters,
) -> dict[str, list[dict[str, Any]]]:
    """The rows of a scope by table; `keys` are its domain and encoder, as far as it has them."""
    from unmask.statistics.pools import Pool
    from unmask.statistics.scopes import Scope

    kind = "model" if "encoder" in keys else "domain" if keys else "all"
    name = {"model": "leaderboard", "domain": "by_domain", "all": "overall"}[kind]
    scope = Scope(entries, config["aggregate"]["confidence"], config.gates)
    for key, value in keys.items():
        accuracy = accuracy[accuracy[key] == value]
    test = accuracy["test"].mean()
    ratio = {}
    if kind == "model":
        low, high = config.ratio_range(keys["encoder"]) or (None, None)
        ratio = {"mask_ratio": config.mask_ratio(keys["encoder"]), "ratio_low": low, "ratio_high": high}
    rows: dict[str, list[dict[str, Any]]] = {one: [] for one in BOARDS}
    for metric, cells in metrics:
        own = [cell for cell in cells if all(getattr(cell, key) == value for key, value in keys.items())]
        if not own:
            continue
        made = scope.board(metric, Pool(own, draws))
        rows[name].extend({**keys, **metric, **row, "accuracy": test} for row in made.rows)
        if metric["metric"] in config.gates:
            continue
        rows["chance"].append({"scope": kind, **keys, **metric, **made.scale.row()})
        if kind == "model":
            rows["controls"].extend({**keys, **metric, **row} for row in control_rows(made.verdicts))
            beside = {**keys, **ratio, "accuracy": test, **metric}
            rows["mask_ratio"].extend({**beside, **row} for row in ratio_rows(made.verdicts))
    ranked = scope.ranking.rows(entries, scope.confidence, clusters)
    rows["ranking"] = [{"scope": kind, **keys, **row} for row in ranked]
    return rows


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


def _write(paths: list[Path], table: pd.DataFrame) -> None:
    table = _rounded(table)
    for path in paths:
        write_table(path, table)


def _typeset(folder: Path, tables: dict[str, pd.DataFrame], confidence: float) -> None:
    shown = {name: _rounded(tables[name]) for name in latex.NEEDS}
    for name, text in latex.documents(shown, confidence).items():
        write_text(folder / f"{name}.tex", text)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Floats to 10 significant digits: more would differ between BLAS builds, and mean nothing."""
    columns = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].map(lambda value: float(f"{value:.10g}")) for name in columns})
