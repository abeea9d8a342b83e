"""What happens around the steps: averaged weights, the checkpoint to resume from, the learning curve, Ctrl-C."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

LAST = "last.ckpt"


class Ema(WeightAveraging):
    """Exponential moving average of the weights, used in validation, as `state_dict` of checkpoints, and in the bundle.

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


class SaveLast(Checkpoint):
    """Keeps `last.ckpt` in `directory` up to date: every `steps` steps, and whenever the dev set was decoded."""

    def __init__(self, directory: Path, steps: int) -> None:
        self.path, self.steps = directory / LAST, steps
        self._saved = 0  # the step of the last save

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step - self._saved >= self.steps and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved = trainer.global_step

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = trainer.global_step


class LearningCurve(Callback):
    """A printed line, and one in `curve.jsonl`, for each decoding of the dev set; speed in audio hours an hour."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0  # of training, over all resumptions
        self._audio = 0.0  # seconds of audio since the last line
        self._clock = self._mark = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock = self._mark = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._audio += float(batch.lengths.sum()) / pl_module.model.config.frontend.rate  # type: ignore[union-attr,operator,arg-type]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        metrics = {key: float(trainer.callback_metrics[key]) for key in ("loss", "dev_loss", "dev_wer")}
        speed = self._audio * trainer.world_size / max(1e-9, self._clock - self._mark)
        self._tick()
        self._audio, self._mark = 0.0, self._clock
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        line = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "minutes": round(self.seconds / 60, 2),
            **metrics,
            "rate": rate,
            "audio_hours_an_hour": round(speed, 1),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        rank_zero_info(
            f"epoch {trainer.current_epoch}, step {trainer.global_step}, {self.seconds / 60:.1f} min:"
            f" loss {metrics['loss']:.3f}, dev loss {metrics['dev_loss']:.3f}, dev WER {metrics['dev_wer']:.2f} %"
            f" (rate {rate:.1e}, {speed:.0f} h of audio an hour)"
        )

    def state_dict(self) -> dict[str, Any]:
        self._tick()
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]


class GentleStop(Callback):
    """The first Ctrl-C or SIGTERM ends training after the batch at hand, with its validation and its checkpoint."""

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def stop(number: int, frame: Any) -> None:
            self._restore()
            trainer.should_stop = True
            rank_zero_info("stopping: decoding the dev set and saving; interrupt again to stop at once")

        self._previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
