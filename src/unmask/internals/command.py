"""`unmask inside`: the stage for a model of the config, or with `--model` any checkpoint, without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import registry, seeds
from unmask.config import ModelId, load
from unmask.encoders import MASKED
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, write_json, write_table
from unmask.internals import apart, decisions
from unmask.internals.catalogue import CAUSES, FAMILIES, MISSINGNESS, QUANTITIES
from unmask.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from unmask.internals.measure import Found, Labelled
    from unmask.internals.scenes import Scenes
    from unmask.interventions import Factor
    from unmask.models.classifier import Classifier, ConvClassifier

RESAMPLES, CONFIDENCE, NEIGHBOURS = 2000, 0.95, 20
NOTHING = "an encoder makes no decisions before it is fine-tuned"


def run(
    *,
    config_file: str,
    domain: str | None = None,
    encoder: str | None = None,
    pretrain_seed: int = 0,
    finetune_seed: int = 0,
    model: str | None = None,
    architecture: str | None = None,
    size: int | None = None,
    images: str | None = None,
    what: Sequence[str] | None = None,
    concepts: Sequence[str] | None = None,
    most: int = 100,
    output: str | None = None,
    device: str = "auto",
) -> None:
    """The stage, or a table of one checkpoint; raises `UserError` where neither or both are asked for."""
    if model is None:
        if domain is None or encoder is None:
            raise UserError("--domain, --encoder: name a model of the config, or give a checkpoint with --model")
        if images or what or concepts or output or architecture or size:
            raise UserError(
                "--architecture, --size, --images, --what, --concepts, --output: these go with --model; in the config "
                "it is the section inside"
            )
        from unmask import inside

        inside.run(
            load(config_file), domain=domain, encoder=encoder, pretrain_seed=pretrain_seed, finetune_seed=finetune_seed
        )
        return
    if domain or encoder:
        raise UserError("--model: it stands alone; leave --domain and --encoder out")
    if size and not architecture:
        raise UserError("--size: a side-car says it; give it with --architecture, or leave it out")
    given = (architecture, size) if architecture else None
    checkpoint(Path(model), given, images, _families(what), _folders(concepts), most, output, device)


def checkpoint(
    path: Path,
    architecture: tuple[str, int | None] | None,
    images: str | None,
    families: list[str],
    folders: dict[str, str],
    most: int,
    output: str | None,
    device: str,
) -> None:
    """Measure one checkpoint, print the means, and write them with intervals where `output` names a folder."""
    from unmask import inside
    from unmask.device import resolve
    from unmask.internals import alone, missingness
    from unmask.internals.concepts import read_folder
    from unmask.internals.describe import Options, describe
    from unmask.internals.measure import Labelled, measure
    from unmask.internals.rendered import rendered

    where = resolve(device)
    results = None if architecture else _results(path)
    network, classes, size = _foreign(path, *architecture, where) if architecture else _network(path, results, where)
    found = _images(results, images, classes, size, most, where)
    own = [read_folder(name, folder, size, f"--concepts {name}") for name, folder in folders.items()]
    if results and images is None and "concepts" in families:
        card = read_json(results[0].domain(results[1].domain) / "card.json")
        own += rendered(card, size, partial(seeds.numpy_generator, 0, "inside", "shown"))
    generator = seeds.numpy_generator(0, "inside", "subsets", found.place)
    keep = missingness.subsets(generator, len(found.names), 1, network.grid)
    decides = classes is not None
    # Elsewhere the images themselves are what the user's concepts are held against.
    train = found.train or (Labelled(found.test.images, None) if own else None)
    layers = measure(
        network,
        found.test,
        families,
        train=train,
        keep=keep[:, inside.HALF, 0],
        maps=inside.attributions(network) if decides else None,
        neighbours=NEIGHBOURS,
    )
    curves: list[dict[str, Any]] = []
    if "missingness" in families and decides:
        known = registry.available("removals")
        curves = inside.removal_rows([known[name] for name in sorted(known)], network, found.test, keep, found.names)
    caused: list[dict[str, Any]] = []
    if "causes" in families and decides:
        caused = inside.cause_rows(found.factors, network, found.test, found.names)
    tables = {"layers": _layers(layers), "missingness": _curves(curves)}
    tables["causes"] = _causes(caused, found.names, classes)
    if "cka" in families and layers.grams is not None:
        tables["cka"] = _similarity(layers.grams)
    contents: list[dict[str, Any]] = []
    if decides:
        subject = decisions.Subject(network, found.test.images, found.names, found.scenes)
        if "counterfactuals" in families:
            made, gone = apart.counterfactuals(subject, _bounded)
            tables, curves = tables | made, curves + gone
        if "surrogates" in families:
            made, gone, contents = apart.surrogates(subject, found.place, _bounded)
            tables, curves = tables | made, curves + gone
    described = describe(
        network,
        "after" if decides else "before",
        found.test,
        train,
        layers,
        families,
        classes=classes,
        ids=found.names,
        rng=partial(seeds.numpy_generator, 0, "inside", "concepts"),
        options=Options(shown=own),
    )
    about_concepts = alone.tables(described, families, found.names, RESAMPLES, CONFIDENCE)
    print(f"{path}: {len(found.names)} images of {found.place}")
    _show(tables)
    if contents:
        print(apart.said(contents, classes, network.grid[1]), end="\n\n")
    alone.show(about_concepts)
    notes = {f"{name.replace('_', ' ')} {status}: {why}" for name, (status, why) in layers.missing.items()}
    notes |= {f"{row['removal']} {row['status']}: {row['reason']}" for row in curves if "status" in row}
    notes |= {
        " ".join(("causes", *filter(None, [row.get("factor")]), row["status"])) + f": {row['reason']}"
        for row in caused
        if "status" in row and "quantity" not in row
    }
    if not decides:
        notes |= {
            f"{name} skipped: {NOTHING}" for name in ("missingness", "causes", *decisions.FAMILIES) if name in families
        }
    print(*sorted(notes | alone.notes(about_concepts, described)), sep="\n")
    if output:
        for name, table in (tables | about_concepts).items():
            write_table(Path(output) / f"{name}.csv", table)
        if contents:
            write_json(Path(output) / "surrogates.json", {"surrogates": contents})
        print(f"with intervals: {output}/", *alone.draw(described, Path(output)))


def _families(what: Sequence[str] | None) -> list[str]:
    """The families that `--what` names, separated by commas or spaces; pictures are the report's."""
    known = [name for name in FAMILIES if name != "pictures"]
    names = [name for part in what or known for name in part.split(",") if name]
    for name in names:
        if name not in known:
            raise UserError(f"--what: unknown '{name}'; {registry.suggest(name, known)}")
    return names


