"""What happens around the steps: averaged weights, the checkpoint to resume from, learning curve, Ctrl-C."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from torch import Tensor

from asr.data.manifest import AudioError

LAST = "last.ckpt"
JUDGED = {
    "dev_loss": "dev loss {:.3f}",
    "dev_wer": "dev WER {:.1f} %",
    "dev_phone_error": "dev phone error {:.1f} %",
    "dev_frame_error": "dev frame error {:.1f} %",
}


class Ema(WeightAveraging):
    """Exponential moving average of the weights: for validation, `state_dict` of checkpoints, and bundle.

    decay: share of the average kept at a step; earlier on less, (1 + n) / (10 + n) after n steps, so that the
    first weights are soon forgotten.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        super().__init__(use_buffers=False, multi_avg_fn=self._update)

    @torch.no_grad()
    def _update(self, averages: list[Tensor], weights: list[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        torch._foreach_lerp_(averages, weights, 1 - min(self.decay, (1 + n) / (10 + n)))

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights as a state_dict of the module."""
        assert self._average_model is not None
        return {name: tensor.clone() for name, tensor in self._average_model.module.state_dict().items()}


class SaveLast(Checkpoint):
    """Keeps `last.ckpt` up to date: every `steps` steps, after decoding the dev set, and when stopped,
    by a signal, the clock or a file that cannot be read."""

    def __init__(self, directory: Path, steps: int) -> None:
        self.path, self.steps = directory / LAST, steps
        self._saved = 0  # the step of the last save

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0  # else gradients would be lost
        if trainer.should_stop or (stepped and trainer.global_step - self._saved >= self.steps):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # what stops was saved before: Lightning would count one step wrongly after a validation out of turn
        stopping = trainer.should_stop and self._saved == trainer.global_step
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not stopping:
            self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, AudioError) and trainer.training:
            self._save(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved = trainer.global_step

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved = trainer.global_step


class LearningCurve(Callback):
    """A printed line, and one in `curve.jsonl`, for each dev set decoded; speed in audio hours an hour."""

    def __init__(self, path: Path, rate: int) -> None:
        self.path, self.rate = path, rate
        self.step = -1  # of the last line
        self.seconds = 0.0  # of training, over all resumptions
        self._samples = 0  # of audio since the last line
        self._clock = self._mark = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock = self._mark = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._samples += int(batch.lengths.sum())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        self.step = trainer.global_step
        known = trainer.callback_metrics
        keys = ("loss", *JUDGED)
        metrics = {key: float(known[key]) for key in keys if key in known}
        speed = self._samples / self.rate * trainer.world_size / max(1e-9, self._clock - self._mark)
        self._tick()
        self._samples, self._mark = 0, self._clock
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        line = {
            "epoch": trainer.current_epoch,
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            **metrics,
            "rate": rate,
            "audio_hours_an_hour": round(speed, 1),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        figures = [said.format(metrics[key]) for key, said in JUDGED.items() if key in metrics]
        trainer.print(
            f"epoch {trainer.current_epoch}, step {trainer.global_step}, {self.seconds / 60:.1f} min:"
            f" loss {metrics['loss']:.3f}, {', '.join(figures)}"
            f" (rate {rate:.1e}, {speed:.0f} h of audio an hour)"
        )

    def state_dict(self) -> dict[str, Any]:
        self._tick()
        return {"seconds": self.seconds, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.step = state_dict["seconds"], state_dict["step"]


class GentleStop(Callback):
    """The first Ctrl-C or SIGTERM ends training after the batch at hand, with validation and checkpoint."""

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def stop(number: int, frame: Any) -> None:
            self._restore()
            trainer.should_stop = True
            trainer.print("stopping: decoding the dev set and saving; interrupt again to stop at once")

        self._previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
