"""Reading and writing of results: whole files or none, no pickles, one clear sentence where a file is broken."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends well, delete it when not.

    The suffix stays the same, since writers choose their format by it. A full disk is a `UserError`; what was at `path`
    before is still there then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~_UMASK)  # safetensors writes files that nobody else may read
        os.replace(temporary, path)
    except Exception as error:
        if _is_full(error):
            raise UserError(
                f"{path} cannot be written: no space is left there; free some and run the same command again, which "
                "goes on from what is finished"
            ) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _is_full(error: Exception) -> bool:
    """Whether the disk, the quota or the largest size of a file ended a write; safetensors only tells it in words."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in codes or any(f"(os error {code})" in str(error) for code in codes)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def copy(source: str | Path, path: str | Path) -> None:
    """Write a file's bytes to another."""
    with atomic(path) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, keys in the order given, refusing NaN (not JSON)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; raises `UserError` where the file is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run the stage again") from None


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write named numpy arrays as safetensors, with text metadata in the header."""
    import numpy as np
    from safetensors.numpy import save_file

    with atomic(path) as temporary:
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        given = dict(metadata or {})
        # Of neither arrays nor metadata, safetensors would write a header that it cannot read.
        save_file(contiguous, temporary, metadata=given if given or contiguous else None)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file; raises `UserError` where it is missing or truncated."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it first") from None
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}); delete it and run its stage again"
        ) from None


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text metadata in a safetensors header; raises `UserError` like `read_arrays`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            return handle.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it first") from None
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}); delete it and run its stage again"
        ) from None


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a frame as .parquet or .csv, by the suffix. CSV floats are written in full (round-trip) precision."""
    with atomic(path) as temporary:
        if temporary.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a .parquet or .csv table; raises `UserError` where it is missing or broken."""
    import pandas as pd

    try:
        return pd.read_parquet(path) if Path(path).suffix == ".parquet" else pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the stage that writes it first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable table ({error}); delete it and run its stage again") from None
