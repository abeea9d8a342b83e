"""Checkpoints on disk: written whole or not at all, read with an error a person can act on, averaged.

A checkpoint is Lightning's: `state_dict` holds the averaged weights (asr.training.callbacks.Ema), and
`current_model_state` those that training goes on from.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from asr.errors import UserError

ANEW = "give another, or leave --ckpt_path away to train from the start"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the target and renames. Lightning's own way writes in the temporary directory and moves,
    which across file systems is a copy that a full disk can cut short.

    again, anew: what the user can do to go on from the last checkpoint, and to do without a damaged one.
    """

    def __init__(self, again: str = "go on with --ckpt_path last", anew: str = ANEW) -> None:
        self.again, self.anew = again, anew

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        buffer = io.BytesIO()  # torch.save to a full disk raises a RuntimeError that does not say so
        torch.save(checkpoint, buffer)
        try:
            _write(partial, buffer)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{path}: no space left on the disk for this checkpoint; the one before it is whole:"
                f" free some space and {self.again}"
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), self.anew)


def _write(path: Path, buffer: io.BytesIO) -> None:
    with path.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())  # else a full disk may show only after the rename


def read_checkpoint(path: Path, anew: str = ANEW) -> dict[str, Any]:
    """Tensors and plain values alone; UserError where there is no checkpoint or a damaged one."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint; {anew}") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one; {anew}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "identity" not in checkpoint:
        raise UserError(f"{path}: a checkpoint of something else; {anew}")
    return checkpoint


def average(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the checkpoints' weights, as a state_dict of CtcTraining."""
    return mean((read_checkpoint(path)["state_dict"] for path in paths), [1 / len(paths)] * len(paths))


def mean(weights: Iterable[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Of the same tensors by name, with shares that sum to 1; float32."""
    total: dict[str, Tensor] = {}
    for own, share in zip(weights, shares, strict=True):
        for name, tensor in own.items():
            total[name] = total.get(name, 0) + share * tensor.double()
    return {name: tensor.float() for name, tensor in total.items()}
