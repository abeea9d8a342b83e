"""Training speed in hours of audio an hour, and where the time of a step goes.

    python -m benchmarks.training --config configs/train-clean-5.yaml [--batches 10] [--output FILE]

Takes the config and the overrides of `asr train` too. Each stage is run by itself, forward and backward, on
the batches of the whole step, in its precision; loading is timed in one process, and then as
training has it, in workers beside the steps. What the stages do not account for (masks, autograd's own work,
caches) is `rest`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from asr.cli import run
from asr.data.datamodule import AsrData
from asr.data.dataset import Batch, EpochLoader
from asr.training.callbacks import Ema
from asr.training.command import build
from asr.training.denominator import denominator_graph, log_denominator
from asr.training.memory import keep_freed_memory
from asr.training.module import CtcTraining, measure_statistics
from asr.training.schedule import make_optimiser
from benchmarks.common import add_output, check_output, cpu, write_json

REST = "norms, projections, lookahead"
WARM_UP = 2  # batches before the clock starts


@dataclass(frozen=True)
class Speed:
    """Stages are in seconds of wall time a batch; audio counts without its padding."""

    machine: str
    threads: int
    model: str
    day: str
    batches: int
    audio_seconds_a_batch: float
    utterances_a_batch: float
    padding_percent: float
    training_hours_an_hour: float
    step_hours_an_hour: float
    loading_hours_an_hour: float
    loading: float  # seconds a batch, in one process
    stages: dict[str, float]


class Clock:
    """Sums wall time under names; waits for the GPU where there is one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - start


class Bench:
    """The module of a training without Lightning around it: one step, whole or by stages.

    half: layers compute in bfloat16.
    """

    def __init__(self, module: CtcTraining, device: torch.device, half: bool) -> None:
        self.module, self.device, self.half = module.to(device).train(), device, half
        self.optimiser = make_optimiser(module.parameters(), module.optimiser, fused=device.type == "cpu")
        self.averages = [parameter.detach().clone() for parameter in module.parameters()]
        self.ema = Ema()
        self.updates = 0

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def step(self, batch: Batch) -> None:
        self.module.on_train_batch_start(batch, self.updates)
        with self.autocast():
            log_probs, frames = self.module.outputs(batch, training=True)
        self.module.loss(log_probs, frames, batch).backward()
        self.update()

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.module.parameters(), 5.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.updates += 1
        weights = [parameter.detach() for parameter in self.module.parameters()]
        self.ema._update(self.averages, weights, self.updates)

    def stages(self, batch: Batch, clock: Clock) -> None:
        """The parts of one step, one after the other, each on the real input of its layer."""
        model = self.module.model
        audio = model.pad_for_lookahead(batch.audio)
        state = model.initial_state(len(audio))
        with clock("front-end"):
            features, _ = model.frontend(audio, state.frontend)
        encoder: Any = model.encoder  # nn.Module's attributes have no types
        for layer, tail in zip(encoder.convolutions, state.encoder.convolutions, strict=True):
            features = self.both_ways(clock, "convolutions", lambda x, f=layer, s=tail: f(x, s)[0], features)
        frames = self.both_ways(clock, REST, encoder.input, features)
        for block, carried in zip(encoder.blocks, state.encoder.blocks, strict=True):
            frames = self.both_ways(
                clock, REST, lambda x, f=block, s=carried: f.lookahead(x, s.lookahead)[0], frames
            )
            inputs = self.both_ways(clock, REST, block.norm, frames)
            hidden = self.both_ways(
                clock, "recurrence", lambda x, f=block, s=carried: f.mgu(x, s.hidden)[0], inputs
            )
            frames = self.both_ways(
                clock, REST, lambda x, f=block, r=frames: r + f.dropout(f.projection(x)), hidden
            )
        frames = self.both_ways(clock, REST, encoder.norm, frames)
        log_probs = self.both_ways(clock, "head", self.head, frames)
        lengths, objective = model.frames(batch.lengths), self.module.objective
        with patch.object(self.module, "objective", replace(objective, denominator=0.0)):
            self.both_ways(clock, "CTC, frames", lambda x: self.module.loss(x, lengths, batch), log_probs)
        if objective.denominator:
            self.both_ways(
                clock,
                "denominator",
                lambda x: log_denominator(x, lengths, self.module._denominator),
                log_probs,
            )
        with clock("optimiser, clipping, averaging"):
            self.update()

    def head(self, encoded: Tensor) -> Tensor:
        model = self.module.model
        return model.drop_lookahead(model.logits(encoded)).float().log_softmax(-1)

    def both_ways(self, clock: Clock, name: str, layer: Callable[..., Tensor], inputs: Tensor) -> Tensor:
        """Forward, and backward of a gradient of ones; gives the output without its history."""
        inputs = inputs.detach().requires_grad_()
        with clock(name):
            with self.autocast():
                outputs = layer(inputs)
            outputs.backward(torch.ones_like(outputs))
        return outputs.detach()


