"""The batched faithfulness metrics against unmodified Quantus in token space: the same numbers."""

import numpy as np
import pytest
from kinds_of_maps import KINDS, case_of, fickle
from planted_cases import score

from unmask import quantus_bridge, registry

# Quantus's softmax is in single precision; where numbers are correlated, its errors are divided by their spread.
BOTH = {
    "pixel_flipping": ({"step": 2}, 1e-6),
    "pixel_flipping_lerf": ({"step": 1}, 1e-6),
    "pixel_flipping_gain": ({"step": 4}, 1e-5),
    "pixel_flipping_lerf_gain": ({"step": 2}, 1e-5),
    "srg": ({"step": 2}, 1e-6),
    "insertion": ({"step": 2}, 1e-6),
    "region_perturbation": ({"step": 2, "share": 0.5}, 1e-5),
    "road": ({"step": 2}, 0),
    "faithfulness_correlation": ({"runs": 20}, 1e-5),
    "faithfulness_estimate": ({}, 1e-5),
    "monotonicity_correlation": ({}, 1e-9),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "removal"), [(0, "zero"), (1, "mean"), (2, "mask_token"), (3, "noisy_linear")])
@pytest.mark.parametrize("name", BOTH)
def test_both_engines_give_the_same_scores(name, kind, seed, removal, tiny_vit):
    options, tolerance = BOTH[name]
    model = fickle(tiny_vit)
    ours = score(name, case_of(model, kind, seed, removal), **options)
    theirs = score(name, case_of(model, kind, seed, removal, engine="quantus"), **options)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
    assert len(set(ours)) > 1


@pytest.mark.parametrize("name", BOTH)
def test_the_engine_decides_whether_quantus_runs(name, tiny_vit, monkeypatch):
    asked = []
    real = quantus_bridge._call
    monkeypatch.setattr(quantus_bridge, "_call", lambda metric, *a, **k: asked.append(metric) or real(metric, *a, **k))
    score(name, case_of(tiny_vit, "random", 0, "mean"))
    assert not asked
    score(name, case_of(tiny_vit, "random", 0, "mean", engine="quantus"))
    assert asked
    theirs = registry.find("metrics", name).meta.get("quantus", "")
    assert all(theirs in " ".join(base.__name__ for base in type(metric).__mro__) for metric in asked)
