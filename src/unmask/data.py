"""Stage 1: a domain's images, labels and evidence masks in three splits, and the pool of images to pretrain on.

The plug-in makes or reads the images; this module holds them to the contract, writes them and says what they are.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from unmask import digest, files, interventions, registry, seeds
from unmask.config import Config
from unmask.domains import CONCEPT
from unmask.errors import UserError
from unmask.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.domains import Split, Splits

SPLITS = ("train", "val", "test")
SHOWN = 10  # files skipped from a pool that the log names


def settings(config: Config, *, domain: str | None = None, pool: bool = False) -> dict[str, Any]:
    """What the job's result depends on: options, seed, code, versions and the state of the folders it reads."""
    if pool:
        given = config["pretrain"].get("pool")
        return {
            "domains": list(config["domains"]),
            **(_own_pool(given) | {"size": config["image"]["size"]} if given else {}),
            "code": digest.code("unmask.data"),
            "versions": digest.versions("numpy", "safetensors", *(["pillow", "timm"] if given else [])),
        }
    plugin, options = _plugin(config, domain)
    folders = {key: digest.listing(options[key]) for key in plugin.meta.get("folders", []) if options[key]}
    return {
        "plugin": plugin.id,
        "options": options,
        "folders": folders,
        "size": config["image"]["size"],
        "seed": config["seed"],
        "code": digest.code("unmask.data", plugin.path),
        "versions": digest.versions("matplotlib", "numpy", "pillow", "safetensors", "scikit-image"),
    }


def run(config: Config, *, domain: str | None = None, pool: bool = False) -> None:
    """Write one domain's files, or with `pool` the join of all domains' train and unlabelled images.

    Where the config names a pool of its own, that is listed instead.
    """
    if pool and config["pretrain"].get("pool"):
        _list_pool(config)
    elif pool:
        _write_pool(config)
    else:
        _write_domain(config, domain)


def _plugin(config: Config, domain: str | None) -> tuple[registry.Plugin, dict[str, Any]]:
    if domain not in config["domains"]:
        raise UserError(f"domains: '{domain}' is not in the config; {registry.suggest(str(domain), config['domains'])}")
    return config.domain(domain)


def _write_domain(config: Config, domain: str | None) -> None:
    from unmask.figures.preview import draw

    plugin, options = _plugin(config, domain)
    size = config["image"]["size"]
    splits = plugin.load().build(options, size=size, seed=seeds.derive(config["seed"], "data", domain))
    check(splits, size, f"domains.{domain}")
    folder = Layout(config.results).domain(domain)
    (folder / "card.json").unlink(missing_ok=True)  # written last: where it stands, the files belong together
    for name in SPLITS:
        split = getattr(splits, name)
        files.write_arrays(folder / f"{name}.safetensors", _arrays(split))
        files.write_table(folder / f"{name}.csv", _table(split, splits.classes))
    files.write_arrays(folder / "unlabelled.safetensors", {"images": splits.unlabelled})
    interventions.write(folder / "interventions.safetensors", splits.test)
    with files.atomic(folder / "preview.png") as temporary:
        draw(splits.train, splits.classes, temporary)
    card = {
        "domain": domain,
        "plugin": plugin.id,
        "summary": plugin.meta["summary"],
        **_card(splits),
        "options": options,
        "seed": config["seed"],
    }
    files.write_json(folder / "card.json", card)


def _write_pool(config: Config) -> None:
    import numpy as np
    import pandas as pd

    layout, parts, labels, rows = Layout(config.results), [], [], []
    classes: list[str] = []
    for domain in config["domains"]:
        for source in ("train", "unlabelled"):  # never val or test
            arrays = files.read_arrays(layout.domain(domain) / f"{source}.safetensors")
            images = arrays["images"]
            parts.append(images)
            labels.append(arrays["labels"] + len(classes) if source == "train" else np.full(len(images), -1))
            rows.append({"domain": domain, "source": source, "count": len(images)})
        classes += [f"{domain}/{name}" for name in files.read_json(layout.domain(domain) / "card.json")["classes"]]
    sizes = {part.shape[1:] for part in parts}
    if len(sizes) > 1:
        raise UserError(f"{layout.pool.parent}: the domains' images differ in size; run `unmask data` for each again")
    files.write_table(layout.pool.with_suffix(".csv"), pd.DataFrame(rows))
    layout.pool.with_name("pool_skipped.csv").unlink(missing_ok=True)
    # The classes of all domains stand side by side, for pretraining on labels; -1 is an image without one.
    arrays = {"images": np.concatenate(parts), "labels": np.concatenate(labels).astype(np.int64)}
    files.write_arrays(layout.pool, arrays, {"classes": "\n".join(classes)})


