"""Errors of a JSON schema in our words: where, what is wrong, what would be right."""

from __future__ import annotations

from typing import Any

from unmask import registry


def problems(data: Any, schema: dict[str, Any], whole: str) -> list[str]:
    """A sentence for each mistake, those nearest to the top first; `whole` is what a mistake of the whole is called."""
    from jsonschema import Draft202012Validator

    errors = Draft202012Validator(schema).iter_errors(data)
    return [_sentence(error, whole) for error in sorted(errors, key=lambda e: (len(e.absolute_path), str(e.path)))]


def _sentence(error: Any, whole: str) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or whole
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(key for key in error.instance if key not in known)
        return f"{where}: unknown key '{unknown}'; {registry.suggest(unknown, known)}"
    if error.validator == "required":
        missing = error.message.split("'")[1]
        return f"{where}: the key '{missing}' is missing"
    if error.validator in ("minItems", "minProperties", "minLength"):
        return f"{where}: must not be empty"
    if error.validator == "uniqueItems":
        return f"{where}: names something twice; list each once"
    if error.validator == "pattern":
        what = error.schema.get("description", "a name; use letters, digits, '_' and '-'")
        return f"{where}: {error.instance!r} is not {what}"
    if error.validator == "maxLength":
        return f"{where}: is longer than {error.validator_value} characters; shorten it"
    if error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, str) else " or ".join(error.validator_value)
        return f"{where}: {_shown(error.instance)} is not of type {wanted}"
    if error.validator == "enum":
        allowed = [str(value) for value in error.validator_value]
        return f"{where}: {_shown(error.instance)} is not allowed; {registry.suggest(error.instance, allowed)}"
    return f"{where}: {error.message}"


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)
