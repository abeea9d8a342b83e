"""One recurrent layer on the CPU against torch's nn.GRU and nn.LSTM: `python -m benchmarks.recurrence`.

Input and hidden size are both H. A figure is a ratio of medians of interleaved runs: nn.GRU's time over the
other's, so that above 1 is faster than nn.GRU; a cell holds forward / forward+backward. With one thread it is
CPU time; with more a quiet machine is needed, since a neighbour on one of the cores changes everything.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from asr import ops
from asr.cli import run
from asr.ops import Backend
from benchmarks.common import add_output, check_output, clock, where, write_json

# B, T, H
SIZES = [(16, 400, 256), (16, 400, 384), (16, 400, 512), (32, 300, 512), (1, 400, 512), (8, 200, 384)]
BACKENDS: list[Backend] = ["bptt", "tied_gru", "cpu"]

# Inputs (B, T, H) -> outputs (B, T, H), and the parameters.
Layer = tuple[Callable[[Tensor], Tensor], list[Tensor]]
Times = dict[str, tuple[float, float]]  # layer -> seconds of forward, of forward and backward


def layers(size: int, reset_gate: bool) -> dict[str, Layer]:
    """The peers with their parameters, and every back-end with the same ones."""
    gru, lstm = nn.GRU(size, size, batch_first=True), nn.LSTM(size, size, batch_first=True)
    shapes = [(2 * size, size), (2 * size, size), (2 * size,)] + [(size,)] * reset_gate
    weights = [(torch.randn(shape) * size**-0.5).requires_grad_() for shape in shapes]
    found: dict[str, Layer] = {
        "nn.GRU": (lambda inputs: gru(inputs)[0], list(gru.parameters())),
        "nn.LSTM": (lambda inputs: lstm(inputs)[0], list(lstm.parameters())),
    }
    for backend in BACKENDS:
        found[backend] = (partial(run_mgu, weights, backend), weights)
    return found


def run_mgu(weights: list[Tensor], backend: Backend, inputs: Tensor) -> Tensor:
    weight_ih, weight_hh, bias = weights[:3]
    hidden = inputs.new_zeros(inputs.shape[0], weight_hh.shape[1])
    bias_hn = weights[3] if len(weights) > 3 else None
    return ops.mgu(inputs, hidden, weight_ih, weight_hh, bias, bias_hn, backend=backend)[0]


def measure(
    contenders: dict[str, Layer],
    batch: int,
    steps: int,
    size: int,
    runs: int,
    now: Callable[[], float] = time.perf_counter,
) -> Times:
    """Medians of `runs` rounds, in which the layers take turns, after one to warm up.

    All get the same inputs and gradients, in the dtype and on the device of their parameters. `now` tells the
    time when what was asked of the device is done.
    """
    inputs, gradient = torch.randn(2, batch, steps, size)
    own = {
        name: (inputs.to(parameters[0]).detach().requires_grad_(), gradient.to(parameters[0]).detach())
        for name, (_, parameters) in contenders.items()
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(runs + 1):
        for name, (layer, parameters) in contenders.items():
            inputs, gradient = own[name]
            start = now()
            with torch.no_grad():
                layer(inputs)
            middle = now()
            outputs = layer(inputs)
            torch.autograd.grad(outputs, [inputs, *parameters], gradient.to(outputs.dtype))
            times[name].append((middle - start, now() - middle))
    return {
        name: (statistics.median(f for f, _ in rounds[1:]), statistics.median(b for _, b in rounds[1:]))
        for name, rounds in times.items()
    }


def row(times: Times) -> str:
    forward, both = times["nn.GRU"]
    cells = [f"{1e3 * forward:.0f}/{1e3 * both:.0f} ms"]
    cells += [f"{forward / f:.2f}/{both / b:.2f}" for name, (f, b) in times.items() if name != "nn.GRU"]
    return " | ".join(cells)


def size_of(text: str) -> tuple[int, int, int]:
    batch, steps, size = map(int, text.split(","))
    return batch, steps, size


def main(argv: list[str] | None = None) -> int:
    what = "one recurrent layer against nn.GRU and nn.LSTM, on the CPU"
    parser = argparse.ArgumentParser(prog="benchmarks.recurrence", description=what)
    parser.add_argument("--runs", type=int, default=9, help="rounds of which the median is taken")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=size_of, nargs="+", default=SIZES, metavar="B,T,H")
    parser.add_argument("--no-reset-gate", action="store_true")
    parser.add_argument("--bfloat16", action="store_true", help="under autocast, as mixed precision trains")
    add_output(parser)
    arguments = parser.parse_args(argv)
    check_output(arguments.output)
    names = ["nn.GRU", "nn.LSTM", *BACKENDS]
    print(f"| B, T, H | threads | {' | '.join(names)} |\n{'|---' * (len(names) + 2)}|")
    results = []
    sizes: list[tuple[int, int, int]] = arguments.sizes
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for size in sizes:
            contenders = layers(size[2], reset_gate=not arguments.no_reset_gate)
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bfloat16):
                times = measure(contenders, *size, runs=arguments.runs, now=clock(threads))
            print(f"| {', '.join(map(str, size))} | {threads} | {row(times)} |", flush=True)
            results.append({"size": size, "threads": threads, "seconds": times})
    print(where())
    write_json(arguments.output, "recurrence", what, argv, results)
    return 0


if __name__ == "__main__":
    run(main)