def _own_pool(given: dict[str, Any]) -> dict[str, Any]:
    """What the list of a pool on disk depends on."""
    spec = {key: value for key, value in given.items() if key != "workers"}
    return {"pool": spec, "folder": digest.listing(given["path"])}


def _list_pool(config: Config) -> None:
    """The list of a pool on disk, without the images that a domain holds out for validation or test."""
    import pandas as pd

    from unmask import pool

    layout, given = Layout(config.results), config["pretrain"]["pool"]
    held_out = {
        hashlib.sha256(image.tobytes()).digest()
        for domain in config["domains"]
        for split in ("val", "test")
        for image in files.read_arrays(layout.domain(domain) / f"{split}.safetensors")["images"]
    }
    listing = pool.build(**given, size=config["image"]["size"], held_out=held_out)
    counts = {"images": len(listing.pool), "skipped": len(listing.skipped), "held_out": listing.held_out}
    rows = [{"domain": "", "source": source, "count": n} for source, n in counts.items()]
    files.write_table(layout.pool.with_suffix(".csv"), pd.DataFrame(rows))
    skipped = pd.DataFrame(listing.skipped.items(), columns=["file", "reason"])
    files.write_table(layout.pool.with_name("pool_skipped.csv"), skipped)
    pool.write(listing, layout.pool)
    print(
        f"pool: {counts['images']} images of {given['path']}; {counts['skipped']} skipped as corrupt, "
        f"{counts['held_out']} left out as validation or test images of the domains"
    )
    for reason in [*listing.skipped.values()][:SHOWN]:
        print(f"pool: {reason}")
    if counts["skipped"] > SHOWN:
        print(f"pool: and {counts['skipped'] - SHOWN} more, in {layout.pool.with_name('pool_skipped.csv')}")


def _arrays(split: Split) -> dict[str, np.ndarray]:
    plain = {"images": split.images, "labels": split.labels, "masks": split.masks, "shortcut": split.shortcut}
    return plain | {CONCEPT + name: pixels for name, pixels in split.concepts.items()}


def _table(split: Split, classes: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "image_id": split.ids,
            "label": split.labels,
            "class": [classes[label] for label in split.labels],
            "group": split.groups,
            "evidence_fraction": split.masks.mean((1, 2)),
        }
    )


def _card(splits: Splits) -> dict[str, Any]:
    """The numbers of the card: counts, areas of evidence per class and of concepts over all splits, and a hash."""
    import numpy as np

    parts = {name: getattr(splits, name) for name in SPLITS}
    return {
        "classes": splits.classes,
        "size": splits.train.images.shape[1],
        "counts": {
            name: dict(
                zip(splits.classes, np.bincount(part.labels, minlength=len(splits.classes)).tolist(), strict=True)
            )
            for name, part in parts.items()
        },
        "unlabelled": len(splits.unlabelled),
        "evidence": {
            name: _areas([part.masks[part.labels == label] for part in parts.values()])
            for label, name in enumerate(splits.classes)
        },
        "concepts": {name: _areas([part.concepts[name] for part in parts.values()]) for name in splits.test.concepts},
        "shortcut": {name: int(part.shortcut.any((1, 2)).sum()) for name, part in parts.items()},
        "factors": {
            name: int((one.images != splits.test.images).any((1, 2, 3)).sum())
            for name, one in splits.test.interventions.items()
        },
        "origin": splits.origin,
        "sha256": _sha256(splits),
    }


