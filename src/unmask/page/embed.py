"""How things get into the page: numbers as text, tables and other data as deflated JSON, pictures as data URIs."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

LARGE, WIDEST = 60_000, 1600  # bytes, pixels: what is larger is shrunk for the page; the figures' own files are not


def number(value: Any, digits: int = 3) -> str:
    """A number to `digits` significant digits, halves away from 0 as the scripts round them; an en dash for none."""
    if value is None or value != value:
        return "\N{EN DASH}"
    return f"{value * (1 + 1e-12):.{digits}g}".replace("-", "\N{MINUS SIGN}")


def deflated(value: Any) -> str:
    """JSON for a `<script>` that holds data: zlib's stream in base64, a quarter of its size; browsers unpack it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts, missing values as None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def packed(table: pd.DataFrame) -> dict[str, Any]:
    """A table column by column, floats to 5 significant digits, missing values as None.

    A column that repeats itself is the list `of` its values and where in it each row's is, `at`.
    """
    columns: dict[str, Any] = {}
    for name in table.columns:
        values = [_compact(value) for value in table[name].astype(object).where(table[name].notna(), None)]
        different = list(dict.fromkeys(values))
        if len(different) < len(values) / 4:
            places = {value: place for place, value in enumerate(different)}
            columns[name] = {"of": different, "at": [places[value] for value in values]}
        else:
            columns[name] = values
    return {"rows": len(table), "columns": columns}


def _compact(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() else short


def data_uri(path: Path) -> str:
    """A PNG as a data URI; a large one shrunk, in 256 colours and as lossless WebP, so that the page stays light."""
    from PIL import Image

    if path.stat().st_size <= LARGE:
        return _uri(path.read_bytes())
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    if rgb.width > WIDEST:
        rgb = rgb.resize((WIDEST, round(rgb.height * WIDEST / rgb.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    rgb.quantize(256, dither=Image.Dither.NONE).convert("RGB").save(buffer, "webp", lossless=True)
    return _uri(buffer.getvalue(), "webp")


def picture_uri(picture: Image) -> str:
    """A picture as a data URI, PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return _uri(buffer.getvalue())


def _uri(picture: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()
