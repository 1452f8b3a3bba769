"""What an encoder of the config can be: the methods, the keys that each takes, and mask ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmask.errors import UserError

Spec = dict[str, Any]  # an entry of the section `encoders`


@dataclass(frozen=True)
class Method:
    """The keys that a method must be given, and the defaults of those that it may be given."""

    needs: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = True


WINDOW = 47  # pixels a side, in which SimMIM's official code normalises targets
_TARGET = {"target": "pixels", "target_window": WINDOW}
METHODS = {
    "simmim": Method(("mask_ratio",), _TARGET),
    "simmim_siamese": Method(("mask_ratio",), {**_TARGET, "temperature": 0.2, "contrast_weight": 0.1}),
    "mae": Method(
        ("mask_ratio",), {"decoder_width": 64, "decoder_depth": 2, "decoder_heads": 2, "target": "normalised"}
    ),
    "supervised": Method(),
    "imported": Method(("weights", "architecture"), {"pooling": None, "mask_ratio": None, "mask_cell": None}),
    "scratch": Method(pretrained=False),
    "resnet18": Method(pretrained=False),
}
UNTRAINED = tuple(name for name, method in METHODS.items() if not method.pretrained)
MASKED = tuple(name for name, method in METHODS.items() if "mask_ratio" in method.needs)
TOKEN = ("simmim", "simmim_siamese")  # a mask token goes through the encoder in pretraining
MISSING = "missing"  # the one key that every method takes: it is of fine-tuning
_GIVE = {
    "mask_ratio": "a share between 0 and 1, such as 0.6, or a range, such as [0.2, 0.8]",
    "weights": "the file with the weights, .safetensors or .pth",
    "architecture": "the name of a timm model, such as vit_small_patch16_224, or simmim_vit",
}


def masked_cells(cells: int, ratio: float) -> int:
    """How many of `cells` a nominal ratio masks: `ceil(cells * ratio)`, as in SimMIM's generator."""
    return math.ceil(cells * ratio)


def effective_ratio(cells: int, ratio: float | list[float]) -> float:
    """The share of `cells` that is masked; of a ratio drawn uniformly from a range, the exact mean of that share.

    The mean of `ceil(cells * u)` is the sum over its values, each weighted by the part of the range that has it.
    """
    if not isinstance(ratio, list):
        return masked_cells(cells, ratio) / cells
    low, high = (cells * one for one in ratio)
    counts = range(masked_cells(cells, ratio[0]), masked_cells(cells, ratio[1]) + 1)
    return sum(count * max(0.0, min(high, count) - max(low, count - 1)) for count in counts) / (high - low) / cells


def pretraining(spec: Spec) -> Spec:
    """What of an entry decides its pretraining."""
    return {key: value for key, value in spec.items() if key != MISSING}


def unit(spec: Spec, patch: int, cell: int) -> int:
    """Pixels a side of what is masked at once: SimMIM's cells, MAE's patches, of an import what its entry says."""
    return patch if spec["method"] == "mae" else spec.get("mask_cell", cell)


def fill(encoders: dict[str, Spec]) -> None:
    """Put the defaults of each method in; one that is None stands for a key that may be left out."""
    for spec in encoders.values():
        for key, value in METHODS[spec["method"]].defaults.items():
            if value is not None:
                spec.setdefault(key, value)


def condition(spec: Spec) -> str:
    """The method, and how patches are missing in fine-tuning where the entry says so: with that it is another one."""
    asked = spec.get(MISSING, "none")
    return spec["method"] if asked == "none" else f"{spec['method']} {MISSING}={asked}"


def series(spec: Spec) -> str | None:
    """What an encoder is one dose of: encoders of one series differ in a fixed mask ratio alone. None where in none."""
    if isinstance(spec.get("mask_ratio"), list) or spec["method"] not in MASKED:
        return None
    own = {key: spec[key] for key, value in METHODS[spec["method"]].defaults.items() if spec[key] != value}
    if spec.get(MISSING, "none") != "none":
        own[MISSING] = spec[MISSING]
    return " ".join([spec["method"], *(f"{key}={value}" for key, value in own.items())])