def _areas(masks: list[np.ndarray]) -> dict[str, Any]:
    """How many images have marked pixels, and the shares of theirs."""
    import numpy as np

    areas = np.concatenate([some.mean((1, 2)) for some in masks])
    areas = areas[areas > 0]
    extent = {"mean": float(areas.mean()), "min": float(areas.min()), "max": float(areas.max())} if len(areas) else {}
    return {"images": len(areas), **extent}


def _sha256(splits: Splits) -> str:
    arrays = {f"{name}/{key}": array for name in SPLITS for key, array in _arrays(getattr(splits, name)).items()}
    state = hashlib.sha256()
    for name, array in {**arrays, "unlabelled/images": splits.unlabelled}.items():
        state.update(f"{name}{array.dtype}{array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def check(splits: Splits, size: int, where: str) -> None:
    """Hold what a plug-in returned to the contract of `unmask.domains`; raises `UserError` naming the first breach."""
    if len(splits.classes) < 2 or len(set(splits.classes)) != len(splits.classes):
        raise UserError(f"{where}: the plug-in gave the classes {splits.classes}; give two or more different names")
    image = (size, size, 3)
    _expect(splits.unlabelled, "uint8", (len(splits.unlabelled), *image), f"{where}: unlabelled images")
    ids: set[str] = set()
    groups: dict[str, str] = {}
    for name in SPLITS:
        split, at = getattr(splits, name), f"{where}: {name}"
        n = len(split.images)
        _expect(split.images, "uint8", (n, *image), f"{at} images")
        _expect(split.labels, "int64", (n,), f"{at} labels")
        _expect(split.masks, "bool", (n, size, size), f"{at} masks")
        _expect(split.shortcut, "bool", (n, size, size), f"{at} shortcut")
        if set(split.concepts) != set(splits.train.concepts):
            raise UserError(f"{at} has other concepts than train; give every split the same, empty where unseen")
        for concept, pixels in split.concepts.items():
            _expect(pixels, "bool", (n, size, size), f"{at} concept '{concept}'")
            if (pixels & split.masks).any():
                raise UserError(f"{at} concept '{concept}' overlaps the evidence; leave evidence pixels out of it")
        for factor, changed in split.interventions.items():
            _expect(changed.images, "uint8", (n, *image), f"{at} images with the factor '{factor}' changed")
            if changed.classes is not None:
                _expect(changed.classes, "int64", (n,), f"{at} classes that the factor '{factor}' speaks for")
                if n and not -1 <= changed.classes.min() <= changed.classes.max() < len(splits.classes):
                    raise UserError(
                        f"{at} classes that the factor '{factor}' speaks for are outside -1 (none) to "
                        f"{len(splits.classes) - 1}, the indices of the classes"
                    )
        absent = [c for i, c in enumerate(splits.classes) if not (split.labels == i).any()]
        if absent:
            raise UserError(f"{at} has no image of class {', '.join(absent)}; every split needs every class")
        if split.labels.min() < 0 or split.labels.max() >= len(splits.classes):
            raise UserError(f"{at} labels are outside 0 to {len(splits.classes) - 1}, the indices of the classes")
        if len(split.ids) != n or len(split.groups) != n:
            raise UserError(
                f"{at} has {n} images but {len(split.ids)} ids and {len(split.groups)} groups; give one each"
            )
        twice = ids.intersection(split.ids) or len(set(split.ids)) != n
        if twice:
            raise UserError(f"{at} has an image id that occurs twice; ids must be unique over the splits")
        ids.update(split.ids)
        for group in split.groups:
            if groups.setdefault(group, name) != name:
                raise UserError(f"{at}: the group '{group}' is also in {groups[group]}; a group belongs to one split")


def _expect(array: np.ndarray, dtype: str, shape: tuple[int, ...], what: str) -> None:
    if str(array.dtype) != dtype or array.shape != shape:
        raise UserError(f"{what} are {array.dtype} {list(array.shape)}; they must be {dtype} {list(shape)}")
