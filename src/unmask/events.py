"""TensorBoard event files of a training: every column of its history as a scalar, a step per epoch."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any


class Events:
    """Writes a history to event files in `folder` as it grows; with None, nothing.

    What an earlier process left there is written anew from the history, so that a training that was stopped, killed or
    begun afresh has one curve.
    """

    def __init__(self, folder: Path | None):
        self._folder, self._writer, self._written = folder, None, 0

    def __enter__(self) -> Events:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def follow(self, history: list[dict[str, Any]]) -> None:
        """Write the rows that are new; each has its `epoch`."""
        if self._folder is None:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            shutil.rmtree(self._folder, ignore_errors=True)
            self._writer = SummaryWriter(self._folder)
        for row in history[self._written :]:
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, row["epoch"])
        self._written = len(history)
        self._writer.flush()
