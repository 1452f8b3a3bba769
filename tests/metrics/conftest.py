import pytest
import torch
from planted_cases import PATCH, SIZE, Planted, Weighted

from unmask.models.vit import Classifier


@pytest.fixture(scope="session")
def planted():
    return Planted().eval()


@pytest.fixture(scope="session")
def weighted():
    return Weighted().eval()


@pytest.fixture(scope="session")
def tiny_vit():
    """A random ViT with a mask token, 2 blocks, 4 classes."""
    torch.manual_seed(0)
    model = Classifier(size=SIZE, patch=PATCH, width=24, depth=2, heads=2, classes=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.mask_token = torch.nn.Parameter(torch.randn(1, 1, 24))
    return model.eval().requires_grad_(False)
