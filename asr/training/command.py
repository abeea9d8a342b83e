"""`asr train`: Lightning's typed command line over CtcTraining and AsrData, and the bundle at the end.

    asr train --config configs/train-clean-5.yaml [--ckpt_path last] [--model.encoder.width 256 ...]

Everything goes under trainer.default_root_dir: checkpoints/, TensorBoard's events, curve.jsonl, bundle/.
"""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn, Optional

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from asr.bundle import save_bundle
from asr.data.datamodule import AsrData
from asr.errors import UserError
from asr.training.callbacks import LAST, Ema, GentleStop, LearningCurve, SaveLast
from asr.training.checkpoint import WholeCheckpoints, average
from asr.training.module import CtcTraining


class Parser(LightningArgumentParser):
    """Says what is wrong in one line, where argparse prints its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(_one_line(message, [action.dest for action in self._actions]))


class TrainCli(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--ckpt_path", type=Optional[str], default=None, help="checkpoint to resume from: a path, or `last`"
        )
        parser.add_argument("--checkpoint.every", type=int, default=500, help="steps between two saves of last.ckpt")
        parser.add_argument("--checkpoint.best", type=int, default=5, help="checkpoints of lowest dev WER to keep")
        parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights a step")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("seed_everything", "model.seed")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init["trainer"]
        root = Path(config["default_root_dir"] or "exp")
        checkpoint = self.config_init["checkpoint"]
        callbacks: list[Callback] = [
            Ema(self.config_init["ema"]),
            GentleStop(),
            LearningCurve(root / "curve.jsonl"),
            ModelCheckpoint(
                root / "checkpoints",
                filename="step{step}-wer{dev_wer:.2f}",
                auto_insert_metric_name=False,
                monitor="dev_wer",
                save_top_k=checkpoint["best"],
                save_on_train_epoch_end=False,
                enable_version_counter=False,
            ),
            SaveLast(root / "checkpoints", checkpoint["every"]),
        ]
        if config["enable_progress_bar"] is not False and sys.stdout.isatty():
            callbacks.append(RichProgressBar(leave=False))
        config["callbacks"] = [*(config["callbacks"] or []), *callbacks]
        config["default_root_dir"] = str(root)
        config["logger"] = config["logger"] or TensorBoardLogger(root, name="", version="")
        config["plugins"] = [*(config["plugins"] or []), WholeCheckpoints()]
        config["enable_progress_bar"] = sys.stdout.isatty() and config["enable_progress_bar"] is not False
        if config["precision"] is None:
            config["precision"] = "bf16-mixed" if _on_gpu(config["accelerator"]) else "32-true"
        return super().instantiate_trainer(**kwargs)


def main(argv: list[str] | None = None) -> int:
    """Train as the config says. Exit status 0, also where Ctrl-C or trainer.max_time ended it."""
    _quieten()
    cli = TrainCli(
        CtcTraining,
        AsrData,
        args=sys.argv[1:] if argv is None else argv,
        run=False,
        parser_class=Parser,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={
            "use_distributed_sampler": False,  # lhotse's sampler does it
            "reload_dataloaders_every_n_epochs": 1,  # the number of batches changes with the epoch
            "num_sanity_val_steps": 0,
            "gradient_clip_val": 5.0,
            "log_every_n_steps": 20,
            "enable_model_summary": False,
        },
    )
    module, data, trainer = cli.model, cli.datamodule, cli.trainer
    model = module.model
    data.connect(module.tokenizer, model.config.frontend.rate, model.frame_samples)
    trainer.fit(module, datamodule=data, ckpt_path=_resume_from(cli.config["ckpt_path"], Path(trainer.default_root_dir)))
    if trainer.is_global_zero:
        _write_bundle(trainer, module, data)
    return 0


def _resume_from(ckpt_path: str | None, root: Path) -> str | None:
    if ckpt_path != "last":
        return ckpt_path
    last = root / "checkpoints" / LAST
    if last.exists():
        return str(last)
    rank_zero_info(f"{last}: not there yet; training from the start")
    return None


def _write_bundle(trainer: Trainer, module: CtcTraining, data: AsrData) -> None:
    """The mean of the best checkpoints, or the best alone, whichever has the lower dev WER."""
    directory = Path(trainer.default_root_dir) / "bundle"
    best = trainer.checkpoint_callback.best_k_models  # type: ignore[union-attr]
    paths = sorted((path for path in best if Path(path).exists()), key=lambda path: float(best[path]))
    if not paths:
        rank_zero_info("no bundle is written: training ended before the dev set was decoded once")
        return
    candidates = [average([Path(path) for path in paths[:count]]) for count in sorted({1, len(paths)})]
    wers = [float(best[paths[0]])]
    if len(candidates) > 1:
        wers.append(_dev_wer(module, data, trainer, candidates[1]))
    choice = min(range(len(wers)), key=wers.__getitem__)
    module.load_state_dict(candidates[choice])
    save_bundle(directory, module.model, module.tokenizer)
    what = f"the mean of {len(paths)} checkpoints" if choice else "the best checkpoint"
    rank_zero_info(f"{directory}: {what}, dev WER {wers[choice]:.2f} % (of the two: {', '.join(f'{w:.2f}' for w in wers)})")


def _dev_wer(module: CtcTraining, data: AsrData, trainer: Trainer, weights: dict[str, torch.Tensor]) -> float:
    module.load_state_dict(weights)
    judge = Trainer(
        accelerator=trainer.accelerator,  # type: ignore[arg-type]
        devices=1,
        precision=trainer.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return judge.validate(module, datamodule=data, verbose=False)[0]["dev_wer"]


def _on_gpu(accelerator: Any) -> bool:
    return torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")


def _one_line(message: str, keys: list[str]) -> str:
    """jsonargparse's message without its layout, with the nearest known key where one was misspelt."""
    line = " ".join(message.split())
    unknown = re.search(r"[Kk]ey '([\w.]+)' is not expected|Unrecognized arguments: --([\w.]+)", line)
    if not unknown:
        return line
    key = unknown[1] or unknown[2]
    near = difflib.get_close_matches(key, keys, n=1)
    return f"{key}: no such key in the config" + (f"; did you mean {near[0]}?" if near else "")


def _quieten() -> None:
    """Silence what Lightning says on every run that calls for nothing to be done."""
    for text in (".*does not have many workers.*", ".*Checkpoint directory .* exists and is not empty.*"):
        warnings.filterwarnings("ignore", text)
    warnings.filterwarnings("ignore", ".*The number of training batches.*")
    warnings.filterwarnings("ignore", ".*eagerly read CutSet.*")
    warnings.filterwarnings("ignore", category=FutureWarning)
