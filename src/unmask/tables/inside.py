"""What is inside the models, read from the stage's files and made into tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from unmask.config import Config, ModelId
from unmask.encoders import condition, series
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_metadata, read_table
from unmask.internals import cka
from unmask.layout import Layout
from unmask.seeds import numpy_generator
from unmask.statistics.bootstrap import counts
from unmask.statistics.inside import (
    SIMILARITY,
    Gone,
    Inside,
    Layer,
    Net,
    cka_rows,
    curve_weights,
    layer_rows,
    missingness_rows,
)
from unmask.statistics.inside_causes import Cause, Causes, cause_rows, model_rows
from unmask.statistics.inside_effects import effect_rows
from unmask.statistics.study import Study

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_BOUNDS = ["value", "low", "high", "n", "seeds"]
_WHY = ["status", "reason"]
COLUMNS = {
    "inside": ["domain", "encoder", "mask_ratio", "phase", "quantity", "unit", "layer", "head", *_BOUNDS, *_WHY],
    "missingness": ["domain", "encoder", "mask_ratio", "removal", "quantity", "unit", "fraction", *_BOUNDS, *_WHY],
    "inside_effects": [
        *("domain", "phase", "quantity", "layers", "removal", "contrast", "encoder", "reference"),
        *("estimate", "low", "high", "effect", "verdict", "n", "seeds"),
    ],
    "causes": ["domain", "encoder", "mask_ratio", "factor", "quantity", "unit", *_BOUNDS, *_WHY],
    "causal_model": [
        *("domain", "encoder", "mask_ratio", "class", "factor"),
        *("true", "true_low", "true_high", "estimated", "estimated_low", "estimated_high"),
        *("difference", "difference_low", "difference_high", "verdict", "n_true", "n", "seeds", *_WHY),
    ],
    "cka": ["domain", "encoder_a", "phase_a", "layer_a", "encoder_b", "phase_b", "layer_b", *_BOUNDS],
}
_WHOLE = ("layer", "head", "n", "n_true", "seeds", "layer_a", "layer_b")


def tables(config: Config, inside: Inside | None, effects: Iterable[dict[str, Any]] = ()) -> dict[str, pd.DataFrame]:
    """The tables by name, empty where nothing was measured; `effects` are further rows of `inside_effects`."""
    import pandas as pd

    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    if inside is not None:
        rows = {
            "inside": list(layer_rows(config, inside)),
            "missingness": list(missingness_rows(inside)),
            "inside_effects": list(effect_rows(inside)),
            "causes": list(cause_rows(inside.causes)),
            "causal_model": list(model_rows(inside.causes)),
            "cka": list(cka_rows(inside)),
        }
    rows["inside_effects"] += effects
    made = {name: pd.DataFrame(rows[name], columns=columns) for name, columns in COLUMNS.items()}
    return {
        name: table.astype({column: "Int64" for column in _WHOLE if column in table}) for name, table in made.items()
    }


def read_inside(config: Config, layout: Layout) -> Inside | None:
    """What was measured of every model, or None where the config asks for nothing or nothing was measured.

    Raises `UserError` where it was measured of some models only, or of other images.
    """
    import pandas as pd

    models = [model for model in config.models if (layout.inside(model) / "layers.parquet").exists()]
    if not config["inside"]["what"] or not models:
        return None
    absent = [model.folder for model in config.models if model not in models]
    if absent:
        raise UserError(f"{layout.inside(config.models[0]).parents[2]} lacks {absent[0]}; run the stage inside for it")
    read = {model: _Files(layout, model) for model in config.models}
    images = {domain: _images(read, domain) for domain in config["domains"]}
    study = study_of(config, images, "inside images")
    seeds, encoders = study.seeds, study.encoders
    made = Inside(study, {}, {}, {}, {}, {}, Causes(study, classes=_classes(config, layout)))
    for model, files in read.items():
        place = seeds.index(model.seeds), encoders.index(model.encoder)
        _put(files.layers, ["phase", "quantity", "layer", "head"], Layer, made.layers, study, model, place, images)
        _put(files.missingness, ["removal", "quantity", "fraction"], Gone, made.curves, study, model, place, images)
        if files.causes is not None:
            _put(
                files.causes, ["factor", "quantity", "target"], Cause, made.causes.effects, study, model, place, images
            )
            for row in files.causes[files.causes["status"] != "ok"].itertuples():
                key = (None if pd.isna(part) else part for part in (row.factor, row.target))
                made.causes.without[(model.domain, place[1], *key)] = row.status, row.reason
        for row in files.layers[files.layers["status"] != "ok"].itertuples():
            made.without[model.domain, place[1], row.phase, row.quantity] = row.status, row.reason
        for row in files.missingness[files.missingness["status"] != "ok"].itertuples():
            made.removed_without[model.domain, place[1], row.removal] = row.status, row.reason
    _add_curve_means(made)
    _add_cka(made, read, seeds, encoders)
    return made


def study_of(config: Config, images: dict[str, list[str]], draws: str) -> Study:
    """The encoders, and how often each image of a domain and pair of seeds is drawn; `draws` names the draws."""
    import numpy as np

    seeds = list(dict.fromkeys(model.seeds for model in config.models))
    encoders = list(config["encoders"])
    return Study(
        explainers=[],
        encoders=encoders,
        methods=[condition(config["encoders"][name]) for name in encoders],
        ratios=np.array([config.mask_ratio(name) for name in encoders], np.float64),
        seeds=seeds,
        metrics=[],
        weights=_weights(config, images, len(seeds), draws),
        correct={},
        confidence=config["aggregate"]["confidence"],
        seed=config["seed"],
        doses=[series(config["encoders"][name]) for name in encoders],
    )


class _Files:
    """A model's tables (that of causes is None in a run from before there was one), and its Gram matrices by phase."""

    def __init__(self, layout: Layout, model: ModelId):
        folder = layout.inside(model)
        self.folder = folder
        self.layers, self.missingness = (read_table(folder / f"{name}.parquet") for name in ("layers", "missingness"))
        causes = folder / "causes.parquet"
        self.causes = read_table(causes) if causes.exists() else None
        self.grams = read_arrays(folder / "grams.safetensors")
        self.images = read_metadata(folder / "grams.safetensors")["images"].split("\n")


