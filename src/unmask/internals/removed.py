"""What a model answers to images with patches absent, and a family's rows under every removal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from unmask import removals
from unmask.device import batch_size
from unmask.errors import Skip, UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from unmask.models.classifier import Classifier, ConvClassifier
    from unmask.registry import Plugin
    from unmask.removals import Removal


def logits(
    model: Classifier | ConvClassifier, removal: Removal, images: torch.Tensor, rows: np.ndarray, absent: np.ndarray
) -> np.ndarray:
    """Logits float64 [M, C] of image `rows[m]` without the patches `absent[m]`, M of them in full passes.

    Images float32 [N, 3, H, W] in [0, 1]; rows int64 [M]; absent bool [M, P], patches in rows from the top left. Raises
    `ValueError` where an answer is not finite.
    """
    import torch

    places = torch.from_numpy(rows).to(images.device)
    keep = torch.from_numpy(~absent).unflatten(1, model.grid).to(images.device)
    found = []
    for some, kept in zip(*(part.split(batch_size(images.device)) for part in (places, keep)), strict=True):
        with torch.no_grad():
            found.append(model(removal.remove(images[some], kept)).double().cpu())
    answers = torch.cat(found)
    if not answers.isfinite().all():
        raise ValueError("the model's answers are not finite")
    return answers.numpy()


def decisions(model: Classifier | ConvClassifier, images: torch.Tensor) -> np.ndarray:
    """The class that the model decides for on each image as it is: int64 [N]."""
    import torch

    with torch.no_grad():
        return torch.cat([model(some).argmax(1) for some in images.split(batch_size(images.device))]).cpu().numpy()


def frame(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Rows as a frame of fixed types by name, also without any row; a status that is not named is ok."""
    import pandas as pd

    made = {
        name: pd.Series([row.get(name, "ok" if name == "status" else None) for row in rows], dtype="object")
        for name in columns
    }
    return pd.DataFrame(made).astype(columns)


def under_every_removal(
    plugins: Iterable[Plugin],
    model: Classifier | ConvClassifier,
    measure: Callable[[Removal], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """The rows that `measure` makes under each removal; of one that does not apply, or that raises, the reason."""
    rows: list[dict[str, Any]] = []
    for plugin in plugins:
        try:
            found = measure(removals.bind(plugin, model))
        except UserError:
            raise
        except Skip as reason:
            found = [{"status": "skipped", "reason": str(reason)}]
        except (Exception, SystemExit) as error:  # a user's removal may raise anything, and must cost no other
            text = " ".join(str(error).split())
            found = [{"status": "failed", "reason": f"{type(error).__name__}: {text}"}]
        rows += [{"removal": plugin.id, **row} for row in found]
    return rows
