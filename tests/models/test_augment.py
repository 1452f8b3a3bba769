"""Augmented batches: every image once, in [0, 1], the same for any batch size."""

import torch

from unmask.augment import Augmented, crops


def images(n=37):
    return (torch.rand(n, 32, 32, 3, generator=torch.Generator().manual_seed(9)) * 255).byte()


def epoch(batch, crop=(0.67, 1.0)):
    pairs = list(Augmented(images(), batch, torch.Generator().manual_seed(0), crop_scale=crop))
    return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])


def test_every_image_once_and_independent_of_the_batch_size():
    pictures, index = epoch(8)
    others, other_index = epoch(37)
    assert sorted(index.tolist()) == list(range(37))
    assert index.tolist() != list(range(37))
    assert torch.equal(index, other_index)
    assert torch.allclose(pictures, others, atol=1e-6)
    assert 0 <= pictures.min() < pictures.max() <= 1


def test_a_single_image_left_over_joins_the_last_batch():
    def sizes(batch):
        batches = Augmented(images(), batch, torch.Generator().manual_seed(0))
        found = [len(index) for _, index in batches]
        assert len(batches) == len(found)
        return found

    assert sizes(8) == [8, 8, 8, 8, 5]
    assert sizes(12) == [12, 12, 13]
    assert sizes(36) == [37]
    assert sizes(1) == [1] * 37


def test_without_crop_images_are_flipped_or_left():
    pictures, index = epoch(8, crop=None)
    originals = images()[index].permute(0, 3, 1, 2).float() / 255
    left = (pictures == originals).flatten(1).all(1)
    flipped = (pictures == originals.flip(-1)).flatten(1).all(1)
    assert (left | flipped).all()
    assert 5 < flipped.sum() < 32


def testcrops_stay_inside_and_keep_the_area():
    theta = crops(2000, (0.67, 1.0), torch.Generator().manual_seed(0))
    for axis in (0, 1):
        half, centre = theta[:, axis, axis], theta[:, axis, 2]
        assert ((centre.abs() + half) <= 1 + 1e-6).all()
    area = theta[:, 0, 0] * theta[:, 1, 1]
    assert area.max() <= 1
    assert area.min() > 0.6  # clamped at the frame, a crop may lose a little of its drawn area
    assert abs(area.mean().item() - 0.8) < 0.05
