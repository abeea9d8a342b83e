"""One recurrent layer on the CPU against torch's nn.GRU and nn.LSTM: `python -m benchmarks.recurrence`.

Input and hidden size are both H. A figure is a ratio of medians of interleaved runs: nn.GRU's time over the
other's, so that above 1 is faster than nn.GRU; a cell holds forward / forward+backward. Run it on a quiet
machine: with two threads, a neighbour's process on one of the cores changes everything.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from asr import ops
from asr.ops import Backend

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


def measure(batch: int, steps: int, size: int, reset_gate: bool, runs: int) -> Times:
    """Medians of `runs` rounds, in which the layers take turns, after one to warm up."""
    inputs = torch.randn(batch, steps, size, requires_grad=True)
    gradient = torch.randn(batch, steps, size)
    contenders = layers(size, reset_gate)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(runs + 1):
        for name, (layer, parameters) in contenders.items():
            start = time.perf_counter()
            with torch.no_grad():
                layer(inputs)
            middle = time.perf_counter()
            torch.autograd.grad(layer(inputs), [inputs, *parameters], gradient)
            times[name].append((middle - start, time.perf_counter() - middle))
    return {
        name: (statistics.median(f for f, _ in rounds[1:]), statistics.median(b for _, b in rounds[1:]))
        for name, rounds in times.items()
    }


def row(times: Times) -> str:
    forward, both = times["nn.GRU"]
    cells = [f"{1e3 * forward:.0f}/{1e3 * both:.0f} ms"]
    cells += [f"{forward / f:.2f}/{both / b:.2f}" for name, (f, b) in times.items() if name != "nn.GRU"]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="one recurrent layer against nn.GRU and nn.LSTM, on the CPU")
    parser.add_argument("--runs", type=int, default=9, help="rounds of which the median is taken")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--no-reset-gate", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file for the seconds")
    arguments = parser.parse_args()
    names = ["nn.GRU", "nn.LSTM", *BACKENDS]
    print(f"| B, T, H | threads | {' | '.join(names)} |\n{'|---' * (len(names) + 2)}|")
    results = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for size in SIZES:
            times = measure(*size, reset_gate=not arguments.no_reset_gate, runs=arguments.runs)
            print(f"| {', '.join(map(str, size))} | {threads} | {row(times)} |", flush=True)
            results.append({"size": size, "threads": threads, "seconds": times})
    if arguments.output:
        about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        arguments.output.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
