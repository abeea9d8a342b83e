"""The recurrence, and a whole training, on one CUDA GPU: `python -m benchmarks.gpu [--output FILE]`.

    python -m benchmarks.gpu --output gpu.json --config configs/train-clean-100.yaml  # and a training's speed

Four tables, and before them with --config a fifth:

1. back-ends against the loop in float64: relative errors of outputs, final state, and the worst gradient;
2. one layer, input = hidden = H, against cuDNN's nn.GRU in bfloat16: ratios of medians of interleaved runs,
   forward / forward+backward, above 1 is faster;
3. the Triton back-end against the floor of an H200;
4. rows for `MEASURED` in asr/ops/__init__.py, by which `auto` chooses;
5. the training that the config and the overrides behind it describe, as benchmarks.training has it, with each
   of the two GPU back-ends: hours of audio a minute, loading included; and loading apart.

An H200 needs under 8 minutes for all of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr import ops
from asr.cli import run
from asr.errors import UserError
from asr.ops import Backend, Measured
from asr.training.command import build
from benchmarks.common import add_output, check_output, write_json
from benchmarks.recurrence import Layer, Times, measure, run_mgu
from benchmarks.training import Clock, Speed, machine
from benchmarks.training import measure as measure_training

HIDDEN = [256, 384, 512, 1024]
BATCHES = [16, 32, 64, 128]
STEPS = 400
GPU_BACKENDS: list[Backend] = ["tied_gru", "triton"]
CHECKED: list[Backend] = ["bptt", *GPU_BACKENDS]
GRU, LSTM = "nn.GRU bf16", "nn.LSTM fp16"

# What an H200 was seen to do: copies on the device, and a bf16 product of matrices of 8192 x 8192. The third
# is an estimate of what a step costs that can only begin when the one before has ended everywhere.
BYTES_A_SECOND, FLOPS_A_SECOND, STEP_SECONDS = 4.3e12, 7.8e14, 1e-6


class Size(NamedTuple):
    batch: int
    steps: int
    hidden: int


class Work(NamedTuple):
    """What a layer, input = hidden = H, cannot do without."""

    steps: int  # in a row
    flops: float
    bytes: float  # to and from memory

    def seconds(self) -> float:
        """The floor: the slowest of the three, as if the others went on beside it."""
        return max(self.steps * STEP_SECONDS, self.flops / FLOPS_A_SECOND, self.bytes / BYTES_A_SECOND)


def forward_work(size: Size) -> Work:
    """Both products; reading inputs and weights, writing outputs, all in half."""
    units = size.batch * size.steps * size.hidden
    return Work(size.steps, 8 * units * size.hidden, 2 * (2 * units + 4 * size.hidden**2))


def both_work(size: Size) -> Work:
    """A forward that keeps f, n and W_hn h in float32, and a backward of twice its products, which reads
    these, the inputs, the outputs and their gradient, and writes the gradients of inputs and weights."""
    forward, units = forward_work(size), size.batch * size.steps * size.hidden
    kept, halves = 2 * 4 * 3 * units, 2 * (4 * units + 8 * size.hidden**2)
    return Work(2 * size.steps, 3 * forward.flops, forward.bytes + kept + halves)


def accuracy(size: Size, dtype: torch.dtype, backend: Backend, device: torch.device) -> list[float]:
    """Relative errors from a random state: of the outputs, the final state, and the worst gradient."""
    hidden = size.hidden
    shapes = [(size.batch, size.steps, hidden), (size.batch, hidden), (2 * hidden, hidden)]
    shapes += [(2 * hidden, hidden), (2 * hidden,), (hidden,)]
    values = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    for weight in values[2:4]:
        weight *= hidden**-0.5
    by_outputs = torch.randn(shapes[0], device=device).to(dtype)
    by_final = torch.randn(shapes[1], device=device).to(dtype)

    def results(backend: Backend, dtype: torch.dtype) -> list[Tensor]:
        leaves = [value.detach().to(dtype).requires_grad_() for value in values]
        inputs, state, weight_ih, weight_hh, bias, bias_hn = leaves
        outputs, final = ops.mgu(inputs, state, weight_ih, weight_hh, bias, bias_hn, backend)
        gradients = (by_outputs.to(dtype), by_final.to(dtype))
        return [outputs, final, *torch.autograd.grad([outputs, final], leaves, gradients)]

    exact = results("reference", torch.float64)
    errors = [
        float((ours.detach().double() - theirs.detach()).norm() / theirs.detach().norm())
        for ours, theirs in zip(results(backend, dtype), exact, strict=True)
    ]
    return [errors[0], errors[1], max(errors[2:])]


def contenders(hidden: int, device: torch.device) -> dict[str, Layer]:
    """The peers, and both GPU back-ends with the same weights, in bfloat16."""
    gru = nn.GRU(hidden, hidden, batch_first=True).to(device, torch.bfloat16)
    lstm = nn.LSTM(hidden, hidden, batch_first=True).to(device, torch.float16)
    shapes = [(2 * hidden, hidden), (2 * hidden, hidden), (2 * hidden,), (hidden,)]
    weights = [(torch.randn(shape) * hidden**-0.5).to(device, torch.bfloat16) for shape in shapes]
    for weight in weights:
        weight.requires_grad_()
    found: dict[str, Layer] = {
        GRU: (lambda inputs: gru(inputs)[0], list(gru.parameters())),
        LSTM: (lambda inputs: lstm(inputs)[0], list(lstm.parameters())),
    }
    return found | {name: (partial(run_mgu, weights, name), weights) for name in GPU_BACKENDS}


def spans(points: Iterable[int]) -> dict[int, tuple[int, int]]:
    """What each measured point stands for: all above the next smaller one; the smallest only for itself."""
    ordered = sorted(points)
    return {
        point: (below + 1, point) for below, point in zip([ordered[0] - 1, *ordered], ordered, strict=False)
    }


def faster(times: dict[Size, Times], where: str) -> list[Measured]:
    """Where Triton is faster than the tied GRU, forward and backward."""
    sizes, batches = spans({size.hidden for size in times}), spans({size.batch for size in times})
    rows = []
    for size, seconds in times.items():
        ratio = round(seconds["tied_gru"][1] / seconds["triton"][1], 2)
        if ratio > 1:
            span = (sizes[size.hidden], batches[size.batch])
            rows.append(Measured(torch.bfloat16, *span, "triton", ratio, where))
    return rows


def print_table(header: list[str], rows: Iterable[list[str]]) -> None:
    """Rows appear as they are made."""
    print(f"\n| {' | '.join(header)} |\n{'|---' * len(header)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def speed_row(size: Size, times: Times) -> list[str]:
    forward, both = times[GRU]
    ratios = [f"{forward / f:.2f} / {both / b:.2f}" for name, (f, b) in times.items() if name != GRU]
    return [f"{size.hidden}", f"{size.batch}", f"{1e3 * forward:.2f} / {1e3 * both:.2f} ms", *ratios]


def floor_row(size: Size, times: Times) -> list[str]:
    cells = [f"{size.hidden}", f"{size.batch}"]
    for work, seconds in zip((forward_work(size), both_work(size)), times["triton"], strict=True):
        cells += [
            f"{work.flops / 1e9:.0f} GFLOP, {work.bytes / 1e6:.0f} MB",
            f"{1e6 * seconds / work.steps:.2f} us",
            f"{seconds / work.seconds():.1f}",
        ]
    return cells


def training(arguments: list[str]) -> dict[str, Any]:
    """Prints the table of the config's training with each GPU back-end; gives its figures."""
    found: dict[str, Speed] = {}
    for backend in GPU_BACKENDS:
        cli = build([*arguments, "--model.backend", backend])
        device = cli.trainer.strategy.root_device
        half = "bf16" in str(cli.trainer.precision)
        found[backend] = measure_training(cli.model, cli.datamodule, count=20, device=device, half=half)
    print_table(
        ["back-end", "training, h of audio a minute", "steps alone", "loading, one process", "recurrence"],
        (training_row(*row) for row in found.items()),
    )
    return {backend: asdict(speed) for backend, speed in found.items()}


