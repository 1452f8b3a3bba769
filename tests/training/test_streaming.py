"""Pretraining on images that stay on disk: the same draws as in memory, for any number of processes."""

import multiprocessing
import os
import subprocess
import time
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from unmask import data, pool, pretrain, streaming, training
from unmask.augment import Augmented
from unmask.errors import Stopped, UserError
from unmask.files import read_json, read_table, sha256
from unmask.layout import Layout
from unmask.models.simmim import draw_masks
from unmask.streaming import Given, Stored, Streamed

SIZE = 32
CROP = (0.67, 1.0)
ONE = {"encoder": "half", "pretrain_seed": 0}


def smooth(n):
    draw = np.random.default_rng(5)
    coarse = draw.integers(40, 216, (n, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for one in coarse])


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for i, one in enumerate(smooth(45)):
        Image.fromarray(one).save(root / f"{i:03d}.png")
    return root


@pytest.fixture
def stored(folder):
    listing = pool.build(str(folder), "folder", size=SIZE, workers=0, on_corrupt="stop")
    return lambda workers=0: Stored(listing.pool, np.arange(45), SIZE, workers)


def generator():
    return torch.Generator().manual_seed(3)


def test_order_crops_and_flips_are_those_of_images_in_memory(stored):
    there = list(Augmented(torch.from_numpy(smooth(45)), 8, generator(), CROP))
    here = Streamed(stored(), 8, generator(), CROP)
    assert len(here) == len(there)
    for (one, index), (other, same) in zip(here, there, strict=True):
        assert torch.equal(index, same)
        assert one.dtype == torch.float32
        assert (one - other).abs()[..., 1:-1, 1:-1].max() < 0.02, "beyond the frame's edge the two differ"
    whole = list(Streamed(stored(), 8, generator(), (1.0, 1.0)))
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(whole, here, strict=True))


def test_the_same_for_any_number_of_processes_and_from_any_batch_on(stored):
    alone = list(Streamed(stored(), 8, generator(), CROP))
    state = torch.get_rng_state()
    epoch = Streamed(stored(2), 8, generator(), CROP)
    epoch.batches = epoch.batches[2:]
    many = list(epoch)
    assert torch.equal(torch.get_rng_state(), state), "reading ahead draws nothing from torch's own generator"
    assert len(many) == len(alone) - 2
    for (one, index), (other, same) in zip(many, alone[2:], strict=True):
        assert torch.equal(index, same)
        assert torch.equal(one, other)


def test_what_is_not_asked_for_is_not_read(stored, monkeypatch):
    epoch, read = Streamed(stored(), 8, generator(), CROP), []
    whole = pool.Pool.read
    monkeypatch.setattr(pool.Pool, "read", lambda self, i: (read.append(i), whole(self, i))[1])
    epoch.batches = [epoch.batches[4][:3]]
    list(epoch)
    assert read == epoch.batches[0].tolist()


def test_masks_are_keyed_by_the_place_in_the_epoch(stored, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 10)

    def draw(n, generator):
        return draw_masks(n, size=SIZE, cell=8, patch=8, ratio=[0.2, 0.8], generator=generator)

    epoch = Streamed(stored(), 8, generator(), CROP)
    order = torch.cat(epoch.batches)
    whole = Given(epoch, draw)[order]
    assert whole.shape == (45, 4, 4)
    assert len(whole.flatten(1).unique(dim=0)) > 40, "each image has its own"
    in_parts = Given(epoch, draw)
    for start in (0, 7, 23):
        assert torch.equal(in_parts[order[start : start + 9]], whole[start : start + 9])
    other = Streamed(stored(), 8, torch.Generator().manual_seed(4), CROP)
    assert not torch.equal(Given(other, draw)[torch.cat(other.batches)], whole)


def test_images_are_let_go_when_their_batch_is_done(stored, monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Counted(np.ndarray):
        pass

    whole = pool.Pool.pixels

    def pixels(self, *given):
        found = whole(self, *given).view(Counted)
        alive.add(found)
        most.append(len(alive))
        return found

    Counted.__hash__ = object.__hash__
    monkeypatch.setattr(pool.Pool, "pixels", pixels)
    for _ in Streamed(stored(), 4, generator(), CROP):
        pass
    assert len(most) == 45
    assert max(most) <= 2 * 5, "of 45 images no more than two batches"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_during_the_run_is_named(stored, folder, workers):
    epoch = Streamed(stored(workers), 8, generator(), CROP)
    broken = folder / f"{int(epoch.batches[1][0]):03d}.png"
    broken.write_bytes(broken.read_bytes()[:-60])
    with pytest.raises(
        UserError, match=rf"{broken.name} has \d+ bytes, not .*run `unmask data --pool` again"
    ) as caught:
        list(epoch)
    assert "Traceback" not in str(caught.value)


@pytest.fixture
def bench(config, folder):
    """The tiny benchmark, pretrained on a folder of which one file is broken."""
    (folder / "broken.png").write_bytes(b"no image")
    given = {"path": str(folder), "kind": "folder", "on_corrupt": "skip", "workers": 0}
    config.data["pretrain"] |= {"pool": given, "base_learning_rate": 0.1}
    data.run(config, pool=True)
    return config


def test_pretrains_on_the_pool_and_says_so(bench):
    pretrain.run(bench, **ONE)
    folder = Layout(bench.results).encoder("half", 0)
    sidecar, history = read_json(folder / "encoder.json"), read_table(folder / "history.csv")
    assert (sidecar["images"], sidecar["held_out"]) == (44, 1)
    assert sidecar["pool"] == {"kind": "folder", "skipped": 1, "held_out": 0}
    assert sidecar["pool_sha256"] == sha256(Layout(bench.results).pool)
    assert history["held_out_loss"].iloc[-1] < history["held_out_loss"].iloc[0]


def test_processes_and_a_kill_change_no_byte(bench, monkeypatch):
    pretrain.run(bench, **ONE)
    folder = Layout(bench.results).encoder("half", 0)
    names = ("encoder.safetensors", "encoder.json", "history.csv")
    unbroken = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    bench["pretrain"]["pool"]["workers"] = 2
    whole = training.Resume.save

    def save(self, *arguments, **named):
        whole(self, *arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Resume, "save", save)
        with pytest.raises(KeyboardInterrupt):
            pretrain.run(bench, **ONE)
    pretrain.run(bench, **ONE)
    assert {name: (folder / name).read_bytes() for name in names} == unbroken


def test_a_signal_to_all_processes_ends_a_step_and_keeps_the_state(bench, monkeypatch):
    """A cluster that takes its machine back sends it to those that read, too."""
    bench["pretrain"]["pool"]["workers"] = 2
    bench["pretrain"]["batch"] = 4  # so that much is left to read
    whole = training.Trainer._step

    def step(self, *given):
        found = whole(self, *given)
        readers = [str(process.pid) for process in multiprocessing.active_children()]
        assert len(readers) == 2
        subprocess.run(["kill", *readers, str(os.getpid())], check=True)
        time.sleep(0.1)  # who dies of it has done so
        return found

    monkeypatch.setattr(training.Trainer, "_step", step)
    with pytest.raises(Stopped, match="stopped by SIGTERM in epoch 1 of"):
        pretrain.run(bench, **ONE)


def test_a_list_made_for_the_other_kind_of_pool_is_refused(bench):
    given = bench["pretrain"].pop("pool")
    with pytest.raises(
        UserError, match=r"pool\.safetensors is the list of another pool; run `unmask data --pool` again"
    ):
        pretrain.run(bench, **ONE)
    bench["pretrain"]["pool"] = given
