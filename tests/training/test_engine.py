"""How trainings are run: stopped and gone on with, in parts, in other precisions, seen from outside, out of room."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from unmask import cli, encoders, finetune, pretrain, processes, training
from unmask.config import Config, ModelId
from unmask.errors import Stopped, UserError
from unmask.files import read_arrays, read_table, write_json, write_text
from unmask.layout import Layout
from unmask.models import pretraining
from unmask.models.simmim import draw_masks
from unmask.stopping import asked_to_stop

ONE = {"encoder": "half", "pretrain_seed": 0}
MODEL = {"domain": "defect", "encoder": "scratch", "pretrain_seed": 0, "finetune_seed": 0}


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


def encoder(config, name="half"):
    return Layout(config.results).encoder(name, 0)


def model(config):
    return Layout(config.results).model(ModelId(**MODEL))


def taken(folder, *names):
    """The bytes of files, which are deleted."""
    found = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    return found


def losses(config, **named):
    """The losses of an encoder's pretraining and its weights, run anew."""
    pretrain.run(config, encoder=named.get("encoder", "half"), pretrain_seed=0)
    folder = encoder(config, named.get("encoder", "half"))
    return read_table(folder / "history.csv"), read_arrays(folder / "encoder.safetensors")


def alike(one, other, tolerance):
    """Two histories and weights, apart by rounding alone."""
    for column in ("loss", "held_out_loss"):
        assert one[0][column].to_numpy() == pytest.approx(other[0][column].to_numpy(), rel=tolerance)
    for name, values in one[1].items():
        assert abs(values - other[1][name]).max() < 100 * tolerance, name


# Stopping and going on


def test_a_real_process_that_is_sent_sigterm_goes_on_to_the_same_curve(config, tmp_path, monkeypatch, capfd):
    """By the command line, in the middle of an epoch: exit code 143, one sentence, and the same bytes in the end."""
    config.data["pretrain"] |= {"epochs": 2, "batch": 4}
    write_json("config.json", config.data)
    pretrain.run(config, **ONE)
    folder, names = encoder(config), ("history.csv", "encoder.safetensors", "encoder.json")
    unbroken = taken(folder, *names)
    whole, steps, there = training.Trainer._step, [], tmp_path / "there"

    def step(self, *given):
        steps.append(1)
        if len(steps) == 23:  # the seventh of sixteen in the second epoch
            there.touch()
            while self._asked.signal is None:
                time.sleep(0.001)
        return whole(self, *given)

    command = ["pretrain", "--config", "config.json", "--encoder", "half"]
    # A fork, since it has everything imported.
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(cli.main(command)))
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_step", step)
        process.start()
    while not there.exists() and process.is_alive():
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    said = capfd.readouterr().err.splitlines()[-1]
    assert said == (
        "unmask: pretrain half: stopped by SIGTERM in epoch 2 of 2, after step 7 of 16; the same command goes on from "
        "there (exit code 143)"
    )
    assert process.exitcode == 143
    assert not (folder / "encoder.safetensors").exists()
    pretrain.run(config, **ONE)
    assert taken(folder, *names) == unbroken


