"""unmask: how interpretable are vision models pretrained by masked image modelling?

From Python: `unmask.load_scores(path)` and `unmask.leaderboard(scores, by=...)`; they raise `unmask.UserError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.api import leaderboard, load_scores
    from unmask.errors import UserError

__version__ = "0.1.0"
__all__ = ["UserError", "leaderboard", "load_scores"]


def __getattr__(name: str) -> Any:
    """What is imported when it is first asked for, so that `import unmask` costs nothing."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module 'unmask' has no attribute '{name}'")
    return getattr(importlib.import_module("unmask.errors" if name == "UserError" else "unmask.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
