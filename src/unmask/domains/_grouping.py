"""Splitting by group: images that show the same object or patient never part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unmask.errors import UserError
from unmask.seeds import derive


def split_groups(
    groups: Sequence[str], labels: np.ndarray, classes: Sequence[str], shares: Sequence[float], *, seed: int, where: str
) -> np.ndarray:
    """The split of each image, int64 [N] in 0 ... len(shares) - 1.

    No group is in two splits, every split has every class, and each class is shared out as near to `shares` as its
    groups allow. Depends on `seed` and the groups' names and sizes, not on the order of the images. Raises `UserError`
    where a class cannot be in every split.
    """
    names = sorted(set(groups))
    index = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(classes)), np.int64)  # images of each group by class
    np.add.at(counts, ([index[g] for g in groups], labels), 1)
    wanted = np.outer(shares, counts.sum(0))
    place = np.full(len(names), -1)
    filled = np.zeros_like(wanted)
    order = sorted(range(len(names)), key=lambda g: (-counts[g].sum(), derive(seed, "group", names[g])))

    def assign(group: int, split: int) -> None:
        place[group] = split
        filled[split] += counts[group]

    # First one group for every class in every split, beginning with the class that has the fewest groups, and with
    # the split that wants the fewest images, which gets small groups; so the large ones stay for the large split.
    for label in np.argsort((counts > 0).sum(0), kind="stable"):
        for split in np.argsort(shares, kind="stable"):
            if filled[split, label]:
                continue
            free = [g for g in order if place[g] < 0 and counts[g, label]]
            if not free:
                number = int((counts[:, label] > 0).sum())
                raise UserError(
                    f"{where}: the class '{classes[label]}' has {number} group(s), too few for "
                    f"each of the {len(shares)} splits to get one; add images of other groups"
                )
            assign(free[-1], int(split))
    # Then the rest, largest first, each to where its classes are emptiest for what they want.
    for group in order:
        if place[group] < 0:
            fill = (filled + counts[group]) / np.maximum(wanted, 1e-9)
            assign(group, int(np.argmin(fill @ counts[group])))
    return place[[index[g] for g in groups]]
