"""What the crowd's metrics are worth, and its removal curves: tables that figures must have room for."""

from __future__ import annotations

import numpy as np
import pandas as pd

POINTS = 33


def quality(metrics: dict[tuple[str, str | None], tuple[str, str]]) -> pd.DataFrame:
    """`metric_quality` of all domains and each; only the first removal has a meta-consistency."""
    rng, rows = np.random.default_rng(1), []
    for domain in (None, "rings", "bars"):
        for (metric, removal), (category, direction) in metrics.items():
            reliability, alpha = rng.uniform(0.1, 0.9), rng.uniform(-0.1, 0.8)
            rows.append(
                {
                    "scope": "domain" if domain else "all",
                    **{"domain": domain, "encoder": None, "metric": metric, "removal": removal},
                    **{"category": category, "direction": direction},
                    "reliability": reliability,
                    "reliability_low": max(0.0, reliability - 0.3),
                    "reliability_high": min(1.0, reliability + 0.2),
                    **{"alpha": alpha, "alpha_low": alpha - 0.1, "alpha_high": min(1.0, alpha + 0.1)},
                    "mc": rng.uniform(0.3, 0.9) if removal in (None, "mean") else np.nan,
                    **{"separated": int(rng.integers(0, 7)), "models": 6},
                }
            )
    return pd.DataFrame(rows)


def curves(explainers: list[str]) -> pd.DataFrame:
    """`curves` with encoders pooled, of five removals; the first explainers are the best."""
    share, rows = np.linspace(0, 1, POINTS), []
    for domain in ("rings", "bars"):
        for removal in ("mean", "zero", "blur", "mask_token", "inpaint"):
            drawn = {(None, "random"): 4.0}
            for i, name in enumerate(explainers):
                drawn[name, "pixel_flipping"], drawn[name, "pixel_flipping_lerf"] = 9 - 0.2 * i, 1 + 0.1 * i
            for (name, metric), speed in drawn.items():
                mean = 0.2 + 0.7 * np.exp(-speed * share)
                rows.append(
                    pd.DataFrame(
                        {
                            **{"domain": domain, "encoder": None, "explainer": name, "metric": metric},
                            **{"removal": removal, "step": np.arange(POINTS), "removed": share, "mean": mean},
                            **{"low": mean - 0.05, "high": mean + 0.05, "n": 60},
                        }
                    )
                )
    return pd.concat(rows, ignore_index=True)
