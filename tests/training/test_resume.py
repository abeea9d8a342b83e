"""A resumed training is the training that was interrupted: batches, augmentation, dropout, schedule, averages."""

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
    """`step`: the optimiser steps in the checkpoint; the loss of the last of them may not have been logged."""
    whole, resumed = loss_curve(uninterrupted), loss_curve(root)
    assert set(range(step, max(whole) + 1)) <= set(resumed)
    assert resumed == pytest.approx({key: whole[key] for key in resumed}, abs=1e-6)
    expected = final_weights(uninterrupted)
    for name, tensor in final_weights(root).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_training_killed_mid_epoch_resumes_with_the_same_loss_curve(config: ConfigWriter, tmp_path: Path) -> None:
    options = {"checkpoint__every": 3, "data__workers": 1, "trainer__max_epochs": 3}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config(whole, **options))
    path = config(killed, **options)

    run = "import sys; from asr.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", run, "train", "--config", str(path)], env=environment)
    last = killed / "checkpoints" / LAST
    while not last.exists():
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.01)
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
        ({}, 8),  # the end of the first epoch, before its validation
        ({"trainer__accumulate_grad_batches": 3}, 2),
        ({"trainer__max_epochs": -1, "trainer__max_steps": 20}, 13),
        ({"trainer__val_check_interval": 0.5}, 4),
    ],
    ids=["mid-epoch", "epoch end", "accumulating", "by steps", "at a validation"],
)
def test_every_checkpoint_resumes_exactly(
    config: ConfigWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], step: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(whole, **options))

    def save_and_stop(self: SaveLast, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(SaveLast, "_save", save_and_stop)
        with pytest.raises(Stop):
            train(config(cut, checkpoint__every=step, **options))
    train(config(cut, **options), "--ckpt_path", "last")
    assert_same_training(cut, whole, step)


def test_training_stopped_by_ctrl_c_writes_a_bundle_and_goes_on_exactly(
    config: ConfigWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config(whole))
    start = CtcTraining.on_train_batch_start

    def interrupt(self: CtcTraining, batch: object, batch_idx: int) -> None:
        start(self, batch, batch_idx)  # type: ignore[arg-type]
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(CtcTraining, "on_train_batch_start", interrupt)
        train(config(stopped))
    assert torch.load(stopped / "checkpoints" / LAST, weights_only=True)["global_step"] == 5
    assert (stopped / "bundle" / "model.safetensors").exists()
    train(config(stopped), "--ckpt_path", "last")
    assert_same_training(stopped, whole, 5)
