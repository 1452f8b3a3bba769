"""Stage 5, beside the scores: what is inside a model, before and after fine-tuning.

Reads a model, the encoder that it came from, and images of its domain; writes below `5_inside/<model>/`:

    layers.parquet         one row per phase, quantity, layer, head and image (`unmask.internals.catalogue`)
    missingness.parquet    one row per removal, fraction removed, quantity and image; after fine-tuning only
    causes.parquet         one row per factor, quantity, class and image: true and estimated effects of what was planted
                           in the image (`unmask.internals.causes`); after fine-tuning only
    grams.safetensors      Gram matrices [layers, n, n] of the phases' features, for CKA between any two encoders
    pictures.safetensors   of each phase the attention of every head on some images, the leading patch filters, and the
                           features of all images; the labels
    counterfactuals.parquet  one row per removal and image (`unmask.internals.counterfactuals`); after fine-tuning only
    surrogates.parquet     one row per surrogate, removal, image and quantity (`unmask.internals.surrogates`), and what
    surrogates.json        those say that are faithful enough; after fine-tuning only
    dissection.parquet     the IoU of every unit with every known concept, by phase and layer
    tcav.parquet           accuracy, scores and sensitivity of every concept activation vector, and by image how many of
                           a concept's vectors its logit rises along
    factors.parquet        the factors' importance by image, and how well they stand for the activations
    concepts.safetensors   maps of units and factors, activation maximisations, and what the intervals need
                           (`unmask.internals.describe`); what they are of stands in its header

The phase `before` is the network that fine-tuning started from: the pretrained encoder, or its random weights. It is
measured once per encoder and pretraining seed, beside the first fine-tuning seed. What cannot be computed is a row
without image, with the reason.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask import digest, registry
from unmask.config import Config, ModelId
from unmask.domains import NO_FACTORS
from unmask.errors import Skip, UserError
from unmask.files import read_arrays, read_json, read_table, write_arrays, write_table
from unmask.internals import decisions
from unmask.internals.catalogue import SEEN
from unmask.internals.concepts import Concepts
from unmask.layout import Layout
from unmask.sampling import explained
from unmask.seeds import numpy_generator

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from unmask.internals.describe import Options
    from unmask.internals.measure import Found, Labelled
    from unmask.internals.scenes import Scenes
    from unmask.interventions import Factor
    from unmask.models.classifier import Classifier, ConvClassifier

ATTRIBUTION = "input_x_gradient"
HALF = 2  # the place of one half among the fractions removed
LIBRARIES = (
    *("captum", "numpy", "pillow", "scikit-image", "scikit-learn", "scipy"),
    *("threadpoolctl", "timm", "torch", "torchvision"),
)
KINDS = {
    "phase": "category",
    "quantity": "category",
    "layer": "Int16",
    "head": "Int16",
    "removal": "category",
    "fraction": "float64",
    "factor": "category",
    "target": "Int16",
    "image_id": "category",
    "value": "float64",
    "status": "category",
    "reason": "category",
}
LAYERS = ("phase", "quantity", "layer", "head", "image_id", "value", "status", "reason")
MISSINGNESS = ("removal", "fraction", "quantity", "image_id", "value", "status", "reason")
CAUSES = ("factor", "quantity", "target", "image_id", "value", "status", "reason")


def settings(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int) -> dict[str, Any]:
    """All of the config, the code and the libraries that the tables depend on, beside the files read."""
    plugins = [registry.find("explainers", ATTRIBUTION), config.domain(domain)[0], *_removals(config)]
    plugins += [plugin for family in decisions.FAMILIES for plugin in decisions.removals(config, family)]
    folders = config["inside"]["concepts"]
    return {
        "seed": [config["seed"], pretrain_seed, finetune_seed],
        "model": ModelId(domain, encoder, pretrain_seed, finetune_seed).folder,
        "method": config["encoders"][encoder]["method"],
        "before": finetune_seed == config["seeds"]["finetune"][0],
        "inside": config["inside"],
        "folders": {name: digest.listing(folder) for name, folder in folders.items()},
        "plugins": {plugin.id: digest.code(plugin.path) for plugin in plugins},
        "code": digest.code("unmask.inside"),
        "versions": digest.versions(*LIBRARIES),
    }


def run(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int) -> None:
    """Measure one model; raises `UserError` where an input is missing."""
    if domain not in config["domains"] or encoder not in config["encoders"]:
        raise UserError(f"--domain, --encoder: the config has no model {domain} x {encoder}")
    from unmask import subject
    from unmask.device import resolve
    from unmask.internals.describe import DECIDING, describe
    from unmask.internals.measure import measure
    from unmask.passes import counted

    started = time.perf_counter()
    model_id = ModelId(domain, encoder, pretrain_seed, finetune_seed)
    families, device = config["inside"]["what"], resolve(config["device"])
    model, sidecar = subject.load_model(config, model_id, device)
    ids, test, train = _images(config, domain, device)
    card, concepts = read_json(Layout(config.results).domain(domain) / "card.json"), Concepts()
    options = _concept_options(config, domain, card)
    keep = _subsets(config, domain, len(ids), model.grid)
    found: dict[str, Found] = {}
    pictures: dict[str, np.ndarray] = {"labels": test.labels} if "pictures" in families else {}
    spent = {}
    for phase in _phases(config, model_id):
        network = model if phase == "after" else _before(config, model_id, sidecar, device)
        with counted(network) as spent[phase]:
            found[phase] = measure(
                network,
                test,
                families,
                train=train,
                keep=keep[:, HALF, 0],
                maps=attributions(model) if phase == "after" else None,
                neighbours=config["inside"]["neighbours"],
            )
            if found[phase].features is not None:
                pictures |= _pictures(phase, network, test.images[:SEEN], found[phase].features)
            concepts.add(
                describe(
                    network,
                    phase,
                    test,
                    train,
                    found[phase],
                    families if phase == "after" else [name for name in families if name not in DECIDING],
                    classes=card["classes"],
                    ids=ids,
                    rng=partial(numpy_generator, config["seed"], "inside", "concepts", domain),
                    options=options,
                )
            )
            found[phase].tokens.clear()
    with counted(model) as spent["missingness"]:
        missing = removal_rows(_removals(config), model, test, keep, ids) if "missingness" in families else []
    with counted(model) as spent["causes"]:
        caused = cause_rows(_factors(config, domain, ids), model, test, ids) if "causes" in families else []
    folder = Layout(config.results).inside(model_id)
    with counted(model) as spent["decisions"]:
        scenes = _scenes(config, domain, len(ids))
        decisions.write(folder, config, decisions.Subject(model, test.images, ids, scenes), domain)
    write_arrays(
        folder / "grams.safetensors",
        {phase: one.grams for phase, one in found.items() if one.grams is not None},
        {"images": "\n".join(ids)},
    )
    write_arrays(folder / "pictures.safetensors", pictures, {"images": "\n".join(ids[:SEEN])})
    concepts.write(folder)
    write_table(folder / "missingness.parquet", _table(missing, MISSINGNESS))
    write_table(folder / "causes.parquet", _table(caused, CAUSES))
    write_table(folder / "layers.parquet", _table(_layer_rows(found, ids), LAYERS))
    passes = ", ".join(f"{name} {asdict(one)}" for name, one in spent.items())
    print(f"{model_id.folder}: {len(ids)} images, passes {passes}, {time.perf_counter() - started:.1f} s")


def _pictures(
    phase: str, network: Classifier | ConvClassifier, images: torch.Tensor, features: np.ndarray
) -> dict[str, np.ndarray]:
    from unmask.internals.pictures import filters, heads

    made = {f"features_{phase}": features, f"filters_{phase}": filters(network)}
    try:
        return {**made, f"heads_{phase}": heads(network, images)}
    except Skip:  # without attention there is none to be seen
        return made


def _phases(config: Config, model_id: ModelId) -> list[str]:
    first = model_id.finetune_seed == config["seeds"]["finetune"][0]
    return ["before", "after"] if first else ["after"]


def _images(config: Config, domain: str, device: torch.device) -> tuple[list[str], Labelled, Labelled]:
    """Test images with their names, the explained ones first, and training images for the probes."""
    from unmask.internals.cka import LEAST
    from unmask.internals.known import concepts
    from unmask.internals.measure import Labelled, scaled
    from unmask.sampling import choose

    folder = Layout(config.results).domain(domain)
    arrays = {split: read_arrays(folder / f"{split}.safetensors") for split in ("test", "train")}
    labels = {split: one["labels"] for split, one in arrays.items()}
    if len(labels["test"]) < LEAST:
        raise UserError(
            f"{folder / 'test.safetensors'} holds {len(labels['test'])} images; the stage inside needs {LEAST} or more"
        )
    generator = numpy_generator(config["seed"], "inside", "train", domain)
    rows = {
        "test": explained(labels["test"], config["inside"]["images"], config["seed"], domain),
        "train": choose(labels["train"], config["inside"]["train"], generator),
    }
    classes = read_json(folder / "card.json")["classes"]
    parts = {}
    for split, some in rows.items():
        chosen = {name: array[some] for name, array in arrays[split].items()}
        known = concepts(chosen, chosen["labels"], classes)
        parts[split] = Labelled(scaled(chosen["images"], device), chosen["labels"], known)
    ids = read_table(folder / "test.csv")["image_id"].astype(str)
    return ids.iloc[rows["test"]].tolist(), parts["test"], parts["train"]


def _scenes(config: Config, domain: str, count: int) -> Scenes:
    """What is known of the first `count` test images of `_images`."""
    from unmask.internals.scenes import scenes

    folder = Layout(config.results).domain(domain)
    arrays = read_arrays(folder / "test.safetensors")
    rows = explained(arrays["labels"], count, config["seed"], domain)
    return scenes(arrays, rows, read_json(folder / "card.json")["classes"])


def _concept_options(config: Config, domain: str, card: dict[str, Any]) -> Options:
    from unmask.internals.concepts import read_folder
    from unmask.internals.describe import Options
    from unmask.internals.rendered import rendered

    given, size = config["inside"], config["image"]["size"]
    shown = []
    if "concepts" in given["what"]:
        shown = rendered(card, size, partial(numpy_generator, config["seed"], "inside", "shown", domain))
        for name, folder in given["concepts"].items():
            shown.append(read_folder(name, folder, size, f"inside.concepts.{name}"))
    return Options(given["vectors"], given["random_vectors"], given["factors"], given["steps"], shown)


def _before(
    config: Config, model_id: ModelId, sidecar: dict[str, Any], device: torch.device
) -> Classifier | ConvClassifier:
    """The network as fine-tuning found it: the stage draws its weights from this seed, then puts the encoder's in."""
    import torch

    from unmask.models.checkpoint import load_state
    from unmask.models.classifier import build
    from unmask.models.simmim import transfer
    from unmask.seeds import derive

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config["seed"], "finetune", model_id.folder, "weights"))
        model = build(sidecar["architecture"])
    if model_id.encoder in config.pretrained:
        folder = Layout(config.results).encoder(model_id.encoder, model_id.pretrain_seed)
        transfer(load_state(folder / "encoder.safetensors"), model)
    return model.eval().requires_grad_(False).to(device)


