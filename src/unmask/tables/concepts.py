"""What units, layers and factors stand for, read from the stage `inside` and made into tables with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unmask.config import Config, ModelId
from unmask.files import read_metadata, read_table
from unmask.internals import concepts
from unmask.layout import Layout
from unmask.seeds import numpy_generator
from unmask.statistics import tcav
from unmask.statistics.bootstrap import counts, interval
from unmask.statistics.inside import stacked

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.statistics.inside import Inside
    from unmask.statistics.study import Study

_CELL = ["domain", "encoder", "mask_ratio"]
_WHY = ["status", "reason"]
COLUMNS = {
    "tcav": [
        *_CELL,
        *("phase", "layer", "kind", "concept", "represented", "accuracy", "accuracy_low", "accuracy_high"),
        *("accuracy_p_holm", "class", "score", "low", "high", "random_score", "p", "p_holm", "verdict", "sensitivity"),
        *("vectors", "n", "seeds", *_WHY),
    ],
    "dissection": [
        *_CELL,
        *("phase", "layer", "kind", "concept", "units", "detectors", "detectors_chance", "share", "share_chance"),
        *("unit", "iou", "low", "high", "iou_chance", "n", "seeds", *_WHY),
    ],
    "concept_factors": [
        *_CELL,
        *("pretrain_seed", "finetune_seed", "layer", "reconstruction_error", "agreement", "factor", "kind", "concept"),
        *("iou", "class", "importance", "low", "high", "n", *_WHY),
    ],
}
_WHOLE = ("layer", "unit", "units", "factor", "n", "seeds", "vectors", "pretrain_seed", "finetune_seed")
CHANCE = 0.95  # quantile of the largest IoU under permutation


@dataclass(frozen=True)
class Left:
    """What the stage left of a model: its tables, arrays and what these are of."""

    who: ModelId
    tables: dict[str, pd.DataFrame]
    arrays: dict[str, np.ndarray]
    about: dict[str, Any]


def tables(config: Config, layout: Layout, inside: Inside | None) -> dict[str, pd.DataFrame]:
    """The tables by name, empty where nothing was measured."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for domain in config["domains"] if inside is not None else []:
        known = [_read(layout, model) for model in config.models if model.domain == domain]
        known = [model for model in known if model.tables]
        if not known:
            continue
        images = read_metadata(layout.inside(known[0].who) / "grams.safetensors")["images"].split("\n")
        generator = numpy_generator(config["seed"], "aggregate", "inside images", domain)
        draws = counts(generator, len(images), config["aggregate"]["bootstrap"])
        for encoder in config["encoders"]:
            own = [model for model in known if model.who.encoder == encoder]
            where = {"domain": domain, "encoder": encoder, "mask_ratio": config.mask_ratio(encoder)}
            for name, found in rows_of(inside.study, own, images, draws).items() if own else ():
                rows[name] += [{**where, **row} for row in found]
    rows["dissection"] = [*_pooled(rows["dissection"]), *rows["dissection"]]
    return {name: framed(found, COLUMNS[name]) for name, found in rows.items()}


