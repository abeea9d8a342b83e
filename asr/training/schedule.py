"""The learning rate as a function of the step, and the optimiser that follows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from asr.training.muon import Muon


@dataclass(frozen=True)
class Optimiser:
    """Muon, or AdamW, with a linear warm-up.

    method: muon makes steps of matrices orthogonal: fewer of them are needed, and each takes longer
    (asr.training.muon).
    rate: the highest learning rate, reached after `warmup` steps. decay: from there a half cosine down to
    `floor` * rate at step `steps`, or the inverse square root of the step. steps: null takes
    trainer.max_steps, or trainer.max_epochs times the batches of an epoch. weight_decay: on matrices alone.
    """

    method: Literal["adamw", "muon"] = "adamw"
    rate: float = 2e-3
    warmup: int = 500
    decay: Literal["cosine", "inverse_sqrt"] = "cosine"
    steps: int | None = None
    floor: float = 0.01
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)


def schedule(config: Optimiser, steps: int) -> Callable[[int], float]:
    """Step -> factor on the highest rate, for a training of `steps` steps."""

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / (config.warmup + 1)
        if config.decay == "inverse_sqrt":
            return math.sqrt((config.warmup + 1) / (step + 1))
        done = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
        return config.floor + (1 - config.floor) * (1 + math.cos(math.pi * done)) / 2

    return factor


def make_optimiser(
    parameters: Iterable[nn.Parameter], config: Optimiser, fused: bool = True
) -> torch.optim.Optimizer:
    """fused: whether AdamW may be the one that torch says is the fastest."""
    parameters = list(parameters)
    if config.method == "muon":
        return Muon(parameters, config.rate, weight_decay=config.weight_decay, betas=config.betas)
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.rate, betas=config.betas, fused=fused)
