"""`asr evaluate`: how many words a model gets wrong, with intervals, as its users would meet it: streaming.

    asr evaluate --model exp/demo/bundle --cuts data/demo/dev.jsonl.gz --output-dir exp/demo/dev
    asr evaluate --compare exp/first/dev exp/second/dev

Writes to --output-dir: hypotheses.tsv, results.json, and report.html or report.txt with every alignment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from asr.cli import at_least
from asr.errors import UserError
from asr.evaluation.bootstrap import Comparison, Groups
from asr.evaluation.decode import Decoded, Failed, bundle_recogniser, decode, decode_in_processes
from asr.evaluation.page import html_report
from asr.evaluation.report import people, print_comparison, print_results, text_report
from asr.evaluation.results import (
    HYPOTHESES,
    Results,
    Run,
    compare,
    comparison_json,
    read_hypotheses,
    results_json,
    summarise,
    write_hypotheses,
    write_text,
)


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.compare:
        a, b = args.compare
        return _compare(a, b, args.output_dir)
    if not args.model or not args.cuts:
        parser.error("give --model BUNDLE and --cuts MANIFEST, or --compare A B")
    return _evaluate(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asr evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="a directory that training wrote")
    parser.add_argument("--cuts", type=Path, nargs="+", metavar="MANIFEST", help="one or more .jsonl.gz")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("A", "B"),
        help="two output directories (or hypotheses.tsv) of the same utterances: paired bootstrap test",
    )
    parser.add_argument(
        "--chunk",
        type=at_least(0, float),
        default=320,
        metavar="MS",
        help="milliseconds at a time (320); 0: all at once",
    )
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="where to write; without it only the tables"
    )
    parser.add_argument("--report", choices=("html", "text"), default="html", help="kind of aligned report")
    parser.add_argument("--limit", type=at_least(1, int), metavar="N", help="only the first N utterances")
    parser.add_argument("--jobs", type=at_least(1, int), default=1, metavar="N", help="processes (1)")
    return parser


def _evaluate(args: argparse.Namespace) -> int:
    from asr.bundle import load_bundle
    from asr.data.manifest import load_cuts

    cuts = load_cuts(args.cuts)
    model, _ = load_bundle(args.model)
    if args.output_dir:
        _make_directory(args.output_dir)  # before the work, not after it
    note = Console(stderr=True, highlight=False, markup=False)
    note.print(f"{args.model}: {model.describe()}", style="dim", soft_wrap=True)
    number = min(len(cuts), args.limit or len(cuts))
    load = partial(bundle_recogniser, args.model, args.chunk)
    chosen = islice(cuts, number)
    outcomes = decode(chosen, load()) if args.jobs == 1 else decode_in_processes(chosen, load, args.jobs)
    decoded, failed = _collect(_with_progress(outcomes, number, note))
    if not decoded:
        raise UserError(f"none of {number} utterances could be read, the first because: {failed[0].reason}")
    run = Run(
        model=str(args.model),
        cuts=tuple(map(str, args.cuts)),
        latency_ms=model.latency_ms,
        chunk_ms=args.chunk,
        audio_seconds=sum(each.audio_seconds for each in decoded),
        decode_seconds=sum(each.seconds for each in decoded),
        failed=tuple((each.utt_id, each.reason) for each in failed),
    )
    results = summarise([each.utterance for each in decoded], run)
    print_results(results, people(sys.stdout))
    if args.output_dir:
        write_results(results, args.output_dir, args.report)
    return _say_failures(run, number)


def _with_progress(
    outcomes: Iterable[Decoded | Failed], number: int, console: Console
) -> Iterator[Decoded | Failed]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("decoding"), *columns, console=console, disable=not console.is_terminal
    ) as progress:
        yield from progress.track(outcomes, total=number)


def _collect(outcomes: Iterable[Decoded | Failed]) -> tuple[list[Decoded], list[Failed]]:
    decoded: list[Decoded] = []
    failed: list[Failed] = []
    for outcome in outcomes:
        if isinstance(outcome, Decoded):
            decoded.append(outcome)
        else:
            failed.append(outcome)
    return decoded, failed


def write_results(results: Results, directory: Path, report: str) -> None:
    """hypotheses.tsv, results.json, and report.html or report.txt, each whole or not at all."""
    write_hypotheses(directory / HYPOTHESES, [score.utterance for score in results.scores])
    write_text(directory / "results.json", results_json(results))
    if report == "html":
        name, content = "report.html", html_report(results, f"Word errors in {directory.name or directory}")
    else:
        name, content = "report.txt", text_report(results)
    write_text(directory / name, content)
    print(f"wrote {HYPOTHESES}, results.json and {name} in {directory}")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(
            f"{directory}: cannot be made a directory ({error.strerror}); give another --output-dir"
        ) from error


def _say_failures(run: Run, number: int) -> int:
    for utt_id, reason in run.failed:
        print(f"asr: error: {utt_id}: {reason}", file=sys.stderr)
    if run.failed:
        print(f"asr: {len(run.failed)} of {number} utterances failed and are not counted", file=sys.stderr)
    return 1 if run.failed else 0


def _compare(a: Path, b: Path, output_dir: Path | None) -> int:
    found: tuple[Comparison, Comparison, Groups] = compare(read_hypotheses(a), read_hypotheses(b))
    print(f"A = {a}\nB = {b}")
    print_comparison(*found, people(sys.stdout))
    if output_dir:
        _make_directory(output_dir)
        write_text(output_dir / "comparison.json", comparison_json(*found))
    return 0