@pytest.fixture
def terminal():
    """SIGINT as a process on a terminal has it: what runs in the background is started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_stops_fine_tuning_within_its_epoch(config, monkeypatch, capsys):
    """With stochastic depth, whose draws go on where they were."""
    config.data["finetune"] |= {"drop_path": 0.5, "epochs": 2}
    names = ("model.safetensors", "history.csv", "predictions.parquet", "model.json")
    finetune.run(config, **MODEL)
    unbroken = taken(model(config), *names)
    whole, steps = training.Trainer._step, []

    def step(self, *given):
        steps.append(1)
        if len(steps) == 11:  # the third of eight in the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_step", step)
        with pytest.raises(
            Stopped, match=r"stopped by SIGINT in epoch 2 of 2, after step 3 of 8; .*exit code 130"
        ) as e:
            finetune.run(config, **MODEL)
    assert e.value.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finetune.run(config, **MODEL)
    assert "resuming after epoch 1 of 2 and step 3 of the next" in capsys.readouterr().out
    assert taken(model(config), *names) == unbroken


def test_a_signal_during_validation_stops_after_the_epoch(config, monkeypatch):
    monkeypatch.setattr(
        finetune, "_validate", lambda *given: os.kill(os.getpid(), signal.SIGTERM) or {"val_accuracy": 1, "val_loss": 0}
    )
    with pytest.raises(Stopped, match="stopped by SIGTERM after epoch 1 of 4"):
        finetune.run(config, **MODEL)


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asked_to_stop() as asked:
            os.kill(os.getpid(), signal.SIGINT)
        assert asked.signal is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
def test_the_second_signal_is_not_waited_for(config, monkeypatch):
    def step(self, *given):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(training.Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(config, **ONE)


def test_a_kill_between_two_checkpoints_costs_what_came_after_the_first(config, monkeypatch, capsys):
    config.data["training"]["checkpoint_minutes"] = 0
    folder, names = encoder(config), ("history.csv", "encoder.safetensors")
    pretrain.run(config, **ONE)
    unbroken = taken(folder, *names)
    whole, saves = training.Resume.save, []

    def save(self, *given):
        saves.append(1)
        if len(saves) == 8:
            raise Killed
        whole(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(training.Resume, "save", save)
        with pytest.raises(Killed):
            pretrain.run(config, **ONE)
    pretrain.run(config, **ONE)
    assert "resuming after epoch 1 of 3 and step 3 of the next" in capsys.readouterr().out, "4 steps are 4 saves"
    assert taken(folder, *names) == unbroken


def test_states_are_kept_every_so_many_minutes(config, monkeypatch):
    clock, saves = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    whole = training.Trainer._step
    monkeypatch.setattr(training.Trainer, "_step", lambda *given: clock.__setitem__(0, clock[0] + 61) or whole(*given))
    monkeypatch.setattr(
        training.Resume, "save", lambda *given: saves.append((len(given[3]["history"]), given[3]["step"]))
    )
    config.data["training"]["checkpoint_minutes"] = 2
    config.data["pretrain"]["epochs"] = 1
    pretrain.run(config, **ONE)
    assert saves == [(0, 2), (1, 0)]


# Bad input


def test_a_resume_file_that_is_none_is_said(config, capsys):
    resume = encoder(config) / "resume.safetensors"
    resume.parent.mkdir(parents=True)
    save_file({"weights": torch.zeros(3)}, resume)
    pretrain.run(config, **ONE)
    assert f"{resume} is of other settings, data or code: training starts afresh" in capsys.readouterr().out
    write_text(resume, "no tensors")
    pretrain.run(config, **ONE)
    assert f"{resume} is not a whole safetensors file" in capsys.readouterr().out


@pytest.mark.parametrize("most", [2_000, 40_000])
def test_a_full_disk_is_one_sentence_and_costs_nothing_finished(config, capsys, most):
    """A limit on the size of files stands for the disk: of 40 kB, the checkpoint of half the size still fits."""
    write_json("config.json", config.data)
    pretrain.run(config, **ONE)
    before = (encoder(config) / "encoder.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        code = cli.main(["pretrain", "--config", "config.json", "--encoder", "half"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err.splitlines()[-1]
    assert (code, said.startswith("unmask: ")) == (2, True)
    assert "resume.safetensors cannot be written: no space is left there; free some" in said
    assert (encoder(config) / "encoder.safetensors").read_bytes() == before
    assert not list(encoder(config).glob(".*")), "no half-written file is left"


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("precision", "fp8", r"training\.precision: 'fp8' is not allowed"),
        ("accumulate", 0, r"training\.accumulate: 0 is less than the minimum of 1"),
        ("checkpoint_minutes", -1, r"training\.checkpoint_minutes: -1 is less"),
        ("acumulate", 2, r"training: unknown key 'acumulate'; did you mean 'accumulate'"),
        (
            "accumulate",
            2,
            r"training\.accumulate: 2 passes over parts of a batch do not fit encoders\.contrast, whose contrast",
        ),
    ],
)
def test_mistakes_are_named_before_anything_runs(config, key, value, sentence):
    data = {**config.data, "training": {key: value}}
    data["encoders"] = {"contrast": {"method": "simmim_siamese", "mask_ratio": 0.5}}
    with pytest.raises(UserError, match=sentence):
        Config(data)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=r"pretrain\.processes: 2 processes need a GPU each, and there are 1"):
            processes.spread(print, 2, torch.device(device))


# Parts of a batch


@pytest.mark.parametrize(("size", "accumulate"), [(1, 1), (1, 3), (2, 1), (3, 4)])
def test_parts_are_the_batch_in_its_order(size, accumulate):
    for batch in (torch.arange(10, 10 + n) for n in (1, 2, 7, 16)):
        given = [training.parts(batch, rank=rank, size=size, accumulate=accumulate) for rank in range(size)]
        assert torch.equal(torch.cat([part for own in given for part in own]), batch)
        assert all(len(own) <= accumulate for own in given)
        assert accumulate == 1 or all(len(part) > 1 for own in given if len(own) > 1 for part in own)
        lengths = [sum(map(len, own)) for own in given]
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("method", ["simmim", "mae"])
def test_gradients_of_parts_add_up_to_those_of_the_batch(method):
    """Where images mask different numbers of patches, too: the loss is a mean over patches, not over images."""
    torch.manual_seed(0)
    sizes = {"size": 32, "patch": 8, "width": 24, "depth": 1, "heads": 3}
    options = {"decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2} if method == "mae" else {}
    network = pretraining.build(method, sizes, options)
    images, masks = torch.rand(12, 3, 32, 32), None
    masks = draw_masks(12, size=32, cell=8, patch=8, ratio=[0.2, 0.9], generator=torch.Generator().manual_seed(1))
    network(images, masks)[0].backward()
    whole = {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
    network.zero_grad()
    for rank in range(2):
        for part in training.parts(torch.arange(12), rank=rank, size=2, accumulate=2):
            share = float(masks[part].sum() / masks.sum())
            (network(images[part], masks[part])[0] * share).backward()
    for name, weight in network.named_parameters():
        if weight.grad is not None:
            assert torch.allclose(weight.grad, whole[name], atol=1e-6 + 1e-4 * float(whole[name].abs().max())), name


def test_accumulated_gradients_train_as_the_large_batch_does(config):
    config.data["encoders"]["half"]["mask_ratio"] = [0.2, 0.9]
    whole = losses(config)
    config.data["training"]["accumulate"] = 4
    alike(losses(config), whole, 1e-4)


def test_two_processes_train_as_one_with_the_same_batch(config):
    """Processes of their own that talk to one another: the losses of every epoch are equal to a share of 1e-5, where
    images mask different numbers of patches and are contrasted with those of the other process, too."""
    config.data["encoders"]["half"] = {"method": "simmim_siamese", "mask_ratio": [0.2, 0.9]}
    encoders.fill(config.data["encoders"])
    config.data["pretrain"]["batch"] = 13  # no even number
    one = losses(config)
    config.data["pretrain"]["processes"] = 2
    before = dict(os.environ)
    two = losses(config)
    for column in ("loss", "reconstruction_loss", "contrast_loss"):
        assert one[0][column].to_numpy() == pytest.approx(two[0][column].to_numpy(), rel=1e-5)
    alike(one, two, 1e-4)
    assert dict(os.environ) == before
    assert not torch.distributed.is_initialized()
    assert sorted(path.name for path in encoder(config).iterdir()) == [
        *("encoder.json", "encoder.safetensors", "history.csv", "reconstruction.png")
    ]


# Precisions


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.02), ("fp16", 0.005)])
def test_half_precision_trains_alike(config, precision, tolerance):
    config.data["pretrain"]["epochs"] = 1
    full = losses(config)[0]["loss"].iloc[0]
    config.data["training"]["precision"] = precision
    history, weights = losses(config)
    assert history["loss"].iloc[0] == pytest.approx(full, rel=tolerance)
    assert history["loss"].iloc[0] != full
    assert {array.dtype.name for array in weights.values()} == {"float32"}


def test_steps_that_overflow_in_fp16_are_skipped_and_counted(config, monkeypatch):
    config.data["training"]["precision"] = "fp16"
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**24))
    history, _ = losses(config)
    assert history["skipped_steps"].iloc[0] == 4, "all of the first epoch"
    assert history["skipped_steps"].iloc[-1] < 4
    assert history["loss"].notna().all()


def test_gradients_that_overflow_at_any_scale_stop_with_a_sentence(config, monkeypatch):
    config.data["training"]["precision"] = "fp16"
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=0.5))
    with pytest.raises(UserError, match=r"pretrain half, epoch 1: gradients overflow in fp16; use training\.precision"):
        losses(config)


def test_a_stop_in_fp16_keeps_the_scale(config, monkeypatch):
    config.data["training"] |= {"precision": "fp16", "checkpoint_minutes": 0}
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**30))
    pretrain.run(config, **ONE)
    unbroken = taken(encoder(config), "history.csv", "encoder.safetensors")
    whole, saves = training.Resume.save, []

    def save(self, *given):
        whole(self, *given)
        saves.append(1)
        if len(saves) == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training.Resume, "save", save)
        with pytest.raises(Killed):
            pretrain.run(config, **ONE)
    pretrain.run(config, **ONE)
    assert taken(encoder(config), *unbroken) == unbroken


class Compiled(torch.nn.Module):
    """In place of torch's compiler, whose import takes seconds: a module around the network, as it makes."""

    calls = 0

    def __init__(self, network):
        super().__init__()
        self._orig_mod = network

    def forward(self, *given):
        Compiled.calls += 1
        return self._orig_mod(*given)