def attributions(model: Classifier | ConvClassifier):
    """A function of images [n, 3, H, W]: what the model's own predictions are attributed to, [n, gh, gw], signed."""
    import torch

    from unmask.patches import patch_sum

    explain = registry.find("explainers", ATTRIBUTION).load().explain

    def maps(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            targets = model(images).argmax(1)
        with torch.enable_grad():
            return patch_sum(explain(model, images, targets, generator=None), model.grid)

    return maps


def _subsets(config: Config, domain: str, images: int, grid: tuple[int, int]) -> torch.Tensor:
    """The patches to keep, [N, fractions, repeats, gh, gw]: the same for every model of a domain and every removal."""
    from unmask.internals.missingness import subsets

    generator = numpy_generator(config["seed"], "inside", "subsets", domain)
    return subsets(generator, images, config["inside"]["subsets"], grid)


def _removals(config: Config) -> list[registry.Plugin]:
    """The removals whose missingness is measured, all there are unless `inside.removals` names some."""
    known = registry.available("removals", config.plugins)
    return [known[name] for name in config["inside"]["removals"] or sorted(known)]


def removal_rows(
    plugins: list[registry.Plugin],
    model: Classifier | ConvClassifier,
    test: Labelled,
    keep: torch.Tensor,
    ids: list[str],
) -> list[dict[str, Any]]:
    """The rows of every removal, for subsets to keep [N, fractions, repeats, gh, gw] of which the first keep all.

    A removal that does not apply, or that raises, is a row with the reason.
    """
    import torch

    from unmask import removals
    from unmask.internals import missingness

    labels = None if test.labels is None else torch.from_numpy(test.labels)
    patches = keep.shape[-2] * keep.shape[-1]
    fractions = [count / patches for count in missingness.counts(patches)]
    whole = [one[:, 0] for one in missingness.answers(model, None, test.images, keep[:, 0])]
    rows: list[dict[str, Any]] = []
    for plugin in plugins:
        name = plugin.id
        try:
            removal = removals.bind(plugin, model)
            probabilities, features = missingness.answers(model, removal, test.images, keep[:, 1:].flatten(1, 2))
            found = [missingness.measures(*(one[:, None] for one in whole), *whole, labels)]
            for step in zip(
                *(one.unflatten(1, keep[:, 1:].shape[1:3]).unbind(1) for one in (probabilities, features)), strict=True
            ):
                found.append(missingness.measures(*step, *whole, labels))
            if not all(values.isfinite().all() for step in found for values in step.values()):
                raise ValueError("the model's answers are not finite")
        except UserError:
            raise
        except Skip as reason:
            rows.append({"removal": name, "status": "skipped", "reason": str(reason)})
            continue
        except (Exception, SystemExit) as error:  # a user's removal may raise anything, and must cost no other
            rows.append(
                {
                    "removal": name,
                    "status": "failed",
                    "reason": f"{type(error).__name__}: {' '.join(str(error).split())}",
                }
            )
            continue
        rows += [
            {"removal": name, "fraction": fraction, "quantity": quantity, "image_id": ids, "value": values.numpy()}
            for fraction, step in zip(fractions, found, strict=True)
            for quantity, values in step.items()
        ]
    return rows


def _factors(config: Config, domain: str, ids: list[str]) -> dict[str, Factor]:
    """What can be changed in the images of these names, by factor."""
    import pandas as pd

    from unmask import interventions

    folder = Layout(config.results).domain(domain)
    names = read_table(folder / "test.csv")["image_id"].astype(str)
    return interventions.choose(
        interventions.read(folder / "interventions.safetensors"), pd.Index(names).get_indexer(ids).tolist()
    )


def cause_rows(
    factors: dict[str, Factor], model: Classifier | ConvClassifier, test: Labelled, ids: list[str]
) -> list[dict[str, Any]]:
    """The effects of the factors on the answers to the test images; where there is none, a row with the reason."""
    import numpy as np

    from unmask.internals import causes

    if not factors:
        return [{"status": "skipped", "reason": NO_FACTORS}]
    try:
        given = causes.answers(model, test.images, factors)
        if not all(np.isfinite(one).all() for one in (given.whole, *given.changed.values())):
            return [{"status": "failed", "reason": "the model's answers are not finite"}]
        estimated, missing = causes.causal_model(given, factors)
    except Exception as error:  # of linear algebra, say; it must cost no other family
        return [{"status": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())}"}]
    rows = [
        {
            "factor": one.factor,
            "quantity": one.quantity,
            "target": one.target,
            "image_id": [name for name, value in zip(ids, one.values, strict=True) if not np.isnan(value)],
            "value": one.values[~np.isnan(one.values)],
        }
        for one in [*causes.true_effects(given, factors), *estimated]
    ]
    skipped = {"status": "skipped"}
    rows += [
        {"factor": name, **skipped, "reason": "none of the images has it"}
        for name in factors
        if name not in given.changed
    ]
    rows += [
        {"factor": name, "quantity": "estimated_effect", "target": target, **skipped, "reason": reason}
        for name, target, reason in missing
    ]
    return rows


def _layer_rows(found: dict[str, Found], ids: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for phase, one in found.items():
        rows += [{"phase": phase, **asdict(block), "image_id": ids, "value": block.values} for block in one.blocks]
        rows += [
            {"phase": phase, "quantity": name, "status": status, "reason": reason}
            for name, (status, reason) in one.missing.items()
        ]
    return rows


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Rows that hold lists of images and values, one under another, of fixed types."""
    import numpy as np
    import pandas as pd

    sizes = [len(row["image_id"]) if "image_id" in row else 1 for row in rows]
    made = {}
    for name in columns:
        if name in ("image_id", "value"):
            nothing = [None] if name == "image_id" else [np.nan]
            values = [value for row in rows for value in row.get(name, nothing)]
        else:
            default = "ok" if name == "status" else None
            values = [row.get(name, default) for row, size in zip(rows, sizes, strict=True) for _ in range(size)]
        made[name] = pd.Series(values, dtype=object)
    return pd.DataFrame(made, columns=list(columns)).astype({name: KINDS[name] for name in columns})
