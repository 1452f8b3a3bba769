"""Whether a submission can enter a run: everything that is wrong with it, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import digest
from unmask.registry import suggest
from unmask.submissions import card, scores
from unmask.submissions.card import Card
from unmask.submissions.task import CELL, KEYS, MODEL, Task

if TYPE_CHECKING:
    import pandas as pd

STATUS = ("ok", "skipped", "failed")
SHOWN = 3  # names in a sentence
ROUNDING = 1e-6  # by which a score may lie beyond its metric's bounds


def problems(path: str | Path, task: Task) -> tuple[Card | None, pd.DataFrame | None, list[str]]:
    """The card and the scores of a submission as far as they can be read, and what is wrong with them; none: it can
    enter a run that asks for `task`."""
    about, found = card.load(path)
    if not Path(path).is_file():
        return about, None, found
    table, wrong = scores.load(path)
    found = found + wrong
    if table is not None:
        found += [f"{path}: {problem}" for problem in _scores(table, task)]
    if about is not None:
        found += [f"{card.beside(path)}: {problem}" for problem in _card(about, table, task)]
    if about is not None and table is not None:
        others = _names(name for name in table["explainer"] if name != about.name)
        if others:
            found.append(f"{path}: the column 'explainer' has {others}, but the card is that of '{about.name}'")
    return about, table, found


def _names(values: Any) -> str:
    """Some of the different values, in quotes; empty for none."""
    different = list(dict.fromkeys(map(str, values)))
    shown = ", ".join(f"'{value}'" for value in different[:SHOWN])
    return shown + (f" and {len(different) - SHOWN} more" if len(different) > SHOWN else "")


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _place(row: Any) -> str:
    """Where a row, or a cell without `image_id`, belongs."""
    metric = row["metric"] + (f"@{row['removal']}" if row["removal"] else "")
    image = f", image {row['image_id']}" if "image_id" in row else ""
    return f"{_folder(row)}, {metric}{image}"


def _folder(row: Any) -> str:
    return f"{row['domain']}/{row['encoder']}/p{row['pretrain_seed']}f{row['finetune_seed']}"


def _folders(table: pd.DataFrame) -> pd.Series:
    """The model folder of every row."""
    p, f = table["pretrain_seed"].astype("str"), table["finetune_seed"].astype("str")
    return table["domain"] + "/" + table["encoder"] + "/p" + p + "f" + f


def _rows(table: pd.DataFrame, wrong: pd.Series, what: str, right: str) -> Iterator[str]:
    """A sentence, where rows are wrong: what is, how many there are, the first of them, what would be right."""
    if wrong.any():
        yield f"{what}: {_many(int(wrong.sum()), 'row')}, the first {_place(table.loc[wrong.idxmax()])}; {right}"


def _scores(table: pd.DataFrame, task: Task) -> Iterator[str]:
    yield from _states(table)
    yield from _unknown(table, task)
    yield from _metrics(table, task)
    twice = table.duplicated(KEYS)
    yield from _rows(table, twice, "the same image twice", "give it one score per model, metric and removal")
    if task.rows is not None and not twice.any():
        yield from _images(table, task.rows)


def _states(table: pd.DataFrame) -> Iterator[str]:
    import numpy as np

    status, finite = table["status"], np.isfinite(table["score"])
    other = ~status.isin(STATUS)
    if other.any():
        yield f"the column 'status' has {_names(status[other])}; it may have {', '.join(STATUS)}"
    ok, lost = status == "ok", status.isin(STATUS[1:])
    yield from _rows(table, ok & ~finite, "ok without a finite score", "give a number, or 'failed' with a reason")
    yield from _rows(table, lost & table["score"].notna(), "skipped or failed, but with a score", "leave it empty")
    empty = table["reason"].map(lambda reason: not (isinstance(reason, str) and reason.strip()))
    yield from _rows(table, lost & empty, "skipped or failed without a reason", "say why in a few words")


def _unknown(table: pd.DataFrame, task: Task) -> Iterator[str]:
    """Models, metrics and removals that the run has not."""
    folders = _folders(table)
    strange = ~folders.isin(list(task.models))
    parts = {"domain": {}, "encoder": {}}
    for folder in task.models:
        domain, encoder, _ = folder.split("/")
        parts["domain"][domain] = parts["encoder"][encoder] = None
    for name, known in parts.items():
        for value in dict.fromkeys(table.loc[~table[name].isin(list(known)), name]):
            yield f"unknown {name} '{value}'; {suggest(value, known)}"
            strange &= table[name] != value
    if strange.any():
        yield f"the run has no model {_names(folders[strange])}; its seeds are {_seeds(task)}"
    for metric in dict.fromkeys(table["metric"]):
        rows = table[table["metric"] == metric]
        if metric not in task.metrics:
            yield f"unknown metric '{metric}'; {suggest(metric, task.metrics)}"
            continue
        known = task.metrics[metric]["removals"]
        other = rows.loc[~rows["removal"].isin(known), "removal"]
        if len(other):
            may = "no removal" if known == [""] else ", ".join(known)
            yield f"'{metric}' has the removal {_names(other)}; the run scores it with {may}"
    variants = table["variant"] != ""
    if task.rows is None or not (task.rows["variant"] != "").any():
        yield from _rows(table, variants, "with a variant", "the run has none")


def _seeds(task: Task) -> str:
    return ", ".join(dict.fromkeys(folder.rpartition("/")[2] for folder in task.models))


def _metrics(table: pd.DataFrame, task: Task) -> Iterator[str]:
    """Directions, categories and bounds of the metrics that the run has."""
    for metric, known in task.metrics.items():
        rows = table[table["metric"] == metric]
        for name, why in (
            ("direction", "scores that are better the other way cannot be compared"),
            ("category", "it decides how the metric votes"),
        ):
            other = rows.loc[rows[name] != known[name], name]
            if len(other):
                yield f"'{metric}' has the {name} {_names(other)}; it is '{known[name]}', and {why}"
        if known["bounds"]:
            yield from _beyond(rows, metric, *known["bounds"])


def _beyond(rows: pd.DataFrame, metric: str, low: float | None, high: float | None) -> Iterator[str]:
    """Scores outside the bounds of a metric; None is no bound."""
    span = f"at least {low:g}" if high is None else f"at most {high:g}" if low is None else f"{low:g} to {high:g}"
    lowest, highest = -inf if low is None else low - ROUNDING, inf if high is None else high + ROUNDING
    beyond = rows["score"].lt(lowest) | rows["score"].gt(highest)
    yield from _rows(
        rows, beyond & (rows["status"] == "ok"), f"a score that '{metric}' cannot give", f"it gives {span}"
    )


def _images(table: pd.DataFrame, asked: pd.DataFrame) -> Iterator[str]:
    """Each cell has the run's images, explained for the same class, and skips what the run skips."""
    joined = table.merge(
        asked[[*KEYS, "prediction", "skip"]], on=KEYS, how="left", suffixes=("", "_asked"), indicator=True
    )
    found = joined["_merge"] == "both"
    cells = asked[CELL].drop_duplicates().merge(table[CELL].drop_duplicates(), on=CELL)  # that both have
    here = joined.merge(cells, on=CELL, how="left", indicator="cell")["cell"] == "both"
    yield from _rows(joined, here & ~found, "an image that the run does not score there", "use the run's")
    both = asked.merge(cells, on=CELL).merge(table[KEYS], on=KEYS, how="left", indicator=True)
    absent = both["_merge"] == "left_only"
    yield from _rows(
        both, absent, "an image is missing", "score all of a model under a metric, or say in a row why one is not"
    )
    other = found & (joined["prediction"] != joined["prediction_asked"])
    yield from _rows(joined, other, "another class explained", "explain the one that the run's model predicts")
    must = joined["skip"].notna()
    yield from _rows(
        joined,
        found & must & (joined["status"] == "ok"),
        "a score where no explainer of the run has one",
        "skip it",
    )
    may = must | _whole(joined, ["encoder"]) | _whole(joined, ["metric", "removal", "variant"])
    yield from _rows(
        joined,
        found & (joined["status"] == "skipped") & ~may,
        "skipped where other explainers are scored",
        "skip whole encoders or metrics, and let the rest be 'failed'",
    )


