"""One line per encoder: how it was pretrained, what it can do, and whether its features collapsed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.files import read_json
from unmask.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PHASES = ("before", "after")
QUANTITIES = {"linear_probe": "linear_probe_accuracy", "knn": "knn_accuracy", "effective_rank": "effective_rank"}
COLUMNS = [
    *("domain", "encoder", "method", "mask_ratio", "ratio_low", "ratio_high", "average_distance", "held_out_rank"),
    *("accuracy", "accuracy_low", "accuracy_high", "seeds"),
    *(f"{name}_{phase}{end}" for name in QUANTITIES for phase in PHASES for end in ("", "_low", "_high")),
]


def encoders(config: Config, layout: Layout, accuracy: pd.DataFrame, inside: pd.DataFrame) -> pd.DataFrame:
    """A row per domain (None = all) and encoder, in config order.

    `mask_ratio` is the effective one, or the mean where each image draws its own from `ratio_low` to `ratio_high`;
    `average_distance` is AvgDist in pixels; `held_out_rank` the effective rank of held-out images' features at the end
    of pretraining. `accuracy` is on the test split, its interval over the seeds where there are several. Probes and
    effective rank are those of the last layer in `inside`, before and after fine-tuning, with the intervals that they
    have there.
    """
    import pandas as pd

    last = _last_layers(inside)
    rows = []
    for domain in (None, *config["domains"]):
        own = accuracy if domain is None else accuracy[accuracy["domain"] == domain]
        for name, spec in config["encoders"].items():
            low, high = config.ratio_range(name) or (None, None)
            rows.append(
                {
                    "domain": domain,
                    "encoder": name,
                    "method": spec["method"],
                    "mask_ratio": config.mask_ratio(name),
                    "ratio_low": low,
                    "ratio_high": high,
                    **_pretraining(config, layout, name),
                    **over_seeds(own[own["encoder"] == name], config["aggregate"]["confidence"]),
                    **last.get((domain, name), {}),
                }
            )
    floats = [name for name in COLUMNS if name not in ("domain", "encoder", "method", "seeds")]
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(floats, "float64"))


def over_seeds(rows: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """The mean test accuracy over domains and seeds, and a t interval where there are several seeds.

    The interval's unit is the pretraining seed, its models averaged; with a single one it is the fine-tuning seed.
    """
    import numpy as np
    from scipy.special import stdtrit

    unit = "pretrain_seed" if rows["pretrain_seed"].nunique() > 1 else "finetune_seed"
    means: np.ndarray = rows.groupby(unit)["test"].mean().to_numpy()
    found = {"accuracy": float(means.mean()), "seeds": len(means)}
    if len(means) > 1:
        half = stdtrit(len(means) - 1, (1 + confidence) / 2) * means.std(ddof=1) / np.sqrt(len(means))
        found |= {"accuracy_low": found["accuracy"] - half, "accuracy_high": found["accuracy"] + half}
    return found


def _pretraining(config: Config, layout: Layout, encoder: str) -> dict[str, float]:
    """What the side-cars of its pretraining say, means over the seeds; nothing where there are none."""
    if encoder not in config.pretrained:
        return {}
    paths = [layout.encoder(encoder, seed) / "encoder.json" for seed in config["seeds"]["pretrain"]]
    sidecars = [read_json(path) for path in paths if path.is_file()]
    found = {}
    for column, key in (("average_distance", "average_distance"), ("held_out_rank", "effective_rank")):
        values = [one[key] for one in sidecars if key in one]
        if values:
            found[column] = sum(values) / len(values)
    return found


def _last_layers(inside: pd.DataFrame) -> dict[tuple[str | None, str], dict[str, float]]:
    """The columns from the table `inside`, by domain and encoder."""
    import pandas as pd

    found: dict[tuple[str | None, str], dict[str, float]] = {}
    if inside.empty:
        return found
    known = inside[(inside["status"] == "ok") & inside["head"].isna() & inside["layer"].notna()]
    for column, phase, row in _deepest(known):
        key = None if pd.isna(row["domain"]) else row["domain"], row["encoder"]
        ends = {"": row["value"], "_low": row["low"], "_high": row["high"]}
        found.setdefault(key, {}).update({f"{column}_{phase}{end}": value for end, value in ends.items()})
    return found


def _deepest(known: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    for column, quantity in QUANTITIES.items():
        rows = known[known["quantity"] == quantity]
        for (_, _, phase), part in rows.groupby(["domain", "encoder", "phase"], dropna=False, observed=True):
            yield column, phase, part.loc[part["layer"].astype(float).idxmax()]
