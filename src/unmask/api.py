"""The leaderboards from Python: `unmask.load_scores` and `unmask.leaderboard`; docs/api.md shows them at work.

Both return frames, and raise `unmask.UserError` with one sentence where something cannot be done. The numbers are those
of `unmask aggregate`, by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import registry
from unmask.config import SCHEMA
from unmask.errors import UserError
from unmask.files import read_table
from unmask.layout import Layout
from unmask.schema import problems
from unmask.tables.about import KEY
from unmask.tables.submitted import marked

if TYPE_CHECKING:
    import pandas as pd

    from unmask.statistics.pools import Explainer

NEEDED = [
    *("domain", "encoder", "pretrain_seed", "finetune_seed"),
    *("explainer", "family", "is_control"),
    *("metric", "category", "direction", "removal", "variant"),
    *("image_id", "score", "status"),
]
SEEDS, MODELS = ("pretrain_seed", "finetune_seed"), ("domain", "encoder")
BY = (*MODELS, *SEEDS, "category", "metric", "removal")


def load_scores(path: str | Path, *submissions: str | Path) -> pd.DataFrame:
    """The long table of scores: a row per image, model, explainer, metric and removal.

    `path` is a results folder, a `scores.parquet` or a submission. `submissions` enter beside it once they fit the run:
    the same models, data, images and options. The frame's `attrs` hold what the run says of itself.
    """
    import pandas as pd

    from unmask.submissions import card

    path = Path(path)
    if path.is_dir():
        path = Layout(path).leaderboards / "scores.parquet"
        if not path.is_file():
            raise UserError(f"'{path}' does not exist; run the benchmark, or `unmask aggregate` once it has scored")
    elif not path.is_file():
        raise UserError(f"'{path}' does not exist; give a results folder, a scores.parquet or a submission")
    if path.suffix == ".parquet" and card.beside(path).is_file():
        scores = _submission(path)
    else:
        scores = read_table(path)
        _hold(scores, str(path))
    if not submissions:
        return scores
    parts = [scores, *(_entered(scores, one) for one in submissions)]
    joined = pd.concat(parts, ignore_index=True)
    joined.attrs = scores.attrs
    return joined


def leaderboard(
    scores: pd.DataFrame,
    by: str | Sequence[str] = (),
    *,
    confidence: float | None = None,
    bootstrap: int | None = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Rank the explainers of a table of scores, best first.

    `by` says what is kept apart, everything else is pooled: any of domain, encoder, pretrain_seed, finetune_seed,
    category, metric, removal. With `metric` there is a board for each metric and removal: means with intervals, ranks,
    tie groups, `p_best`, who `beats` which control (the columns of `leaderboard.csv`). Without it, a ranking across
    metrics: mean ranks, Borda counts and rescaled scores (those of `ranking.csv`); with `category` one for each.

    `confidence` of intervals and tests, `bootstrap` resamples and `seed` are those of the run unless given. Whatever is
    not in the table takes no part: choose rows beforehand to compare a part of them.
    """
    import pandas as pd

    chosen = _chosen(by)
    _hold(scores, "the table of scores")
    given = {"seed": seed, "bootstrap": bootstrap, "confidence": confidence}
    settings = _about(scores) | {key: _setting(key, value) for key, value in given.items() if value is not None}
    apart = [name for name in SEEDS if name in chosen]
    parts = [((), scores)] if not apart else [(keys, rows) for keys, rows in scores.groupby(apart, sort=True)]
    rows = [
        {**dict(zip(apart, keys, strict=True)), **row} for keys, part in parts for row in _rows(part, chosen, settings)
    ]
    if not rows:
        raise UserError("the table of scores holds no ok score of a metric that ranks; choose more of it")
    kept = [name for name in BY if name in chosen]
    made = pd.DataFrame(rows).astype({"tie_group": "Int64"})
    made = made[[*kept, *(name for name in made if name not in kept)]]
    if "submitted" in scores:
        made = marked(made, set(scores.loc[scores["submitted"].astype(bool), "explainer"]))
    return made


def _chosen(by: str | Sequence[str]) -> list[str]:
    chosen = [by] if isinstance(by, str) else list(by)
    for name in chosen:
        if name not in BY:
            raise UserError(f"by: '{name}' is nothing to keep apart; {registry.suggest(str(name), BY)}")
    return chosen


def _setting(key: str, value: Any) -> Any:
    known = SCHEMA["properties"]
    found = problems(value, (known if key in known else known["aggregate"]["properties"])[key], key)
    if found:
        raise UserError(found[0])
    return value


def _about(scores: pd.DataFrame) -> dict[str, Any]:
    """What the table says of its run; where it says nothing, the defaults of a config."""
    settings = SCHEMA["properties"]["aggregate"]["properties"]
    found = {
        "seed": SCHEMA["properties"]["seed"]["default"],
        **{key: settings[key]["default"] for key in ("bootstrap", "confidence", "redundancy")},
        **{"same": {}, "aliases": {}, "gates": []},
        **scores.attrs.get(KEY, {}),
    }
    if "oracles" not in found:
        known = registry.available("explainers")
        found["oracles"] = [name for name, plugin in known.items() if "masks" in plugin.meta.get("needs", [])]
    return found


