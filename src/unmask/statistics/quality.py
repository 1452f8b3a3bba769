"""How good the metrics themselves are: a row per metric and removal, for every model, every domain and all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unmask.statistics.complete import complete
from unmask.statistics.consistency import CRITERIA, consistency
from unmask.statistics.orders import View
from unmask.statistics.reliability import agreement, split_half

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.statistics.study import Measured, Study

TESTS, STRENGTHS = ("input", "model"), ("minor", "disruptive")


def quality_rows(study: Study, chance: pd.DataFrame, judged: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, in the metrics' order; `chance` is the leaderboards' table, `judged` the scores that stage 5 made.

    `reliability` and `alpha` are those of `unmask.statistics.reliability`, the criteria and `mc` those of
    `unmask.statistics.consistency`, averaged over the models and the two tests. Under `separated` of `models` the
    metric tells the controls apart.
    """
    rows = []
    boards = chance[(chance["scope"] == "model") & chance["variant"].isna()]
    for measured in study.metrics:
        metric, removal = measured.keys["metric"], measured.keys["removal"]
        verdicts = _verdicts(of(judged, metric, removal), measured.keys["direction"])
        controls = of(boards, metric, removal).dropna(subset="controls_separated")
        flags = dict(
            zip(zip(controls["domain"], controls["encoder"], strict=True), controls["controls_separated"], strict=True)
        )
        for keys, view in _views(study, measured):
            chosen = view.takes_part(study)
            whole, single = split_half(study, view, chosen), agreement(study, view, chosen)
            known = [bool(flag) for model, flag in flags.items() if _within(model, keys)]
            rows.append(
                {
                    **keys,
                    **{key: measured.keys[key] for key in ("metric", "removal", "category", "direction")},
                    **{f"reliability{end}": getattr(whole, name) for end, name in _ENDS},
                    **{f"alpha{end}": getattr(single, name) for end, name in _ENDS},
                    "images": _images(view, chosen),
                    "explainers": int(chosen.sum()),
                    **_pooled([one for model, one in verdicts.items() if _within(model, keys)]),
                    "separated": sum(known),
                    "models": len(known),
                }
            )
    return rows


_ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))


def of(table: pd.DataFrame, metric: str, removal: str | None) -> pd.DataFrame:
    """The rows of a metric under a removal, None where it uses none."""
    table = table[table["metric"] == metric]
    return table[table["removal"].isna() if removal is None else table["removal"] == removal]


def _views(study: Study, measured: Measured) -> Iterator[tuple[dict[str, str | None], View]]:
    """All domains, each domain, each model that has any score; one domain is not pooled with itself."""
    import numpy as np

    domains = list(measured.values)
    yield {"scope": "all", "domain": None, "encoder": None}, View(measured, domains)
    for domain in domains:
        yield {"scope": "domain", "domain": domain, "encoder": None}, View(measured, [domain])
    for domain in domains:
        for m in np.flatnonzero(np.isfinite(measured.values[domain]).any((0, 1, 3))).tolist():
            keys = {"scope": "model", "domain": domain, "encoder": study.encoders[m]}
            yield keys, View(measured, [domain], [m])


def _images(view: View, chosen: np.ndarray) -> int:
    """Images with a score of all the chosen explainers under some model."""
    import numpy as np

    if not chosen.any():
        return 0
    return sum(int(np.isfinite(complete(view.cube(d), chosen)).all(-1).any((1, 2)).sum()) for d in view.domains)


def _within(model: tuple[str, str], keys: dict[str, str | None]) -> bool:
    return all(keys[name] in (None, own) for name, own in zip(("domain", "encoder"), model, strict=True))


def _verdicts(judged: pd.DataFrame, direction: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By domain and encoder: the criteria and `mc` [S, T] of its S pairs of seeds, and what they were judged by."""
    import numpy as np
    import pandas as pd

    ok = judged[judged["status"] == "ok"]
    if ok.empty or not (ok["test"] == "none").any():
        return {}
    models = ["domain", "encoder", "pretrain_seed", "finetune_seed"]
    model = judged.groupby(models, sort=False).ngroup().to_numpy()
    codes, explainers = pd.factorize(judged["explainer"])
    # An image's place among its model's; the test pairs a model's images, models are averaged.
    image = judged.groupby(model)["image_id"].transform(lambda ids: pd.factorize(ids)[0]).to_numpy()
    shape = model.max() + 1, len(TESTS), judged["repeat"].max() + 1, len(explainers), image.max() + 1
    scores = np.where(judged["status"] == "ok", judged["score"], np.nan)
    plain = (judged["test"] == "none").to_numpy()
    base = np.full((shape[0], *shape[3:]), np.nan)
    base[model[plain], codes[plain], image[plain]] = scores[plain]
    found, changed = {}, {}
    for strength in STRENGTHS:
        rows = (judged["strength"] == strength).to_numpy()
        place = model[rows], judged["test"][rows].map(TESTS.index).to_numpy(), judged["repeat"][rows].to_numpy()
        found[strength], changed[strength] = np.full(shape, np.nan), np.full((*shape[:3], shape[4]), np.nan)
        found[strength][(*place, codes[rows], image[rows])] = scores[rows]
        changed[strength][(*place, image[rows])] = judged["changed"][rows]
    made = consistency(base, *found.values(), changed["minor"] == 0, changed["disruptive"] == 1, direction)
    made.update({f"changed_{strength}": _share(changed[strength]) for strength in STRENGTHS})
    names = judged.groupby(models, sort=False).size().index
    verdicts: dict[tuple[str, str], dict[str, Any]] = {}
    for number, name in enumerate(names):
        own = verdicts.setdefault(name[:2], {"images": 0, "explainers": 0, **{key: [] for key in made}})
        for key, values in made.items():
            own[key].append(values[number])
        held = np.isfinite(base[number])
        own["images"] = max(own["images"], int(held.any(0).sum()))
        own["explainers"] = max(own["explainers"], int(held.any(1).sum()))
    return verdicts


def _share(changed: np.ndarray) -> np.ndarray:
    """Of changed predictions, [M, T]."""
    import numpy as np

    known = np.isfinite(changed)
    n = known.sum((2, 3))
    return np.divide(np.where(known, changed, 0).sum((2, 3)), n, out=np.full(n.shape, np.nan), where=n > 0)


def _pooled(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """The criteria averaged over models, and the meta-consistency of these averages; nothing without a verdict."""
    import numpy as np

    if not verdicts:
        return {}
    every = {
        key: np.concatenate([np.array(one[key]) for one in verdicts])  # [models x seeds, T]
        for key in (*CRITERIA, "mc", "changed_minor", "changed_disruptive")
    }
    means = {key: _means(values) for key, values in every.items()}
    mc = np.mean([means[key] for key in CRITERIA], axis=0)
    of_models = every["mc"].mean(1)
    of_models = of_models[np.isfinite(of_models)]
    return {
        **{key: float(means[key].mean()) for key in (*CRITERIA, "changed_minor", "changed_disruptive")},
        **{f"mc_{test}": float(value) for test, value in zip(TESTS, mc, strict=True)},
        "mc": float(mc.mean()),
        "mc_sd": float(of_models.std(ddof=1)) if len(of_models) > 1 else np.nan,
        "judged_images": max(one["images"] for one in verdicts),
        "judged_explainers": max(one["explainers"] for one in verdicts),
    }


def _means(values: np.ndarray) -> np.ndarray:
    """Over the models [.., T] whose values are known."""
    import numpy as np

    n = np.isfinite(values).sum(0)
    return np.divide(np.nansum(values, 0), n, out=np.full(n.shape, np.nan), where=n > 0)