def test_the_compiled_network_is_trained_and_the_own_one_kept(config, monkeypatch):
    plain = losses(config)
    config.data["training"]["compile"] = True
    monkeypatch.setattr(torch, "compile", Compiled)
    compiled = losses(config)
    alike(compiled, plain, 1e-9)
    assert list(compiled[1]) == list(plain[1])
    assert Compiled.calls == 3 * 4, "once a step"


def test_a_network_that_cannot_be_compiled_is_one_sentence(config, monkeypatch):
    failed = type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})

    def forward(self, *given):
        raise failed("no working C++ compiler found\nand a page more")

    config.data["training"]["compile"] = True
    monkeypatch.setattr(torch, "compile", Compiled)
    monkeypatch.setattr(Compiled, "forward", forward)
    with pytest.raises(
        UserError, match=r"^training\.compile: torch cannot .* \(no working C\+\+ compiler found\); set it"
    ):
        losses(config)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_trains_on_a_gpu(config, precision):
    config.data["pretrain"]["epochs"] = 1
    full = losses(config)[0]["loss"].iloc[0]
    config.data["device"] = "cuda"
    config.data["training"]["precision"] = precision
    assert losses(config)[0]["loss"].iloc[0] == pytest.approx(full, rel=0.02)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_as_one(config):
    config.data["device"] = "cuda"
    one = losses(config)
    config.data["pretrain"]["processes"] = 2
    alike(losses(config), one, 1e-3)


# Seeing it


def test_the_progress_line_has_loss_speed_and_time_left(config, capsys):
    pretrain.run(config, **ONE)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "pretrain half: 100%" in line
    assert " images/s, loss=" in line
    assert "<" in line, "the time left"


def test_event_files_say_what_the_history_says(config, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config.data["training"] |= {"tensorboard": True, "checkpoint_minutes": 0}
    whole, saves = training.Resume.save, []

    def save(self, *given):
        whole(self, *given)
        saves.append(1)
        if len(saves) == 8:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training.Resume, "save", save)
        with pytest.raises(Killed):
            pretrain.run(config, **ONE)
    pretrain.run(config, **ONE)
    finetune.run(config, **MODEL)
    for folder in (encoder(config), model(config)):
        history = read_table(folder / "history.csv")
        events = EventAccumulator(str(folder / "tensorboard")).Reload()
        assert set(events.Tags()["scalars"]) == set(history.columns) - {"epoch"}
        for name in events.Tags()["scalars"]:
            found = events.Scalars(name)
            assert [one.step for one in found] == list(history["epoch"]), "each epoch once, resumed or not"
            assert [one.value for one in found] == pytest.approx(list(history[name]), rel=1e-6)  # they are float32
