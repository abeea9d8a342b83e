"""The study's tables, as Markdown on stdout, and its pictures, from what results there are.

    python -m recipes.cell_study.table --directory exp/cell-study --pictures recipes/cell_study

Errors are those of all seeds together. An interval is over speakers and seeds, both resampled; of digits,
whose dev set has two speakers, over utterances and seeds. A difference is on the same utterances.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")
from matplotlib import pyplot

from asr.cli import run
from asr.errors import UserError
from asr.evaluation.bootstrap import LEVEL, RESAMPLES, Groups, Interval, groups
from recipes.cell_study import gates
from recipes.cell_study.contenders import CELLS, GATES, NAMES
from recipes.cell_study.corpus import load
from recipes.cell_study.train import RESULT

FIRST = "mgu"
TIMED = [FIRST, "mgu_no_reset", "gru", "lstm"]  # against the time that they take
HEADER = (
    "| | units | parameters | word errors (95 % interval) | against the MGU | frame errors | against the MGU"
    " | of each seed | steps to {level} % | training step | streaming step |\n" + "|---" * 11 + "|"
)
Result = dict[str, Any]


class Figure(NamedTuple):
    """A rate, and by how much it is more than the first contender's, with intervals; all are fractions."""

    rate: float
    interval: Interval
    more: float
    more_interval: Interval


class Contender(NamedTuple):
    results: list[Result]  # a seed each
    words: Figure
    frames: Figure