def _whole(table: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Whether all rows of the group that a row belongs to are skipped."""
    return (table["status"] == "skipped").groupby([table[key] for key in keys]).transform("all")


def _card(about: Card, table: pd.DataFrame | None, task: Task) -> Iterator[str]:
    """What was explained is what the run has, and was scored with the same options."""
    data = about.data
    folders = task.models if table is None else dict.fromkeys(_folders(table[MODEL].drop_duplicates()))
    domains = task.data if table is None else dict.fromkeys(table["domain"])
    metrics = task.metrics if table is None else dict.fromkeys(table["metric"])
    for key, known, used, what in (
        ("models", task.models, folders, "weights"),
        ("data", task.data, domains, "images"),
    ):
        given = data[key]
        strange, lacking = (
            _names(name for name in given if name not in known),
            _names(name for name in used if name in known and name not in given),
        )
        if strange:
            yield f"{key}: the run has no {strange}"
        if lacking:
            yield f"{key}: {lacking} not there, but scored; give the SHA-256 of what was explained"
        other = [name for name in given if known.get(name) and given[name] != known[name]]
        if other:
            yield (
                f"{key}: {_names(other)} {'has' if len(other) == 1 else 'have'} other {what} than the run's "
                f"({given[other[0]][:12]} and not {known[other[0]][:12]}), so the scores cannot be compared"
            )
    strange = _names(name for name in data["metrics"] if name not in task.metrics)
    if strange:
        yield f"metrics: the run has no {strange}"
    for metric in (name for name in metrics if name in task.metrics):
        if metric not in data["metrics"]:
            yield f"metrics: '{metric}' is not there, but scored; give the options that it was scored with"
        elif digest.of(data["metrics"][metric]) != digest.of(task.metrics[metric]["options"]):
            yield (
                f"metrics: '{metric}' was scored with {data['metrics'][metric]} and not with the run's options "
                f"{task.metrics[metric]['options']}, so the scores cannot be compared"
            )
