"""What a plug-in says of itself: its META, its file's name and the arguments it takes."""

from __future__ import annotations

import inspect
from math import inf
from typing import Any

from unmask import explainers, passes, registry
from unmask.config import SCHEMA
from unmask.contract.breach import Breach
from unmask.contract.trial import kinds
from unmask.models.classifier import ARCHITECTURES
from unmask.registry import Plugin

ROUNDING = 1e-6  # by which a score may lie beyond its metric's bounds
TYPES = {
    "kind": str,
    "summary": str,
    "family": str,
    "class_specific": bool,
    "signed": bool,
    "resolution": str,
    "architectures": list,
    "poolings": list,
    "draws": bool,
    "passes": dict,
    "options": dict,
    "ranges": dict,
    "choices": dict,
    "removal": str,
    "needs": list,
    "citation": str,
}


def describes_itself(plugin: Plugin, plugins: Any = ()) -> None:
    """META is complete, and each entry is of the right type."""
    has_the_keys(plugin, TYPES)
    meta = plugin.meta
    for key, what in (
        ("summary", "the file's docstring"),
        ("family", "META['family']"),
        ("citation", "META['citation']"),
    ):
        if not meta[key].strip():
            raise Breach(f"{what} is empty; tables show it, so write one line")
    one_of(meta["resolution"], "resolution", ("pixel", "patch"))
    for key, known in (("poolings", ("avg", "token")), ("needs", explainers.NEEDS)):
        for value in meta.get(key, []):
            one_of(value, key, known)
    names_a_network(plugin)
    if "removal" in meta:
        one_of(meta["removal"], "removal", tuple(registry.available("removals", plugins)))
    options_fit(plugin)
    formulas_count(plugin, ("forward", "backward"))


def has_the_keys(plugin: Plugin, types: dict[str, type]) -> None:
    """META has no keys but these, each of its type."""
    for key, value in plugin.meta.items():
        if key not in types:
            raise Breach(f"META has the unknown key '{key}'; {registry.suggest(key, types)}")
        if not isinstance(value, types[key]):
            raise Breach(f"META['{key}'] is {value!r}; it must be of type {types[key].__name__}")


def names_a_network(plugin: Plugin) -> None:
    """META says for which architectures it is."""
    for value in plugin.meta["architectures"]:
        one_of(value, "architectures", tuple(ARCHITECTURES))
    if not kinds(plugin):
        raise Breach(f"META['architectures'] names no network; name some of {', '.join(ARCHITECTURES)}")


def one_of(value: Any, key: str, known: tuple[str, ...]) -> None:
    """Raise `Breach` where an entry of META is none of the known ones."""
    if value not in known:
        raise Breach(f"META['{key}'] has {value!r}; it may have {' or '.join(map(repr, known))}")


def options_fit(plugin: Plugin) -> None:
    """The options' defaults lie in their ranges and choices."""
    for key in ("ranges", "choices"):
        for name, limits in plugin.meta.get(key, {}).items():
            if name not in plugin.options:
                raise Breach(
                    f"META['{key}'] has '{name}', which is no option; {registry.suggest(name, plugin.options)}"
                )
            default = plugin.options[name]
            if key == "choices" and default not in limits:
                raise Breach(f"the option {name} is {default!r} by default, which is not among its choices {limits}")
            if key == "ranges":
                low, high = limits
                if (low is not None and default < low) or (high is not None and default > high):
                    raise Breach(f"the option {name} is {default!r} by default, which is outside its range {limits}")


def bounds(plugin: Plugin) -> tuple[float, float]:
    """Between what a metric's scores lie, but for rounding: META's [low, high], where None is no bound."""
    given = plugin.meta.get("bounds", [None, None])
    if len(given) != 2 or not all(one is None or isinstance(one, float) for one in given):
        raise Breach(f"META['bounds'] is {given!r}; give the lowest and the highest score, a float or None each")
    low, high = (sign * inf if one is None else one for one, sign in zip(given, (-1, 1), strict=True))
    if low >= high:
        raise Breach(f"META['bounds'] is {given!r}; write the lower one first")
    return low - ROUNDING, high + ROUNDING


def formulas_count(plugin: Plugin, ways: tuple[str, ...]) -> None:
    """The passes are formulas that give whole numbers."""
    formulas = plugin.meta["passes"]
    if set(formulas) != set(ways):
        raise Breach(f"META['passes'] has the keys {', '.join(formulas) or 'none'}; it must have {' and '.join(ways)}")
    names = ", ".join([*plugin.options, "patches", "width"])
    for way, formula in formulas.items():
        try:
            number = passes.declared(formula, plugin.options, 16, 32)
        except Exception as error:
            raise Breach(
                f"META['passes']['{way}'] is {formula!r}, which cannot be computed ({error}); write a formula "
                f"as a text, of numbers and {names}"
            ) from None
        if number < 0 or number != int(number):
            raise Breach(f"META['passes']['{way}'] is {formula!r}, which gives {number:g} an image; give whole numbers")


def has_a_plain_name(plugin: Plugin) -> None:
    """The file's name can stand in a config."""
    import re

    if not re.match(SCHEMA["$defs"]["name"]["pattern"], plugin.id):
        raise Breach(f"the file's name '{plugin.id}' is its id; use letters, digits, '_' and '-' only")


def takes_its_arguments(plugin: Plugin) -> None:
    """explain() takes the arguments that it will be called with."""
    extra = [name for name in ("masks", "references") if name in plugin.meta.get("needs", [])]
    accepts(plugin, ("model", "images", "targets"), ("generator", "removal", *extra, *plugin.options))


def accepts(plugin: Plugin, positional: tuple[str, ...], keywords: tuple[str, ...]) -> None:
    """Raise `Breach` where the plug-in's function cannot be called with these."""
    name = registry.FUNCTIONS[plugin.kind]
    try:
        inspect.signature(getattr(plugin.load(), name)).bind(*positional, **dict.fromkeys(keywords))
    except TypeError as error:
        call = ", ".join([*positional, *(f"{keyword}=..." for keyword in keywords)])
        raise Breach(f"{name}() will be called as {name}({call}), which it does not take: {error}") from None
