"""Single decisions taken apart, read from the stage `inside` and made into tables with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import read_json, read_table
from unmask.internals.catalogue import COUNTERFACTUALS, SURROGATES
from unmask.internals.counterfactuals import OUTCOMES
from unmask.layout import Layout
from unmask.statistics.counterfactuals import values
from unmask.statistics.inside import bounds
from unmask.statistics.inside_effects import compared
from unmask.tables.inside import study_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.statistics.contrasts import Contrast
    from unmask.statistics.inside import Cubes
    from unmask.statistics.study import Study

_BOUNDS = ["value", "low", "high", "n", "seeds", "status", "reason"]
_WHERE = ["domain", "encoder", "mask_ratio"]
COLUMNS = {
    "counterfactuals": [*_WHERE, "removal", "quantity", "unit", "patches", "new_class", *_BOUNDS],
    "surrogates": [*_WHERE, "of", "surrogate", "removal", "quantity", "unit", *_BOUNDS],
}
COMPARED = ("flipped", "counterfactual_size", "counterfactual_evidence", "never_flipped")
_WHOLE = ("patches", "n", "seeds")


class Flip(NamedTuple):
    """A quantity under a removal; of sets of up to so many patches, or of a new class, where it is about these."""

    removal: str
    quantity: str
    patches: int | None = None
    new_class: str | None = None


class Fidelity(NamedTuple):
    """A quantity of a surrogate on patches, under a removal, or on concepts."""

    of: str
    surrogate: str
    removal: str | None
    quantity: str


@dataclass(frozen=True)
class Measured:
    """The values of every image by key and domain, [I, S, M]; and what was not measured, each once, in order: the keys
    of a dict are (domain, encoder's place, what else names the row, status, reason)."""

    study: Study
    cubes: Cubes
    without: dict[tuple[str, int, tuple[tuple[str, str], ...], str, str], None]


@dataclass(frozen=True)
class Decisions:
    """What was measured of decisions; None where nothing was."""

    counterfactuals: Measured | None
    patches: Measured | None
    concepts: Measured | None


Values = Callable[[ModelId, "pd.DataFrame"], Iterator[tuple[Any, "np.ndarray"]]]  # a key, and a row's value each


def read(config: Config, layout: Layout) -> Decisions:
    """All that was measured; raises `UserError` where it was of some models only, or on other images."""
    surrogates = _files(config, layout, "surrogates")
    return Decisions(
        _measured(config, _files(config, layout, "counterfactuals"), "counterfactual", ["removal"], _flips(layout)),
        *(
            _measured(
                config,
                {model: table[table["of"] == of] for model, table in surrogates.items()},
                f"{of} surrogate",
                ["of", "removal"],
                _fidelities,
            )
            for of in ("patches", "concepts")
        ),
    )


def _files(config: Config, layout: Layout, name: str) -> dict[ModelId, pd.DataFrame]:
    """A table of the stage `inside` of every model; none where no model has it."""
    paths = {model: layout.inside(model) / f"{name}.parquet" for model in config.models}
    if not config["inside"]["what"] or not any(path.exists() for path in paths.values()):
        return {}
    absent = [model.folder for model, path in paths.items() if not path.exists()]
    if absent:
        raise UserError(f"{layout.results / '5_inside'} lacks {name} of {absent[0]}; run the stage inside for it")
    return {model: read_table(path) for model, path in paths.items()}


def _measured(
    config: Config, tables: dict[ModelId, pd.DataFrame], draws: str, keys: list[str], values_of: Values
) -> Measured | None:
    """Arrange the values of all models; `keys` name the rows of what was not measured."""
    import numpy as np
    import pandas as pd

    if all(table.empty for table in tables.values()):
        return None
    images = {
        domain: ids
        for domain in config["domains"]
        if (ids := _ids({model: table for model, table in tables.items() if model.domain == domain}))
    }
    study = study_of(config, images, f"{draws} images")
    made = Measured(study, {}, {})
    for model, table in tables.items():
        place = study.seeds.index(model.seeds), study.encoders.index(model.encoder)
        gone = table[table["status"] != "ok"].astype(dict.fromkeys(keys, object))
        for (*named, status, reason), part in gone.groupby(
            [*keys, "status", "reason"], observed=True, sort=False, dropna=False
        ):
            if not part["image_id"].isna().all():
                reason = f"{part['image_id'].nunique()} images: {reason}"
            known = tuple((key, name) for key, name in zip(keys, named, strict=True) if not pd.isna(name))
            made.without[model.domain, place[1], known, status, reason] = None
        rows = table[table["image_id"].notna() & (table["status"] != "failed")]
        for key, found in values_of(model, rows):
            names, numbers = found.index, found.to_numpy(np.float64)
            cube = made.cubes.setdefault(key, {}).setdefault(
                model.domain, np.full((*study.weights[model.domain].shape[1:], len(study.encoders)), np.nan)
            )
            cube[pd.Index(images[model.domain]).get_indexer(names), *place] = numbers
    return made


def _ids(tables: dict[ModelId, pd.DataFrame]) -> list[str]:
    """The images of a domain; every model and removal that has images has the same."""
    found: list[str] = []
    for model, table in tables.items():
        for _, rows in table[table["image_id"].notna()].groupby("removal", observed=True, sort=False, dropna=False):
            names = rows["image_id"].drop_duplicates().tolist()
            if found and names != found:
                raise UserError(
                    f"5_inside: {model.folder} is of other images than other models of {model.domain}; "
                    f"delete both and run the stage inside"
                )
            found = names
    return found


def _flips(layout: Layout) -> Values:
    import pandas as pd

    def of(model: ModelId, rows: pd.DataFrame) -> Iterator[tuple[Flip, pd.Series]]:
        names = read_json(layout.domain(model.domain) / "card.json")["classes"]
        rows = rows[rows["outcome"].notna()]
        for removal, part in rows.groupby("removal", observed=True, sort=False):
            for (quantity, patches, new_class), found in values(part, names):
                yield Flip(removal, quantity, patches, new_class), pd.Series(found, part["image_id"].to_numpy())

    return of


def _fidelities(model: ModelId, rows: pd.DataFrame) -> Iterator[tuple[Fidelity, pd.Series]]:
    import pandas as pd

    rows = rows[rows["status"] == "ok"]
    for key, part in rows.groupby(["of", "surrogate", "removal", "quantity"], observed=True, sort=False, dropna=False):
        named = (None if pd.isna(name) else name for name in key)
        yield Fidelity(*named), pd.Series(part["value"].to_numpy(), part["image_id"].to_numpy())


def effects(decisions: Decisions) -> Iterator[dict[str, Any]]:
    """Rows of `inside_effects`: what pretraining and its mask ratio change, on the same images."""
    found = decisions.counterfactuals
    if found is None:
        return

    def measures(contrast: Contrast) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
        most = max((key.patches for key in found.cubes if key.patches), default=None)
        for key, cubes in found.cubes.items():
            if key.quantity in COMPARED and key.patches in (None, most):
                chosen = {domain: cube[..., contrast.encoders] for domain, cube in cubes.items()}
                yield {"phase": "after", "quantity": key.quantity, "removal": key.removal}, chosen

    yield from compared(found.study, measures)


def tables(decisions: Decisions) -> dict[str, pd.DataFrame]:
    """The tables by name, empty where nothing was measured."""
    import pandas as pd

    rows = {
        "counterfactuals": _rows(decisions.counterfactuals, COUNTERFACTUALS),
        "surrogates": [*_rows(decisions.patches, SURROGATES), *_rows(decisions.concepts, SURROGATES)],
    }
    made = {name: pd.DataFrame(rows[name], columns=columns) for name, columns in COLUMNS.items()}
    return {
        name: table.astype({column: "Int64" for column in _WHOLE if column in table}) for name, table in made.items()
    }


def _rows(measured: Measured | None, quantities: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Per domain (None: all domains pooled), encoder and key; classes are a domain's own."""
    if measured is None:
        return
    for where, found in bounds(measured.study, measured.cubes):
        named = where.pop("key")._asdict()
        if named.get("new_class") is None or where["domain"] is not None:
            reason = OUTCOMES["never"] if named["quantity"] == "never_flipped" else None
            yield {**where, **named, "unit": quantities[named["quantity"]].unit, **found, "reason": reason}
    for domain, m, known, status, reason in measured.without:
        yield {
            "domain": domain,
            "encoder": measured.study.encoders[m],
            "mask_ratio": measured.study.ratios[m],
            **dict(known),
            "n": 0,
            "status": status,
            "reason": reason,
        }