def rows_of(study: Study, own: list[Left], images: list[str], draws: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """Rows of every table of one encoder on one domain, from its models of all seeds.

    `images` are the names of the domain's images, `draws` [B, I] how often each is drawn in a resample.
    """
    return {
        "tcav": list(_tcav(study, own, images)),
        "dissection": list(_dissection(study, own)),
        "concept_factors": [row for model in own for row in _factors(model, images, draws, study.confidence)],
    }


def framed(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Rows as a table; what has no status is ok, and whole numbers stay whole."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=columns)
    table["status"] = table["status"].astype(object).fillna("ok")
    return table.astype({column: "Int64" for column in _WHOLE if column in table})


def _read(layout: Layout, model: ModelId) -> Left:
    folder = layout.inside(model)
    paths = {name: folder / f"{name}.parquet" for name in concepts.COLUMNS}
    found = {name: read_table(path) for name, path in paths.items() if path.exists()}
    return Left(model, found, *concepts.read(folder))


def _missing(own: list[Left], name: str) -> Iterator[dict[str, Any]]:
    """Rows of what was not measured, one for all seeds."""
    import pandas as pd

    table = pd.concat([model.tables[name] for model in own])
    table = table[table["status"] != "ok"].drop_duplicates(["phase", "layer", "kind", "name", "reason"])
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        named = {key: row[key] for key in ("phase", "layer", "kind", "status", "reason")}
        yield {**named, "concept": row["name"], "n": 0}


# --- concept activation vectors --------------------------------------------------------------------------------------


def _tcav(study: Study, own: list[Left], images: list[str]) -> Iterator[dict[str, Any]]:
    import pandas as pd

    domain, confidence = own[0].who.domain, study.confidence
    runs = pd.concat([model.tables["tcav"] for model in own], ignore_index=True)
    for phase in ("before", "after"):
        part = runs[runs["phase"] == phase]
        found = tcav.accuracies(part, confidence)
        tested: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in tcav.scores(part, found, confidence):
            tested.setdefault(tuple(row[key] for key in tcav.KEYS), []).append(row)
        shares = _shares(study, own, images, phase)
        bounds = dict(zip(shares, stacked(study, {domain: list(shares.values())}), strict=True)) if shares else {}
        for one in found:
            key = tuple(one[name] for name in tcav.KEYS)
            named = {"phase": phase, **one, "concept": one["name"], "seeds": len(own)}
            if key not in tested:
                yield {**named, "verdict": None if one["represented"] else tcav.UNKNOWN}
            for row in tested.get(key, []):
                bound = bounds[*key, row["target"]]
                yield {**named, **row, "class": row["target"], **bound, "score": bound["value"]}
    yield from _missing(own, "tcav")


def _shares(study: Study, own: list[Left], images: list[str], phase: str) -> dict[tuple[Any, ...], np.ndarray]:
    """By layer, concept and class what share of the vectors each image's logit rises along, [I, S]; NaN elsewhere."""
    import numpy as np
    import pandas as pd

    found: dict[tuple[Any, ...], np.ndarray] = {}
    shape = study.weights[own[0].who.domain].shape[1:]
    for model in own:
        place = study.seeds.index(model.who.seeds)
        table = model.tables["tcav"]
        table = table[(table["phase"] == phase) & (table["measure"] == "positive")]
        at = pd.Index(images).get_indexer(table["image_id"])
        values = table["value"].to_numpy()
        for keys, rows in table.groupby([*tcav.KEYS, "target"], sort=False, observed=True).indices.items():
            found.setdefault(keys, np.full(shape, np.nan))[at[rows], place] = values[rows]
    return found


# --- units -----------------------------------------------------------------------------------------------------------


def _dissection(study: Study, own: list[Left]) -> Iterator[dict[str, Any]]:
    for phase in ("before", "after"):
        held = [model for model in own if f"dissection_{phase}" in model.about]
        if held:
            yield from _dissected(study, held, phase)
    yield from _missing(own, "dissection")


def _dissected(study: Study, own: list[Left], phase: str) -> Iterator[dict[str, Any]]:
    import numpy as np

    from unmask.internals.dissection import detectors, groups
    from unmask.internals.known import Concept

    known = [Concept(*one) for one in own[0].about[f"dissection_{phase}"]]
    arrays = {
        name: np.stack([model.arrays[f"dissection_{name}_{phase}"] for model in own])
        for name in ("best", "counts", "chance", "chance_iou")
    }  # [S, L, ...]
    places = [study.seeds.index(model.who.seeds) for model in own]
    weights = study.weights[own[0].who.domain][:, :, places]
    layers = zip(*(_ious(model.tables["dissection"], phase, len(known)) for model in own), strict=True)
    for layer, parts in enumerate(layers):
        ious = np.stack(parts)  # [S, C, U]
        found = np.stack([detectors(one, known) for one in ious]).mean(0)
        chance = arrays["chance"][:, layer].mean((0, 2))
        values, low, high = _overlap(arrays["counts"][:, layer], weights, study.confidence)
        units = ious.shape[2]
        for group, (kind, name) in enumerate(groups(known)):
            row = {
                "phase": phase,
                "layer": layer,
                "kind": kind,
                "concept": name,
                "units": units,
                "detectors": found[group],
                "detectors_chance": chance[group],
                "share": found[group] / units,
                "share_chance": chance[group] / units,
                "n": arrays["counts"].shape[-1],
                "seeds": len(own),
            }
            if name is None:
                yield row
                continue
            place = known.index(Concept(kind, name))
            yield {
                **row,
                "unit": int(arrays["best"][0, layer, place]) if len(own) == 1 else None,
                "iou": values[place],
                "low": low[place],
                "high": high[place],
                "iou_chance": np.quantile(arrays["chance_iou"][:, layer, place], CHANCE, axis=1).mean(),
            }


def _ious(table: pd.DataFrame, phase: str, concepts: int) -> list[np.ndarray]:
    """The IoUs of every layer's units, [C, U]; the stage wrote them concept by concept, unit by unit."""
    rows = table[(table["phase"] == phase) & table["unit"].notna()]
    values = rows["value"].to_numpy()
    return [values[places].reshape(concepts, -1) for places in rows.groupby("layer", sort=True).indices.values()]


def _overlap(pixels: np.ndarray, weights: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The IoU of each concept's unit, a mean over the models, and its interval: [C] each.

    `pixels` [S, C, 2, I] in intersection and union; `weights` [B, I, S] of images and seeds. The unit stays the same in
    every resample, and so do the thresholds.
    """
    import numpy as np

    drawn = np.einsum("bis,scki->bsck", weights, pixels.astype(np.float64))
    times = weights.sum(1)  # [B, S], in proportion to how often a pair of seeds was drawn
    ratios = np.divide(drawn[..., 0], drawn[..., 1], out=np.zeros(drawn.shape[:3]), where=drawn[..., 1] > 0)
    total = times.sum(1)
    means = np.divide(
        (ratios * times[..., None]).sum(1),
        total[:, None],
        out=np.full(ratios[:, 0].shape, np.nan),
        where=total[:, None] > 0,
    )
    whole = pixels.sum(-1)
    return (whole[..., 0] / whole[..., 1]).mean(0), *interval(means, confidence, pixels.shape[-1])


def _pooled(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Over the domains the share of units that detect any concept of a kind."""
    import numpy as np

    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["concept"] is None and "share" in row:
            key = row["encoder"], row["mask_ratio"], row["phase"], row["layer"], row["kind"]
            found.setdefault(key, []).append(row)
    for key, parts in found.items():
        yield {
            "domain": None,
            **dict(zip(("encoder", "mask_ratio", "phase", "layer", "kind"), key, strict=True)),
            "concept": None,
            **{name: float(np.mean([row[name] for row in parts])) for name in ("share", "share_chance")},
            "n": sum(row["n"] for row in parts),
            "seeds": parts[0]["seeds"],
        }


# --- factors ---------------------------------------------------------------------------------------------------------


def _factors(model: Left, images: list[str], draws: np.ndarray, confidence: float) -> Iterator[dict[str, Any]]:
    import numpy as np
    import pandas as pd

    table = model.tables["factors"]
    seeds = {"pretrain_seed": model.who.pretrain_seed, "finetune_seed": model.who.finetune_seed}
    yield from ({**seeds, **row} for row in _missing([model], "factors"))
    known = table[table["status"] == "ok"]
    parts = known[known["measure"] == "importance"]
    if parts.empty:
        return
    whole = known.groupby("measure", observed=True)["value"].mean()
    named = known[known["measure"] == "iou"].set_index("factor")
    at = pd.Index(images).get_indexer(parts["image_id"])
    values = parts["value"].to_numpy()
    rows = []
    for (factor, target), places in parts.groupby(["factor", "target"], sort=True, observed=True).indices.items():
        own, drawn = values[places], draws[:, at[places]]
        times = drawn.sum(1)
        means = np.divide(drawn @ own, times, out=np.full(len(times), np.nan), where=times > 0)
        low, high = interval(means[:, None], confidence, len(own))
        concept = named.loc[factor] if factor in named.index else {}
        rows.append(
            {
                **seeds,
                "layer": parts["layer"].iloc[0],
                "reconstruction_error": whole["reconstruction_error"],
                "agreement": whole["agreement"],
                "factor": factor,
                "kind": concept.get("kind"),
                "concept": concept.get("name"),
                "iou": concept.get("value"),
                "class": target,
                "importance": own.mean(),
                "low": low[0],
                "high": high[0],
                "n": len(own),
            }
        )
    largest: dict[int, float] = {}
    for row in rows:
        largest[row["factor"]] = max(largest.get(row["factor"], -np.inf), row["importance"])
    yield from sorted(rows, key=lambda row: (-largest[row["factor"]], row["factor"]))