def _folders(concepts: Sequence[str] | None) -> dict[str, str]:
    """The user's concepts, each given as name=folder."""
    from unmask.internals.concepts import files

    found = {}
    for given in concepts or ():
        name, equals, folder = given.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--concepts: '{given}' is not a name and a folder; write it as striped=path/to/images")
        files(folder, f"--concepts {name}")
        found[name] = folder
    return found


def _results(path: Path) -> tuple[Layout, ModelId] | None:
    """The results folder that a fine-tuned model lies in, and which model of it that is; None for any other file."""
    if not path.is_file():
        raise UserError(f"--model: '{path}' does not exist; give a model.safetensors or an encoder.safetensors")
    if not path.with_suffix(".json").is_file():
        raise UserError(
            f"--model: '{path}' has no side-car {path.with_suffix('.json').name} beside it; for weights of another "
            "code give --architecture"
        )
    sidecar = read_json(path.with_suffix(".json"))
    if not isinstance(sidecar, dict) or not isinstance(sidecar.get("architecture"), dict):
        raise UserError(
            f"--model: {path.with_suffix('.json')} does not describe a model: it lacks an 'architecture'; for weights "
            "of another code give --architecture"
        )
    try:
        who = ModelId(*(sidecar[key] for key in ("domain", "encoder", "pretrain_seed", "finetune_seed")))
    except KeyError:
        return None
    layouts = (layout for layout in map(Layout, path.resolve().parents) if layout.model(who) == path.resolve().parent)
    return next(((layout, who) for layout in layouts), None)


def _foreign(
    path: Path, architecture: str, size: int | None, device: torch.device
) -> tuple[Classifier | ConvClassifier, list[str] | None, int]:
    """As `_network`, of weights that another code saved."""
    from unmask.models import imported

    network, count, size = imported.alone(path, architecture, size)
    return network.to(device), [str(number) for number in range(count)] if count else None, size