def training_row(backend: str, speed: Speed) -> list[str]:
    a_minute = (speed.training_hours_an_hour, speed.step_hours_an_hour, speed.loading_hours_an_hour)
    recurrence = 100 * speed.stages["recurrence"] / sum(speed.stages.values())
    return [backend, *(f"{hours / 60:.1f}" for hours in a_minute), f"{recurrence:.0f} %"]


def layers(
    sizes: list[Size], checked: list[Size], runs: int, device: torch.device, where: str
) -> dict[str, Any]:
    """Prints the first four tables; gives their figures."""
    errors = {
        (backend, str(dtype).removeprefix("torch."), size): accuracy(size, dtype, backend, device)
        for backend in CHECKED
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        for size in checked
    }
    print_table(
        ["back-end", "dtype", "B, T, H", "outputs", "final state", "worst gradient"],
        (
            [backend, dtype, ", ".join(map(str, size)), *(f"{error:.1e}" for error in found)]
            for (backend, dtype, size), found in errors.items()
        ),
    )
    times: dict[Size, Times] = {}

    def measured() -> Iterator[list[str]]:
        for size in sizes:
            now = Clock(device).now
            times[size] = measure(contenders(size.hidden, device), *size, runs=runs, now=now)
            yield speed_row(size, times[size])

    print_table(["H", "B", GRU, LSTM, *GPU_BACKENDS], measured())
    cells = ["least work", "a step", "times the floor"]
    print_table(
        ["H", "B", *(f"forward: {cell}" for cell in cells), *(f"both: {cell}" for cell in cells)],
        (floor_row(*row) for row in times.items()),
    )
    print("\nMEASURED: tuple[Measured, ...] = (")
    for row in faster(times, where):
        print(
            f"    Measured({row.dtype}, {row.sizes}, {row.batches}, {row.backend!r}, {row.ratio}, {where!r}),"
        )
    print(")")
    return {
        "errors": [{"of": key, "relative": found} for key, found in errors.items()],
        "rows": [{"size": size, "seconds": seconds} for size, seconds in times.items()],
    }


def main(argv: list[str] | None = None) -> int:
    what = "the recurrence, and a training, on a GPU against cuDNN"
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=what)
    parser.add_argument("--runs", type=int, default=15, help="rounds of which the median is taken")
    add_output(parser)
    parser.add_argument("--config", help="of asr train; overrides may follow")
    arguments, overrides = parser.parse_known_args(argv)
    if overrides and not arguments.config:
        parser.error(f"{overrides[0]}: not an option, and there is no --config for it to override")
    check_output(arguments.output)
    if not torch.cuda.is_available():
        raise UserError("benchmarks.gpu needs a CUDA GPU, and torch finds none")
    device = torch.device("cuda")
    where = f"{machine(device)}, {date.today()}"
    print(f"{where}, torch {torch.__version__}", flush=True)
    # the training first, so that a mistake in its config comes to light at once
    speeds = training(["--config", arguments.config, *overrides]) if arguments.config else {}
    sizes = [Size(batch, STEPS, hidden) for hidden in HIDDEN for batch in BATCHES]
    found = layers(sizes, [Size(33, 150, 200), Size(64, 60, 512)], arguments.runs, device, where)
    write_json(arguments.output, "gpu", what, argv, **found, gpu=where, training=speeds)
    return 0


if __name__ == "__main__":
    run(main)
