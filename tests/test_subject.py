"""Reference images: of the training split alone, the same for every model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask import files, subject
from unmask.config import Config
from unmask.layout import Layout

CPU = torch.device("cpu")


@pytest.fixture
def results(tmp_path):
    """Two domains whose training images tell their row by their colour; test images are white."""
    layout = Layout(tmp_path)
    for domain in ("medical", "defect"):
        rows = np.arange(40, dtype=np.uint8).reshape(-1, 1, 1, 1)
        files.write_arrays(layout.domain(domain) / "train.safetensors", {"images": np.tile(rows, (1, 16, 16, 3))})
        white = np.full((40, 16, 16, 3), 255, np.uint8)
        for split in ("val", "test"):
            files.write_arrays(layout.domain(domain) / f"{split}.safetensors", {"images": white})
    return tmp_path


def config(results, count=12, seed=0):
    return Config(
        {
            "seed": seed,
            "results": str(results),
            "image": {"size": 16, "patch": 8},
            "domains": {"medical": {}, "defect": {}},
            "encoders": {"scratch": {"method": "scratch"}},
            "explain": {"groups": {"some": ["saliency"]}, "references": count},
            "score": {"metrics": ["sparseness"]},
        }
    )


def rows(images):
    """The rows of the training split that reference images are."""
    assert torch.equal(images, images[:, :1, :1, :1].expand_as(images))
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def test_images_are_of_the_training_split_and_each_is_another(results):
    drawn = subject.references(config(results), "medical", CPU)
    assert drawn.shape == (12, 3, 16, 16)
    assert drawn.dtype == torch.float32
    assert drawn.is_contiguous()
    assert len(set(rows(drawn))) == 12
    assert set(rows(drawn)) <= set(range(40))
    assert rows(drawn) != sorted(rows(drawn))


def test_a_smaller_split_is_taken_whole(results):
    assert sorted(rows(subject.references(config(results, 64), "medical", CPU))) == list(range(40))


def test_the_draw_depends_on_seed_and_domain_alone(results):
    def draw(domain="medical", **given):
        return rows(subject.references(config(results, **given), domain, CPU))

    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert draw() == draw()
    assert torch.equal(torch.get_rng_state(), state)
    assert draw(count=20)[:12] == draw(), "fewer are the first of more"
    assert draw(seed=1) != draw()
    assert draw("defect") != draw()