def measure(module: CtcTraining, data: AsrData, count: int, device: torch.device, half: bool = True) -> Speed:
    data.setup("fit")
    frontend = module.model.frontend
    frontend.set_statistics(*measure_statistics(frontend, data.sample_audio(20)))
    if module.objective.denominator:
        said, order = data.training_tokens(), module.objective.order
        module._denominator = denominator_graph(said, module.tokenizer.vocabulary, order).to(device)
    bench, clock = Bench(module, device, half), Clock(device)
    plan = data.batches(0)
    dataset = data.train_dataloader().dataset
    start = time.perf_counter()
    batches = [dataset[rows] for rows in plan[: count + WARM_UP]]
    loading = (time.perf_counter() - start) / len(batches)
    batches = [move(batch, device) for batch in batches]
    for batch in batches[:WARM_UP]:
        bench.step(batch)
        bench.stages(batch, Clock(device))
    for batch in batches[WARM_UP:]:
        with clock("step"):
            bench.step(batch)
        bench.stages(batch, clock)
    timed = batches[WARM_UP:]
    stages = {name: seconds / len(timed) for name, seconds in clock.seconds.items()}
    step = stages.pop("step")
    stages["rest"] = step - sum(stages.values())
    audio = sum(float(batch.lengths.sum()) for batch in timed) / data.rate / len(timed)
    return Speed(
        machine=machine(device),
        threads=torch.get_num_threads(),
        model=module.model.describe(),
        day=str(date.today()),
        batches=len(timed),
        audio_seconds_a_batch=audio,
        utterances_a_batch=sum(len(batch.ids) for batch in timed) / len(timed),
        padding_percent=padding(data, plan),
        training_hours_an_hour=training_speed(bench, data, plan, count),
        step_hours_an_hour=audio / step,
        loading_hours_an_hour=audio / loading,
        loading=loading,
        stages=stages,
    )


def training_speed(bench: Bench, data: AsrData, plan: list[list[int]], count: int) -> float:
    """Steps with the loader's workers beside them."""
    samples, start = 0, 0.0
    loader = EpochLoader(data.train_dataloader().dataset, plan, data.workers)
    for number, batch in enumerate(islice(loader, count + WARM_UP)):
        if number == WARM_UP:
            start = time.perf_counter()
        bench.step(move(batch, bench.device))
        samples += int(batch.lengths.sum()) if number >= WARM_UP else 0
    return samples / data.rate / (time.perf_counter() - start)


def padding(data: AsrData, plan: list[list[int]]) -> float:
    """Silence added to the audio of an epoch, in percent of the audio."""
    durations = [[data._train.cuts[row].duration for row in rows] for rows in plan]
    return 100 * (sum(len(batch) * max(batch) for batch in durations) / sum(map(sum, durations)) - 1)


def move(batch: Batch, device: torch.device) -> Batch:
    fields = batch._asdict().items()
    tensors: dict[str, Any] = {name: value.to(device) for name, value in fields if isinstance(value, Tensor)}
    return batch._replace(**tensors)


def machine(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu()


def table(speed: Speed) -> str:
    step = sum(speed.stages.values())
    rows = [
        f"{name:<32}{1000 * seconds:>9.0f} ms{100 * seconds / step:>7.1f} %"
        for name, seconds in speed.stages.items()
    ]
    return "\n".join(
        [
            f"{speed.model}",
            f"{speed.machine}, {speed.threads} threads, {speed.day}; {speed.batches} batches of"
            f" {speed.audio_seconds_a_batch:.0f} s in {speed.utterances_a_batch:.1f} utterances,"
            f" padding {speed.padding_percent:.1f} %",
            "",
            *rows,
            f"{'step':<32}{1000 * step:>9.0f} ms",
            f"{'loading, in workers beside it':<32}{1000 * speed.loading:>9.0f} ms"
            f"{100 * speed.loading / step:>7.1f} % of a step",
            "",
            f"{'steps alone':<32}{speed.step_hours_an_hour:>9.0f} h of audio an hour",
            f"{'loading alone, one process':<32}{speed.loading_hours_an_hour:>9.0f} h of audio an hour",
            f"{'training, both':<32}{speed.training_hours_an_hour:>9.0f} h of audio an hour",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=10, help="to time, after a warm-up of two")
    add_output(parser)
    args, rest = parser.parse_known_args(argv)
    check_output(args.output)
    cli = build(rest)
    keep_freed_memory()
    half = "bf16" in str(cli.trainer.precision)
    speed = measure(cli.model, cli.datamodule, args.batches, cli.trainer.strategy.root_device, half)
    print(table(speed))
    write_json(args.output, "training", "a training step by stages", argv, [speed])
    return 0


if __name__ == "__main__":
    run(main)
