"""How near the recurrence and the streaming step are to what one core can do: a table and a picture.

    python -m benchmarks.roofline [--picture docs/roofline.png] [--output FILE]

The roofs are measured in the same run, with torch: the product of two large matrices in float32, and the
best of a sum and a triad over arrays in memory, and over arrays that fit the last cache. A kernel's intensity
counts multiply-adds as two operations, and the bytes that it cannot do without: the recurrent weights once a
step, in their packing, since registers do not keep them from one step to the next, and inputs, kept values,
outputs and gradients once. With int8 weights operations are of integers, of which a core can do more. Times
are CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_lowercase

import torch

from asr.calibrate.plot import check_plot
from asr.cli import at_least, run
from asr.packed import PACKINGS
from benchmarks import recurrence, step
from benchmarks.common import add_output, check_output, markdown, where, write_json

BYTES = {"f32": 4, "f16": 2, "int8": 1}  # a weight
PRODUCT = 2048  # rows and columns
MEMORY, CACHE = 2**28, 2**23  # bytes


@dataclass(frozen=True)
class Roofs:
    """Operations and bytes a second."""

    product: float
    memory: float
    cache: float


@dataclass(frozen=True)
class Point:
    """intensity: operations a byte. speed: operations a second. roof: the most of them, out of the cache."""

    what: str
    size: str
    intensity: float
    speed: float
    roof: float


def median_seconds(work: Callable[[], object], runs: int) -> float:
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def roofs(runs: int) -> Roofs:
    left, right = torch.randn(2, PRODUCT, PRODUCT)
    product = 2 * PRODUCT**3 / median_seconds(partial(torch.mm, left, right), runs)
    return Roofs(product, bandwidth(MEMORY, runs), bandwidth(CACHE, 20 * runs))


def bandwidth(size: int, runs: int) -> float:
    """Bytes a second, read, or read and written, of arrays of so many bytes together."""
    whole = torch.ones(size // 4)
    first, second, third = torch.ones(3, size // 12)
    triad = partial(torch.add, first, second, alpha=2, out=third)
    return max(size / median_seconds(work, runs) for work in (whole.sum, triad))


def training(batch: int, steps: int, size: int, runs: int, found: Roofs) -> list[Point]:
    """A layer of training, input = hidden = H, forward and forward+backward; with its products over all T."""
    contenders = {"cpu": recurrence.layers(size, reset_gate=True)["cpu"]}
    forward, both = recurrence.measure(contenders, batch, steps, size, runs, now=time.process_time)["cpu"]
    units = batch * steps * size
    # a step reads W_hh; all of them read inputs and W_ih, write and read the projection, and write outputs
    forward_bytes = 4 * (2 * size * size * (steps + 1) + 6 * units)
    # the backward reads W_hh again, and f, n, W_hn h, inputs, outputs and their gradient; it writes and reads
    # the gradient of the projection, and writes those of inputs and weights
    both_bytes = 2 * forward_bytes + 4 * (8 * units + 4 * size * size)
    label = f"{batch}, {steps}, {size}"
    return [
        point("training, forward", label, 8 * units * size, forward_bytes, forward, found),
        point("training, forward and backward", label, 24 * units * size, both_bytes, both, found),
    ]


def streaming(batch: int, runs: int, found: Roofs) -> list[Point]:
    """One frame of the model of benchmarks.step."""
    times = step.frames(batch, runs)
    weights = step.LAYERS * 4 * step.SIZE**2
    points = []
    for packing in PACKINGS:
        moved = weights * BYTES[packing] + 4 * batch * step.SIZE * (2 * step.LAYERS + 1)
        name = f"streaming step, {packing}"
        points.append(point(name, str(batch), 2 * batch * weights, moved, times[packing], found))
    return points


def point(what: str, size: str, operations: float, moved: float, seconds: float, found: Roofs) -> Point:
    intensity = operations / moved
    return Point(what, size, intensity, operations / seconds, min(found.product, intensity * found.cache))


def picture(path: Path, found: Roofs, points: list[Point]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots()
    least, most = min(each.intensity for each in points) / 2, max(each.intensity for each in points) * 3
    for speed, name, style in ((found.cache, "last cache", "-"), (found.memory, "memory", "--")):
        knee = found.product / speed
        label = f"{name}: {speed / 1e9:.0f} GB/s"
        axes.plot([least, knee], [least * speed / 1e9, found.product / 1e9], "k", ls=style, lw=1, label=label)
    knee = found.product / found.cache
    label = f"product of large matrices, float32: {found.product / 1e9:.0f} GFLOP/s"
    axes.plot([knee, most], [found.product / 1e9] * 2, "k", lw=2, label=label)
    sizes = dict.fromkeys(each.size for each in points if each.what.startswith("training"))
    letters = dict(zip(sizes, ascii_lowercase, strict=False))
    for index, what in enumerate(dict.fromkeys(each.what for each in points)):
        own = [each for each in points if each.what == what]
        line = "" if what.startswith("training") else "-"
        at, speeds = [each.intensity for each in own], [each.speed / 1e9 for each in own]
        axes.plot(at, speeds, "s^oDv"[index], ls=line, lw=0.7, color=f"C{index}", label=what)
        for each, speed in zip(own, speeds, strict=True):
            text = letters.get(each.size, each.size)
            axes.annotate(text, (each.intensity, speed), (5, -9), textcoords="offset points", fontsize=8)
    listed = "\n".join(f"{letter}   {size}" for size, letter in letters.items())
    axes.text(0.015, 0.98, f"training, B, T, H:\n{listed}", transform=axes.transAxes, va="top", fontsize=8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="operations a byte (numbers at the points: streams that are stepped together)",
        ylabel="10⁹ operations a second, one core",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    what = "recurrence and streaming step under the roofline of one core"
    parser = argparse.ArgumentParser(
        prog="benchmarks.roofline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=at_least(1, int), default=7, help="of which the median is taken")
    parser.add_argument("--picture", type=Path, metavar="PNG")
    add_output(parser)
    args = parser.parse_args(argv)
    check_output(args.output)
    if args.picture:
        check_plot(args.picture)
    torch.set_num_threads(1)
    found = roofs(args.runs)
    points = [each for size in recurrence.SIZES for each in training(*size, args.runs, found)]
    with torch.no_grad():
        points += [each for batch in step.BATCHES for each in streaming(batch, 5 * args.runs, found)]
    rows = [
        [
            each.what,
            each.size,
            f"{each.intensity:.1f}",
            f"{each.speed / 1e9:.0f}",
            f"{100 * each.speed / each.roof:.0f} %",
        ]
        for each in points
    ]
    print(markdown(["", "B, T, H or streams", "operations a byte", "10⁹ a second", "of the roof"], rows))
    print(
        f"\nproduct of matrices {found.product / 1e9:.0f} GFLOP/s, memory {found.memory / 1e9:.0f} GB/s,"
        f" last cache {found.cache / 1e9:.0f} GB/s; {where()}"
    )
    if args.picture:
        picture(args.picture, found, points)
    write_json(args.output, "roofline", what, argv, points, roofs=found.__dict__)
    return 0


if __name__ == "__main__":
    run(main)
