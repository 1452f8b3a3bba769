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

from functools import cache
from typing import TYPE_CHECKING, Any

from unmask import digest, questions
from unmask.config import Config
from unmask.files import write_table, write_text
from unmask.layout import Layout
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
    import pandas as pd

    from unmask.statistics.pools import Explainer, Pool
    from unmask.statistics.verdicts import Verdicts


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


def run(config: Config) -> None:
    """Write every table; raises `UserError` where a model's scores are missing or do not fit the config."""
    layout = Layout(config.results)
    own, accuracy, maps = read_scores(config, layout), read_accuracy(config, layout), read_maps(config, layout)
    scores, within = enter.enter(config, own), inside.read_inside(config, layout)
    apart = decisions.read(config, layout)
    boards = leaderboards(config, scores, accuracy, maps)
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
        ),
        **measured,
        **decisions.tables(apart),
        **concepts.tables(config, layout, within),
        "encoders": encoders(config, layout, accuracy, measured["inside"]),
        "image_maps": image_maps(config, layout),
        "explainers": describe(config, maps),
        "accuracy": accuracy,
        "failed": failures(scores),
    }
    tables = {name: _rounded(marked(table, config.submitted)) for name, table in tables.items()}
    curves = _rounded(mean_curves(config, read_curves(config, layout)))
    # Every model's would be a text file of many megabytes.
    tables["curves"] = curves[curves["encoder"].isna()]
    for name, table in tables.items():
        write_table(layout.leaderboards / f"{name}.csv", table)
    for name in LARGE:
        write_table(layout.leaderboards / f"{name}.parquet", tables[name])
    for name, text in latex.documents(tables, config["aggregate"]["confidence"]).items():
        write_text(layout.leaderboards / "latex" / f"{name}.tex", text)
    write_table(layout.leaderboards / "curves.parquet", curves)
    write_table(layout.leaderboards / "cost.parquet", costs(maps, own))
    scores = marked(scores, config.submitted)
    scores.attrs[KEY] = about(config, maps)
    write_table(layout.leaderboards / "scores.parquet", scores)
    print(
        f"{len(scores)} scores, {int((scores['status'] != 'ok').sum())} of them failed or skipped "
        f"-> {layout.leaderboards / 'leaderboard.csv'}"
    )


def leaderboards(config: Config, scores: pd.DataFrame, accuracy: pd.DataFrame, maps: Maps) -> dict[str, pd.DataFrame]:
    """The tables that hold intervals, by name.

    An alias is one within a table's scope: methods that coincide on transformers differ on a ResNet, and where the two
    are pooled.
    """
    import pandas as pd

    from unmask.statistics.cells import Table
    from unmask.statistics.pools import Pool
    from unmask.statistics.redundancy import cluster
    from unmask.statistics.scopes import Scopes

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
    scopes = Scopes(confidence, config.gates)

    def place(name: str, keys: dict[str, str], metric: dict[str, Any], pool: Pool, test: float) -> Verdicts:
        scope = "model" if "encoder" in keys else "domain" if keys else "all"
        made = scopes.board((scope, keys.get("domain"), keys.get("encoder")), metric, pool, entries(**keys))
        rows[name].extend({**keys, **metric, **row, "accuracy": test} for row in made.rows)
        if metric["metric"] not in config.gates:
            rows["chance"].append({"scope": scope, **keys, **metric, **made.scale.row()})
        return made.verdicts

    for metric, cells in table.metrics():
        for cell in cells:
            keys, test = {"domain": cell.domain, "encoder": cell.encoder}, tests[cell.domain, cell.encoder]
            found = place("leaderboard", keys, metric, Pool([cell], table.draws), test)
            if metric["metric"] in config.gates:
                continue
            rows["controls"].extend({**keys, **metric, **row} for row in control_rows(found))
            low, high = config.ratio_range(cell.encoder) or (None, None)
            ratio = {"mask_ratio": config.mask_ratio(cell.encoder), "ratio_low": low, "ratio_high": high}
            ratio["accuracy"] = test
            rows["mask_ratio"].extend({**keys, **ratio, **metric, **row} for row in ratio_rows(found))
        for domain in dict.fromkeys(cell.domain for cell in cells):
            pool = Pool([cell for cell in cells if cell.domain == domain], table.draws)
            place("by_domain", {"domain": domain}, metric, pool, tests[(domain,)])
        place("overall", {}, metric, Pool(cells, table.draws), accuracy["test"].mean())
    models = [ranking for (scope, _, _), ranking in scopes.rankings.items() if scope == "model"]
    clusters, rows["metric_clusters"] = cluster(models, known, config["aggregate"]["redundancy"])
    for (scope, domain, encoder), ranking in scopes.rankings.items():
        keys = {"scope": scope, "domain": domain, "encoder": encoder}
        rows["ranking"].extend({**keys, **row} for row in ranking.rows(entries(domain, encoder), confidence, clusters))
    made = {name: _ordered(pd.DataFrame(rows[name], columns=columns), config) for name, columns in BOARDS.items()}
    # Whole numbers with gaps stay whole.
    return {name: one.astype({"tie_group": "Int64"}) if "tie_group" in one else one for name, one in made.items()}


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
