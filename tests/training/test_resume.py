"""A resumed training is the one that was interrupted: batches, augmentation, dropout, schedule, averages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asr.data.dataset import Batch
from asr.errors import UserError
from asr.training.callbacks import LAST, SaveLast
from asr.training.command import main
from asr.training.module import CtcTraining

ConfigWriter = Callable[..., Path]


def loss_curve(root: Path) -> dict[int, float]:
    """Step -> loss; where a step was trained twice, the later one."""
    events = EventAccumulator(str(root), size_guidance={"scalars": 0})
    events.Reload()
    return {scalar.step: scalar.value for scalar in events.Scalars("loss")}


def final_weights(root: Path) -> dict[str, torch.Tensor]:
    return torch.load(root / "checkpoints" / LAST, weights_only=True)["state_dict"]


def train(config: Path, *arguments: str) -> None:
    assert main(["--config", str(config), *arguments]) == 0


def assert_same_training(root: Path, uninterrupted: Path, step: int) -> None:
    """`step`: optimiser steps in the checkpoint; the loss of the last of them may not have been logged."""
    whole, resumed = loss_curve(uninterrupted), loss_curve(root)
    assert set(range(step, max(whole) + 1)) <= set(resumed)
    assert resumed == pytest.approx({key: whole[key] for key in resumed}, abs=1e-6)
    expected = final_weights(uninterrupted)
    for name, tensor in final_weights(root).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5, msg=name)


def start(config: Path) -> subprocess.Popen[bytes]:
    """`asr train` in a process group of its own, as a terminal starts it."""
    run = "from asr.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", run, "train", "--config", str(config)]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, f"training ended before there was {path}"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_training_killed_in_an_epoch_resumes_with_the_same_loss_curve(
    config: ConfigWriter, tmp_path: Path
) -> None:
    options = {"checkpoint__every": 3, "data__workers": 1, "trainer__max_epochs": 3}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config(whole, **options))
    path = config(killed, **options)

    process = start(path)
    last = killed / "checkpoints" / LAST
    wait_for(last, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    step = torch.load(last, weights_only=True)["global_step"]
    assert 0 < step < max(loss_curve(whole))

    train(path, "--ckpt_path", "last")
    assert_same_training(killed, whole, step)


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({}, 5),
        ({}, 10),
        ({"checkpoint__every": 1000}, 10),
        ({"trainer__accumulate_grad_batches": 3}, 2),
        ({"trainer__max_epochs": -1, "trainer__max_steps": 20}, 13),
        ({"trainer__val_check_interval": 0.5, "checkpoint__every": 1000}, 5),
    ],
    ids=["mid-epoch", "before validation", "after validation", "accumulating", "by steps", "twice an epoch"],
)
def test_every_checkpoint_resumes_exactly(
    config: ConfigWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, step: int
) -> None:
    options = {"model__carried": 0.9, "checkpoint__every": step, **options}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(whole, **options))  # 10 batches an epoch

    def save_and_stop(self: SaveLast, trainer: Trainer) -> None:
        if trainer.global_step == step:
            trainer.save_checkpoint(self.path, weights_only=False)
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(SaveLast, "_save", save_and_stop)
        with pytest.raises(Stop):
            train(config(cut, **options))
    train(config(cut, **options), "--ckpt_path", "last")
    assert_same_training(cut, whole, step)


def test_training_stopped_by_ctrl_c_writes_a_bundle_and_goes_on_exactly(
    config: ConfigWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config(whole))
    start = CtcTraining.on_train_batch_start

    def interrupt(self: CtcTraining, batch: Batch, batch_idx: int) -> None:
        start(self, batch, batch_idx)
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(CtcTraining, "on_train_batch_start", interrupt)
        train(config(stopped))
    assert torch.load(stopped / "checkpoints" / LAST, weights_only=True)["global_step"] == 5
    assert (stopped / "bundle" / "model.safetensors").exists()
    train(config(stopped), "--ckpt_path", "last")
    assert_same_training(stopped, whole, 5)


def test_a_file_that_goes_while_training_costs_no_step(
    config: ConfigWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config(whole))
    start = CtcTraining.on_train_batch_start

    def lose_a_file(self: CtcTraining, batch: Batch, batch_idx: int) -> None:
        start(self, batch, batch_idx)
        if self.global_step == 3:
            (corpus / "wav").rename(corpus / "gone")

    with monkeypatch.context() as patch:
        patch.setattr(CtcTraining, "on_train_batch_start", lose_a_file)
        with pytest.raises(UserError, match=r"\.wav"):
            train(config(broken))
    (corpus / "gone").rename(corpus / "wav")
    assert torch.load(broken / "checkpoints" / LAST, weights_only=True)["global_step"] == 4
    train(config(broken), "--ckpt_path", "last")
    assert_same_training(broken, whole, 4)


def test_ctrl_c_at_a_terminal_reaches_the_workers_too_and_training_ends_well(
    config: ConfigWriter, tmp_path: Path
) -> None:
    process = start(config(checkpoint__every=3, data__workers=1, trainer__max_epochs=1000))
    wait_for(tmp_path / "run" / "checkpoints" / LAST, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 0
    assert (tmp_path / "run" / "bundle" / "model.safetensors").exists()
