"""The test images of the stage's tests with one factor changed."""

import numpy as np

from unmask import interventions
from unmask.domains import Intervention, Split
from unmask.files import read_arrays
from unmask.layout import Layout


def write_factors(folder, *, tagged=(1, 3), without=(4,)):
    """Factors of the eight test images: all have a background, all but some evidence, some a tag."""
    test = read_arrays(Layout(folder).domain("defect") / "test.safetensors")
    images = test["images"]
    evidence, background, tag = images.copy(), images.copy(), images.copy()
    evidence[:, 2:7, 3:9] //= 2
    evidence[list(without)] = images[list(without)]
    background[:, 12:] = 255 - background[:, 12:]
    for row in tagged:
        tag[row, 8:16, 8:16] = 255 - tag[row, 8:16, 8:16]
    nothing = np.zeros(images.shape[:3], bool)
    found = {"evidence": evidence, "background": background, **({"tag": tag} if tagged else {})}
    split = Split(
        images, test["labels"], nothing, nothing, [], [], {}, {name: Intervention(one) for name, one in found.items()}
    )
    interventions.write(Layout(folder).domain("defect") / "interventions.safetensors", split)
    return found