def _network(
    path: Path, results: tuple[Layout, ModelId] | None, device: torch.device
) -> tuple[Classifier | ConvClassifier, list[str] | None, int]:
    """A fine-tuned model and its classes, or a pretrained encoder and None; and the size of its images."""
    from unmask.models.checkpoint import load_classifier, load_encoder

    sidecar = read_json(path.with_suffix(".json"))
    count, size = (sidecar["architecture"].get(key) for key in ("classes", "size"))
    if not count:
        return load_encoder(path, device), None, size
    encoder = None
    if results and sidecar.get("encoder_sha256") and sidecar.get("method", "simmim") in MASKED:
        layout, who = results
        encoder = layout.encoder(who.encoder, who.pretrain_seed) / "encoder.safetensors"
    network, _ = load_classifier(path, device, encoder if encoder and encoder.is_file() else None)
    return network, sidecar.get("classes") or [str(number) for number in range(count)], size


@dataclass(frozen=True)
class _Given:
    """Images with their names and what can be changed in them, where they are from, and training images where there
    are some."""

    place: str
    names: list[str]
    test: Labelled
    train: Labelled | None
    scenes: Scenes
    factors: dict[str, Factor]


def _images(
    results: tuple[Layout, ModelId] | None,
    images: str | None,
    classes: list[str] | None,
    size: int,
    most: int,
    device: torch.device,
) -> _Given:
    from unmask.internals.cka import LEAST
    from unmask.internals.known import concepts
    from unmask.internals.measure import Labelled, scaled
    from unmask.internals.scenes import Scenes, scenes

    splits = _splits(results) if images is None else {}
    if splits:
        arrays = {split: read_arrays(file) for split, file in splits.items()}
        place, names = str(splits["test"]), [str(i) for i in range(len(arrays["test"]["images"]))]
        pixels, labels = arrays["test"]["images"], arrays["test"]["labels"]
    elif images is None:
        raise UserError(
            "--images: name a folder of images; this checkpoint lies in no results folder with a test split"
        )
    else:
        place, arrays = images, {}
        names, pixels, labels = _read(Path(images), classes, size)
    if min(len(pixels), most) < LEAST:
        raise UserError(f"--images, --most: {min(len(pixels), most)} images of {place}; {LEAST} or more are needed")
    rows = seeds.numpy_generator(0, "inside", "images", place if images else "test").permutation(len(pixels))[:most]
    test = Labelled(scaled(pixels[rows], device), None if labels is None else labels[rows])
    train = None
    if arrays:
        taken = {
            split: {name: array[some] for name, array in arrays[split].items()}
            for split, some in (("test", rows), ("train", slice(1000)))
        }
        test, train = (
            Labelled(scaled(one["images"], device), one["labels"], concepts(one, one["labels"], classes or []))
            for one in taken.values()
        )
    known = scenes(arrays["test"], rows, classes or []) if splits else Scenes(pixels[rows], test.labels, classes or [])
    changed = _factors(results, rows.tolist()) if splits else {}
    return _Given(place, [names[row] for row in rows], test, train, known, changed)


def _splits(results: tuple[Layout, ModelId] | None) -> dict[str, Path]:
    """The test and the training split of a model's domain, where both are there."""
    if results is None:
        return {}
    layout, who = results
    splits = {split: layout.domain(who.domain) / f"{split}.safetensors" for split in ("test", "train")}
    return splits if all(file.is_file() for file in splits.values()) else {}


def _factors(results: tuple[Layout, ModelId], rows: list[int]) -> dict[str, Factor]:
    """What can be changed in images `rows` of the test split of a model's domain."""
    from unmask import interventions

    layout, who = results
    path = layout.domain(who.domain) / "interventions.safetensors"
    return interventions.choose(interventions.read(path), rows) if path.is_file() else {}


def _read(folder: Path, classes: list[str] | None, size: int) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """A folder's images by name, and labels where every image lies in a subfolder that is named after a class."""
    import numpy as np

    from unmask.domains._reading import SUFFIXES, Reader, visible

    if not folder.is_dir():
        raise UserError(f"--images: the folder '{folder}' does not exist; give the folder that holds the images")
    found = [file for file in visible(folder) if file.is_file() and file.suffix.lower() in SUFFIXES]
    found += [
        file
        for part in visible(folder)
        if part.is_dir()
        for file in visible(part)
        if file.is_file() and file.suffix.lower() in SUFFIXES
    ]
    reader = Reader(size)
    for file in found:
        reader.add(file)
    names = [str(file.relative_to(folder)) for file in found]
    if not classes or not all(file.parent.name in classes for file in found):
        return names, reader.images(), None
    return names, reader.images(), np.array([classes.index(file.parent.name) for file in found])


