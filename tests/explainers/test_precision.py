"""Maps in half precision and on a GPU are those of float32 on the CPU."""

from __future__ import annotations

import pytest
import torch

from unmask import contract, registry

KNOWN = {
    name: plugin for name, plugin in registry.available("explainers").items() if plugin.meta["family"] != "control"
}
CASES = [(name, kind) for name in sorted(KNOWN) for kind in contract.kinds(KNOWN[name])]
# Where bfloat16 rounds a ReLU's input past 0 its slope flips, and eight channels do not average that out.
THROUGH_RELU = {
    "embedding",
    "gradient_shap",
    "input_x_gradient",
    "integrated_gradients",
    "saliency",
    "smoothgrad",
    "vargrad",
}


def correlations(one, other):
    pairs = zip(one.flatten(1).double(), other.flatten(1).double(), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kind in CASES if kind != "resnet" or name not in THROUGH_RELU]
)
def test_passes_in_bfloat16_give_the_same_maps(name, kind):
    trial = contract.Trial(KNOWN[name], kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = trial.run()
    assert maps.dtype == torch.float32
    assert correlations(maps, trial.maps).min() > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kind in CASES if kind != "resnet" or name not in THROUGH_RELU]
)
def test_maps_on_a_gpu_are_those_of_the_cpu(name, kind, half):
    trial = contract.Trial(KNOWN[name], kind)
    expected, model = trial.maps, contract.network(kind).cuda()
    if model.pretraining:
        model.pretraining.network.cuda()
    trial.images, trial.targets, trial.references = (
        tensor.cuda() for tensor in (trial.images, trial.targets, trial.references)
    )
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
        maps = trial.run(model)
    assert maps.is_cuda
    assert maps.dtype == torch.float32
    assert correlations(maps.cpu(), expected).min() > 0.99