def _classes(config: Config, layout: Layout) -> dict[str, list[str]]:
    """The names of every domain's classes, where its card is there."""
    cards = {domain: layout.domain(domain) / "card.json" for domain in config["domains"]}
    return {domain: read_json(card)["classes"] for domain, card in cards.items() if card.exists()}


def _images(read: dict[ModelId, _Files], domain: str) -> list[str]:
    files = [files for model, files in read.items() if model.domain == domain]
    for other in files:
        if other.images != files[0].images:
            raise UserError(
                f"{other.folder} and {files[0].folder} are of different images; delete both and run the stage inside"
            )
    return files[0].images


def _weights(config: Config, images: dict[str, list[str]], seeds: int, draws: str) -> dict[str, np.ndarray]:
    """How often each image and pair of seeds is drawn, by domain [B, I, S]; the seeds as for the leaderboards."""
    resamples = config["aggregate"]["bootstrap"]
    pairs = counts(numpy_generator(config["seed"], "aggregate", "seeds"), seeds, resamples)
    return {
        domain: counts(numpy_generator(config["seed"], "aggregate", draws, domain), len(names), resamples)[:, :, None]
        * pairs[:, None]
        for domain, names in images.items()
    }


def _put(
    table: pd.DataFrame,
    keys: list[str],
    kind: Callable[..., Any],
    cubes: dict[Any, dict[str, np.ndarray]],
    study: Study,
    model: ModelId,
    place: tuple[int, int],
    images: dict[str, list[str]],
) -> None:
    """Put a model's values where they belong."""
    import numpy as np
    import pandas as pd

    rows = table[table["status"] == "ok"]
    at = pd.Index(images[model.domain]).get_indexer(rows["image_id"])
    values = rows["value"].to_numpy()
    shape = (*study.weights[model.domain].shape[1:], len(study.encoders))
    for named, some in rows.groupby(keys, sort=False, observed=True, dropna=False).indices.items():
        key = kind(*(None if pd.isna(part) else part for part in named))
        cube = cubes.setdefault(key, {}).setdefault(model.domain, np.full(shape, np.nan))
        cube[at[some], *place] = values[some]


def _add_curve_means(made: Inside) -> None:
    """The mean over the fraction removed of every curve."""
    pairs = dict.fromkeys((key.removal, key.quantity) for key in made.curves)
    for removal, quantity in pairs:
        fractions = sorted(key.fraction for key in made.curves if key[:2] == (removal, quantity))
        weights = curve_weights(fractions)
        curves = [made.curves[Gone(removal, quantity, fraction)] for fraction in fractions]
        made.curves[Gone(removal, quantity, None)] = {
            domain: sum(weight * curve[domain] for weight, curve in zip(weights, curves, strict=True))
            for domain in curves[0]
        }


def _add_cka(made: Inside, read: dict[ModelId, _Files], seeds: list[str], encoders: list[str]) -> None:
    """CKA within every network, between the encoders of a phase, and of each before with after fine-tuning."""
    import numpy as np

    study = made.study
    for model, files in read.items():
        own, s = encoders.index(model.encoder), seeds.index(model.seeds)
        for phase, grams in files.grams.items():
            for other, others in read.items():
                place = encoders.index(other.encoder)
                if (other.domain, other.seeds) != (model.domain, model.seeds) or place < own:
                    continue
                for other_phase, more in others.grams.items():
                    if other_phase != phase and (place != own or phase == "after"):
                        continue  # across phases only an encoder with itself, and that once
                    found = cka.influence(grams, more)
                    for a, b in np.ndindex(found.shape[:2]):
                        key = Net(own, phase), a, Net(place, other_phase), b
                        values = made.cka.setdefault(key, {})
                        shape = study.weights[model.domain].shape[1:]
                        values.setdefault(model.domain, np.full(shape, np.nan))[:, s] = found[a, b]
                    if (place, other_phase) == (own, phase):
                        cube = made.layers.setdefault(Layer(phase, SIMILARITY, None, None), {}).setdefault(
                            model.domain, np.full((*study.weights[model.domain].shape[1:], len(encoders)), np.nan)
                        )
                        cube[:, s, own] = _between_layers(found)


def _between_layers(found: np.ndarray) -> np.ndarray:
    """The mean CKA of the pairs of different layers, without layer 0, of influence values [L + 1, L + 1, n]: [n]."""
    import numpy as np

    rows, columns = np.triu_indices(len(found), 1)
    chosen = rows > 0
    return found[rows[chosen], columns[chosen]].mean(0) if chosen.any() else np.full(found.shape[-1], np.nan)