def check(
    encoders: Mapping[str, Spec], *, size: int, patch: int, cell: int, width: int, missing: str | None = None
) -> None:
    """Hold every entry to its method; raises `UserError` naming the first mistake.

    `missing` is how patches are removed in fine-tuning where an entry does not say it.
    """
    seen: dict[str, str] = {}
    for name, spec in encoders.items():
        where = f"encoders.{name}"
        _check_keys(where, spec)
        _check_missing(name, spec, missing)
        if "target_window" in spec:
            _check_window(where, spec)
        if "mask_cell" in spec:
            _check_cell(f"{where}.mask_cell", spec, size, patch)
        if "mask_ratio" in spec:
            side = unit(spec, patch, cell)
            _check_ratio(f"{where}.mask_ratio", spec["mask_ratio"], (size // side) ** 2)
            _check_alone(where, name, spec, (size // side) ** 2, seen)
        if spec["method"] == "mae":
            _check_decoder(where, spec, width)
        if spec["method"] == "imported" and not Path(spec["weights"]).is_file():
            raise UserError(f"{where}.weights: the file '{spec['weights']}' does not exist; give {_GIVE['weights']}")


def check_weights(encoders: Mapping[str, Spec], image: Mapping[str, int]) -> None:
    """Whether the weights to import fit their architectures; raises `UserError` naming the first that do not.

    It reads them and loads torch, so it is asked once, before a run.
    """
    for name, spec in encoders.items():
        if spec["method"] == "imported":
            from unmask.models import imported

            imported.check(f"encoders.{name}", spec, image)


def _check_keys(where: str, spec: Spec) -> None:
    method = METHODS[spec["method"]]
    for key in method.needs:
        if key not in spec:
            raise UserError(f"{where}: the key '{key}' is missing; give {_GIVE[key]}")
    for key in spec:
        if key not in ("method", MISSING) and key not in (*method.needs, *method.defaults):
            if key == "mask_ratio" and not method.pretrained:
                raise UserError(f"{where}.{key}: an encoder trained from scratch has no mask; remove the key")
            owners = [name for name, one in METHODS.items() if key in (*one.needs, *one.defaults)]
            raise UserError(
                f"{where}.{key}: it belongs to {' and '.join(owners)}, not to {spec['method']}; remove the key"
            )


def _check_window(where: str, spec: Spec) -> None:
    window = spec["target_window"]
    if window % 2 == 0:
        raise UserError(
            f"{where}.target_window: {window} has no middle pixel; give an odd number, such as {window + 1}"
        )
    if window != WINDOW and spec["target"] == "pixels":
        raise UserError(f"{where}.target_window: it goes with normalised targets; add target: normalised, or remove it")


def _check_cell(where: str, spec: Spec, size: int, patch: int) -> None:
    cell = spec["mask_cell"]
    if "mask_ratio" not in spec:
        raise UserError(f"{where}: it goes with a mask ratio; give the key 'mask_ratio', too, or remove this one")
    if cell % patch or size % cell:
        raise UserError(f"{where}: {cell} is not a multiple of image.patch {patch} that divides image.size {size}")


def _check_missing(name: str, spec: Spec, missing: str | None) -> None:
    """Whether the encoder has what is to stand for missing patches; of imports only the weights tell."""
    asked, method = spec.get(MISSING, missing), spec["method"]
    key = f"encoders.{name}.{MISSING}" if MISSING in spec else f"finetune.{MISSING}"
    right = f"use native, which is each encoder's own, or set encoders.{name}.{MISSING} to another"
    if asked == "mask_token" and method not in (*TOKEN, "imported"):
        raise UserError(
            f"{key}: mask_token asks for a token that went through the encoder in pretraining, and no {method} "
            f"encoder, such as {name}, has one; {right}"
        )
    if asked == "token_drop" and method == "resnet18":
        raise UserError(f"{key}: token_drop asks for a transformer, and {name} is a resnet18; {right}")


def _check_ratio(where: str, ratio: float | list[float], cells: int) -> None:
    most = f"the largest possible is {math.floor((cells - 1) / cells * 1000) / 1000}"
    rounded = f"masks all {cells} cells of an image, since cells are rounded up; {most}"
    if not isinstance(ratio, list):
        if masked_cells(cells, ratio) == cells:
            raise UserError(f"{where}: {ratio} {rounded}")
        return
    if len(ratio) != 2 or not 0 < ratio[0] < ratio[1] < 1:
        raise UserError(f"{where}: {ratio} is not a range of ratios; give two between 0 and 1, the smaller one first")
    if masked_cells(cells, ratio[1]) == cells:
        raise UserError(f"{where}: {ratio[1]} {rounded}")
    if masked_cells(cells, ratio[0]) == masked_cells(cells, ratio[1]):
        raise UserError(
            f"{where}: every ratio in {ratio} masks {masked_cells(cells, ratio[0])} of {cells} cells; give a wider "
            f"range, or the one ratio {ratio[0]}"
        )


def _check_alone(where: str, name: str, spec: Spec, cells: int, seen: dict[str, str]) -> None:
    """Two encoders that are masked alike and differ in nothing else are one."""
    ratio = spec["mask_ratio"]
    masked = f"the range {ratio}" if isinstance(ratio, list) else f"{effective_ratio(cells, ratio):.4g}"
    key = repr(sorted({**spec, "mask_ratio": masked}.items()))
    other = seen.setdefault(key, name)
    if other == name:
        return
    if isinstance(ratio, list):
        raise UserError(f"{where}.mask_ratio: encoders.{other} draws from {masked}, too; remove one of them")
    raise UserError(
        f"{where}.mask_ratio: {ratio} has the effective ratio {masked} (of {cells} cells), "
        f"the same as encoders.{other}; choose ratios that differ by {1 / cells:.4g} or more"
    )


def _check_decoder(where: str, spec: Spec, width: int) -> None:
    given = spec["decoder_width"]
    for key, value in (("model.width", width), (f"{where}.decoder_width", given)):
        if value % 4:
            raise UserError(
                f"{key}: {value} is not a multiple of 4, which MAE's positions need; try {max(4, value // 4 * 4)}"
            )
    if given % spec["decoder_heads"]:
        raise UserError(f"{where}.decoder_width: {given} is not a multiple of decoder_heads {spec['decoder_heads']}")
