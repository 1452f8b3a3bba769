"""Progress on standard error: a live bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, label: str, unit: str, *, done: int = 0, shown: bool = True) -> Any:
    """A tqdm bar, of which `done` is done already; in a log it prints at most every 10 seconds."""
    from tqdm import tqdm

    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=label,
        unit=unit,
        mininterval=0.5 if live else 10,
        dynamic_ncols=live,
        file=sys.stderr,
        disable=not shown,
    )