def _hold(scores: Any, what: str) -> None:
    """Raise `UserError` where it is no table of scores."""
    import pandas as pd

    if not isinstance(scores, pd.DataFrame):
        raise UserError(f"{what} is of type {type(scores).__name__}; give the frame that load_scores returns")
    missing = [name for name in NEEDED if name not in scores]
    if missing:
        raise UserError(f"{what} lacks the columns {', '.join(missing)}; is it a scores.parquet?")
    if scores.empty:
        raise UserError(f"{what} holds no rows")
    strange = scores.loc[~scores["direction"].isin(["higher", "lower"]), "metric"]
    if len(strange):
        raise UserError(f"{what} gives '{strange.iloc[0]}' no direction; it must be higher or lower")
    if scores.duplicated([name for name in NEEDED if name not in ("family", "is_control", "score", "status")]).any():
        raise UserError(f"{what} holds a score twice; has a run been joined with itself?")


def _submission(path: Path) -> pd.DataFrame:
    """The scores of a submission alone."""
    from unmask.submissions import card, scores

    about, found = card.load(path)
    table, wrong = scores.load(path)
    if about is None or table is None:
        raise UserError(f"{(found + wrong)[0]}{card.more(path, found + wrong)}")
    table = table.assign(
        family=about.data["family"], is_control=False, submitted=True, removal=table["removal"].replace("", None)
    )
    _hold(table, str(path))
    return table


def _entered(scores: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """The scores of a submission beside a run's."""
    from unmask.submissions import card, checks
    from unmask.submissions.scores import entered
    from unmask.submissions.task import Task, rows

    asked = scores.attrs.get(KEY, {}).get("task")
    if asked is None:
        raise UserError(f"'{path}' has nothing to enter: the first table does not say on what it was made")
    own = ~scores["submitted"] if "submitted" in scores else slice(None)
    task = Task(**asked, rows=rows(scores[own]))
    about, table, found = checks.problems(path, task)
    if about is not None and about.name in set(scores["explainer"]):
        found.append(f"the name '{about.name}' is taken by an explainer of the run; rename the submitted one")
    if found:
        raise UserError(f"{found[0]}{card.more(path, found)}")
    made = entered(table, about, task).assign(submitted=True)
    return made.astype({name: kind for name, kind in scores.dtypes.items() if name in made})


class _Explainers:
    """The explainers of a scope, in the table's order; an alias is one on all of the scope's models that have it."""

    def __init__(self, scores: pd.DataFrame, settings: dict[str, Any]):
        known = scores.drop_duplicates("explainer")
        self._rows = list(known[["explainer", "family", "is_control"]].itertuples(index=False, name=None))
        self._settings = settings
        models = scores[[*MODELS, *SEEDS]].drop_duplicates().itertuples(index=False, name=None)
        self._models = [(domain, encoder, f"{domain}/{encoder}/p{p}f{f}") for domain, encoder, p, f in models]
        self.of = cache(self._of)

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [name for name, _, _ in self._rows]

    def _of(self, domain: str | None = None, encoder: str | None = None) -> list[Explainer]:
        from unmask.statistics.pools import Explainer

        folders = {folder for d, e, folder in self._models if domain in (None, d) and encoder in (None, e)}
        same = dict(self._settings["same"])
        for name, measured in self._settings["aliases"].items():
            others = {other for folder, other in measured.items() if folder in folders}
            if len(others) == 1 and None not in others:
                same.setdefault(name, others.pop())
        present, oracles = set(self.names), set(self._settings["oracles"])
        return [
            Explainer(name, family, bool(control), name in oracles, same[name] if same.get(name) in present else None)
            for name, family, control in self._rows
        ]


def _rows(scores: pd.DataFrame, chosen: list[str], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of all boards or rankings, scope by scope."""
    from unmask.statistics.cells import Table
    from unmask.statistics.pools import Pool
    from unmask.statistics.redundancy import cluster
    from unmask.statistics.scopes import Scope, ranks_by_model

    explainers = _Explainers(scores, settings)
    table = Table(scores, explainers.names, settings["seed"], settings["bootstrap"])
    metrics, gates = list(table.metrics()), settings["gates"]
    keep = [name for name in MODELS if name in chosen]
    ranks = "metric" not in chosen
    apart = ranks and "removal" in chosen
    scopes: dict[tuple, Scope] = {}
    boards: dict[tuple, list[dict[str, Any]]] = {}
    for metric, cells in metrics:
        parts: dict[tuple, list] = {}
        for cell in cells:
            parts.setdefault(tuple((name, getattr(cell, name)) for name in keep), []).append(cell)
        for keys, part in parts.items():
            key = (*keys, *([("removal", metric["removal"])] if apart else []))
            if key not in scopes:
                scopes[key] = Scope(explainers.of(**dict(keys)), settings["confidence"], gates)
            made = scopes[key].board(metric, Pool(part, table.draws))
            boards.setdefault(key, []).extend({**dict(key), **metric, **row} for row in made.rows)
    if not ranks:
        return [row for rows in boards.values() for row in rows]
    # Metrics vote together or not by how they rank on single models.
    models = ranks_by_model(metrics, table.draws, explainers.of, gates)
    clusters, _ = cluster(models, explainers.of(), settings["redundancy"])
    found = []
    for key, scope in scopes.items():
        rows = scope.ranking.rows(scope.explainers, settings["confidence"], clusters)
        found += [{**dict(key), **row} for row in rows if (row["category"] != "all") == ("category" in chosen)]
    return found
