"""`asr train`: Lightning's typed command line over CtcTraining and AsrData, and the bundle at the end.

    asr train --config configs/train-clean-5.yaml [--ckpt_path last] [--model.encoder.width 256 ...]

Everything goes under trainer.default_root_dir: checkpoints/, TensorBoard's events, curve.jsonl, bundle/.
"""

from __future__ import annotations

import difflib
import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from asr.bundle import Bundle, save_bundle
from asr.data.datamodule import AsrData
from asr.decoding.config import OF_PHONES, DecodingConfig
from asr.errors import UserError
from asr.training.callbacks import JUDGED, LAST, Ema, GentleStop, LearningCurve, SaveLast
from asr.training.checkpoint import WholeCheckpoints, average
from asr.training.memory import keep_freed_memory
from asr.training.module import CtcTraining
from asr.training.precision import precision

MISSPELT = (  # jsonargparse's ways of saying so
    (r"^Group '([\w.]+)' does not accept option '([\w.]+)'", "{0}.{1}"),
    (r"^Option '([\w.]+)' is not accepted", "{0}"),
    (r"^unrecognized arguments: --([\w.]+)", "{0}"),
)


C = TypeVar("C", bound=Callback)


class Candidate(NamedTuple):
    """Weights that could become the bundle."""

    name: str
    weights: dict[str, torch.Tensor]
    error: float  # on the dev set, by what the objective is judged


class Parser(LightningArgumentParser):
    """Says what is wrong in one line, where argparse prints its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(_one_line(message, [action.dest for action in self._actions]))


class TrainCli(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="a checkpoint to resume from, or: last"
        )
        parser.add_argument(
            "--checkpoint.every", type=int, default=500, help="save last.ckpt every so many steps"
        )
        parser.add_argument(
            "--checkpoint.best",
            type=int,
            default=5,
            help="how many of the lowest error on the dev set to keep",
        )
        parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights a step")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("seed_everything", "model.seed")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init["trainer"]
        root = Path(config["default_root_dir"] or "exp")
        checkpoint = self.config_init["checkpoint"]
        judged_by = self.config_init["model"].judged_by
        callbacks: list[Callback] = [
            Ema(self.config_init["ema"]),
            GentleStop(),
            LearningCurve(root / "curve.jsonl", self.config_init["model"].model.config.frontend.rate),
            ModelCheckpoint(
                root / "checkpoints",
                filename=f"step{{step}}_{judged_by}={{{judged_by}:.3f}}",
                auto_insert_metric_name=False,
                monitor=judged_by,
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
            config["precision"] = precision(config["accelerator"])
        return super().instantiate_trainer(**kwargs)


def main(argv: list[str] | None = None) -> int:
    """Train as the config says. Exit status 0, also where Ctrl-C or trainer.max_time ended it."""
    cli = build(argv)
    keep_freed_memory()
    module, data, trainer = cli.model, cli.datamodule, cli.trainer
    checkpoint = _resume_from(cli.config["ckpt_path"], Path(trainer.default_root_dir))
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    if trainer.is_global_zero:
        _write_bundle(trainer, module, data)
    return 0


def build(argv: list[str] | None = None) -> TrainCli:
    """Module, data and trainer as config and flags say; raises UserError naming the key that is wrong."""
    quieten()
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
    model = cli.model.model
    cli.datamodule.connect(cli.model.tokenizer, model.config.frontend.rate, model.frame_samples)
    return cli


def _resume_from(ckpt_path: str | None, root: Path) -> str | None:
    if ckpt_path != "last":
        return ckpt_path
    last = root / "checkpoints" / LAST
    if last.exists():
        return str(last)
    print(f"{last}: not there yet; training from the start")
    return None


def _write_bundle(trainer: Trainer, module: CtcTraining, data: AsrData) -> None:
    """The best checkpoint, the mean of the best, or the end of training: what errs least on the dev set."""
    directory = Path(trainer.default_root_dir) / "bundle"
    kept = _find(trainer, ModelCheckpoint).best_k_models
    scores = {Path(path): float(error) for path, error in kept.items()}
    best = sorted((path for path in scores if path.exists()), key=scores.__getitem__)
    candidates: list[Candidate] = []
    if best:
        candidates.append(Candidate("the best checkpoint", average(best[:1]), scores[best[0]]))
    if len(best) > 1:
        weights = average(best)
        candidates.append(
            Candidate(f"the mean of the best {len(best)}", weights, _dev_error(module, data, weights))
        )
    if not candidates or _find(trainer, LearningCurve).step != trainer.global_step:
        weights = _find(trainer, Ema).weights()
        candidates.append(Candidate("the end of training", weights, _dev_error(module, data, weights)))
    chosen = min(candidates, key=lambda candidate: candidate.error)
    module.load_state_dict(chosen.weights)
    decoding = DecodingConfig() if module.tokenizer.lexicon is None else OF_PHONES
    save_bundle(directory, Bundle(module.model, module.tokenizer, decoding))
    said = JUDGED[module.judged_by]
    errors = ", ".join(f"{each.name}: {said.format(each.error)}" for each in candidates)
    print(f"{directory}: {chosen.name}; {errors}")


def _dev_error(module: CtcTraining, data: AsrData, weights: dict[str, torch.Tensor]) -> float:
    trainer = module.trainer
    module.load_state_dict(weights)
    judge = Trainer(
        accelerator="gpu" if trainer.strategy.root_device.type == "cuda" else "cpu",
        devices=1,
        precision=trainer.precision,
        limit_val_batches=trainer.limit_val_batches,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return judge.validate(module, datamodule=data, verbose=False)[0][module.judged_by]


def _find(trainer: Trainer, kind: type[C]) -> C:
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))  # type: ignore[attr-defined]


def _one_line(message: str, keys: list[str]) -> str:
    """jsonargparse's message without its layout; for a misspelt key, that key and the nearest known one."""
    line = " ".join(message.split())
    for pattern, name in MISSPELT:
        found = re.search(pattern, line)
        if found:
            key = name.format(*found.groups())
            near = difflib.get_close_matches(key, keys, n=1)
            return f"{key}: there is no such key" + (f"; did you mean {near[0]}?" if near else "")
    return line


def quieten() -> None:
    """Silence what Lightning says on every run that calls for nothing to be done."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*args parameter is intended to run from within Python.*")
    for text in (".*does not have many workers.*", ".*Checkpoint directory .* exists and is not empty.*"):
        warnings.filterwarnings("ignore", text)
    warnings.filterwarnings("ignore", ".*The number of training batches.*")
    warnings.filterwarnings("ignore", ".*Mismatch dtype between input and weight.*")  # RMSNorm under autocast
    warnings.filterwarnings("ignore", ".*eagerly read CutSet.*")
    warnings.filterwarnings("ignore", category=FutureWarning)
