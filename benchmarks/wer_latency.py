"""Word error rate against latency, over chunk size, lookahead and beam: a picture and its figures.

    python -m benchmarks.wer_latency --models exp/a/bundle exp/b/bundle --cuts data/dev-clean.jsonl.gz \
        --chunks 80 160 320 640 --beams 1 8 --limit 200 --output exp/wer_latency.png

Bundles with other lookaheads are other models; chunk and beam are settings. Every combination is one
evaluation, as `asr evaluate` does it; options that this command does not know are handed on to it (--lm,
--alignments, --jobs). Beside the picture stands the same as .json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from asr.calibrate.plot import check_plot
from asr.cli import run
from asr.errors import UserError
from asr.evaluation.bootstrap import Interval, Percentiles
from asr.evaluation.command import evaluate, parse
from asr.evaluation.results import Results
from benchmarks.common import write_json


@dataclass(frozen=True)
class Point:
    """One evaluation. Rates are fractions, delays seconds; intervals are 95 %."""

    model: str
    lookahead_ms: float  # algorithmic latency: the frame and its lookahead
    chunk_ms: float
    beam: int
    wer: float
    wer_interval: Interval | None
    emission_p50: float
    emission_p50_interval: Interval
    emission_p90: float
    emission_p90_interval: Interval
    revisions_per_word: float
    real_time_factor: float
    utterances: int


def point(results: Results, delay: Percentiles, beam: int) -> Point:
    assert results.run and results.latency and results.latency.revisions  # words had delays
    return Point(
        model=results.run.model,
        lookahead_ms=results.run.latency_ms,
        chunk_ms=results.run.chunk_ms,
        beam=beam,
        wer=results.words.rate,
        wer_interval=results.word_interval,
        emission_p50=delay.values[0],
        emission_p50_interval=delay.intervals[0],
        emission_p90=delay.values[1],
        emission_p90_interval=delay.intervals[1],
        revisions_per_word=results.latency.revisions.value,
        real_time_factor=results.run.real_time_factor,
        utterances=len(results.scores),
    )


def measure(args: argparse.Namespace, rest: Sequence[str]) -> list[Point]:
    points = []
    for model, chunk, beam in product(args.models, args.chunks, args.beams):
        own = ["--model", model, "--cuts", *args.cuts, "--chunk", str(chunk), "--beam", str(beam), *rest]
        results, _ = evaluate(parse(own))
        delay = results.latency.emission if results.latency else None
        if delay is None:  # no word was right, or none has a time
            print(f"{model}, {chunk:g} ms, beam {beam}: no word has a delay; left out", flush=True)
            continue
        points.append(point(results, delay, beam))
        print(row(points[-1]), flush=True)
    return points


def row(found: Point) -> str:
    return (
        f"{found.model}  {found.lookahead_ms:4.0f} ms  chunk {found.chunk_ms:4.0f} ms  beam {found.beam:2}"
        f"  WER {100 * found.wer:6.2f} %  p50 {found.emission_p50:5.2f} s  p90 {found.emission_p90:5.2f} s"
        f"  revisions {found.revisions_per_word:.2f}  RTF {found.real_time_factor:.3f}"
    )


def plot(path: Path, points: Sequence[Point]) -> None:
    """A line for each model and beam along the chunks; filled: p50, hollow: p90."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    lines = sorted({(each.lookahead_ms, each.model, each.beam) for each in points})
    for index, (lookahead, model, beam) in enumerate(lines):
        own = [each for each in points if (each.model, each.beam) == (model, beam)]
        rates = [100 * each.wer for each in own]
        label = f"{model}: {lookahead:g} ms, beam {beam}"
        color = f"C{index % 10}"
        axes.errorbar(
            [each.emission_p50 for each in own],
            rates,
            yerr=list(zip(*map(around, own), strict=True)),
            color=color,
            marker="o",
            capsize=2,
            label=label,
        )
        axes.plot(
            [each.emission_p90 for each in own], rates, color=color, marker="o", fillstyle="none", ls=":"
        )
        for each, rate in zip(own, rates, strict=True):
            at = (each.emission_p50, rate)
            axes.annotate(f"{each.chunk_ms:g}", at, (4, 4), textcoords="offset points", fontsize=7)
    axes.set(
        xlabel="seconds from the end of a word until it is shown (filled: p50, hollow: p90)", ylabel="WER (%)"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, title="algorithmic latency; the numbers are chunks in ms", title_fontsize=8)
    figure.savefig(path, dpi=130)


def around(found: Point) -> tuple[float, float]:
    """How far the interval reaches below and above the WER, in per cent."""
    interval = found.wer_interval or Interval(found.wer, found.wer)
    return 100 * (found.wer - interval.low), 100 * (interval.high - found.wer)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.wer_latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="BUNDLE", help="of one or more lookaheads"
    )
    parser.add_argument("--cuts", nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--chunks", nargs="+", type=float, default=[80, 160, 320, 640], metavar="MS")
    parser.add_argument("--beams", nargs="+", type=int, default=[1, 8], metavar="N")
    parser.add_argument("--output", type=Path, required=True, metavar="PNG")
    args, rest = parser.parse_known_args(argv)
    check_plot(args.output)
    points = measure(args, rest)
    if not points:
        raise UserError("no word was right in any evaluation, so none has a delay; train longer")
    what = "word error rate against latency"
    write_json(args.output.with_suffix(".json"), "wer_latency", what, argv, points)
    plot(args.output, points)
    print(f"wrote {args.output} and {args.output.with_suffix('.json')}")
    return 0


if __name__ == "__main__":
    run(main)
