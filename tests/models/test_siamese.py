"""The contrast of two views against loops, and its place beside SimMIM's loss."""

import math

import numpy as np
import pytest
import torch

from unmask.internals.rank import effective_rank
from unmask.models.siamese import SiameseSimMIM, info_nce
from unmask.models.simmim import SimMIM, draw_masks
from unmask.models.vit import MaskedImages

ARCHITECTURE = {"size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 3}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def by_loop(one, other, temperature):
    """InfoNCE by its definition, in both directions."""
    total = 0.0
    for a, b in ((one, other), (other, one)):
        for i in range(len(a)):
            cosines = [np.dot(a[i], b[j]) / np.linalg.norm(a[i]) / np.linalg.norm(b[j]) for j in range(len(b))]
            total -= math.log(math.exp(cosines[i] / temperature) / sum(math.exp(c / temperature) for c in cosines))
    return total / (2 * len(one))


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_info_nce_by_a_loop(temperature):
    one, other = (torch.randn(6, 5, generator=generator(seed), dtype=torch.float64) for seed in (0, 1))
    found = info_nce(one, other, temperature).item()
    assert found == pytest.approx(by_loop(one.numpy(), other.numpy(), temperature), rel=1e-10)
    assert found == pytest.approx(info_nce(3 * other, 0.5 * one, temperature).item()), "of directions, not lengths"


def test_info_nce_of_a_collapse_and_of_perfect_views():
    same = torch.ones(8, 4)
    assert info_nce(same, same, 0.2).item() == pytest.approx(math.log(8))
    apart = torch.eye(8)
    # The right view at 1 / T, seven others at 0.
    assert info_nce(apart, apart, 0.2).item() == pytest.approx(math.log(1 + 7 * math.exp(-5)), rel=1e-4)


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_the_loss_is_simmims_and_the_contrast_of_two_passes_with_one_encoder(pooling):
    torch.manual_seed(0)
    model = SiameseSimMIM(**ARCHITECTURE, pooling=pooling, temperature=0.3, contrast_weight=0.7).eval()
    images = torch.rand(5, 3, 32, 32, generator=generator())
    mask = draw_masks(5, size=32, cell=8, patch=8, ratio=0.5, generator=generator(1))
    loss, parts = model(images, mask)

    alone = SimMIM(**ARCHITECTURE, pooling=pooling).eval()
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("projection.")})
    plain, _ = alone(images, mask)
    views = []
    for keep in (~mask, torch.ones_like(mask)):
        tokens = model.encode(MaskedImages(images, keep))
        read = tokens[:, 0] if pooling == "token" else tokens[:, model.encoder.prefix :].mean(1)
        views.append(model.projection(read).detach().double().numpy())
    contrast = by_loop(*views, 0.3)
    assert parts["reconstruction_loss"].item() == pytest.approx(plain.item(), rel=1e-5)
    assert parts["contrast_loss"].item() == pytest.approx(contrast, rel=1e-5)
    assert loss.item() == pytest.approx(plain.item() + 0.7 * contrast, rel=1e-5)
    torch.testing.assert_close(model.reconstruct(images, mask), alone.reconstruct(images, mask))


def test_both_views_are_trained_and_training_tells_images_apart():
    torch.manual_seed(0)
    model = SiameseSimMIM(**ARCHITECTURE, temperature=0.2, contrast_weight=1.0)
    images = torch.rand(16, 3, 1, 1, generator=generator()).expand(-1, -1, 32, 32).contiguous()
    mask = draw_masks(16, size=32, cell=8, patch=8, ratio=0.6, generator=generator(1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found = []
    for _ in range(40):
        loss, parts = model(images, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(parts["contrast_loss"].item())
    assert 1.5 < found[0] < math.log(16) + 0.1
    assert found[-1] < 0.6 * found[0]
    assert model.encoder.mask_token.grad.abs().sum() > 0


def test_a_collapse_is_seen_in_the_effective_rank():
    line = torch.randn(50, 1, generator=generator()) * torch.randn(1, 24, generator=generator(1))
    assert effective_rank(line.unsqueeze(1)).mean().item() == pytest.approx(1, abs=1e-4)
    spread = torch.linalg.qr(torch.randn(48, 24, generator=generator(2))).Q
    assert effective_rank(spread.unsqueeze(1)).mean().item() > 20


def test_the_contrast_is_in_full_precision_under_autocast():
    torch.manual_seed(0)
    model = SiameseSimMIM(**ARCHITECTURE, temperature=0.1, contrast_weight=1.0).eval()
    views = []
    model.projection.register_forward_hook(lambda module, given, made: views.append(made))
    masks = draw_masks(6, size=32, cell=8, patch=8, ratio=0.5, generator=generator())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, parts = model(torch.rand(6, 3, 32, 32, generator=generator()), masks)
    one, other = views[0].double().chunk(2)
    assert parts["contrast_loss"].item() == pytest.approx(info_nce(one, other, 0.1).item(), rel=1e-5)
