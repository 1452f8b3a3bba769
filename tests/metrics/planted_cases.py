"""A model with one deciding patch, and cases around it whose scores have closed forms."""

import numpy as np
import torch

from unmask import registry, removals
from unmask.case import Case, Changed, Gallery
from unmask.models.vit import Normalise

SIZE, PATCH, KEY = 32, 8, (2, 1)  # 4 x 4 patches; the one in row 2, column 1 decides
GAIN = 3.0


class Backbone(torch.nn.Module):
    """A head that passes on what it is given."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Identity()

    def get_classifier(self):
        return self.head


class Planted(torch.nn.Module):
    """Logits (GAIN * mean brightness of the key patch, 0): nothing else matters."""

    arch, grid, mask_token, pooling = "vit", (SIZE // PATCH, SIZE // PATCH), None, "avg"

    def __init__(self):
        super().__init__()
        self.normalise, self.backbone = Normalise(), Backbone()

    def forward(self, images):
        row, column = (PATCH * part for part in KEY)
        brightness = images[:, :, row : row + PATCH, column : column + PATCH].mean((1, 2, 3))
        return self.backbone.head(torch.stack([GAIN * brightness, torch.zeros_like(brightness)], 1))


class Weighted(torch.nn.Module):
    """Logits of four classes, each the mean brightness of a patch of its own: all that matters is in the head."""

    arch, grid, mask_token, pooling, classes = "vit", (SIZE // PATCH, SIZE // PATCH), None, "avg", 4

    def __init__(self):
        super().__init__()
        self.normalise, self.backbone = Normalise(), Backbone()
        self.backbone.head = torch.nn.Linear(16, 4, bias=False).requires_grad_(False)
        self.backbone.head.weight[:] = torch.eye(16)[[9, 2, 15, 4]]

    def patches(self, images):
        return torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), PATCH).flatten(1)

    def forward(self, images):
        return self.backbone.head(self.patches(images))


def images(count, seed=0):
    """Noise in [.2, 1], so that no patch is black by itself."""
    return 0.2 + 0.8 * torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


DIM = 0.1  # how bright the gallery's images of the other class are


def gallery():
    """Six images of the class that cases explain, and four dim ones of another; evidence on the key patch."""
    targets = torch.tensor([0] * 6 + [1] * 4)
    pixels = images(10, seed=5) * torch.where(targets == 0, 1, DIM)[:, None, None, None]
    return Gallery(pixels, targets, evidence(10))


def evidence(count):
    """The key patch, bool [count, SIZE, SIZE]."""
    masks = np.zeros((count, SIZE, SIZE), bool)
    row, column = (PATCH * part for part in KEY)
    masks[:, row : row + PATCH, column : column + PATCH] = True
    return masks


def concepts(count):
    """A spot within a patch and a bar across three, beside the evidence."""
    spot, bar = np.zeros((2, count, SIZE, SIZE), bool)
    spot[:, 2:5, 3:6] = True
    bar[:, 26:28, 10:] = True
    return {"spot": spot, "bar": bar}


def factors(pixels):
    """Five factors that every image has; evidence and tag are on the key patch, which goes dark without them."""
    places = {"evidence": evidence(len(pixels)), **concepts(len(pixels)), "tag": evidence(len(pixels))}
    rest = ~np.any(list(places.values()), axis=0)
    made = {name: Changed(pixels * torch.from_numpy(~place)[:, None], place) for name, place in places.items()}
    return {**made, "background": Changed(torch.where(torch.from_numpy(rest)[:, None], 1 - pixels, pixels), rest)}


def make_case(model, maps, *, removal=None, explainer=None, seed=11, shared=None, **changes):
    """A case of `len(maps)` noise images, target 0, evidence on the key patch."""
    if isinstance(removal, str):
        removal = removals.bind(registry.find("removals", removal), model)
    pixels = changes.get("images", images(len(maps)))
    fields = {
        "images": pixels,
        "targets": torch.zeros(len(maps), dtype=torch.int64),
        "masks": evidence(len(maps)),
        "maps": maps.astype(np.float32),
        "seed": seed,
        "removal": removal,
        "explainer": explainer,
        "shared": shared,
        "concepts": concepts(len(maps)),
        "gallery": gallery(),
        "factors": factors(pixels),
    }
    return Case(model=model, **{**fields, **changes})


def score(name, case, **options):
    """A metric's scores, with its default options where none are given."""
    plugin = registry.find("metrics", name)
    return plugin.load().score(case, **{**plugin.options, **options})
