"""Single decisions of a fine-tuned model, taken apart patch by patch: what the stage `inside` measures of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import registry
from unmask.errors import Skip
from unmask.files import write_json, write_table
from unmask.internals.flipping import Limits
from unmask.seeds import numpy_generator

if TYPE_CHECKING:
    import numpy as np
    import torch

    from unmask.config import Config
    from unmask.internals.scenes import Scenes
    from unmask.models.classifier import Classifier, ConvClassifier

FAMILIES = ("counterfactuals", "surrogates")


@dataclass(frozen=True)
class Subject:
    """A model and its images, float32 [N, 3, H, W] in [0, 1], by name, with what is known of them."""

    model: Classifier | ConvClassifier
    images: torch.Tensor
    ids: list[str]
    scenes: Scenes


def removals(config: Config, family: str) -> list[registry.Plugin]:
    """The removals that a family is measured under."""
    known = registry.available("removals", config.plugins)
    return [known[name] for name in config["inside"][family]["removals"]]


def write(folder: Path, config: Config, subject: Subject, domain: str) -> None:
    """Write `counterfactuals.parquet`, `surrogates.parquet` and `.json`; empty where the config asks for none."""
    from unmask.internals import counterfactuals as sets
    from unmask.internals import surrogates as stand_ins
    from unmask.internals.removed import frame

    given, known = config["inside"], registry.available("removals", config.plugins)
    found = counterfactuals(given, known, subject) if "counterfactuals" in given["what"] else []
    write_table(folder / "counterfactuals.parquet", frame(found, sets.COLUMNS))
    asked = "surrogates" in given["what"]
    rows, contents = surrogates(given, known, subject, config["seed"], domain) if asked else ([], [])
    write_json(folder / "surrogates.json", {"surrogates": contents})
    write_table(folder / "surrogates.parquet", frame(rows, stand_ins.COLUMNS))


def counterfactuals(
    inside: dict[str, Any], known: Mapping[str, registry.Plugin], subject: Subject
) -> list[dict[str, Any]]:
    """The rows of `counterfactuals.parquet`, from the config's section `inside` and the removals there are."""
    from unmask.internals.counterfactuals import counterfactual_rows

    given = inside["counterfactuals"]
    some, masks = slice(given["images"]), subject.scenes.masks
    return counterfactual_rows(
        [known[name] for name in given["removals"]],
        subject.model,
        subject.images[some],
        subject.ids[some],
        None if masks is None else masks[some],
        limits(given),
    )


def surrogates(
    inside: dict[str, Any], known: Mapping[str, registry.Plugin], subject: Subject, seed: int, domain: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of `surrogates.parquet` and what stands in `surrogates.json`; `domain` names the draws."""
    from unmask.internals.surrogates import patch_rows, subsets

    given, model = inside["surrogates"], subject.model
    some, count = slice(given["images"]), given["fitting"] + given["held_out"]
    generator = numpy_generator(seed, "inside", "surrogates", domain)
    present = subsets(generator, len(subject.ids[some]), count, model.grid[0] * model.grid[1])
    rows, contents = patch_rows(
        [known[name] for name in given["removals"]], model, subject.images[some], subject.ids[some], present, given
    )
    more, said = _of_concepts(given, subject, numpy_generator(seed, "inside", "folds", domain))
    return rows + more, contents + said


def _of_concepts(
    given: dict[str, Any], subject: Subject, generator: np.random.Generator
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Surrogates on what is known of the images; without it, or without more than one decision, the reason."""
    from unmask.internals.concept_surrogates import concept_rows, concepts
    from unmask.internals.removed import decisions

    classes = subject.scenes.classes
    try:
        names, values = concepts(subject.scenes)
        decided = decisions(subject.model, subject.images)
        return concept_rows(names, values, decided, subject.ids, classes, generator, given)
    except Skip as reason:
        return [{"of": "concepts", "status": "skipped", "reason": str(reason)}], []


def limits(given: dict[str, Any]) -> Limits:
    """How far to search, from the section `inside.counterfactuals`."""
    return Limits(given["largest"], given["candidates"], given["refinements"], given["exhaustive"])
