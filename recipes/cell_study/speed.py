"""How long a training step and a streaming step of each contender takes, against the first.

    python -m recipes.cell_study.speed --output exp/cell-study/speed.json [--rounds 31]

CPU time of one thread. In each round every contender has a turn, and a ratio is the median of the ratios to
the first one's turn of the same round. A training step is one of the study, 16 streams of 2 s, without the
features; a streaming step is one frame of 40 ms of one stream through encoder and head, in torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from asr.cli import at_least, run
from asr.phones import PHONES
from asr.training.memory import keep_freed_memory
from asr.training.penalty import penalties
from asr.training.schedule import Optimiser, make_optimiser
from benchmarks.common import machine, where
from recipes.cell_study.contenders import NAMES, OUTPUTS, SUBSAMPLING, encoder
from recipes.cell_study.corpus import FRONTEND
from recipes.cell_study.train import STEPS, STREAMS, Hearing

FRAMES = 20  # of a turn at streaming


def training(model: Hearing) -> Callable[[], None]:
    optimiser = make_optimiser(model.parameters(), Optimiser())
    features = torch.randn(STREAMS, STEPS * SUBSAMPLING, FRONTEND.mels)
    labels = torch.randint(len(PHONES), (STREAMS * STEPS * OUTPUTS,))
    state = model.encoder.initial_state(STREAMS)

    def step() -> None:
        with penalties(model) as asked:
            logits, _ = model(features, state)
        loss = cross_entropy(logits.flatten(0, 2), labels) + sum(each.mean() for each in asked)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def streaming(model: Hearing) -> Callable[[], None]:
    features = torch.randn(1, SUBSAMPLING, FRONTEND.mels)

    @torch.inference_mode()
    def step() -> None:
        state = model.encoder.initial_state(1)
        for _ in range(FRAMES):
            _, state = model(features, state)

    return step


def measure(
    made: Callable[[Hearing], Callable[[], None]], train: bool, rounds: int
) -> dict[str, list[float]]:
    """Contender -> seconds of its turns, after one that does not count."""
    contenders = {name: made(Hearing(encoder(name)).train(train)) for name in NAMES}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, step in contenders.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    return {name: turns[1:] for name, turns in seconds.items()}


def summary(turns: dict[str, list[float]], parts: int) -> dict[str, dict[str, float]]:
    first = next(iter(turns.values()))
    return {
        name: {
            "milliseconds": 1000 * statistics.median(own) / parts,
            "ratio": statistics.median(a / b for a, b in zip(own, first, strict=True)),
        }
        for name, own in turns.items()
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recipes.cell_study.speed", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="JSON")
    parser.add_argument("--rounds", type=at_least(1, int), default=31)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    keep_freed_memory()
    results = {
        "machine": machine(),
        "date": str(date.today()),
        "training": summary(measure(training, True, args.rounds), 1),
        "streaming": summary(measure(streaming, False, args.rounds), FRAMES),
    }
    args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, words in NAMES.items():
        own = [results[kind][name] for kind in ("training", "streaming")]
        print(
            f"{words:<24}" + "".join(f"{each['milliseconds']:9.2f} ms ({each['ratio']:.2f})" for each in own)
        )
    print(where())
    return 0


if __name__ == "__main__":
    run(main)