def _bounded(values: list[np.ndarray]) -> list[dict[str, float]]:
    """Mean and interval over the images of each of some values [N]."""
    import numpy as np

    from unmask.statistics.bootstrap import Draws, counts, sums

    if not values:
        return []
    stacked = np.stack(values, 1)
    images = len(stacked)
    weights = counts(seeds.numpy_generator(0, "inside", "bootstrap"), images, RESAMPLES)
    found = sums(Draws(weights, np.arange(images), np.zeros((0, images))), stacked)
    bounds = found.interval(CONFIDENCE)
    return [
        {"value": value, "low": low, "high": high, "n": n}
        for value, low, high, n in zip(
            found.mean.tolist(), *(one.tolist() for one in bounds), found.images.tolist(), strict=True
        )
    ]


def _layers(found: Found) -> pd.DataFrame:
    import pandas as pd

    named = [
        {"quantity": block.quantity, "unit": QUANTITIES[block.quantity].unit, "layer": block.layer, "head": block.head}
        for block in found.blocks
    ]
    bounds = _bounded([block.values for block in found.blocks])
    columns = ["quantity", "unit", "layer", "head", "value", "low", "high", "n"]
    table = pd.DataFrame([{**one, **other} for one, other in zip(named, bounds, strict=True)], columns=columns)
    return table.astype({"head": "Int64"})


def _curves(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    known = [row for row in rows if "value" in row]
    named = [
        {
            "quantity": row["quantity"],
            "unit": MISSINGNESS[row["quantity"]].unit,
            "removal": row["removal"],
            "fraction": row["fraction"],
        }
        for row in known
    ]
    bounds = _bounded([row["value"] for row in known])
    columns = ["quantity", "unit", "removal", "fraction", "value", "low", "high", "n"]
    return pd.DataFrame([{**one, **other} for one, other in zip(named, bounds, strict=True)], columns=columns)


def _causes(rows: list[dict[str, Any]], names: list[str], classes: list[str] | None) -> pd.DataFrame:
    """Effects on the predicted class, then true and estimated ones on the logit of each class."""
    import numpy as np
    import pandas as pd

    known = [row for row in rows if "value" in row]
    values, places = [], {name: place for place, name in enumerate(names)}
    for row in known:
        values.append(np.full(len(names), np.nan))
        values[-1][[places[name] for name in row["image_id"]]] = row["value"]
    named = [
        {
            "factor": row["factor"],
            "quantity": row["quantity"],
            "unit": CAUSES[row["quantity"]].unit if row["quantity"] in CAUSES else "logit",
            "class": None if row["target"] is None else classes[row["target"]],
        }
        for row in known
    ]
    columns = ["factor", "quantity", "unit", "class", "value", "low", "high", "n"]
    return pd.DataFrame([{**one, **other} for one, other in zip(named, _bounded(values), strict=True)], columns=columns)


def _similarity(grams: np.ndarray) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    from unmask.internals import cka

    found = cka.influence(grams, grams)
    pairs = list(np.ndindex(found.shape[:2]))
    bounds = _bounded([found[pair] for pair in pairs])
    named = [{"layer_a": a, "layer_b": b} for a, b in pairs]
    return pd.DataFrame([{**one, **other} for one, other in zip(named, bounds, strict=True)])


def _show(tables: dict[str, pd.DataFrame]) -> None:
    """Means over heads by layer, curves by removal, effects by factor, CKA as a matrix."""
    shapes = {
        "layers": ("quantity", "layer"),
        "missingness": (["quantity", "removal"], "fraction"),
        "causes": ("factor", "quantity"),
        "cka": ("layer_a", "layer_b"),
        "counterfactuals": (["quantity", "patches", "class"], "removal"),
        "surrogates": (["of", "surrogate", "removal"], "quantity"),
    }
    for name in (name for name in tables if name in shapes):
        table = tables[name]
        rows = table[table["head"].isna()] if "head" in table else table
        rows = rows[rows["class"].isna()] if "class" in rows else rows
        if len(rows):
            index, columns = shapes[name]
            for key in index if isinstance(index, list) else []:  # what a row does not have is no number
                rows = rows.assign(**{key: rows[key].astype(object).where(rows[key].notna(), "")})
            wide = rows.pivot(index=index, columns=columns, values="value")
            text = wide.to_string(float_format="{:.3f}".format, na_rep="")
            print(f"\n{name}: means over the images\n{text}")
    print()
