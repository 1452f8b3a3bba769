"""A long table of scores with planted effects: goodness = an offset of the explainer + an image effect + noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from unmask.config import Config

METRICS = {
    "pixel_flipping": ("faithfulness", "lower", True),
    "faithfulness_correlation": ("faithfulness", "higher", True),
    "pointing_game": ("localisation", "higher", False),
    "sparseness": ("complexity", "higher", False),
}
OFFSETS = {
    "saliency": 0.6,
    "lime": 0.5,
    "rise": 0.4,
    "occlusion": 0.3,
    "grad_cam": 0.2,
    "raw_attention": 0.1,
    "random_patch": 0.0,
    "oracle": 0.7,
}
CONTROLS = ("random_patch", "oracle")
ENCODERS = {"simmim_30": 0.3125, "simmim_60": 0.609375, "simmim_75": 0.75, "scratch": np.nan}  # effective ratios

Shift = Callable[[str, str, str, str, str | None], float]  # by domain, encoder, explainer, metric, removal


def config(
    *, domains=("medical", "defect"), seeds=(0,), removals=("mean", "mask_token"), resamples=200, seed=0
) -> Config:
    """A config over plug-ins of the package; nothing is read from disk."""
    return Config(
        {
            "seed": seed,
            "domains": {name: {} for name in domains},
            "encoders": {
                name: {"method": "scratch"} if name == "scratch" else {"method": "simmim", "mask_ratio": ratio}
                for name, ratio in {"simmim_30": 0.3, "simmim_60": 0.6, "simmim_75": 0.75, "scratch": None}.items()
            },
            "seeds": {"pretrain": list(seeds)},
            "explain": {"groups": {"one": [name for name in OFFSETS if name not in CONTROLS], "two": list(CONTROLS)}},
            "score": {"metrics": list(METRICS), "removals": list(removals)},
            "aggregate": {"bootstrap": resamples},
        }
    )


def scores(
    config: Config,
    shift: Shift = lambda domain, encoder, explainer, metric, removal: 0.0,
    *,
    images: int = 20,
    noise: float = 0.1,
    offsets: dict[str, float] = OFFSETS,
    draw: int = 0,
    wrong: Callable[[str, int], bool] = lambda encoder, image: False,
) -> pd.DataFrame:
    """The table; `shift` is added to the goodness, `wrong` says which images a model gets wrong.

    The mask token is skipped on models from scratch, as it is in a real run.
    """
    parts = []
    for domain in config["domains"]:
        level = np.random.default_rng([sum(map(ord, domain)), draw]).normal(0, 0.2, images)
        for model in (m for m in config.models if m.domain == domain):
            rng = np.random.default_rng([sum(map(ord, model.folder)), draw, 1])
            for metric, (category, direction, removes) in METRICS.items():
                for removal in config["score"]["removals"] if removes else [None]:
                    skipped = removal == "mask_token" and model.encoder == "scratch"
                    for name, offset in offsets.items():
                        good = offset + level + rng.normal(0, noise, images)
                        good += shift(domain, model.encoder, name, metric, removal)
                        correct = np.array([not wrong(model.encoder, i) for i in range(images)])
                        parts.append(
                            pd.DataFrame(
                                {
                                    "domain": domain,
                                    "encoder": model.encoder,
                                    "mask_ratio": ENCODERS[model.encoder],
                                    "pretrain_seed": model.pretrain_seed,
                                    "finetune_seed": model.finetune_seed,
                                    "explainer": name,
                                    "metric": metric,
                                    "category": category,
                                    "direction": direction,
                                    "removal": removal,
                                    "variant": "",
                                    "image_id": [f"test-{i:03d}" for i in range(images)],
                                    "correct": correct,
                                    "score": np.nan if skipped else good if direction == "higher" else -good,
                                    "status": "skipped" if skipped else "ok",
                                }
                            )
                        )
    return pd.concat(parts, ignore_index=True).astype({"removal": object, "variant": object})


def accuracy(config: Config, of: Callable[[str, str], float] = lambda domain, encoder: 0.8) -> pd.DataFrame:
    """One row per model."""
    return pd.DataFrame(
        [
            {
                "domain": m.domain,
                "encoder": m.encoder,
                "mask_ratio": ENCODERS[m.encoder],
                "pretrain_seed": m.pretrain_seed,
                "finetune_seed": m.finetune_seed,
                "val": 0.8,
                "test": of(m.domain, m.encoder),
            }
            for m in config.models
        ]
    )