def read(directory: Path) -> dict[str, list[Result]]:
    """Contender -> its results in the order of seeds."""
    found = {name: sorted((directory / name).glob(f"*/{RESULT}")) for name in NAMES}
    return {
        name: [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        for name, paths in found.items()
        if paths
    }


def judge(results: dict[str, list[Result]], over: Groups) -> dict[str, Contender]:
    return {
        name: Contender(
            own,
            figure(own, results[FIRST], "errors", "words", over),
            figure(own, results[FIRST], "wrong", "known", over),
        )
        for name, own in results.items()
    }


def figure(own: list[Result], first: list[Result], errors: str, lengths: str, over: Groups) -> Figure:
    """The rate of all seeds together. Drawn anew, as often as there are, are groups of utterances, the same
    for both contenders, and seeds, of each its own: it would have been as likely with others."""
    generator = np.random.default_rng(0)
    groups = generator.multinomial(over.number, np.full(over.number, 1 / over.number), RESAMPLES)  # (R, G)
    drawn = []
    for results in (own, first):
        wrong, length = (by_group(results, key, over) for key in (errors, lengths))  # (seeds, G)
        seeds = generator.multinomial(len(results), np.full(len(results), 1 / len(results)), RESAMPLES)
        rates = ((seeds @ wrong) * groups).sum(1) / ((seeds @ length) * groups).sum(1)
        drawn.append((wrong.sum() / length.sum(), rates))
    (rate, rates), (reference, references) = drawn
    return Figure(rate, interval(rates), rate - reference, interval(rates - references))


def by_group(results: list[Result], key: str, over: Groups) -> NDArray[np.float64]:
    """Sums over the utterances of each group, (seeds, G)."""
    return np.stack([np.bincount(over.index, each[key], over.number) for each in results])


def interval(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def curve(results: list[Result]) -> NDArray[np.float64]:
    """The mean of the seeds: steps, and dev frame errors in percent, (2, N)."""
    return np.mean([each["curve"] for each in results], 0).T


def level(results: dict[str, list[Result]]) -> int:
    """A frame error in percent that all contenders reach."""
    return max(int(np.ceil(curve(own)[1].min())) for own in results.values())


def steps_to(error: float, results: list[Result]) -> float:
    """Between the points of the curve it is taken to be straight."""
    steps, errors = curve(results)
    after = int(np.argmax(errors <= error))
    if after == 0:
        return float(steps[0])
    share = (errors[after - 1] - error) / (errors[after - 1] - errors[after])
    return float(steps[after - 1] + share * (steps[after] - steps[after - 1]))


def row(name: str, own: Contender, error: float, speed: dict[str, Any]) -> str:
    first = own.results[0]
    cells = [NAMES[name], first["hidden"], f"{first['parameters']:,}"]
    for found in (own.words, own.frames):
        low, high = 100 * found.interval.low, 100 * found.interval.high
        cells += [f"{100 * found.rate:.1f} % ({low:.1f} - {high:.1f})", "" if name == FIRST else more(found)]
    cells += [", ".join(f"{each['frame_error']:.1f}" for each in own.results)]
    cells += [f"{steps_to(error, own.results):.0f}"]
    cells += [f"{speed[kind][name]['ratio']:.2f}" if speed else "" for kind in ("training", "streaming")]
    return f"| {' | '.join(map(str, cells))} |"


def more(found: Figure) -> str:
    """In points; bold where the interval leaves zero out."""
    low, high = 100 * found.more_interval.low, 100 * found.more_interval.high
    mark = "**" if low > 0 or high < 0 else ""
    return f"{mark}{100 * found.more:+.1f}{mark} ({low:+.1f} to {high:+.1f})"


def curves(
    results: dict[str, list[Result]],
    names: Sequence[str],
    picture: Path,
    speed: dict[str, Any] | None = None,
) -> None:
    """Dev frame errors, the mean of the seeds, against steps, or against the time that they take."""
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    if len(names) > 10:
        axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
    for name in names:
        if name in results:
            steps, errors = curve(results[name])
            seconds = speed["training"][name]["milliseconds"] / 1000 if speed else 1
            label = "GLU" if GATES[0] in names and name == FIRST else NAMES[name]
            axes.plot(seconds * steps, errors, marker="o", markersize=3, label=label)
    axes.set(xlabel="seconds of training" if speed else "steps", ylabel="dev frame error (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def forest(judged: dict[str, dict[str, Contender]], picture: Path) -> None:
    """Errors against the MGU's, with their intervals: a row a task, words and frames."""
    size = (10, 4.3 * len(judged))
    figure, axes = pyplot.subplots(
        len(judged), 2, figsize=size, layout="constrained", sharey=True, squeeze=False
    )
    panels = [(task, kind) for task in judged for kind in ("words", "frames")]
    own: Any
    for own, (task, kind) in zip(axes.flat, panels, strict=True):
        shown = {name: getattr(each, kind) for name, each in judged[task].items() if name != FIRST}
        for place, found in enumerate(shown.values()):
            ends = [100 * found.more_interval.low, 100 * found.more_interval.high]
            own.plot(ends, [place, place], color="tab:blue")
            own.plot(100 * found.more, place, "o", color="tab:blue")
        own.axvline(0, color="black", linewidth=0.8)
        own.set_yticks(range(len(shown)), [NAMES[name] for name in shown])
        own.set(title=f"{task}: {kind}", xlabel="errors more than the MGU (points)")
        own.grid(alpha=0.3)
    axes[0, 0].invert_yaxis()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recipes.cell_study.table", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="of the study")
    parser.add_argument("--pictures", type=Path, required=True, help="a directory for them")
    args = parser.parse_args(argv)
    timed = args.directory / "speed.json"
    speed = json.loads(timed.read_text(encoding="utf-8")) if timed.exists() else {}
    judged = {}
    for task, alone in (("speech", False), ("digits", True)):
        results = read(args.directory / task)
        if FIRST not in results:
            continue
        speakers = results[FIRST][0]["speakers"]
        judged[task] = judge(results, groups([None] * len(speakers) if alone else speakers))
        error = level(results)
        for title, names in (("cells", CELLS), ("front-ends", [FIRST, *GATES])):
            print(f"\n{task}, {title}\n\n{HEADER.format(level=error)}")
            for name in names:
                if name in judged[task]:
                    print(row(name, judged[task][name], error, speed))
            curves(results, names, args.pictures / f"{task}-{title}.png")
        if task == "speech" and speed:
            curves(results, TIMED, args.pictures / "speech-time.png", speed)
    if not judged:
        raise UserError(f"{args.directory}: has no result of {FIRST}; run recipes.cell_study.study")
    forest(judged, args.pictures / "differences.png")
    bundles = sorted((args.directory / "speech" / "gru").glob("*/"))
    found = gates.draw(bundles, load(args.directory / "speech.npz").dev, args.pictures / "gates.png")
    print("\n| layer | r and z | their means over units | unit by unit |\n|---|---|---|---|")
    for number, seeds in enumerate(zip(*found, strict=True), 1):
        cells = [", ".join(f"{value:+.2f}" for value in column) for column in zip(*seeds, strict=True)]
        print(f"| {number} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    run(main)
